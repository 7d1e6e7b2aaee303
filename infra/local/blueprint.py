"""What came out of a deployment: values only, no clients.

The one thing that pools, movers and the front door know about the template. Built by ``deploy.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """One Lambda function as the template describes it; ``id`` is its logical id."""

    id: str
    name: str
    arn: str
    handler: str
    timeout: timedelta
    memory_mb: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSource:
    """A queue that feeds a function."""

    function: str
    queue_url: str
    queue_arn: str
    batch_size: int
    concurrency: int
    partial_failures: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSource:
    """A table's stream that feeds a function what fits one of the ``patterns``."""

    function: str
    stream_arn: str
    batch_size: int
    patterns: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of the HTTP API: ``POST /v1/runs/{run}/cancel``, ``ANY /console/{proxy+}`` or ``$default``."""

    key: str
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A function that is called again and again."""

    function: str
    every: timedelta
    rule_arn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """Everything the running parts need. ``skipped`` lists resources nothing was made for, as ``id (type)``."""

    functions: Mapping[str, FunctionSpec]
    queue_sources: tuple[QueueSource, ...]
    stream_sources: tuple[StreamSource, ...]
    routes: tuple[Route, ...]
    rates: tuple[Rate, ...]
    schedule_groups: tuple[str, ...]
    outputs: Mapping[str, str]
    physical_ids: Mapping[str, str]
    skipped: tuple[str, ...]
