"""Spans as OpenTelemetry's exporters get them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from flowcore.adapters.otel import OtelTracer
from flowcore.model import StepFailure
from flowcore.ports import Span, SpanLink

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRACE, PARENT, OWN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"


def exported(**changes: Any) -> Any:
    """One span after its way through a real processor."""
    exporter = InMemorySpanExporter()
    plain: dict[str, Any] = {
        "kind": "step",
        "name": "pay",
        "trace_id": TRACE,
        "span_id": OWN,
        "parent_span_id": PARENT,
        "started_at": NOW,
        "ended_at": NOW + timedelta(milliseconds=1500),
        "status": "success",
        "run_id": "r-1",
        "workflow_id": "refund",
        "step": "pay",
        "attempt": 2,
    }
    resource = Resource({"service.name": "shop"})
    OtelTracer(SimpleSpanProcessor(exporter), resource=resource).record(Span(**{**plain, **changes}))
    (span,) = exporter.get_finished_spans()
    return span


def test_ids_times_and_names_are_kept() -> None:
    """Its own id, not one that the SDK makes up."""
    span = exported(links=(SpanLink("f" * 32, "e" * 16),))
    assert ("pay", int(TRACE, 16), int(OWN, 16)) == (span.name, span.context.trace_id, span.context.span_id)
    assert (int(TRACE, 16), int(PARENT, 16)) == (span.parent.trace_id, span.parent.span_id)
    assert 1_500_000_000 == span.end_time - span.start_time
    assert [(int("f" * 32, 16), int("e" * 16, 16))] == [
        (link.context.trace_id, link.context.span_id) for link in span.links
    ]
    assert "shop" == span.resource.attributes["service.name"]
    assert exported(parent_span_id=None).parent is None


def test_attributes_are_of_the_kinds_opentelemetry_knows() -> None:
    """Lists of text stay lists, anything deeper is JSON text, nothing is null."""
    attributes = exported(
        attributes={"flowcore.tags": ["a", "b"], "m": {"deep": [1]}, "n": 1.5, "none": None}
    ).attributes
    assert {
        "flowcore.kind": "step",
        "flowcore.run_id": "r-1",
        "flowcore.workflow_id": "refund",
        "flowcore.status": "success",
        "flowcore.step": "pay",
        "flowcore.attempt": 2,
        "flowcore.tags": ("a", "b"),
        "m": '{"deep": [1]}',
        "n": 1.5,
    } == dict(attributes)


def test_a_failure_is_an_error_and_a_suspension_is_none() -> None:
    """With the message of what was raised."""
    failed = exported(status="failed", error=StepFailure(type="PaymentRefused", message="no money"))
    assert (StatusCode.ERROR, "no money") == (failed.status.status_code, failed.status.description)
    assert "PaymentRefused" == failed.attributes["error.type"]
    assert StatusCode.UNSET == exported(status="suspended").status.status_code
