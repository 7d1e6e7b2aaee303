"""What is wrong with runs, and that healthy ones are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue
from flowcore.core.health import OVERDUE, findings, findings_of_child
from flowcore.fanout.children import open_children
from flowcore.keys import RunRef, StepKey
from flowcore.model import Fan, Head, Outcome, Part, RunStatus
from flowcore.ops import doctor
from flowcore.testing import LocalApp, VirtualClock
from tests.builders import LATER, NOW, a_graph, a_head, a_record, a_run, a_step

GRAPH = a_graph(lambda w: w.then(a_step("ask")).then(a_step("pay")))
OPEN = a_record("ask", Outcome.SUSP)
RESTING: dict[str, Any] = {"owner": None, "lease_until": None, "attempts": 0, "definition": GRAPH.fingerprint}
SUSPENDED = {**RESTING, "status": RunStatus.SUSPENDED, "due": None}

ILL: dict[str, tuple[list[Any], dict[str, Any], list[str]]] = {
    "nobody would look again": ([], {**RESTING, "status": RunStatus.QUEUED, "due": None}, ["lost"]),
    "nor at a deadline": ([OPEN], {**SUSPENDED, "wake": LATER}, ["lost"]),
    "nobody can answer": ([a_record("ask"), a_record("pay")], SUSPENDED, ["mute", "idle"]),
    "nobody came": ([], {"due": NOW - OVERDUE - timedelta(seconds=1)}, ["overdue"]),
    "hooks that nobody called": (
        [],
        {**RESTING, "status": RunStatus.FAILED, "outbox": ("on_error",), "due": NOW - timedelta(hours=1)},
        ["overdue"],
    ),
    "workers die of it": ([], {"attempts": 3}, ["deadly"]),
    "blocked": ([], {**RESTING, "status": RunStatus.BLOCKED, "due": None, "blocked": "a step is gone"}, ["blocked"]),
    "another definition that fits": ([OPEN], {**SUSPENDED, "definition": "d-0"}, []),
    "another definition that does not": (
        [a_record("gone"), OPEN],
        {**SUSPENDED, "definition": "d-0"},
        ["definition-changed"],
    ),
    "well, and driven": ([], {}, []),
    "well, and a little late": ([], {"due": NOW - OVERDUE}, []),
    "well, and suspended": ([OPEN], SUSPENDED, []),
    "well, and suspended until then": ([OPEN], {**SUSPENDED, "wake": LATER, "due": LATER}, []),
    "well, and paused": ([OPEN], {**RESTING, "status": RunStatus.PAUSED, "due": None}, []),
    "ended": ([], {**RESTING, "status": RunStatus.CANCELED, "due": None, "definition": "d-0"}, []),
}


@pytest.mark.parametrize(("records", "head", "expected"), ILL.values(), ids=ILL)
def test_each_ailment_is_found_and_nothing_else(records: list[Any], head: dict[str, Any], expected: list[str]) -> None:
    """By the head, the records and the code."""
    run = a_run(*records, **{"definition": GRAPH.fingerprint, **head})
    assert expected == [finding.ailment for finding in findings(GRAPH, run, NOW)]


def test_something_to_do_beside_a_question_is_found() -> None:
    """Somebody can answer; until he does, nobody would do the rest."""
    graph = a_graph(lambda w: w.parallel(a_step("ask"), a_step("pay")))
    run = a_run(OPEN, **{**SUSPENDED, "definition": graph.fingerprint})
    assert ["idle"] == [finding.ailment for finding in findings(graph, run, NOW)]


def test_a_run_of_a_workflow_that_is_not_served() -> None:
    """Is named with what to do."""
    (found,) = findings(None, a_run(OPEN, **SUSPENDED), NOW)
    assert ("r-1", "flow", "not-served") == (found.run_id, found.workflow_id, found.ailment)
    assert "deploy it again" in found.detail


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value + ctx.resume_data


def flow(id: str, build: Callable[[Any], Any]) -> Any:
    """A workflow that begins with the question."""
    return build(workflow(id, input=int).then(ask)).commit()


CHILD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nobody would look again": ({**RESTING, "status": RunStatus.QUEUED, "due": None}, ["lost"]),
    "blocked": ({**RESTING, "status": RunStatus.BLOCKED, "due": None, "blocked": "a step is gone"}, ["blocked"]),
    "nobody came, and workers die of it": ({"due": NOW - timedelta(hours=1), "attempts": 3}, ["overdue", "deadly"]),
    "well, and driven": ({}, []),
    "well, and suspended": (SUSPENDED, []),
    "well, and nobody's child": ({"part": None, "due": NOW - timedelta(hours=1)}, []),
}


@pytest.mark.parametrize(("head", "expected"), CHILD.values(), ids=CHILD)
def test_each_ailment_of_a_child_is_told_of_its_run(head: dict[str, Any], expected: list[str]) -> None:
    """By its head alone, with the items that it sees to."""
    part = Part(run="part-1", key=StepKey("outer[1]/fan"), first=4, stop=6, top="r-7")
    found = list(findings_of_child(a_head(**{"part": part, **head}), NOW))
    assert [("r-7", ailment) for ailment in expected] == [(one.run_id, one.ailment) for one in found]
    assert all("items 4 to 5 of 'outer[1].fan'" in one.detail for one in found)


def test_doctor_sees_what_holds_up_a_child() -> None:
    """Nobody comes to it; and a child's child is seen, too. The run itself waits in good health."""
    inner = workflow("inner", input=list[int]).foreach(ask, id="deep", distributed=True).commit()
    outer = workflow("outer", input=list[list[int]]).foreach(inner, id="fan", distributed=True).commit()
    clock = VirtualClock()
    app = LocalApp(App(outer), clock=clock, queue=MemoryQueue(clock))
    app.workflow("outer").create_run("r").start([[1]])
    app.deliver("r")
    assert [] == list(doctor(app))
    [child] = open_children(app.engine, app.engine.peek(RunRef("default", "r")))
    app.look(child.run)
    app.deliver("r")
    clock.forward(minutes=7.5)
    [found] = doctor(app)
    assert ("r", "overdue") == (found.run_id, found.ailment)
    assert found.detail.startswith("item 0 of 'fan[0].deep', in child")
    app.run_until_idle()
    assert ("suspended", []) == (app.run("r").result().status, list(doctor(app)))


@pytest.mark.parametrize(("asking", "expected"), [({1}, []), (set(), ["mute"])])
def test_a_run_whose_items_ask_is_not_mute(asking: set[int], expected: list[str]) -> None:
    """Its own records do not show it; the joins do."""
    graph = a_graph(lambda w: w.foreach(a_step("x"), id="fan", distributed=True))
    opened = a_record("fan", Outcome.START, count=3, output={"shard": 1})
    run = a_run(opened, **{**SUSPENDED, "definition": graph.fingerprint})
    fan = Fan(total=3, shard=1, done=frozenset({0, 2}), parked=frozenset(asking), asking=frozenset(asking))
    told = findings(graph, replace(run, fans={StepKey("fan"): fan}), NOW)
    assert expected == [finding.ailment for finding in told]


def test_doctor_says_which_waiting_runs_a_deploy_would_stop() -> None:
    """More runs than one page; those of other workflows, and those that have ended, are in peace."""
    now = LocalApp(App(flow("a", lambda w: w.then(a_step("pay"))), flow("b", lambda w: w)))
    for number in range(120):
        now.workflow("a").create_run(f"a-{number}").start(number)
    now.run("a-7").resume(1)
    now.workflow("b").create_run("b-1").start(1)
    assert [] == list(doctor(now))

    renamed = workflow("a", input=int).then(ask, id="renamed").commit()
    then = LocalApp(App(renamed, flow("b", lambda w: w)), store=now.store, clock=now.clock)
    found = list(doctor(then))
    assert {"definition-changed"} == {finding.ailment for finding in found}
    assert {f"a-{number}" for number in range(120)} - {"a-7"} == {finding.run_id for finding in found}
    assert all("'ask'" in finding.detail for finding in found)
    assert [] == list(doctor(then, workflow="b"))


def test_doctor_sees_that_nobody_comes() -> None:
    """As when the sweeper and the workers are down."""
    app = LocalApp(App(flow("a", lambda w: w.sleep(timedelta(hours=1)).then(a_step("pay")))))
    run = app.workflow("a").create_run("r")
    run.start(1)
    run.resume(1)
    app.clock.forward(hours=3)
    assert ["overdue"] == [finding.ailment for finding in doctor(app)]
    app.run_until_idle()
    assert [] == list(doctor(app))


def test_doctor_finds_a_head_that_was_broken_by_hand() -> None:
    """Whoever wrote it."""
    app = LocalApp(App(flow("a", lambda w: w)))
    app.workflow("a").create_run("r").start(1)
    ref = RunRef("default", "r")
    head = app.store.peek(ref)
    assert isinstance(head, Head)
    app.store.move(replace(head, status=RunStatus.WAITING, version=head.version + 1), version=head.version)
    assert ["lost"] == [finding.ailment for finding in doctor(app)]
