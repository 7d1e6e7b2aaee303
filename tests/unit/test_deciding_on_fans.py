"""A distributed foreach as it is decided on: by the run it is in, and by a child that sees to some of its items."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore.core.actions import Broken, Decision, Done, Ended, Finish, Park, Run
from flowcore.core.decide import MOST_AT_ONCE, decide
from flowcore.errors import InvariantError
from flowcore.keys import StepKey
from flowcore.model import Fan, Outcome, Part, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace
from tests.builders import LATER, NOW, a_graph, a_record, a_run, a_started, a_step, a_workflow

GRAPH = a_graph(lambda w: w.then(a_step("list")).foreach(a_step("x"), id="fan", distributed=True))
LIST = a_record("list", output=[7, 8, 9])
OPEN = a_record("fan", Outcome.START, count=3, output={"shard": 1})
KEY = StepKey("fan")
JOINING = Park(RunStatus.JOINING, None, None)
SUSPENDED = Park(RunStatus.SUSPENDED, None, None)


def items(*outcomes: Outcome) -> list[StepRecord]:
    """The records of the items that have one, as children hand them in."""
    return [a_record(f"fan[{n}]", outcome, epoch=0, output=10 * n) for n, outcome in enumerate(outcomes)]


def fanned(*records: StepRecord, **known: Any) -> Snapshot:
    """A run that stands at its distributed foreach of three, so far as the joins say it is."""
    fans = {KEY: Fan(total=3, shard=1, begun=3, **{name: _known(value) for name, value in known.items()})}
    return replace(a_run(LIST, OPEN, *records, definition=GRAPH.fingerprint), fans=fans)


def _known(value: Any) -> Any:
    return frozenset(value) if isinstance(value, set) else value


def part(first: int, stop: int) -> dict[str, Any]:
    """What makes a run the child that sees to these items."""
    return {"part": Part(run="top", key=KEY, first=first, stop=stop, top="top")}


def asked(decision: Decision) -> list[tuple[str, str, Any]]:
    """What is to be done, where, and with what."""
    assert isinstance(decision, Run)
    return [(type(a).__name__, a.place.key, getattr(a, "value", getattr(a, "result", None))) for a in decision.actions]


def test_a_fan_is_looked_up_before_it_is_decided_on() -> None:
    """Its own run's records do not say how the children are."""
    run = a_run(LIST, OPEN, definition=GRAPH.fingerprint)
    assert [("Gather", "fan", [7, 8, 9])] == asked(decide(GRAPH, run, NOW))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"done": {0, 2}}, JOINING),
        ({"done": {0, 2}, "wake": LATER}, Park(RunStatus.JOINING, LATER, None)),
        ({"done": {0, 2}, "parked": {1}, "asking": {1}}, SUSPENDED),
        ({"done": {0}, "parked": {1}, "asking": {1}}, JOINING),
        ({"done": {0}, "parked": {1}, "asking": {1}, "begun": 2}, SUSPENDED),
    ],
)
def test_a_run_waits_for_its_children(known: dict[str, Any], expected: Park) -> None:
    """Suspended only if nothing but an answer brings it on; those not begun wait for a slot."""
    run = fanned(**{key: value for key, value in known.items() if key != "begun"})
    fan = replace(run.fans[KEY], begun=known.get("begun", 3))
    assert expected == decide(GRAPH, replace(run, fans={KEY: fan}), NOW)


def test_what_the_joins_know_and_the_run_has_not_read_is_read_first() -> None:
    """The last of the children was faster than this look; the outputs are not in the records yet."""
    known = {"done": {0, 1, 2}}
    assert [("Gather", "fan", [7, 8, 9])] == asked(decide(GRAPH, fanned(*items(Outcome.OK), **known), NOW))
    every = items(Outcome.OK, Outcome.OK, Outcome.OK)
    assert [("Leave", "fan", Done([0, 10, 20]))] == asked(decide(GRAPH, fanned(*every, **known), NOW))


def test_a_failure_that_decides_is_read_before_the_fan_ends_by_it() -> None:
    """What lies behind it is not waited for; what lies in front of it is."""
    known = {"done": {0, 1}, "failed": {1}}
    assert [("Gather", "fan", [7, 8, 9])] == asked(decide(GRAPH, fanned(*items(Outcome.OK), **known), NOW))
    [(kind, place, result)] = asked(decide(GRAPH, fanned(*items(Outcome.OK, Outcome.ERR), **known), NOW))
    assert ("Leave", "fan") == (kind, place)
    assert isinstance(result, Broken)
    assert JOINING == decide(GRAPH, fanned(done={1}, failed={1}), NOW)


def test_a_child_decides_on_its_own_items_alone() -> None:
    """And ends when they have an outcome, whatever it is."""
    run = a_run(LIST, OPEN, *items(Outcome.OK), definition=GRAPH.fingerprint, **part(0, 2))
    assert [("RunStep", "fan[1]", 8)] == asked(decide(GRAPH, run, NOW))
    run = a_run(LIST, OPEN, *items(Outcome.OK, Outcome.ERR), definition=GRAPH.fingerprint, **part(0, 2))
    assert Finish(Done(None)) == decide(GRAPH, run, NOW)


def test_a_child_whose_foreach_the_run_does_not_reach_is_over() -> None:
    """Whatever stands in front of it has no outcome: nobody wants the child's work."""
    run = a_run(OPEN, definition=GRAPH.fingerprint, **part(0, 2))
    assert Finish(Ended(None)) == decide(GRAPH, run, NOW)


def test_a_child_is_found_behind_more_items_than_one_worker_sees_to_at_once() -> None:
    """The run that began it saw to fewer at that time; the child's own share is what it came for."""
    inner = a_workflow(lambda w: w.foreach(a_step("x"), id="deep", distributed=True), "inner")
    graph = a_graph(lambda w: w.then(a_step("list")).foreach(inner, id="plain", concurrency=MOST_AT_ONCE + 1))
    item, deep = f"plain[{MOST_AT_ONCE}]", StepKey(f"plain[{MOST_AT_ONCE}]/deep")
    records = [
        a_record("list", output=[[number] for number in range(MOST_AT_ONCE + 1)]),
        a_started("plain", count=MOST_AT_ONCE + 1),
        a_started(item, output=[MOST_AT_ONCE]),
        a_record(deep, Outcome.START, count=1, output={"shard": 1}),
    ]
    share = Part(run="top", key=deep, first=0, stop=1, top="top")
    run = a_run(*records, definition=graph.fingerprint, part=share)
    assert [("RunStep", f"{deep}[0]", MOST_AT_ONCE)] == asked(decide(graph, run, NOW))


@pytest.mark.parametrize("known", ["failed", "bailed"])
def test_a_fan_does_not_end_with_an_item_that_has_succeeded(known: str) -> None:
    """The output of one item passes for that of the whole foreach nowhere."""
    run = fanned(*items(Outcome.OK, Outcome.OK, Outcome.OK), done={0, 1, 2}, **{known: {0}})
    with pytest.raises(InvariantError, match=r"cannot end with 'fan\[0\]'"):
        decide(GRAPH, run, NOW)
