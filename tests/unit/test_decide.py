"""What comes next, for each kind of node and each fact that can be known about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from flowcore import otherwise
from flowcore.authoring.graph import Graph
from flowcore.core import decide as module
from flowcore.core.actions import LIVE, Broken, Decision, Done, Ended, Finish, Leave, Park, Run
from flowcore.core.decide import MOST_AT_ONCE, Passed, decide
from flowcore.errors import InvariantError
from flowcore.keys import StepKey, item_of
from flowcore.model import Outcome, RunStatus, StepRecord
from tests.builders import BROKEN, LATER, NOW, a_graph, a_record, a_run, a_started, a_step, a_workflow

OK, ERR, BAIL, SKIP = Outcome.OK, Outcome.ERR, Outcome.BAIL, Outcome.SKIP
SUSP, RESU, SLP, RETRY, START = Outcome.SUSP, Outcome.RESU, Outcome.SLP, Outcome.RETRY, Outcome.START

AFTER = a_step("after")
P, Q = a_step("p"), a_step("q")
CHILD = a_workflow(lambda w: w.then(a_step("c")).then(a_step("d")), "child")
Told: TypeAlias = tuple[Any, ...]


def a_flow(build: Callable[[Any], Any]) -> Graph:
    """What ``build`` makes, then the step ``after``."""
    return a_graph(lambda w: build(w).then(AFTER))


X = StepKey("x")
GRAPHS = {
    "step": a_flow(lambda w: w.then(a_step("x"))),
    "map": a_flow(lambda w: w.map(lambda value: value, id="x")),
    "sleep": a_flow(lambda w: w.sleep(timedelta(hours=1), id="x")),
    "event": a_flow(lambda w: w.wait_for_event("paid", key="k", id="x")),
    "parallel": a_flow(lambda w: w.parallel(P, Q)),
    "branch": a_flow(lambda w: w.branch((lambda value: value, P), (otherwise, Q), id="x")),
    "nested": a_flow(lambda w: w.then(CHILD)),
    "loop": a_flow(lambda w: w.dountil(a_step("x"), lambda value: value)),
    "nested loop": a_flow(lambda w: w.dountil(CHILD, lambda value: value)),
    "foreach": a_flow(lambda w: w.foreach(a_step("x"), concurrency=2)),
    "nested foreach": a_flow(lambda w: w.foreach(CHILD)),
    "arm": a_flow(lambda w: w.parallel(P, CHILD)),
}


def told(decision: Decision) -> Told:
    """A decision in a few words: what is asked for, with which value; or the pause; or the end."""
    match decision:
        case Run(actions):
            return tuple(
                (type(a).__name__, str(a.place.key), getattr(a, "value", getattr(a, "result", None))) for a in actions
            )
        case Park(status, wake, retry):
            return (status.value, wake, retry)
        case Finish(result):
            return ("failed", result.failure.type) if isinstance(result, Broken) else ("done", result.value)


def run_step(key: str, value: Any) -> Told:
    """A call of a step, as ``told``."""
    return ("RunStep", key, value)


ONWARDS = (run_step("after", 5),)
"""The next node was reached with the output that the records here have."""
PASSED_BY = (run_step("after", 1),)
"""The next node was reached with the value that went in."""
SUSPENDED = ("SUSPENDED", None, None)
WAITING = ("WAITING", LATER, LATER)
ASLEEP = ("WAITING", LATER, None)
FAILED = ("failed", "ValueError")
OTHER = a_record("q", ERR, failure=BROKEN.__class__(type="OtherError", message="also broken"))


def x(outcome: Outcome, **changes: Any) -> StepRecord:
    """The record at ``x``; what has an output has 5."""
    return a_record("x", outcome, **{"output": 5 if outcome in (OK, BAIL) else None, **changes})


ROWS: list[tuple[str, list[StepRecord], Told]] = [
    ("step", [], (run_step("x", 1),)),
    ("step", [x(OK)], ONWARDS),
    ("step", [x(OK, output=None)], (run_step("after", None),)),
    ("step", [x(OK), a_record("after", output=6)], ("done", 6)),
    ("step", [x(ERR)], FAILED),
    ("step", [x(BAIL)], ("done", 5)),
    ("step", [x(SKIP)], PASSED_BY),
    ("step", [x(SUSP)], SUSPENDED),
    ("step", [x(SUSP, until=LATER)], ("SUSPENDED", LATER, None)),
    ("step", [x(SUSP, until=NOW)], (("TimeOut", "x", None),)),
    ("step", [x(RESU)], (run_step("x", 1),)),
    ("step", [x(RETRY, until=LATER)], WAITING),
    ("step", [x(RETRY, until=NOW)], (run_step("x", 1),)),
    ("step", [x(START)], (run_step("x", 1),)),
    ("step", [x(START, epoch=0)], (("Doubt", "x", None),)),
    ("step", [x(START, given=(7,))], (run_step("x", 7),)),
    ("map", [], (("Evaluate", "x", 1),)),
    ("map", [x(OK)], ONWARDS),
    ("map", [x(ERR)], FAILED),
    ("map", [x(SKIP)], PASSED_BY),
    ("sleep", [], (("Evaluate", "x", 1),)),
    ("sleep", [x(SLP, until=LATER)], ASLEEP),
    ("sleep", [x(SLP, until=NOW)], PASSED_BY),
    ("sleep", [x(ERR)], FAILED),
    ("sleep", [x(SKIP)], PASSED_BY),
    ("event", [], (("Evaluate", "x", 1),)),
    ("event", [x(SUSP)], SUSPENDED),
    ("event", [x(SUSP, until=LATER)], ("SUSPENDED", LATER, None)),
    ("event", [x(SUSP, until=NOW)], (("TimeOut", "x", None),)),
    ("event", [x(OK)], ONWARDS),
    ("event", [x(ERR)], FAILED),
    ("event", [x(SKIP)], PASSED_BY),
    ("parallel", [], (run_step("p", 1), run_step("q", 1))),
    ("parallel", [a_record("p")], (run_step("q", 1),)),
    ("parallel", [a_record("p", output=2), a_record("q", output=3)], (run_step("after", {"p": 2, "q": 3}),)),
    ("parallel", [a_record("p", SKIP), a_record("q", SKIP)], (run_step("after", {"p": 1, "q": 1}),)),
    ("parallel", [a_record("p", BAIL, output=2), a_record("q", output=3)], (run_step("after", {"p": 2, "q": 3}),)),
    ("parallel", [a_record("p", ERR)], (run_step("q", 1),)),
    ("parallel", [a_record("p", ERR), a_record("q", RETRY, until=LATER)], WAITING),
    ("parallel", [a_record("p", ERR), a_record("q", SUSP)], FAILED),
    ("parallel", [a_record("p", SUSP), OTHER], ("failed", "OtherError")),
    ("parallel", [OTHER, a_record("p", ERR)], FAILED),
    ("parallel", [a_record("p", ERR), a_record("q")], FAILED),
    ("parallel", [a_record("p", SUSP), a_record("q")], SUSPENDED),
    ("parallel", [a_record("p", SUSP)], (run_step("q", 1),)),
    ("parallel", [a_record("p", SUSP), a_record("q", RETRY, until=LATER)], WAITING),
    ("parallel", [a_record("p", SUSP, until=LATER), a_record("q", SUSP)], ("SUSPENDED", LATER, None)),
    (
        "parallel",
        [a_record("p", SUSP, until=LATER), a_record("q", SUSP, until=LATER - timedelta(1 / 48))],
        ("SUSPENDED", LATER - timedelta(1 / 48), None),
    ),
    ("branch", [], (("Evaluate", "x", 1),)),
    ("branch", [x(OK, output=["p"])], (run_step("p", 1),)),
    ("branch", [x(OK, output=["p", "q"])], (run_step("p", 1), run_step("q", 1))),
    ("branch", [x(OK, output=[])], (run_step("after", {}),)),
    ("branch", [x(OK, output=["q"]), a_record("q", output=3)], (run_step("after", {"q": 3}),)),
    ("branch", [x(OK, output=["p", "q"]), OTHER], (run_step("p", 1),)),
    ("branch", [x(OK, output=["p", "q"]), OTHER, a_record("p", SUSP)], ("failed", "OtherError")),
    ("branch", [x(OK, output=["p"]), a_record("p", BAIL, output=5)], (run_step("after", {"p": 5}),)),
    ("branch", [x(ERR)], FAILED),
    ("branch", [x(SKIP)], PASSED_BY),
    ("nested", [], (("Enter", "child", 1),)),
    ("nested", [a_started("child", output=9)], (run_step("child/c", 9),)),
    ("nested", [a_started("child"), a_record("child/c", output=2)], (run_step("child/d", 2),)),
    ("nested", [a_started("child"), a_record("child/c", SUSP)], SUSPENDED),
    ("nested", [a_started("child"), a_record("child/c", RETRY, until=LATER)], WAITING),
    ("nested", [a_started("child"), a_record("child/c", BAIL, output=2)], (("Leave", "child", Ended(2)),)),
    ("nested", [a_started("child"), a_record("child/c", ERR)], (("Leave", "child", Broken(BROKEN)),)),
    (
        "nested",
        [a_started("child"), a_record("child/c"), a_record("child/d", output=3)],
        (("Leave", "child", Done(3)),),
    ),
    ("nested", [a_record("child", output=5)], ONWARDS),
    ("nested", [a_record("child", ERR)], FAILED),
    ("nested", [a_record("child", SKIP)], PASSED_BY),
    ("loop", [], (("Enter", "x", 1),)),
    ("loop", [a_started("x", count=1, output=3)], (run_step("x#1", 3),)),
    ("loop", [a_started("x", count=2, output=3)], (run_step("x#2", 3),)),
    ("loop", [a_started("x", count=2), a_record("x#2", output=4)], (("Advance", "x", 4),)),
    ("loop", [a_started("x", count=2), a_record("x#2", SKIP)], (("Advance", "x", None),)),
    ("loop", [a_started("x", count=1), a_record("x#1", SUSP)], SUSPENDED),
    ("loop", [a_started("x", count=1), a_record("x#1", RETRY, until=LATER)], WAITING),
    ("loop", [a_started("x", count=1), a_record("x#1", ERR)], (("Leave", "x", Broken(BROKEN)),)),
    ("loop", [a_started("x", count=1), a_record("x#1", BAIL, output=5)], (("Leave", "x", Ended(5)),)),
    ("loop", [x(BAIL)], ("done", 5)),
    ("loop", [x(OK)], ONWARDS),
    ("loop", [x(ERR)], FAILED),
    ("loop", [x(SKIP)], PASSED_BY),
    ("nested loop", [a_started("child", count=1, output=3)], (("Enter", "child#1", 3),)),
    ("nested loop", [a_started("child", count=1), a_started("child#1", output=3)], (run_step("child#1/c", 3),)),
    (
        "nested loop",
        [a_started("child", count=1), a_started("child#1"), a_record("child#1/c", BAIL, output=2)],
        (("Leave", "child#1", Ended(2)),),
    ),
]


@pytest.mark.parametrize(("name", "records", "expected"), ROWS)
def test_decide_answers_each_fact(name: str, records: list[StepRecord], expected: Told) -> None:
    """A kind of node and what is known about it, to what comes next."""
    assert expected == told(decide(GRAPHS[name], a_run(*records), NOW))


def fan(*items: StepRecord, count: int | None = 2) -> list[StepRecord]:
    """An open foreach with these items."""
    return [a_started("x", count=count), *items]


LIST = [7, None, 9]
ITEMS: list[tuple[str, Any, list[StepRecord], Told]] = [
    ("foreach", LIST, [], (("Enter", "x", LIST),)),
    ("foreach", LIST, fan(), (run_step("x[0]", 7), run_step("x[1]", None))),
    ("foreach", LIST, fan(count=None), (run_step("x[0]", 7),)),
    ("foreach", LIST, fan(count=9), tuple(run_step(f"x[{i}]", item) for i, item in enumerate(LIST))),
    ("foreach", LIST, fan(a_record("x[0]")), (run_step("x[1]", None), run_step("x[2]", 9))),
    ("foreach", LIST, fan(a_record("x[0]", SKIP)), (run_step("x[1]", None), run_step("x[2]", 9))),
    ("foreach", LIST, fan(a_record("x[0]", SUSP)), (run_step("x[1]", None),)),
    ("foreach", LIST, fan(a_record("x[0]", SUSP), a_record("x[1]")), (run_step("x[2]", 9),)),
    ("foreach", LIST, fan(a_record("x[0]", SUSP), count=1), SUSPENDED),
    ("foreach", LIST, fan(a_record("x[0]", RETRY, until=LATER), count=1), WAITING),
    ("foreach", LIST, fan(a_record("x[0]", SUSP), a_record("x[1]", RETRY, until=LATER)), WAITING),
    ("foreach", LIST, fan(a_record("x[0]", ERR), count=1), (("Leave", "x", Broken(BROKEN)),)),
    ("foreach", LIST, fan(a_record("x[0]", SUSP), a_record("x[1]", ERR)), (("Leave", "x", Broken(BROKEN)),)),
    ("foreach", LIST, fan(a_record("x[0]", RETRY, until=LATER), a_record("x[1]", ERR)), WAITING),
    ("foreach", LIST, fan(a_record("x[0]", BAIL, output=5), count=1), (("Leave", "x", Ended(5)),)),
    ("foreach", LIST, fan(a_record("x[0]", SUSP), a_record("x[1]", BAIL, output=5)), (("Leave", "x", Ended(5)),)),
    ("foreach", LIST, [x(BAIL)], ("done", 5)),
    ("foreach", LIST, fan(a_record("x[0]", RETRY, until=LATER), a_record("x[1]", BAIL)), WAITING),
    (
        "foreach",
        LIST,
        fan(a_record("x[1]", output=2), a_record("x[0]", output=1), a_record("x[2]", output=3)),
        (("Leave", "x", Done([1, 2, 3])),),
    ),
    ("foreach", [], fan(), (("Leave", "x", Done([])),)),
    ("foreach", LIST, [x(OK)], ONWARDS),
    ("foreach", LIST, [x(ERR)], FAILED),
    ("foreach", LIST, [x(SKIP)], (run_step("after", LIST),)),
    ("nested foreach", [7], [a_started("child", count=1)], (("Enter", "child[0]", 7),)),
    (
        "nested foreach",
        [7],
        [a_started("child", count=1), a_started("child[0]", output=7), a_record("child[0]/c", BAIL, output=2)],
        (("Leave", "child[0]", Ended(2)),),
    ),
]


@pytest.mark.parametrize(("name", "items", "records", "expected"), ITEMS)
def test_decide_keeps_the_slots_of_a_foreach(
    name: str, items: list[Any], records: list[StepRecord], expected: Told
) -> None:
    """At most ``count`` items are open; live beats the first failure, which beats suspended, which beats done."""
    assert expected == told(decide(GRAPHS[name], a_run(*records, input=items), NOW))


def test_a_bail_in_a_nested_arm_ends_only_the_nested_workflow() -> None:
    """The sibling goes on, and the child is left with what it bailed out with."""
    run = a_run(a_record("p", SUSP), a_started("child"), a_record("child/c", BAIL, output=2))
    assert (("Leave", "child", Ended(2)),) == told(decide(GRAPHS["arm"], run, NOW))


@pytest.mark.parametrize(
    ("name", "items", "records"), [(n, 1, r) for n, r, _ in ROWS] + [(n, items, r) for n, items, r, _ in ITEMS]
)
def test_a_memo_makes_no_difference(name: str, items: Any, records: list[StepRecord]) -> None:
    """Whoever saw the records come one by one decides as one who sees them all at once."""
    passed = Passed()
    runs = [a_run(*records[:count], input=items) for count in range(len(records) + 1)]
    seen = [told(decide(GRAPHS[name], run, NOW, passed)) for run in runs]
    assert seen == [told(decide(GRAPHS[name], run, NOW)) for run in runs]


FOLLOWING: dict[Outcome | None, list[dict[str, Any]]] = {
    None: [{"outcome": OK}, {"outcome": SUSP}, {"outcome": SUSP, "until": 1}, {"outcome": RETRY, "until": 2}],
    SUSP: [{"outcome": RESU}],
    RESU: [{"outcome": OK}, {"outcome": SUSP, "until": 3}],
    RETRY: [{"outcome": OK}, {"outcome": SUSP}, {"outcome": RETRY, "until": 1}],
}


@pytest.mark.parametrize("seed", range(40))
def test_a_memo_of_items_makes_no_difference_as_time_passes(seed: int) -> None:
    """Items suspend, time out, are answered, are tried again: whoever followed decides as one who sees them anew."""
    chance, passed, now = random.Random(seed), Passed(), NOW
    graph, run = GRAPHS["foreach"], a_run(*fan(count=4), input=list(range(9)))
    while (
        any(run.records.get(item_of(X, index), a_record()).outcome is not OK for index in range(9)) or not passed.seen
    ):
        decision = decide(graph, run, now, passed)
        assert decision == decide(graph, run, now)
        if chance.random() < 0.2:
            now += timedelta(minutes=1)
        begun = passed.items[X].next
        key = item_of(X, chance.randrange(begun))
        standing = run.records.get(key)
        if standing is not None and standing.outcome is OK:
            continue
        change = dict(chance.choice(FOLLOWING[None if standing is None else standing.outcome]))
        if "until" in change:
            change["until"] = now + timedelta(minutes=change["until"])
        record = a_record(key, change.pop("outcome"), seq=run.last_seq + 1, **change)
        records = run.records.set(key, record)
        if chance.random() < 0.1:  # read anew
            records = type(records)(records)
        run = replace(run, records=records, last_seq=record.seq)


def test_a_foreach_asks_for_no_more_than_a_worker_can_do() -> None:
    """However many slots it has; those that are open and wait do not count."""
    suspended = [a_record(f"x[{index}]", SUSP) for index in range(10)]
    run = a_run(*fan(*suspended, count=5_000), input=list(range(5_000)))
    decision = decide(GRAPHS["foreach"], run, NOW)
    assert isinstance(decision, Run)
    assert [f"x[{index}]" for index in range(10, 10 + MOST_AT_ONCE)] == [a.place.key for a in decision.actions]


def test_a_record_of_an_unknown_foreach_rouses_nobody() -> None:
    """Nothing of it was seen yet."""
    passed, run = Passed(), a_run(input=LIST)
    decide(GRAPHS["foreach"], run, NOW, passed)
    run = replace(run, records=run.records.set(StepKey("x"), a_started("x", count=1)))
    run = replace(run, records=run.records.set(item_of(X, 0), a_record("x[0]", output=1)))
    assert (run_step("x[1]", None),) == told(decide(GRAPHS["foreach"], run, NOW, passed))


def test_a_memo_forgets_the_turn_before() -> None:
    """Each turn of a nested loop begins at its own first step."""
    passed, graph = Passed(), GRAPHS["nested loop"]
    first = [a_started("child", count=1), a_started("child#1"), a_record("child#1/c"), a_record("child#1/d")]
    decide(graph, a_run(*first), NOW, passed)
    second = [a_started("child", count=2), a_started("child#2", output=4)]
    assert (run_step("child#2/c", 4),) == told(decide(graph, a_run(*second), NOW, passed))
    assert {"child#2"} & passed.prefixes.keys() == set() == {"child#1"} & passed.prefixes.keys()


def test_prior_of_a_retry_is_handed_on() -> None:
    """The step learns which try this is, and what it was answered."""
    retried = a_record("x", RETRY, until=NOW, attempt=2, seq=1)
    decision = decide(GRAPHS["step"], a_run(retried), NOW)
    assert isinstance(decision, Run)
    assert [retried] == [getattr(action, "prior", None) for action in decision.actions]


def test_the_next_retry_is_told_beside_what_runs() -> None:
    """Whoever waits for an outcome must not oversleep the retry of a sibling."""
    decision = decide(GRAPHS["parallel"], a_run(a_record("p", RETRY, until=LATER)), NOW)
    assert isinstance(decision, Run)
    assert LATER == decision.retry


def test_leave_carries_the_workflow_around_it() -> None:
    """An action knows its node's own workflow, the key of that workflow, and its input."""
    decision = decide(GRAPHS["nested"], a_run(a_started("child", output=9)), NOW)
    assert isinstance(decision, Run)
    place = decision.actions[0].place
    assert ("child", "child", 9) == (place.graph.id, place.home, place.init)
    assert not isinstance(decision.actions[0], Leave)


POISON = [
    ({"attempts": 5, "epoch": 5}, [], "RunStep"),
    ({"attempts": 5, "epoch": 9}, [], "RunStep"),
    ({"attempts": 6, "epoch": 6}, [], "GiveUp"),
    ({"attempts": 6, "epoch": 9}, [a_record("x", RESU, epoch=4)], "RunStep"),
    ({"attempts": 6, "epoch": 9}, [a_record("x", RESU, epoch=3)], "GiveUp"),
]


@pytest.mark.parametrize(("head", "records", "expected"), POISON)
def test_a_place_that_kills_its_workers_is_given_up(
    head: dict[str, Any], records: list[StepRecord], expected: str
) -> None:
    """More than five claims in a row without a release and without a record between them."""
    decision = decide(GRAPHS["step"], a_run(*records, **head), NOW)
    assert isinstance(decision, Run)
    assert [(expected, "x")] == [(type(action).__name__, action.place.key) for action in decision.actions]


def test_a_poisoned_run_that_only_waits_is_left_alone() -> None:
    """Nothing is given up that nobody would run."""
    run = a_run(a_record("x", SUSP, epoch=0), attempts=9, epoch=9)
    assert SUSPENDED == told(decide(GRAPHS["step"], run, NOW))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("map", x(START)),
        ("step", x(SLP, until=LATER)),
        ("step", x(ERR, failure=None)),
        ("map", x(SUSP)),
        ("sleep", x(RESU)),
        ("nested", a_record("child", SUSP)),
        ("foreach", x(RETRY)),
    ],
)
def test_a_record_that_cannot_be_is_loud(name: str, record: StepRecord) -> None:
    """A fact without a meaning where it stands is a broken promise, not something to walk past."""
    with pytest.raises(InvariantError, match="has no meaning where it stands"):
        decide(GRAPHS[name], a_run(record), NOW)


def test_a_live_run_in_which_nothing_moves_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parking such a run would strand it."""
    monkeypatch.setattr(module._Walk, "sequence", lambda *_: LIVE)
    with pytest.raises(InvariantError, match="'r-1' at version 2 is live, but nothing in it moves"):
        decide(GRAPHS["step"], a_run(), NOW)


def test_a_parked_retry_is_told_apart_from_a_sleep() -> None:
    """A short retry may be waited for in the process; a sleep is worth parking."""
    assert Park(RunStatus.WAITING, LATER, LATER) == decide(GRAPHS["step"], a_run(x(RETRY, until=LATER, attempt=1)), NOW)
    assert Park(RunStatus.WAITING, LATER, None) == decide(GRAPHS["sleep"], a_run(x(SLP, until=LATER)), NOW)
