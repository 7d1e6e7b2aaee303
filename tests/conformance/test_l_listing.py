"""Group L, first half: finding runs, and watching them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.errors import NotSuspended, RunExists, RunFinished, RunNotFound
from tests.conformance.support import Harness, behaviour, differs

HOUR = timedelta(hours=1)


@step
def increment(number: int) -> int:
    """One more."""
    return number + 1


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers; tells how far it is."""
    if ctx.resume_data is None:
        ctx.emit({"asking": [number, None, 0.5]})
        ctx.suspend()
    ctx.emit("thanks")
    return number + ctx.resume_data


LINE = workflow("line", input=int, output=int).then(increment).then(increment, id="again").commit()
ASKING = workflow("asking", input=int, output=int).then(increment).then(ask).then(increment, id="again").commit()


def told(events: Any) -> list[tuple[str, str | None]]:
    """Types and steps."""
    return [(event.type, event.step) for event in events]


# -- storage and listing ----------------------------------------------------------------------------------------------


@behaviour(221, "a listing shows all runs, each with its workflow")
def test_221_list(harness: Harness) -> None:
    """Newest first, page by page; on demand of one workflow, in one status, or of some time."""
    harness.serve(LINE, ASKING)
    begin = harness.clock.now()
    for run_id, name in (("a", "line"), ("b", "asking"), ("c", "line")):
        harness.start(1, run_id=run_id, workflow=name)
        harness.advance(HOUR)
    expected = [("c", "line", "success"), ("b", "asking", "suspended"), ("a", "line", "success")]
    page = harness.app.list_runs()
    assert expected == [(run.run_id, run.workflow_id, run.status) for run in page]
    assert page.cursor is None
    first = harness.app.list_runs(limit=2)
    rest = harness.app.list_runs(limit=2, cursor=first.cursor)
    assert ["c", "b", "a"] == [run.run_id for part in (first, rest) for run in part]
    assert ["c", "a"] == [run.run_id for run in harness.app.list_runs(workflow="line")]
    assert ["b"] == [run.run_id for run in harness.app.list_runs(status="suspended")]
    assert ["c", "b"] == [run.run_id for run in harness.app.list_runs(since=begin + HOUR)]
    assert ["b", "a"] == [run.run_id for run in harness.app.list_runs(until=begin + HOUR)]


@behaviour(222, "a run is found and deleted by its id; then there is none")
def test_222_get_and_delete(harness: Harness) -> None:
    """In no listing either; other runs stay, and the id is free."""
    harness.serve(ASKING)
    before = harness.start(1, run_id="a")
    harness.start(1, run_id="b")
    assert before == harness.result("a")
    harness.run("a").delete()
    with pytest.raises(RunNotFound):
        harness.result("a")
    assert ["b"] == [run.run_id for run in harness.app.list_runs()]
    assert (False, 7) == ((again := harness.start(7, run_id="a")).replayed, again.input)


@behaviour(223, "runs know whom they are about and are listed by it")
def test_223_resource(harness: Harness) -> None:
    """Together with other filters; it stays over an answer."""
    harness.serve(ASKING, LINE)
    harness.start(1, run_id="a", resource_id="ada")
    harness.start(1, run_id="b", resource_id="bob")
    harness.start(1, run_id="c", resource_id="ada", workflow="line")
    harness.start(1, run_id="d")
    assert ["c", "a"] == sorted((run.run_id for run in harness.app.list_runs(resource_id="ada")), reverse=True)
    assert ["a"] == [run.run_id for run in harness.app.list_runs(resource_id="ada", status="suspended")]
    assert ["ask"] == [wait.path[0] for wait in harness.app.waits(resource_id="bob")]
    assert "ada" == harness.resume(1, run_id="a").resource_id
    assert {"a", "c"} == {run.run_id for run in harness.app.list_runs(resource_id="ada", status="success")}


@differs(
    225,
    "a function may leave out writes, for instance all but those of suspended runs",
    "every outcome is stored: a run that was stored as suspended only would take its answer twice",
)
def test_225_every_outcome_is_stored(harness: Harness) -> None:
    """One run, one row; after its end it is suspended nowhere and takes no answer."""
    harness.serve(ASKING).start(1, run_id="r")
    assert [("r", "suspended")] == [(run.run_id, run.status) for run in harness.app.list_runs()]
    harness.resume(1)
    assert [("r", "success")] == [(run.run_id, run.status) for run in harness.app.list_runs()]
    assert [] == harness.app.list_runs(status="suspended").items
    assert [] == harness.app.waits().items
    with pytest.raises((NotSuspended, RunFinished)):
        harness.resume(2, step="again")
    assert "success" == harness.result().status


@behaviour(226, "a handle made with the id of a run there is shows that run, in any process")
def test_226_handle_on_an_existing_run(harness: Harness) -> None:
    """And goes on with it."""
    before = harness.serve(ASKING).start(1, run_id="r")
    handle = harness.another_process().workflow("asking").create_run("r")
    assert before == handle.result()
    assert "suspended" == handle.state().status
    handle.resume(10)
    harness.advance()
    assert ("success", 13) == ((result := harness.result()).status, result.output)


@behaviour(227, "without a run, and without a store of one's own, a listing is empty")
def test_227_empty_listing(harness: Harness) -> None:
    """An App that was given no store keeps its runs to itself."""
    harness.serve(LINE)
    apart = App(*harness.workflows)
    for app in (harness.app, apart):
        assert ([], None) == ((page := app.list_runs()).items, page.cursor)
        assert [] == app.waits().items
    harness.start(1)
    assert (1, []) == (len(harness.app.list_runs().items), apart.list_runs().items)


@behaviour(228, "a run is a success only after all of its steps")
def test_228_success_comes_last(harness: Harness) -> None:
    """Whoever looks during the last one sees it running."""
    seen: list[tuple[str, list[str]]] = []

    @step
    def look(number: int, ctx: StepContext) -> int:
        found = harness.another_process().run(ctx.run_id).result()
        listed = harness.another_process().list_runs(status="running")
        seen.append((found.status, [run.run_id for run in listed]))
        return number

    result = harness.serve(workflow("w", input=int).then(look).then(look, id="last")).start(1, run_id="r")
    assert ("success", [("running", ["r"])] * 2) == (result.status, seen)


@behaviour(229, "runs of two tenants with the same id do not meet")
def test_229_tenants(harness: Harness) -> None:
    """Whatever their workflows; one tenant has one run of an id."""
    harness.serve(LINE, ASKING)

    def of(tenant: str) -> App:
        return harness.app.for_tenant(tenant)

    of("acme").workflow("asking").create_run("r").start(1)
    of("other").workflow("line").create_run("r").start(1)
    harness.advance()
    assert ("suspended", "success") == (of("acme").run("r").result().status, of("other").run("r").result().status)
    assert ["asking", "line"] == [run.workflow_id for name in ("acme", "other") for run in of(name).list_runs()]
    assert (1, 0) == (len(of("acme").waits().items), len(of("other").waits().items))
    assert [] == harness.app.list_runs().items
    with pytest.raises(RunNotFound):
        harness.result("r")
    with pytest.raises(RunExists):
        of("acme").workflow("line").create_run("r").start(1)
    of("acme").run("r").delete()
    assert 3 == of("other").run("r").result().output


# -- streaming --------------------------------------------------------------------------------------------------------


@behaviour(230, "whoever watches a run is told start, each step's start and result, and the end, in this order")
def test_230_events_in_order(harness: Harness) -> None:
    """Each once, by growing offsets; the events read afterwards are the same."""
    run = harness.serve(LINE).app.workflow("line").create_run("r")
    run.start(1)
    watched = list(run.watch())
    assert [
        ("run-started", None),
        ("step-started", "increment"),
        ("step-finished", "increment"),
        ("step-started", "again"),
        ("step-finished", "again"),
        ("run-finished", None),
    ] == told(watched)
    assert [2, 3] == [event.data["output"] for event in watched if event.type == "step-finished"]
    offsets = [event.offset for event in watched]
    assert sorted(set(offsets)) == offsets
    assert watched == harness.run("r").events()


@differs(
    231,
    "a stream of a run that suspends is closed, or on demand kept open",
    "watch() ends there: an answer may take months; a later watch(after=) goes on where it ended",
)
def test_231_watching_ends_at_a_suspension(harness: Harness) -> None:
    """It tells the suspension; watching again tells nothing else."""
    harness.serve(ASKING).start(1)
    watched = list(harness.run().watch())
    assert [("step-suspended", "ask"), ("run-suspended", None)] == told(watched)[-2:]
    assert [] == list(harness.run().watch(after=watched[-1].offset))


@behaviour(232, "watching goes on behind the suspension after an answer")
def test_232_watching_goes_on(harness: Harness) -> None:
    """In another process, with nothing but the last offset; nothing is told twice."""
    harness.serve(ASKING).start(1)
    last = list(harness.run().watch())[-1].offset
    harness.another_process().resume(harness.run_id, 10)
    assert [
        ("step-resumed", "ask"),
        ("step-progress", "ask"),
        ("step-finished", "ask"),
        ("step-started", "again"),
        ("step-finished", "again"),
        ("run-finished", None),
    ] == told(harness.another_process().run(harness.run_id).watch(after=last))


@behaviour(233, "what a step tells by itself arrives unchanged, from nested workflows and after an answer too")
def test_233_data_of_ones_own(harness: Harness) -> None:
    """In the order in which it is told."""
    harness.serve(workflow("w", input=int).then(ASKING)).start(1)
    harness.resume(10)
    progress = [(event.step, event.data) for event in harness.run().watch() if event.type == "step-progress"]
    assert [("asking.ask", {"asking": [2, None, 0.5]}), ("asking.ask", "thanks")] == progress


@behaviour(234, "the result behind a watched run is the one that start() gives")
def test_234_result_of_a_watched_run(harness: Harness) -> None:
    """As is what the last event says of it."""
    run = harness.serve(LINE).app.workflow("line").create_run("r")
    run.start(1)
    last = list(run.watch())[-1]
    assert {"status": "success", "output": 3, "error": None} == last.data
    watched, plain = run.result(), harness.start(1, run_id="plain")
    assert (plain.status, plain.output, plain.input) == (watched.status, watched.output, watched.input)
    assert plain.steps.keys() == watched.steps.keys()
    assert watched == harness.result("r")


class HttpError(Exception):
    """An error with a property of its own."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


@behaviour(235, "the details of an error are told to whoever watches")
def test_235_details_of_an_error(harness: Harness) -> None:
    """Type, message, properties, cause and step: those of the result."""

    @step
    def calling(_: Any) -> Any:
        try:
            raise ConnectionResetError("reset by peer")
        except ConnectionResetError as error:
            raise HttpError("bad gateway", 502) from error

    result = harness.serve(workflow("w").then(calling)).start(1)
    failed, finished = list(harness.run().watch())[-2:]
    assert ("step-failed", "run-finished") == (failed.type, finished.type)
    assert result.error is not None
    for error in (failed.data["error"], finished.data["error"]):
        assert ("HttpError", "bad gateway", "calling") == (error["type"], error["message"], error["step"])
        assert 502 == error["properties"]["status_code"] == result.error.properties["status_code"]
        assert ("ConnectionResetError", "reset by peer") == (error["cause"]["type"], error["cause"]["message"])
