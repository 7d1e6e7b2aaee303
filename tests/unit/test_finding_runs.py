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
