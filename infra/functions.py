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
    }
)
"""Logical id in the template -> entry point."""

ENVIRONMENT = (
    "FLOWCORE_APP",
    "FLOWCORE_TABLE",
    "FLOWCORE_QUEUE_URL",
    "FLOWCORE_SCHEDULE_GROUP",
    "FLOWCORE_SCHEDULE_ROLE_ARN",
    "FLOWCORE_BUCKET",
    "FLOWCORE_RETENTION_DAYS",
)
"""Set on every function, and nothing else: a setting that only one function has is a setting nobody finds."""

ROUTES = (
    "POST /v1/workflows/{workflow}/runs",
    "GET /v1/runs",
    "GET /v1/counts",
    "GET /v1/runs/{run}",
    "GET /v1/runs/{run}/graph",
    "GET /v1/runs/{run}/events",
    "GET /v1/runs/{run}/receipts",
    "POST /v1/events",
    "POST /v1/runs/{run}/resume",
    "POST /v1/runs/{run}/delegate",
    "POST /v1/runs/{run}/cancel",
    "POST /v1/runs/{run}/redrive",
    "GET /v1/workflows",
    "GET /v1/workflows/{workflow}",
    "GET /v1/workflows/{workflow}/graph",
    "GET /healthz",
)
"""Route keys of the HTTP API, all of them served by ApiFunction."""

OPEN_ROUTES = frozenset({"GET /healthz"})
"""Routes without an authorizer, whatever AuthMode says."""

VISIBILITY_FACTOR = 6
"""Queue visibility over worker timeout, at least. Source: Lambda developer guide, "Using Lambda with Amazon SQS"."""
