"""Creates what the template describes, on any endpoint that speaks AWS, and tells what it made.

Direct calls instead of CloudFormation's ``create_stack``: moto's drops TTL, encryption and point-in-time recovery of
a table, skips schedule groups and HTTP APIs with a mere warning, and needs 67 MB more of dependencies. A resource is
created when something first refers to it, so the order follows from the references; a type not known here is an
error, never skipped in silence.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from infra.local.blueprint import Blueprint, FunctionSpec, QueueSource, Rate, Route, StreamSource
from infra.local.template import ACCOUNT, Intrinsics, TemplateError, parameters

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A resource that stands: what ``Ref`` and ``Fn::GetAtt`` answer for it."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class Deployment:
    """One deployment of one translated template; call ``run`` once."""

    def __init__(
        self,
        template: Mapping[str, Any],
        client: Callable[[str], Any],
        *,
        given: Mapping[str, str],
        overrides: Mapping[str, str],
        region: str,
        stack_name: str,
    ) -> None:
        self._resources: Mapping[str, Any] = template["Resources"]
        self._outputs: Mapping[str, Any] = template.get("Outputs", {})
        self._client = client
        self._overrides = overrides
        self._region = region
        self._stack_name = stack_name
        self._made: dict[str, Made] = {}
        self._functions: dict[str, FunctionSpec] = {}
        self._parameters = parameters(template, given)
        self._pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": region,
            "AWS::StackName": stack_name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        self._intrinsics = Intrinsics(template, self)
        self._makers: Mapping[str, Callable[[str, dict[str, Any]], Made]] = {
            "AWS::DynamoDB::Table": self._table,
            "AWS::S3::Bucket": self._bucket,
            "AWS::SQS::Queue": self._queue,
            "AWS::IAM::Role": self._role,
            "AWS::Scheduler::ScheduleGroup": self._schedule_group,
            "AWS::SecretsManager::Secret": self._secret,
            "AWS::Lambda::Function": self._function,
            "AWS::Lambda::Version": self._version,
            "AWS::Lambda::Alias": self._alias,
        }

    def run(self) -> Blueprint:
        """Create everything and describe it."""
        if unknown := sorted(set(self._overrides) - set(self._of_type("AWS::Lambda::Function"))):
            raise TemplateError(f"Overrides name functions the template does not have: {unknown!r}.")
        for name in self._resources:
            if self._wanted(name):
                self._make(name)
        return Blueprint(
            functions=dict(self._functions),
            queue_sources=tuple(map(self._queue_source, self._mappings("sqs"))),
            stream_sources=tuple(map(self._stream_source, self._mappings("dynamodb"))),
            routes=tuple(map(self._route, self._of_type("AWS::ApiGatewayV2::Route"))),
            rates=tuple(map(self._rate, self._of_type("AWS::Events::Rule"))),
            schedule_groups=tuple(self._made[n].ref for n in self._of_type("AWS::Scheduler::ScheduleGroup")),
            outputs={name: str(self._intrinsics.resolve(o["Value"])) for name, o in self._outputs.items()},
            physical_ids={name: made.ref for name, made in self._made.items()},
            skipped=tuple(f"{n} ({r['Type']})" for n, r in self._resources.items() if r["Type"] in _NOT_NEEDED),
        )

    def ref(self, name: str) -> Any:
        """A parameter, a pseudo parameter, or a resource, made now if it was not."""
        for values in (self._parameters, self._pseudo):
            if name in values:
                return values[name]
        return self._make(name).ref

    def attribute(self, name: str, attribute: str) -> str:
        """An attribute of a resource, made now if it was not."""
        found = self._make(name).attributes
        if attribute not in found:
            raise TemplateError(
                f"The local stack has no attribute {attribute!r} of {name!r}; it has {sorted(found)!r}."
            )
        return found[attribute]

    def _make(self, name: str) -> Made:
        if name in self._made:
            return self._made[name]
        if name not in self._resources:
            raise TemplateError(f"The template refers to {name!r} and does not have it.")
        kind = self._resources[name]["Type"]
        if kind in _NOT_NEEDED:
            made = Made(ref=f"{self._stack_name}-{name}", attributes={"Arn": self._arn("local", f"{kind}/{name}")})
        elif kind in self._makers:
            made = self._makers[kind](name, self._properties(name))
        else:
            raise TemplateError(f"The local stack cannot make {name!r}, a {kind}.")
        self._made[name] = made
        return made

    def _properties(self, name: str) -> dict[str, Any]:
        properties = self._intrinsics.resolve(self._resources[name].get("Properties", {}))
        assert isinstance(properties, dict)
        return properties

    def _wanted(self, name: str) -> bool:
        condition = self._resources[name].get("Condition")
        return condition is None or self._intrinsics.condition(condition)

    def _of_type(self, kind: str) -> list[str]:
        return [name for name, r in self._resources.items() if r["Type"] == kind and self._wanted(name)]

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{self._region}:{ACCOUNT}:{rest}"

    def _physical_name(self, name: str, properties: Mapping[str, Any], key: str) -> str:
        return str(properties.get(key, f"{self._stack_name}-{name}"))

    def _table(self, name: str, properties: dict[str, Any]) -> Made:
        dynamodb = self._client("dynamodb")
        table = self._physical_name(name, properties, "TableName")
        request = {key: properties[key] for key in _SAME_IN_CREATE_TABLE if key in properties}
        if "SSESpecification" in properties:
            request["SSESpecification"] = {"Enabled": _flag(properties["SSESpecification"]["SSEEnabled"])}
        if "StreamSpecification" in properties:
            request["StreamSpecification"] = {"StreamEnabled": True, **properties["StreamSpecification"]}
        if "DeletionProtectionEnabled" in properties:
            request["DeletionProtectionEnabled"] = _flag(properties["DeletionProtectionEnabled"])
        described = dynamodb.create_table(TableName=table, **request)["TableDescription"]
        if ttl := properties.get("TimeToLiveSpecification"):
            dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=ttl)
        if recovery := properties.get("PointInTimeRecoverySpecification"):
            dynamodb.update_continuous_backups(TableName=table, PointInTimeRecoverySpecification=recovery)
        stream = described.get("LatestStreamArn", "")
        return Made(ref=table, attributes={"Arn": described["TableArn"], "StreamArn": stream})

    def _bucket(self, name: str, properties: dict[str, Any]) -> Made:
        bucket = self._physical_name(name, properties, "BucketName").lower()
        there = {} if self._region == "us-east-1" else {"LocationConstraint": self._region}
        options = {"CreateBucketConfiguration": there} if there else {}
        self._client("s3").create_bucket(Bucket=bucket, **options)
        return Made(ref=bucket, attributes={"Arn": f"arn:aws:s3:::{bucket}"})

    def _queue(self, name: str, properties: dict[str, Any]) -> Made:
        sqs = self._client("sqs")
        queue = self._physical_name(name, properties, "QueueName")
        attributes = {key: _text(value) for key, value in properties.items() if key not in ("QueueName", "Tags")}
        url = sqs.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"]
        return Made(ref=url, attributes={"Arn": self._arn("sqs", queue), "QueueName": queue, "QueueUrl": url})

    def _secret(self, name: str, properties: dict[str, Any]) -> Made:
        wanted = properties["GenerateSecretString"]
        value = json.loads(wanted["SecretStringTemplate"])
        value[wanted["GenerateStringKey"]] = secrets.token_hex(int(wanted["PasswordLength"]) // 2)
        named = self._physical_name(name, properties, "Name")
        made = self._client("secretsmanager").create_secret(Name=named, SecretString=json.dumps(value))
        return Made(ref=made["ARN"])

    def _role(self, name: str, properties: dict[str, Any]) -> Made:
        iam = self._client("iam")
        role = self._physical_name(name, properties, "RoleName")
        trust = json.dumps(properties["AssumeRolePolicyDocument"])
        described = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]
        for policy in properties.get("Policies", []):
            document = json.dumps(policy["PolicyDocument"])
            iam.put_role_policy(RoleName=role, PolicyName=policy["PolicyName"], PolicyDocument=document)
        return Made(ref=role, attributes={"Arn": described["Arn"]})

    def _schedule_group(self, name: str, properties: dict[str, Any]) -> Made:
        group = self._physical_name(name, properties, "Name")
        arn = self._client("scheduler").create_schedule_group(Name=group)["ScheduleGroupArn"]
        return Made(ref=group, attributes={"Arn": arn})

    def _function(self, name: str, properties: dict[str, Any]) -> Made:
        function = self._physical_name(name, properties, "FunctionName")
        arn = self._arn("lambda", f"function:{function}")
        variables = properties.get("Environment", {}).get("Variables", {})
        self._functions[name] = FunctionSpec(
            id=name,
            name=function,
            arn=arn,
            handler=self._overrides.get(name, properties["Handler"]),
            timeout=timedelta(seconds=int(properties.get("Timeout", 3))),
            memory_mb=int(properties.get("MemorySize", 128)),
            environment={key: _text(value) for key, value in variables.items()},
        )
        return Made(ref=function, attributes={"Arn": arn})

    def _version(self, _name: str, properties: dict[str, Any]) -> Made:
        return Made(ref=self._arn("lambda", f"function:{properties['FunctionName']}:1"), attributes={"Version": "1"})

    def _alias(self, _name: str, properties: dict[str, Any]) -> Made:
        return Made(ref=self._arn("lambda", f"function:{properties['FunctionName']}:{properties['Name']}"))

    def _function_behind(self, reference: str) -> str:
        """Logical id of the function an ARN, an alias or a plain name stands for."""
        name = reference.rsplit(":function:", maxsplit=1)[-1].split(":", maxsplit=1)[0]
        for spec in self._functions.values():
            if spec.name == name:
                return spec.id
        raise TemplateError(f"{reference!r} is none of the template's functions.")

    def _mappings(self, service: str) -> list[str]:
        """The event source mappings of one kind."""
        found = self._of_type("AWS::Lambda::EventSourceMapping")
        return [name for name in found if f":{service}:" in self._properties(name)["EventSourceArn"]]

    def _stream_source(self, name: str) -> StreamSource:
        properties = self._properties(name)
        filters = properties.get("FilterCriteria", {}).get("Filters", [])
        return StreamSource(
            function=self._function_behind(properties["FunctionName"]),
            stream_arn=properties["EventSourceArn"],
            batch_size=int(properties.get("BatchSize", 100)),
            patterns=tuple(json.loads(one["Pattern"]) for one in filters),
        )

    def _queue_source(self, name: str) -> QueueSource:
        properties = self._properties(name)
        arn = properties["EventSourceArn"]
        queues = [made for made in self._made.values() if made.attributes.get("Arn") == arn]
        return QueueSource(
            function=self._function_behind(properties["FunctionName"]),
            queue_url=queues[0].ref,
            queue_arn=arn,
            batch_size=int(properties.get("BatchSize", 10)),
            concurrency=int(properties.get("ScalingConfig", {}).get("MaximumConcurrency", 5)),
            partial_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
        )

    def _route(self, name: str) -> Route:
        properties = self._resources[name]["Properties"]
        target = self._intrinsics.resolve(properties["Target"]).removeprefix("integrations/")
        behind = next(n for n in self._of_type("AWS::ApiGatewayV2::Integration") if self._made[n].ref == target)
        uri = self._properties(behind)["IntegrationUri"]
        return Route(key=self._intrinsics.resolve(properties["RouteKey"]), function=self._function_behind(uri))

    def _rate(self, name: str) -> Rate:
        properties = self._properties(name)
        found = _RATE.fullmatch(properties["ScheduleExpression"])
        if not found:
            raise TemplateError(f"{name!r}: the local stack knows rate(...) only, not {properties!r}.")
        every = timedelta(**{f"{found[2]}s": int(found[1])})
        function = self._function_behind(properties["Targets"][0]["Arn"])
        return Rate(function=function, every=every, rule_arn=self._arn("events", f"rule/{self._stack_name}-{name}"))


_SAME_IN_CREATE_TABLE = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")

_NOT_NEEDED = frozenset(
    {
        "AWS::ApiGatewayV2::Api",
        "AWS::ApiGatewayV2::Authorizer",
        "AWS::ApiGatewayV2::Integration",
        "AWS::ApiGatewayV2::Route",
        "AWS::ApiGatewayV2::Stage",
        "AWS::CloudWatch::Alarm",
        "AWS::Events::Rule",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Permission",
        "AWS::Logs::LogGroup",
        "AWS::S3::BucketPolicy",
        "AWS::SQS::QueuePolicy",
    }
)
"""Read for what they say, or of no consequence on one machine; nothing is created for them."""


def _flag(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _text(value: Any) -> str:
    """CloudFormation's value as the string an API wants."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
