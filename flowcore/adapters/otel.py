"""Spans to OpenTelemetry: ``pip install flowcore[otel]``. The only module that imports it; nobody imports this one.

A span of flowcore is over when it is told and knows its own ids, so it goes to a span processor directly, as the SDK's
own spans do when they end. Give it the processor that your other spans go through::

    exporter = OTLPSpanExporter()
    app = App(flow, tracer=OtelTracer(SimpleSpanProcessor(exporter)))

On Lambda take ``SimpleSpanProcessor`` with an exporter that is near (a collector layer): what a batch still holds when
the function freezes waits for its next invocation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from flowcore.adapters.dynamodb_attributes import to_ms
from flowcore.model import Json
from flowcore.ports import Span

_SCOPE = InstrumentationScope("flowcore")
_NS_PER_MS = 1_000_000
_FAILED = frozenset({"failed", "retrying"})


class OtelTracer:
    """``flowcore.ports.Tracer`` on an OpenTelemetry span processor."""

    def __init__(self, processor: SpanProcessor, *, resource: Resource | None = None) -> None:
        """Send spans to ``processor``; ``resource``: what runs here, the process's own when left out."""
        self._processor = processor
        self._resource = resource or Resource.create()

    def record(self, span: Span) -> None:
        """See ``Tracer.record``."""
        self._processor.on_end(readable(span, self._resource))


def readable(span: Span, resource: Resource) -> ReadableSpan:
    """The span as the SDK's exporters read it."""
    parent = span.parent_span_id
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=None if parent is None else _context(span.trace_id, parent, is_remote=True),
        resource=resource,
        attributes=_attributes(span),
        links=[Link(_context(link.trace_id, link.span_id, is_remote=True)) for link in span.links],
        kind=SpanKind.INTERNAL,
        instrumentation_scope=_SCOPE,
        status=_status(span),
        start_time=_ns(span.started_at),
        end_time=_ns(span.ended_at),
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(TraceFlags.SAMPLED))


def _attributes(span: Span) -> Mapping[str, Any]:
    own = {
        "flowcore.kind": span.kind,
        "flowcore.run_id": span.run_id,
        "flowcore.workflow_id": span.workflow_id,
        "flowcore.status": span.status,
        "flowcore.step": span.step,
        "flowcore.attempt": span.attempt,
        "error.type": None if span.error is None else span.error.type,
    }
    found = {name: _value(value) for name, value in {**own, **span.attributes}.items()}
    return {name: value for name, value in found.items() if value is not None}


def _value(value: Json) -> str | bool | int | float | Sequence[str] | None:
    """What an attribute may hold; anything else as JSON text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    return json.dumps(value, ensure_ascii=False)


def _status(span: Span) -> Status:
    if span.status not in _FAILED:
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, None if span.error is None else span.error.message)


def _ns(instant: datetime) -> int:
    return to_ms(instant) * _NS_PER_MS
