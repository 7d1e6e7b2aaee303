"""Finding runs again: by tag, by status, by time; how many there are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.errors import InvalidPayload, MalformedRequest
from flowcore.testing import LocalApp
from flowcore.tracing import MOST_TAGS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    if number < 0:
        raise ValueError(number)
    if ctx.resume_data is None:
        ctx.suspend()
    return number + ctx.resume_data


ASKING = workflow("asking", input=int, output=int).then(ask).commit()
OTHER = workflow("other", input=int, output=int).then(ask).commit()


@pytest.fixture
def app() -> LocalApp:
    """Two workflows, no run."""
    return LocalApp(App(ASKING, OTHER))


def found(app: LocalApp, **wanted: Any) -> list[str]:
    """Ids of the runs that a listing finds."""
    return [run.run_id for run in app.list_runs(**wanted)]


def test_tags_of_create_run_and_of_tracing_are_one_set(app: LocalApp) -> None:
    """In the order they came; the result and the listing show them."""
    run = app.workflow("asking").create_run("r-1", tags=["eu", "gold"])
    result = run.start(1, tracing={"tags": ["gold", "checkout"]})
    assert ["eu", "gold", "checkout"] == result.tags
    (summary,) = app.list_runs()
    assert ("eu", "gold", "checkout") == summary.tags


def test_runs_are_found_by_each_of_their_tags(app: LocalApp) -> None:
    """By one, or by several that they must all have; never by a part of one."""
    for id, tags in (("a", ["eu"]), ("b", ["eu", "gold"]), ("c", ["europe"]), ("d", [])):
        app.workflow("asking").create_run(id, tags=tags).start(1)
    assert ["b", "a"] == found(app, tag="eu")
    assert ["b"] == found(app, tag=["gold", "eu"])
    assert [] == found(app, tag="e")


def test_tags_stay_for_life(app: LocalApp) -> None:
    """Through a resume with tags of its own, to the end."""
    app.workflow("asking").create_run("a", tags=["eu"]).start(1)
    app.resume("a", 2)
    assert ["a"] == found(app, tag="eu", status="success")


@pytest.mark.parametrize(
    "tags", [[""], ["x" * 65], ["a\nb"], ["a,b"], [f"t{number}" for number in range(MOST_TAGS + 1)], "loose", [7]]
)
def test_bad_tags_are_refused(app: LocalApp, tags: Any) -> None:
    """Before anything is written, with the reason."""
    with pytest.raises(InvalidPayload, match="tags"):
        app.workflow("asking").create_run("a", tags=tags)
    with pytest.raises(InvalidPayload, match="tags"):
        app.workflow("asking").create_run("a").start(1, tracing={"tags": tags})
    assert [] == found(app)


def test_too_many_tags_together_are_refused(app: LocalApp) -> None:
    """Each place for itself would be within bounds."""
    run = app.workflow("asking").create_run("a", tags=[f"a{number}" for number in range(6)])
    with pytest.raises(InvalidPayload, match="12 tags"):
        run.start(1, tracing={"tags": [f"b{number}" for number in range(6)]})


def test_result_knows_the_trace_it_was_started_in(app: LocalApp) -> None:
    """The given id, also after a resume that goes on under another."""
    run = app.workflow("asking").create_run("a")
    assert TRACE == run.start(1, tracing={"trace_id": TRACE, "parent_span_id": "00f067aa0ba902b7"}).trace_id
    assert TRACE == app.resume("a", 1, tracing={"trace_id": "f" * 32}).trace_id
    assert TRACE == run.result().trace_id


@pytest.mark.parametrize(
    ("tracing", "path"),
    [
        ({"trace_id": "abc"}, "trace_id"),
        ({"trace_id": "0" * 32}, "trace_id"),
        ({"trace_id": "g" * 32}, "trace_id"),
        ({"trace_id": TRACE, "parent_span_id": TRACE}, "parent_span_id"),
        ({"parent_span_id": "00f067aa0ba902b7"}, "trace_id"),
        ({"traceId": TRACE}, "traceId"),
        ({"metadata": {"x": "y" * 5000}}, "metadata"),
        ({"request_context_keys": [f"k{number}" for number in range(21)]}, "request_context_keys"),
    ],
)
def test_bad_tracing_is_refused(app: LocalApp, tracing: Any, path: str) -> None:
    """On start and on resume, naming the key; the run is untouched."""
    app.workflow("asking").create_run("a").start(1)
    with pytest.raises(InvalidPayload) as started:
        app.workflow("asking").create_run("b").start(1, tracing=tracing)
    with pytest.raises(InvalidPayload) as resumed:
        app.resume("a", 1, tracing=tracing)
    assert path == started.value.errors[0]["path"] == resumed.value.errors[0]["path"]
    assert [("a", "suspended")] == [(run.run_id, run.status) for run in app.list_runs()]


def test_several_statuses_at_once(app: LocalApp) -> None:
    """Any of them."""
    for id, number in (("a", 1), ("b", -1), ("c", 2)):
        app.workflow("asking").create_run(id).start(number)
    app.resume("c", 1)
    assert ["c", "b"] == found(app, status=["success", "failed"])
    assert ["a"] == found(app, status="suspended")


def test_an_unknown_status_is_refused(app: LocalApp) -> None:
    """It would find nothing for ever."""
    with pytest.raises(MalformedRequest, match=r"'sleeping' is no status.*pending"):
        app.list_runs(status="sleeping")  # type: ignore[arg-type]  # what a caller without a type checker may write


def test_a_time_without_zone_is_refused(app: LocalApp) -> None:
    """Whose noon would it be?"""
    with pytest.raises(MalformedRequest, match="time zone"):
        app.list_runs(since=datetime(2026, 1, 1))  # noqa: DTZ001  # that is the fact


def test_counts_by_status(app: LocalApp) -> None:
    """Every status is there; filters as in a listing."""
    for id, number, flow in (("a", 1, "asking"), ("b", -1, "asking"), ("c", 2, "other"), ("d", 3, "other")):
        app.workflow(flow).create_run(id, tags=["eu"] if id == "d" else []).start(number)
        app.advance(timedelta(minutes=1))
    app.resume("d", 1)
    assert {"suspended": 2, "failed": 1, "success": 1} == {s: n for s, n in app.counts().items() if n}
    assert 8 == len(app.counts())
    assert {"suspended": 1, "success": 1} == {s: n for s, n in app.counts(workflow="other").items() if n}
    assert {"success": 1} == {s: n for s, n in app.counts(tag="eu").items() if n}
    since = app.clock.now() - timedelta(minutes=2)
    assert 2 == sum(app.counts(since=since).values())


def inbox(app: LocalApp, **wanted: Any) -> list[str]:
    """Runs whose suspensions the inbox shows, in its order."""
    return [wait.run_id for wait in app.waits(**wanted)]


@step
def ask_soon(number: int, ctx: StepContext[int]) -> int:
    """Asks its boss within a day times the number."""
    if ctx.resume_data is None:
        ctx.suspend(label=f"boss-{number}", timeout=timedelta(days=number))
    return number + ctx.resume_data


SOON = workflow("soon", input=int, output=int).then(ask_soon).commit()
NAPPING = workflow("napping", input=int).parallel(ask, workflow("nap", input=int).sleep(timedelta(days=9)).commit())


@pytest.fixture
def busy() -> LocalApp:
    """Open suspensions of four runs, in the order of their ids; one run has ended, one only sleeps."""
    app = LocalApp(
        App(ASKING, SOON, NAPPING.commit(), workflow("sleeping", input=int).sleep(timedelta(days=9)).commit())
    )
    for id, flow, number in (("a", "soon", 3), ("b", "napping", 1), ("c", "soon", 1), ("d", "asking", 1)):
        app.workflow(flow).create_run(id, resource_id=f"of-{id}", tags=[flow]).start(number)
        app.advance(minutes=1)
    app.workflow("sleeping").create_run("s").start(1)
    app.workflow("asking").create_run("e").start(1)
    app.resume("e", 1)
    return app


def test_inbox_shows_the_oldest_first(busy: LocalApp) -> None:
    """Also of a run that sleeps elsewhere; none of an ended one, none of one that only sleeps."""
    assert ["a", "b", "c", "d"] == inbox(busy)
    busy.cancel("b")
    busy.resume("c", 1)
    assert ["a", "d"] == inbox(busy)


def test_inbox_reads_no_run_without_a_suspension(busy: LocalApp) -> None:
    """The index says which have one."""
    loads: list[Any] = []
    load = busy.engine.store.load

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(busy.store, name)

        def load(self, run: Any, *args: Any, **options: Any) -> Any:
            loads.append(run.id)
            return load(run, *args, **options)

    busy.engine.store = Counting()
    assert ["a", "b", "c", "d"] == inbox(busy)
    assert ["a", "b", "c", "d"] == loads


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"workflow": "soon"}, ["a", "c"]),
        ({"resource_id": "of-b"}, ["b"]),
        ({"tag": "asking"}, ["d"]),
        ({"label": "boss-1"}, ["c"]),
        ({"label": "nobody"}, []),
    ],
)
def test_inbox_is_filtered(busy: LocalApp, wanted: Any, expected: list[str]) -> None:
    """By what the run is, and by the suspension's label."""
    assert expected == inbox(busy, **wanted)


def test_inbox_by_deadline(busy: LocalApp) -> None:
    """Only what has one, and before."""
    now = busy.clock.now()
    assert ["c"] == inbox(busy, due_before=now + timedelta(days=2))
    assert ["a", "c"] == inbox(busy, due_before=now + timedelta(days=4))
    with pytest.raises(MalformedRequest, match="time zone"):
        busy.waits(due_before=datetime(2026, 1, 1))  # noqa: DTZ001  # that is the fact


def test_inbox_keeps_what_an_operator_paused(busy: LocalApp) -> None:
    """Its answer is stored until the run goes on; an answer given meanwhile takes it out."""
    busy.run("d").pause()
    assert ["a", "b", "c", "d"] == inbox(busy)
    busy.resume("d", 1)
    assert ["a", "b", "c"] == inbox(busy)


def test_inbox_refuses_a_page_of_nothing(busy: LocalApp) -> None:
    """At least one run."""
    with pytest.raises(MalformedRequest, match="limit=0"):
        busy.waits(limit=0)
