"""The environment as one frozen value. The only reader of ``os.environ``; every missing setting is named at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from flowcore.errors import SettingsError

_NEEDED = {
    "FLOWCORE_APP": "module:attribute of the App to serve, for instance shop.flows:app",
    "FLOWCORE_TABLE": "name of the DynamoDB table",
    "FLOWCORE_QUEUE_URL": "URL of the SQS work queue",
    "FLOWCORE_SCHEDULE_GROUP": "name of the EventBridge Scheduler group",
    "FLOWCORE_SCHEDULE_ROLE_ARN": "ARN of the role with which schedules send to the queue",
    "AWS_REGION": "the AWS region; Lambda sets it",
}

_AUTH: Mapping[str, Literal["none", "iam", "jwt"]] = {"": "none", "none": "none", "iam": "iam", "jwt": "jwt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment tells its functions."""

    app: str
    table: str
    queue_url: str
    schedule_group: str
    schedule_role_arn: str
    region: str
    public_url: str | None = None
    """Where the API answers, as holders of links reach it; None: no links are made."""
    link_secrets: str | None = field(default=None, repr=False)
    """``kid:secret,kid:secret``, or the place where they are kept: ``secretsmanager:id``, ``ssm:/path``."""
    auth: Literal["none", "iam", "jwt"] = "none"
    """How callers of the API are known."""
    tenant_claim: str | None = None
    """The claim of a token that names the caller's tenant; None: everybody has the same runs."""
    owner_claim: str | None = None
    """The claim that must be a run's ``resource_id``; None: everybody sees every run of his tenant."""
    jwt_issuer: str | None = None
    jwt_audience: tuple[str, ...] = ()
    bucket: str | None = None
    """Where large values lie; None: a value has to fit into an item."""
    retention: timedelta | None = None
    """How long ended runs are kept whose workflow does not say; None: as the App says."""
    event_bus: str | None = None
    """The EventBridge bus on which runs are told of; None: on none."""
    outgoing_queue_url: str | None = None
    """Where letters to receivers of outgoing webhooks wait; None: nobody is told."""
    swagger: bool = False
    """Whether ``GET /v1/docs`` shows a page on which the API can be tried."""
    resumes_a_minute: int | None = None
    """How often one run may be answered in a minute, in each process; None: as often as answers come."""
    metrics_namespace: str = "flowcore"
    """Under which the functions tell their metrics; of two deployments in one account each needs its own."""
    clock_offset: timedelta = timedelta(0)
    """Shifts the clock of a local stack; never set on AWS."""

    @staticmethod
    def read(environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this process. Raises: SettingsError that names everything missing or malformed."""
        found = dict(os.environ if environ is None else environ)
        found.setdefault("AWS_REGION", found.get("AWS_DEFAULT_REGION", ""))
        faults = [f"{name} is not set: {what}" for name, what in _NEEDED.items() if not found.get(name)]
        faults += _malformed(found)
        if bool(found.get("FLOWCORE_PUBLIC_URL")) is not bool(found.get("FLOWCORE_LINK_SECRETS")):
            faults.append("FLOWCORE_PUBLIC_URL and FLOWCORE_LINK_SECRETS belong together: one of them is not set")
        faults += [
            f"{name} is set, but FLOWCORE_AUTH is not JWT: there are no tokens that the claim could be read from"
            for name in ("FLOWCORE_TENANT_CLAIM", "FLOWCORE_OWNER_CLAIM")
            if found.get(name) and found.get("FLOWCORE_AUTH", "").lower() != "jwt"
        ]
        if faults:
            raise SettingsError("The environment is incomplete:\n- " + "\n- ".join(faults))
        return Settings(
            app=found["FLOWCORE_APP"],
            table=found["FLOWCORE_TABLE"],
            queue_url=found["FLOWCORE_QUEUE_URL"],
            schedule_group=found["FLOWCORE_SCHEDULE_GROUP"],
            schedule_role_arn=found["FLOWCORE_SCHEDULE_ROLE_ARN"],
            region=found["AWS_REGION"],
            auth=_AUTH[found.get("FLOWCORE_AUTH", "").lower()],
            tenant_claim=found.get("FLOWCORE_TENANT_CLAIM") or None,
            owner_claim=found.get("FLOWCORE_OWNER_CLAIM") or None,
            jwt_issuer=found.get("FLOWCORE_JWT_ISSUER") or None,
            jwt_audience=tuple(part for part in found.get("FLOWCORE_JWT_AUDIENCE", "").split(",") if part),
            public_url=found.get("FLOWCORE_PUBLIC_URL") or None,
            link_secrets=found.get("FLOWCORE_LINK_SECRETS") or None,
            bucket=found.get("FLOWCORE_BUCKET") or None,
            retention=timedelta(days=days) if (days := float(found.get("FLOWCORE_RETENTION_DAYS") or 0)) else None,
            event_bus=found.get("FLOWCORE_EVENT_BUS") or None,
            outgoing_queue_url=found.get("FLOWCORE_OUTGOING_QUEUE_URL") or None,
            swagger=found.get("FLOWCORE_SWAGGER", "").lower() == "true",
            resumes_a_minute=int(found.get("FLOWCORE_RESUMES_A_MINUTE") or 0) or None,
            metrics_namespace=found.get("POWERTOOLS_METRICS_NAMESPACE") or "flowcore",
            clock_offset=timedelta(seconds=float(found.get("FLOWCORE_CLOCK_OFFSET") or 0)),
        )


def variable(name: str) -> str | None:
    """One variable of the environment that is named elsewhere: where the secret of a webhook is kept."""
    return os.environ.get(name)


def _malformed(found: Mapping[str, str]) -> list[str]:
    """What is set, but to something that cannot be meant."""
    shapes = {
        "FLOWCORE_APP": (r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "module:attribute"),
        "FLOWCORE_QUEUE_URL": (r"https?://[^/]+/.+/[^/]+", "a URL that ends in /account/queue-name"),
        "FLOWCORE_OUTGOING_QUEUE_URL": (r"https?://[^/]+/.+/[^/]+", "a URL that ends in /account/queue-name"),
        "FLOWCORE_SCHEDULE_ROLE_ARN": (r"arn:[\w-]+:iam::\d*:role/.+", "the ARN of a role"),
        "FLOWCORE_AUTH": (r"(?i:none|iam|jwt)", "NONE, IAM or JWT"),
        "FLOWCORE_PUBLIC_URL": (r"https?://[^\s/?#]+(/[^\s?#]*)?", "an http address"),
        "FLOWCORE_BUCKET": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of an S3 bucket"),
        "FLOWCORE_RETENTION_DAYS": (r"\d{1,5}(\.\d+)?", "a number of days, 0 to keep runs for ever"),
        "FLOWCORE_SWAGGER": (r"(?i:true|false)", "true or false"),
        "FLOWCORE_RESUMES_A_MINUTE": (r"\d{1,9}", "a whole number, 0 for no limit"),
        "FLOWCORE_CLOCK_OFFSET": (r"-?\d+(\.\d+)?", "a number of seconds"),
    }
    return [
        f"{name} is {found[name]!r}, which is not {what}"
        for name, (shape, what) in shapes.items()
        if found.get(name) and re.fullmatch(shape, found[name]) is None
    ]
