"""The Lambda functions and what they are told through the environment, as data.

Owns the names that template.yaml, the handlers and the settings have to agree on; a house test holds them together.
"""

from collections.abc import Mapping
from types import MappingProxyType

HANDLERS: Mapping[str, str] = MappingProxyType(
    {
        "ApiFunction": "handlers.api.handler",
        "WorkerFunction": "handlers.worker.handler",
        "SweepFunction": "handlers.sweep.handler",
        "WebhookFunction": "handlers.webhook.handler",
        "ResumeFunction": "handlers.resume.handler",
        "EventsFunction": "handlers.events.handler",
        "OutgoingFunction": "handlers.outgoing.handler",
    }
)
"""Logical id in the template -> entry point."""

ENVIRONMENT = (
    "FLOWCORE_APP",
    "FLOWCORE_TABLE",
    "FLOWCORE_QUEUE_URL",
    "FLOWCORE_SCHEDULE_GROUP",
    "FLOWCORE_SCHEDULE_ROLE_ARN",
    "FLOWCORE_AUTH",
    "FLOWCORE_TENANT_CLAIM",
    "FLOWCORE_OWNER_CLAIM",
    "FLOWCORE_JWT_ISSUER",
    "FLOWCORE_JWT_AUDIENCE",
    "FLOWCORE_PUBLIC_URL",
    "FLOWCORE_LINK_SECRETS",
    "FLOWCORE_BUCKET",
    "FLOWCORE_RETENTION_DAYS",
    "FLOWCORE_EVENT_BUS",
    "FLOWCORE_OUTGOING_QUEUE_URL",
    "FLOWCORE_SWAGGER",
    "FLOWCORE_RESUMES_A_MINUTE",
    "POWERTOOLS_METRICS_NAMESPACE",
)
"""Set on every function, and nothing else: a setting that only one function has is a setting nobody finds."""

ROUTES = (
    "POST /v1/workflows/{workflow}/runs",
    "GET /v1/runs",
    "GET /v1/counts",
    "GET /v1/doctor",
    "GET /v1/runs/{run}",
    "GET /v1/runs/{run}/graph",
    "GET /v1/runs/{run}/events",
    "GET /v1/runs/{run}/receipts",
    "POST /v1/events",
    "POST /v1/runs/{run}/resume",
    "POST /v1/runs/{run}/delegate",
    "POST /v1/runs/{run}/cancel",
    "POST /v1/runs/{run}/redrive",
    "POST /v1/runs/{run}/unblock",
    "GET /v1/workflows",
    "GET /v1/workflows/{workflow}",
    "GET /v1/workflows/{workflow}/graph",
    "GET /v1/waits",
    "GET /v1/waits/{wait}",
    "POST /v1/waits/{wait}/answer",
    "POST /v1/runs/{run}/restart",
    "POST /v1/runs/{run}/pause",
    "POST /v1/runs/{run}/unpause",
    "POST /v1/runs/{run}/time-travel",
    "POST /v1/runs/{run}/fork",
    "DELETE /v1/runs/{run}",
    "GET /v1/hooks/{name}/deliveries",
    "POST /v1/hooks/{name}/deliveries/{id}/replay",
    "GET /v1/openapi.json",
    "GET /v1/docs",
    "GET /healthz",
)
"""Route keys of the HTTP API that ApiFunction serves."""

DOORS = ("GET /a/{token}", "HEAD /a/{token}", "POST /a/{token}", "POST /cb/{token}", "POST /hooks/{name}")
"""Route keys that WebhookFunction serves: what lets in there is a signature."""

OPEN_ROUTES = frozenset({"GET /healthz", "GET /v1/openapi.json", "GET /v1/docs", *DOORS})
"""Routes without an authorizer, whatever AuthMode says."""

QUEUES: Mapping[str, str] = MappingProxyType(
    {"WorkerFunction": "WorkQueue", "ResumeFunction": "ResumeQueue", "OutgoingFunction": "OutgoingQueue"}
)
"""Function -> the queue whose messages it takes."""

VISIBILITY_FACTOR = 6
"""Queue visibility over worker timeout, at least. Source: Lambda developer guide, "Using Lambda with Amazon SQS"."""
