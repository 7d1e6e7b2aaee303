"""Spans of one stretch of a run: what a worker did between taking the run and giving it back.

Nothing of it is stored: ids are derived from the run and the place, and the trace lies in the head, so workers that
know nothing of each other tell one story. A stretch that follows an answer stands in the trace that came with the
answer, or in one of its own, and links to the run's first stretch: a trace that stays open for weeks helps nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from flowcore.authoring.graph import ForeachNode, Graph, LoopNode, StepNode
from flowcore.codec import digest
from flowcore.core.evolve import Failed, FailedOnce, StepEvent, Succeeded, Suspended, context_at
from flowcore.keys import ROOT, RunRef, StepKey, dotted, is_pass
from flowcore.model import Head, Json, Snapshot, Trace
from flowcore.ports import Span, SpanLink, Tracer

_LOGGER = logging.getLogger("flowcore.tracing")


def with_id(trace: Trace | None, run: RunRef, place: str) -> Trace:
    """The trace with an id: the caller's, or one derived from the run and the place where it begins."""
    found = trace or Trace()
    return found if found.trace_id is not None else replace(found, trace_id=digest([run.tenant, run.id, place]))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tells a tracer of one stretch and the steps in it."""

    tracer: Tracer
    head: Head
    """As the worker took it."""
    started_at: datetime

    def step(self, graph: Graph, event: StepEvent, after: Snapshot, ended_at: datetime) -> None:
        """One try of a step is committed; other events are no spans."""
        if not isinstance(event, (Succeeded, Failed, FailedOnce, Suspended)) or not _is_of_step(graph, event.key):
            return
        record = after.records[event.key]
        head = self.head
        status = {Failed: "failed", FailedOnce: "retrying", Suspended: "suspended"}.get(type(event), "success")
        if isinstance(event, Succeeded) and event.bailed:
            status = "bailed"
        span = Span(
            kind="step",
            name=dotted(event.key),
            trace_id=self._trace_id,
            span_id=_span_id(head.run, head.incarnation, event.key, record.gen),
            parent_span_id=self._span_id,
            started_at=event.started_at,
            ended_at=max(ended_at, event.started_at),
            status=status,
            error=record.failure,
            run_id=head.run.id,
            workflow_id=head.workflow,
            step=dotted(event.key),
            attempt=1 if isinstance(event, Suspended) else event.attempt,
            attributes=self._attributes(context_at(after, event.key)),
        )
        self._record(span)

    def over(self, snapshot: Snapshot, status: str, ended_at: datetime) -> None:
        """The worker has given the run back, or lost it."""
        head = self.head
        first = SpanLink(with_id(head.trace, head.run, "start").trace_id or "", _span_id(head.run, 1))
        is_first = self._span_id == first.span_id
        goes_on = not is_first and head.continued is None
        origin = head.trace if head.continued is None else head.continued
        span = Span(
            kind="run",
            name=head.workflow,
            trace_id=self._trace_id,
            span_id=self._span_id,
            parent_span_id=first.span_id if goes_on else origin.parent_span_id,
            links=() if is_first or goes_on else (first,),
            started_at=self.started_at,
            ended_at=max(ended_at, self.started_at),
            status=status,
            error=snapshot.head.failure,
            run_id=head.run.id,
            workflow_id=head.workflow,
            attributes=self._attributes(context_at(snapshot, StepKey(ROOT))),
        )
        self._record(span)

    @property
    def _trace_id(self) -> str:
        head = self.head
        origin, place = (head.trace, "start") if head.continued is None else (head.continued, f"epoch {head.epoch}")
        return with_id(origin, head.run, place).trace_id or ""

    @property
    def _span_id(self) -> str:
        return _span_id(self.head.run, self.head.epoch)

    def _attributes(self, context: Mapping[str, Json]) -> dict[str, Json]:
        traces = [self.head.trace, *([self.head.continued] if self.head.continued is not None else [])]
        tags = list(dict.fromkeys(tag for trace in traces for tag in trace.tags))
        shown: dict[str, Json] = {"flowcore.tags": tags} if tags else {}
        for trace in traces:
            shown |= {f"flowcore.metadata.{name}": value for name, value in trace.metadata.items()}
            shown |= {f"flowcore.context.{name}": context[name] for name in trace.context_keys if name in context}
        return shown

    def _record(self, span: Span) -> None:
        try:
            self.tracer.record(span)
        except Exception as error:  # noqa: BLE001  # a tracer that is down must not stop a run
            _LOGGER.warning("span lost", extra={"run_id": span.run_id, "span": span.name, "error": str(error)})


def _span_id(run: RunRef, *place: int | str) -> str:
    return digest([run.tenant, run.id, *place])[:16]


def _is_of_step(graph: Graph, key: StepKey) -> bool:
    node = graph.find(dotted(key))
    if isinstance(node, (LoopNode, ForeachNode)) and is_pass(key):
        node = node.body
    return isinstance(node, StepNode)
