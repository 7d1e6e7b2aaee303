"""template.yaml and the data under ``infra/`` say the same, and the template keeps the rules of the house.

Reads the template as AWS would expand it, offline. The data is what tests, handlers and the local stack rely on.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from flowcore.adapters.dynamodb_keys import HEAD_KEY, incarnation_prefix
from flowcore.outgoing import MOST_OF_A_LETTER, pause_after
from infra.access import GRANTS
from infra.functions import DOORS, ENVIRONMENT, HANDLERS, OPEN_ROUTES, QUEUES, ROUTES, VISIBILITY_FACTOR
from infra.local.stack import PROJECT
from infra.local.template import Intrinsics, load, parameters, translate
from infra.table import TTL_ATTRIBUTE, create_table_request

TEMPLATE = PROJECT / "template.yaml"

RESOURCE_NAMES = {
    "Table.Arn": "table",
    "Table/index/list-index": "list-index",
    "Table/index/due-index": "due-index",
    "Values.Arn": "bucket",
    "Values.Arn/*": "values",
    "WorkQueue.Arn": "queue",
    "schedule/ScheduleGroup/*": "schedules",
    "ScheduleRole.Arn": "schedule role",
    "ApiLogs.Arn": "api logs",
    "WorkerLogs.Arn": "worker logs",
    "SweepLogs.Arn": "sweep logs",
    "WebhookLogs.Arn": "webhook logs",
    "ResumeQueue.Arn": "resume queue",
    "ResumeLogs.Arn": "resume logs",
    "Table/stream/*": "stream",
    "event-bus/bus": "event bus",
    "EventsDeadLetterQueue.Arn": "events dead letters",
    "EventsLogs.Arn": "events logs",
    "OutgoingQueue.Arn": "outgoing queue",
    "OutgoingLogs.Arn": "outgoing logs",
    "LinkSecret": "link secret",
    "secret:AWS::StackName/*": "webhook secrets",
    "parameter/AWS::StackName/*": "webhook parameters",
}
"""How a policy's resource reads once its references are spelled out -> the name ``infra/access.py`` uses."""


OPTIONS = {"EventBus": "bus", "OutgoingWebhooks": "true", "StepEvents": "true"}
"""All that can be had is looked at."""


@cache
def expanded() -> dict[str, Any]:
    """The template after the SAM transform."""
    return translate(load(TEMPLATE))


class _Names:
    """Stands in for a deployment: each reference becomes its own name."""

    def __init__(self) -> None:
        self._values = parameters(expanded(), OPTIONS)

    def ref(self, name: str) -> Any:
        return self._values.get(name, name)

    def attribute(self, name: str, attribute: str) -> str:
        return f"{name}.{attribute}"


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """Resolved properties of all resources of a type, by logical id."""
    intrinsics = Intrinsics(expanded(), _Names())
    found = {name: r for name, r in expanded()["Resources"].items() if r["Type"] == kind}
    return {name: intrinsics.resolve(r.get("Properties", {})) for name, r in found.items()}


def only(kind: str) -> dict[str, Any]:
    """Properties of the one resource of a type."""
    [properties] = resources(kind).values()
    return properties


def statements() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every statement of every role's policies, with the role's logical id."""
    for role, properties in resources("AWS::IAM::Role").items():
        for policy in properties["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield role, statement


def as_list(value: Any) -> list[Any]:
    """IAM lets one string stand for a list of one."""
    return value if isinstance(value, list) else [value]


def resource_name(resource: str) -> str:
    """The short name of a policy's resource."""
    spelled = re.sub(r"^.*:(?=schedule/|secret:|parameter/|event-bus/)", "", resource).replace("Table.Arn/", "Table/")
    return RESOURCE_NAMES[spelled]


def test_table_is_the_one_described_as_data() -> None:
    """Keys, index keys, projections and billing are equal, attribute by attribute."""
    deployed = only("AWS::DynamoDB::Table")
    described = create_table_request("any")
    del described["TableName"]
    assert described == {key: deployed[key] for key in described}


def test_table_forgets_by_the_ttl_attribute() -> None:
    """What code writes as expiry is what DynamoDB looks at."""
    assert {"AttributeName": TTL_ATTRIBUTE, "Enabled": True} == only("AWS::DynamoDB::Table")["TimeToLiveSpecification"]


def test_table_is_recoverable_encrypted_and_kept() -> None:
    """Point-in-time recovery, encryption and retention survive any parameter but deletion protection's own."""
    table = only("AWS::DynamoDB::Table")
    assert {"PointInTimeRecoveryEnabled": True} == table["PointInTimeRecoverySpecification"]
    assert {"SSEEnabled": True} == table["SSESpecification"]
    assert "true" == table["DeletionProtectionEnabled"]
    written = expanded()["Resources"]["Table"]
    assert ("Retain", "Retain") == (written["DeletionPolicy"], written["UpdateReplacePolicy"])


def test_bucket_is_private_encrypted_and_kept() -> None:
    """No public access whatever a policy says, only over TLS, and what was deleted can be restored with the table."""
    bucket = only("AWS::S3::Bucket")
    assert {True} == set(bucket["PublicAccessBlockConfiguration"].values())
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert "AES256" == rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]
    assert "BucketOwnerEnforced" == bucket["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
    assert "Enabled" == bucket["VersioningConfiguration"]["Status"]
    written = expanded()["Resources"]["Values"]
    assert ("Retain", "Retain") == (written["DeletionPolicy"], written["UpdateReplacePolicy"])
    [denied] = only("AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
    assert ("Deny", "*", "s3:*") == (denied["Effect"], denied["Principal"], denied["Action"])
    assert ["Values.Arn", "Values.Arn/*"] == denied["Resource"]
    assert {"Bool": {"aws:SecureTransport": "false"}} == denied["Condition"]


def test_bucket_forgets_what_nobody_needs() -> None:
    """Parts of an upload that broke off after a day, deleted values after the table's recovery has forgotten them."""
    aborted, deleted = only("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    assert {"DaysAfterInitiation": 1} == aborted["AbortIncompleteMultipartUpload"]
    assert {"NoncurrentDays": 35} == deleted["NoncurrentVersionExpiration"]


def test_functions_have_the_handlers_described_as_data() -> None:
    """The same logical ids, the same entry points."""
    assert HANDLERS == {name: f["Handler"] for name, f in resources("AWS::Lambda::Function").items()}


@pytest.mark.parametrize("function", HANDLERS)
def test_function_is_told_exactly_the_environment(function: str) -> None:
    """Every variable the settings read from the template is set, and none besides."""
    variables = resources("AWS::Lambda::Function")[function]["Environment"]["Variables"]
    assert sorted(ENVIRONMENT) == sorted(variables)


@pytest.mark.parametrize("function", HANDLERS)
def test_function_runs_on_arm_with_json_logs_in_its_own_group(function: str) -> None:
    """A log group of the template has a retention; one that Lambda makes by itself keeps everything for ever."""
    properties = resources("AWS::Lambda::Function")[function]
    groups = resources("AWS::Logs::LogGroup")
    assert ["arm64"] == properties["Architectures"]
    assert "JSON" == properties["LoggingConfig"]["LogFormat"]
    assert groups[properties["LoggingConfig"]["LogGroup"]]["RetentionInDays"]


def mapping_of(function: str) -> dict[str, Any]:
    """The event source mapping of the queue that a function takes messages off."""
    arn = f"{QUEUES[function]}.Arn"
    [found] = [m for m in resources("AWS::Lambda::EventSourceMapping").values() if m["EventSourceArn"] == arn]
    assert found["FunctionName"].startswith(function)
    return found


def test_worker_may_hint_itself() -> None:
    """Without this Lambda stops a run after about sixteen hops through the queue."""
    assert "Allow" == resources("AWS::Lambda::Function")["WorkerFunction"]["RecursiveLoop"]


@pytest.mark.parametrize("function", QUEUES)
def test_function_answers_for_each_message(function: str) -> None:
    """One bad message must not bring back its whole batch."""
    assert ["ReportBatchItemFailures"] == mapping_of(function)["FunctionResponseTypes"]


def test_worker_concurrency_is_bounded() -> None:
    """By the parameter."""
    assert 20 == mapping_of("WorkerFunction")["ScalingConfig"]["MaximumConcurrency"]


@pytest.mark.parametrize(("function", "name"), QUEUES.items())
def test_queue_hides_a_message_six_timeouts_long(function: str, name: str) -> None:
    """Otherwise a message comes again while its first delivery may still be retried."""
    queue = resources("AWS::SQS::Queue")[name]
    timeout = resources("AWS::Lambda::Function")[function]["Timeout"]
    assert int(queue["VisibilityTimeout"]) >= VISIBILITY_FACTOR * int(timeout)


@pytest.mark.parametrize("name", QUEUES.values())
def test_queue_sets_aside_what_never_gets_through(name: str) -> None:
    """In a queue of its own, with an alarm that sees the first message in it."""
    dead = resources("AWS::SQS::Queue")[name]["RedrivePolicy"]["deadLetterTargetArn"].removesuffix(".Arn")
    assert dead in resources("AWS::SQS::Queue")
    alarms = [a for a in resources("AWS::CloudWatch::Alarm").values() if a["Namespace"] == "AWS/SQS"]
    watched = {a["Dimensions"][0]["Value"]: (a["Threshold"], a["ComparisonOperator"]) for a in alarms}
    assert (0, "GreaterThanThreshold") == watched[f"{dead}.QueueName"]


def test_resume_queue_hears_only_whom_the_parameters_name() -> None:
    """One topic and one rule, each by its ARN: neither service may be used by somebody else (the confused deputy)."""
    template = load(TEMPLATE)
    names = _Names()
    names._values = parameters(template, {"ResumeTopicArn": "topic", "ResumeRuleArn": "rule"})
    policy = Intrinsics(template, names).resolve(template["Resources"]["ResumeQueuePolicy"]["Properties"])
    heard = {s["Principal"]["Service"]: s["Condition"] for s in policy["PolicyDocument"]["Statement"]}
    assert {
        "sns.amazonaws.com": {"ArnEquals": {"aws:SourceArn": "topic"}},
        "events.amazonaws.com": {"ArnEquals": {"aws:SourceArn": "rule"}},
    } == heard
    assert "HearsOthers" == template["Resources"]["ResumeQueuePolicy"]["Condition"]


def test_queues_are_standard_encrypted_and_keep_two_weeks() -> None:
    """A FIFO queue would refuse delays per message; fourteen days is the longest SQS keeps anything."""
    for queue in resources("AWS::SQS::Queue").values():
        assert (True, 1209600) == (queue["SqsManagedSseEnabled"], queue["MessageRetentionPeriod"])
        assert "FifoQueue" not in queue


def test_poison_is_blamed_before_it_is_set_aside() -> None:
    """The engine gives up on a step after five claims; the queue must deliver more often than that."""
    redrive = resources("AWS::SQS::Queue")["WorkQueue"]["RedrivePolicy"]
    assert redrive["maxReceiveCount"] > 5
    assert "DeadLetterQueue.Arn" == redrive["deadLetterTargetArn"]


def test_events_come_from_the_heads_in_the_stream_and_are_tried_for_a_day() -> None:
    """Records of steps only if they are wanted; what fails is halved, and given up below the stream's day."""
    assert {"StreamViewType": "NEW_AND_OLD_IMAGES"} == only("AWS::DynamoDB::Table")["StreamSpecification"]
    [mapping] = [m for m in resources("AWS::Lambda::EventSourceMapping").values() if "StreamArn" in m["EventSourceArn"]]
    patterns = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    wanted: list[Any] = [HEAD_KEY, {"prefix": "S#"}]
    assert [{"dynamodb": {"Keys": {"sk": {"S": [each]}}}} for each in wanted] == patterns
    assert incarnation_prefix(1).startswith("S#")
    assert ["ReportBatchItemFailures"] == mapping["FunctionResponseTypes"]
    assert (True, -1, "TRIM_HORIZON") == (
        mapping["BisectBatchOnFunctionError"],
        mapping["MaximumRetryAttempts"],
        mapping["StartingPosition"],
    )
    assert 0 < mapping["MaximumRecordAgeInSeconds"] < 86_400
    assert "EventsDeadLetterQueue.Arn" == mapping["DestinationConfig"]["OnFailure"]["Destination"]


def test_what_tells_of_runs_is_there_only_when_it_is_wanted() -> None:
    """Without the two parameters there is no stream, no function, no role and no queue for it."""
    template = expanded()
    plain = _Names()
    plain._values = parameters(template, {})
    intrinsics = Intrinsics(template, plain)
    assert "StreamSpecification" not in intrinsics.resolve(template["Resources"]["Table"]["Properties"])
    conditions = {name: r.get("Condition") for name, r in template["Resources"].items()}
    optional = {name: condition for name, condition in conditions.items() if re.match("Events|Outgoing", name)}
    assert len(optional) > 15
    assert {"TellsOfRuns", "SendsWebhooks"} == set(optional.values())
    assert [False, False] == [intrinsics.condition(name) for name in ("TellsOfRuns", "SendsWebhooks")]


def test_letters_are_tried_for_two_days() -> None:
    """As the comment in the template says."""
    tries = resources("AWS::SQS::Queue")["OutgoingQueue"]["RedrivePolicy"]["maxReceiveCount"]
    pauses = [pause_after(number, 0.5) for number in range(1, tries)]
    assert timedelta(days=1.5) < sum(pauses, timedelta(0)) < timedelta(days=2.5)


def test_queue_of_letters_takes_the_longest_one() -> None:
    """Also where it was made when queues took 256 KB."""
    assert MOST_OF_A_LETTER == resources("AWS::SQS::Queue")["OutgoingQueue"]["MaximumMessageSize"]


def test_sweep_is_called_every_minute() -> None:
    """One rule, and its target is the sweeper."""
    rule = only("AWS::Events::Rule")
    assert "rate(1 minute)" == rule["ScheduleExpression"]
    assert ["SweepFunctionAliaslive"] == [target["Arn"] for target in rule["Targets"]]


def test_alarm_tells_of_a_sweeper_that_never_comes_to_its_end() -> None:
    """It misses what a sweep tells last: calls that fail or run out of time count as invocations like any other."""
    alarm = resources("AWS::CloudWatch::Alarm")["SweepSilentAlarm"]
    assert ("OverdueRuns", "SampleCount") == (alarm["MetricName"], alarm["Statistic"])
    assert [{"Name": "service", "Value": "flowcore-sweep"}] == alarm["Dimensions"]
    assert (1, "LessThanThreshold", "breaching") == (
        alarm["Threshold"],
        alarm["ComparisonOperator"],
        alarm["TreatMissingData"],
    )


def test_alarms_look_at_the_metrics_of_their_own_stack() -> None:
    """The functions are told under which name; of two stacks in one account neither sees the other's."""
    variables = resources("AWS::Lambda::Function")["SweepFunction"]["Environment"]["Variables"]
    alarms = resources("AWS::CloudWatch::Alarm")
    ours = {name: a["Namespace"] for name, a in alarms.items() if not a["Namespace"].startswith("AWS/")}
    own = variables["POWERTOOLS_METRICS_NAMESPACE"]
    assert {"LongOverdueAlarm": own, "SweepSilentAlarm": own} == ours
    assert "AWS::StackName" == own


def test_routes_are_the_ones_described_as_data() -> None:
    """All of them, under the authorizer of the chosen mode but for the open ones."""
    found = {route["RouteKey"]: route["AuthorizationType"] for route in resources("AWS::ApiGatewayV2::Route").values()}
    assert {key: "NONE" if key in OPEN_ROUTES else "AWS_IAM" for key in (*ROUTES, *DOORS)} == found


@pytest.mark.parametrize("role", GRANTS)
def test_role_has_exactly_the_verbs_described_as_data(role: str) -> None:
    """Verb by verb and resource by resource; a grant nobody wrote down is a failure, too."""
    granted = {
        (resource_name(resource), verb)
        for name, statement in statements()
        if name == role
        for resource in as_list(statement["Resource"])
        for verb in as_list(statement["Action"])
    }
    assert {(grant.on, verb) for grant in GRANTS[role] for verb in grant.verbs} == granted


def test_roles_are_only_those_described_as_data() -> None:
    """The SAM transform adds no role of its own, nor a managed policy to one of ours."""
    roles = resources("AWS::IAM::Role")
    assert sorted(GRANTS) == sorted(roles)
    assert [] == [name for name, role in roles.items() if "ManagedPolicyArns" in role]


def test_no_statement_allows_everything() -> None:
    """Neither all resources nor a family of verbs."""
    wild = [
        (role, statement)
        for role, statement in statements()
        if "*" in as_list(statement["Resource"]) or any("*" in verb for verb in as_list(statement["Action"]))
    ]
    assert [] == wild


def test_schedule_role_is_passed_to_scheduler_only() -> None:
    """PassRole without this condition would lend the role to any service."""
    conditions = [s.get("Condition") for _, s in statements() if "iam:PassRole" in as_list(s["Action"])]
    assert [{"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}] * 4 == conditions


def test_schedule_role_trusts_our_group_only() -> None:
    """Source account and group: Scheduler acting for somebody else is refused (the confused deputy)."""
    [trust] = resources("AWS::IAM::Role")["ScheduleRole"]["AssumeRolePolicyDocument"]["Statement"]
    ours = {"aws:SourceAccount": "AWS::AccountId", "aws:SourceArn": "ScheduleGroup.Arn"}
    assert {"StringEquals": ours} == trust["Condition"]


def test_every_resource_has_a_comment() -> None:
    """One line above each says what it is for."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    body = lines[lines.index("Resources:") : lines.index("Outputs:")]
    assert [] == [
        line for above, line in pairwise(body) if re.fullmatch(r"  \w+:", line) and not above.startswith("  # ")
    ]


def test_template_passes_cfn_lint() -> None:
    """AWS's own schemas and rules find nothing, warnings included."""
    command = [sys.executable, "-c", "from cfnlint.runner import main; main()"]
    lint = subprocess.run(
        [*command, "--non-zero-exit-code", "informational", str(TEMPLATE)], capture_output=True, text=True, check=False
    )
    assert (0, "", "") == (lint.returncode, lint.stdout, lint.stderr)


@pytest.mark.parametrize("function", HANDLERS)
def test_function_publishes_a_version_for_every_change(function: str) -> None:
    """Callers use an alias; by default it would stay on the old version when only the environment changed."""
    assert True is load(TEMPLATE)["Resources"][function]["Properties"]["AutoPublishAliasAllProperties"]
