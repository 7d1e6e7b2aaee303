"""What a tracer is told: stretches of runs and tries of steps, under the ids the caller gave."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.ports import Span, SpanLink
from flowcore.testing import LocalApp, VirtualClock
from flowcore.tracing import from_traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OTHER, THEIRS = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Noting:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def take(self) -> list[Span]:
        """What came since the last time."""
        spans, self.spans = self.spans, []
        return spans


@step(retries=1, backoff=timedelta(minutes=5))
def flaky(number: int, ctx: StepContext) -> int:
    """Fails once."""
    if ctx.retry_count == 0:
        raise ValueError("not yet")
    return number


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    if ctx.resume_data is None:
        ctx.suspend()
    return number + ctx.resume_data


@step
def fail(number: int) -> int:
    """Fails for good."""
    raise ValueError(number)


def doubled(number: int) -> int:
    """Twice as much."""
    return 2 * number


INNER = workflow("inner", input=int, output=int).then(ask).commit()
FLOW = workflow("flow", input=int, output=int).then(flaky).map(doubled).then(INNER).commit()


@pytest.fixture
def tracer() -> Noting:
    """Keeps spans."""
    return Noting()


def an_app(tracer: Any, *flows: Any, **ports: Any) -> LocalApp:
    """With a tracer."""
    return LocalApp(App(*(flows or (FLOW,)), tracer=tracer), **ports)


def test_a_run_is_told_as_stretches_and_tries(tracer: Noting) -> None:
    """Each step under its stretch, each try once; what is no step is no span."""
    app = an_app(tracer)
    app.workflow("flow").create_run("r").start(1, tracing={"trace_id": TRACE, "parent_span_id": PARENT})
    step_, run = tracer.take()
    assert ("step", "flaky", 1, "retrying", "not yet") == (
        step_.kind,
        step_.step,
        step_.attempt,
        step_.status,
        step_.error and step_.error.message,
    )
    assert ("run", "flow", "waiting", PARENT) == (run.kind, run.name, run.status, run.parent_span_id)
    assert (TRACE, run.span_id) == (step_.trace_id, step_.parent_span_id)

    app.advance(minutes=5)
    again, asked, later = tracer.take()
    assert [("flaky", 2, "success"), ("inner.ask", 1, "suspended")] == [
        (span.step, span.attempt, span.status) for span in (again, asked)
    ]
    assert (TRACE, run.span_id, "suspended", ()) == (later.trace_id, later.parent_span_id, later.status, later.links)
    assert timedelta(0) < later.started_at - run.started_at <= timedelta(minutes=5)
    everything = [step_, run, again, asked, later]
    assert len({span.span_id for span in everything}) == len(everything)


def test_a_resume_without_ids_is_a_trace_of_its_own_that_links_back(tracer: Noting) -> None:
    """A person may take weeks; the link leads to the run's first stretch."""
    app = an_app(tracer)
    app.workflow("flow").create_run("r").start(1, tracing={"trace_id": TRACE, "parent_span_id": PARENT})
    app.advance(minutes=5)
    first = tracer.take()[1]
    assert TRACE == app.resume("r", 1).trace_id
    step_, run = tracer.take()
    assert run.trace_id == step_.trace_id
    assert TRACE != run.trace_id
    assert (None, (SpanLink(TRACE, first.span_id),)) == (run.parent_span_id, run.links)


@pytest.mark.parametrize("queue", [True, False])
def test_a_resume_with_ids_goes_on_under_those(tracer: Noting, *, queue: bool) -> None:
    """Also where another process drives it."""
    clock = VirtualClock()
    app = an_app(tracer, clock=clock, queue=MemoryQueue(clock) if queue else None)
    app.workflow("flow").create_run("r").start(1, tracing={"trace_id": TRACE})
    app.advance(minutes=6)
    tracer.take()
    app.resume("r", 1, tracing={"trace_id": OTHER, "parent_span_id": THEIRS, "tags": ["night"]})
    app.run_until_idle()
    step_, run = tracer.take()
    assert {OTHER} == {step_.trace_id, run.trace_id}
    assert (THEIRS, TRACE) == (run.parent_span_id, run.links[0].trace_id)
    assert {"flowcore.tags": ["night"]} == run.attributes


def test_spans_show_what_the_caller_wants_shown(tracer: Noting) -> None:
    """Tags, metadata, and of the request context only the keys that were named."""
    app = an_app(tracer)
    tracing: Any = {"tags": ["eu"], "metadata": {"team": "core"}, "request_context_keys": ["user", "absent"]}
    run = app.workflow("flow").create_run("r", tags=["gold"])
    run.start(1, tracing=tracing, request_context={"user": "ada", "secret": "s"})
    shown = {"flowcore.tags": ["gold", "eu"], "flowcore.metadata.team": "core", "flowcore.context.user": "ada"}
    assert [shown, shown] == [span.attributes for span in tracer.spans]


def test_a_run_without_ids_gets_a_trace_where_there_is_a_tracer(tracer: Noting) -> None:
    """The result names it; without a tracer there is none."""
    result = an_app(tracer).workflow("flow").create_run("r").start(1)
    assert {result.trace_id} == {span.trace_id for span in tracer.spans}
    assert LocalApp(App(FLOW)).workflow("flow").create_run("r").start(1).trace_id is None


def test_a_failed_run_and_its_step_carry_the_error(tracer: Noting) -> None:
    """And are told to have failed."""
    app = an_app(tracer, workflow("f", input=int, output=int).then(fail).commit())
    app.workflow("f").create_run("r").start(1)
    assert [("step", "failed", "ValueError"), ("run", "failed", "ValueError")] == [
        (span.kind, span.status, span.error and span.error.type) for span in tracer.spans
    ]


def test_turns_and_items_are_told_and_their_containers_are_not(tracer: Noting) -> None:
    """A container is no try of a step."""
    flow = (
        workflow("w", input=list[int], output=list[int])
        .foreach(step(id="item")(doubled), id="fan")
        .map(len)
        .dountil(step(id="turn")(doubled), lambda value: value > 4, id="poll")
        .map(lambda value: [value])
        .commit()
    )
    app = an_app(tracer, flow)
    app.workflow("w").create_run("r").start([1, 2])
    assert ["fan[0]", "fan[1]", "poll", "poll"] == [span.step for span in tracer.spans if span.kind == "step"]


def test_a_worker_that_lost_the_run_says_so(tracer: Noting) -> None:
    """Its stretch is told, so that what it did has a parent."""
    store = MemoryStore()

    @step
    def canceled(number: int, ctx: StepContext) -> int:
        app.cancel(ctx.run_id)
        return number

    app = an_app(tracer, workflow("c", input=int, output=int).then(canceled).commit(), store=store)
    app.workflow("c").create_run("r").start(1)
    assert "lost" == tracer.spans[-1].status


def test_a_tracer_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is lost is logged."""

    class Broken:
        def record(self, span: Span) -> None:
            raise ConnectionError("no collector")

    app = an_app(Broken(), workflow("w", input=int, output=int).then(INNER).commit())
    app.workflow("w").create_run("r").start(1)
    assert 2 == app.resume("r", 1).output
    assert ["span lost"] * 4 == [record.message for record in caplog.records]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", {"trace_id": TRACE, "parent_span_id": PARENT}),
        (f" 00-{TRACE}-{PARENT}-00 ", {"trace_id": TRACE, "parent_span_id": PARENT}),
        (f"01-{TRACE}-{PARENT}-01-more", {"trace_id": TRACE, "parent_span_id": PARENT}),
        (None, None),
        ("", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
    ],
)
def test_traceparent_is_read_as_the_specification_says(header: str | None, expected: Any) -> None:
    """Later versions may have more fields; what cannot be read is ignored."""
    assert expected == from_traceparent(header)
