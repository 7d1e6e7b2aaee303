"""Each rule of the protocol has a name, and a run that breaks it is told so, under that name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from flowcore import App, StepContext, otherwise, step, workflow
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.memory import MemoryStore
from flowcore.core.heads import removed
from flowcore.keys import RunRef
from flowcore.model import Head, Outcome, Receipt, RunStatus, StepFailure, Wait
from flowcore.ports import Effects, Store
from flowcore.testing import Diverged, FaultyStore, LaggingStore, LocalApp, VirtualClock, explore
from flowcore.testing.contract import NOW, RUN, a_head, a_record, a_running_head, an_answer
from flowcore.testing.faults import FaultyBlobs
from flowcore.testing.invariants import (
    INVARIANTS,
    Violation,
    WatchedStore,
    branch_violations,
    head_violations,
    record_violations,
    run_violations,
)
from flowcore.testing.local import audited
from flowcore.testing.trial import Asked, Trial


@step
def charge(amount: int) -> int:
    """Some step."""
    return amount


@step
def same(text: str) -> str:
    """Another one."""
    return text


@step
def ask(amount: int, ctx: StepContext[int]) -> int:
    """Waits for somebody."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


def a_trial(**changes: Any) -> Trial:
    """A trial of a workflow of one step, not begun."""
    asked = {"workflow": workflow("w", input=int).then(charge).commit(), "input": 1, "start": {}, "answers": {}}
    plain = {**asked, "before": None, "effects": None, "outcome": None, "seed": 0, "store": MemoryStore}
    return Trial(Asked(**{**plain, **changes}), ())


def diverged() -> Iterable[str]:
    """An effect that happens twice."""
    charged: list[int] = []

    @step
    def again(amount: int) -> int:
        charged.append(amount)
        return amount

    with pytest.raises(Diverged) as found:
        explore(workflow("w", input=int).then(again), 1, before=charged.clear, effects=charged.copy)
    return [f"I10 {found.value}"]


def begun(*places: tuple[str, int, Any]) -> Iterable[str]:
    """What is wrong with steps that begin with such a key, turn and input."""
    trial = a_trial()
    trial.watched.start(replace(a_head(trial.run), workflow="w", input=1, due=NOW))
    return begun_in(trial, *places)


def begun_in(trial: Trial, *places: tuple[str, int, Any]) -> Iterable[str]:
    """The same in a run that has begun."""
    for key, turn, value in places:
        context: Any = StepContext.__new__(StepContext)
        told = {"idempotency_key": f"explored/{key}", "workflow_id": "w", "step_id": "charge", "index": None}
        for name, said in {**told, "iteration": turn}.items():
            object.__setattr__(context, name, said)
        trial._begins(value, context)
    return trial.broken


def item_begun(value: int) -> Iterable[str]:
    """What is wrong with the first item of a distributed foreach over 1 when it is given ``value``."""
    flow = workflow("w", input=list[int]).foreach(charge, id="fan", distributed=True).commit()
    trial = a_trial(workflow=flow, input=[1])
    trial._start()
    trial.app.deliver("explored")
    return begun_in(trial, ("fan[0]", 1, value))


def told_applied() -> Iterable[str]:
    """Somebody who was told to be applied, though another answer is stored."""
    trial = a_trial()
    trial.watched.settled[trial.run, "ask@0"] = an_answer(1, wait="ask@0", by="ada")
    wait: Wait[Any] = Wait(id="ask@0", run_id="explored", path=["ask"], payload=None)
    trial._is_kept(Receipt(verdict="applied", wait="ask@0", at=NOW), wait, "grace")
    return trial.broken


GRAPH = (
    workflow("w", input=int)
    .branch((lambda n: n > 0, charge), (otherwise, ask))
    .map(len)
    .then(charge.clone(id="last"))
    .commit()
    .compiled
)
DECIDED = a_record(GRAPH.nodes[0].id, output=["charge"])
HEAD = replace(a_head(), workflow="w", input=1, due=None)
SUCCESS = replace(HEAD, status=RunStatus.SUCCESS, output=1)
OWING = replace(SUCCESS, outbox=("on_finish",), due=NOW)
SAD, MAD = StepFailure(type="Sad", message="no"), StepFailure(type="Mad", message="no")
FAILED = replace(HEAD, status=RunStatus.FAILED, failure=SAD)
ALL = [DECIDED, a_record("charge", output=1), a_record(GRAPH.nodes[1].id, output=1), a_record("last", output=1)]


def at_rest(head: Head, *records: Any) -> Iterable[str]:
    """What is wrong with a run at rest."""
    return run_violations(GRAPH, head, {record.key: record for record in records})


BREACHES: list[tuple[str, Callable[[], Iterable[str]]]] = [
    ("I1", lambda: record_violations(a_record(), a_record(gen=1, seq=2))),
    ("I2", lambda: branch_violations(GRAPH, {r.key: r for r in (DECIDED, a_record("ask"))})),
    ("I2", lambda: branch_violations(GRAPH, {"charge": a_record("charge")})),  # type: ignore[dict-item]
    ("I3", lambda: record_violations(a_record(outcome=Outcome.SUSP), a_record(gen=2, seq=2))),
    ("I4", lambda: head_violations(None, a_head(due=None))),
    ("I5", lambda: at_rest(replace(HEAD, status=RunStatus.SUSPENDED), DECIDED, a_record("charge"))),
    ("I6", lambda: at_rest(SUCCESS, DECIDED, a_record("charge", output=1))),
    ("I6", lambda: at_rest(replace(SUCCESS, output=2), *ALL)),
    ("I6", lambda: at_rest(replace(FAILED, failure=MAD), *ALL)),
    ("I6", lambda: at_rest(SUCCESS, *ALL[:-1], a_record("last", outcome=Outcome.ERR, failure=SAD))),
    ("I6", lambda: at_rest(FAILED, *ALL[:-1], a_record("last", outcome=Outcome.ERR, failure=MAD))),
    ("I7", lambda: record_violations(a_record(outcome=Outcome.SUSP), a_record(gen=1, seq=1))),
    ("I7", lambda: begun(("charge", 1, 2))),
    ("I7", lambda: begun(("another", 1, 1))),
    ("I7", lambda: item_begun(2)),
    ("I8", lambda: head_violations(SUCCESS, replace(a_head(), version=2))),
    ("I8", lambda: head_violations(OWING, replace(OWING, version=2, output=2))),
    ("I8", lambda: head_violations(FAILED, replace(FAILED, version=2, failure=MAD))),
    ("I8", lambda: head_violations(SUCCESS, replace(SUCCESS, version=2))),
    ("I8", lambda: head_violations(SUCCESS, replace(removed(SUCCESS, NOW), output="other"))),
    ("I8", lambda: head_violations(FAILED, replace(SUCCESS, version=2, incarnation=2))),
    ("I9", lambda: head_violations(a_head(), a_running_head(version=3))),
    ("I9", lambda: head_violations(a_head(), replace(a_running_head(version=2), epoch=a_head().epoch))),
    ("I9", lambda: head_violations(a_running_head(), replace(a_running_head(version=2), owner="another"))),
    ("I10", diverged),
    ("I11", lambda: begun(("charge", 1, 1), ("charge", 2, 1))),
    ("I12", told_applied),
]


@pytest.mark.parametrize(("name", "found"), BREACHES)
def test_a_broken_rule_is_told_by_its_name(name: str, found: Callable[[], Iterable[str]]) -> None:
    """Whatever else is wrong then."""
    assert name in [sentence.split()[0] for sentence in found()]


def test_a_head_that_says_what_its_records_say_breaks_no_rule() -> None:
    """Whether it has ended well or not."""
    failed = a_record("last", outcome=Outcome.ERR, failure=replace(SAD, step="last"))
    assert [] == list(at_rest(SUCCESS, *ALL))
    assert [] == list(at_rest(replace(FAILED, failure=failed.failure), *ALL[:-1], failed))
    assert [] == list(head_violations(OWING, replace(SUCCESS, version=2)))
    assert [] == list(head_violations(SUCCESS, removed(SUCCESS, NOW)))


def test_a_step_that_is_given_what_is_committed_breaks_no_rule() -> None:
    """Also one that a child has to do."""
    assert [] == list(begun(("charge", 1, 1)))
    assert [] == list(item_begun(1))


def test_every_rule_can_be_broken() -> None:
    """Each has a name, and a row above."""
    assert [f"I{number}" for number in range(1, 13)] == list(INVARIANTS)
    assert {*INVARIANTS} == {name for name, _ in BREACHES}


def fine(_: Any) -> None:
    """A script without faults."""


STORES: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "faulty": lambda: {"store": FaultyStore(MemoryStore(), fine)},
    "lagging": lambda: {"store": LaggingStore(MemoryStore(), clock := VirtualClock()), "clock": clock},
    "twice": lambda: {"store": FaultyStore(FaultyStore(MemoryStore(), fine), fine)},
    "with blobs": lambda: {"blobs": MemoryBlobs()},
    "all of it": lambda: {"store": FaultyStore(MemoryStore(), fine), "blobs": MemoryBlobs()},
}


@pytest.mark.parametrize("given", STORES.values(), ids=STORES)
def test_a_local_app_raises_where_a_rule_is_broken(given: Callable[[], dict[str, Any]]) -> None:
    """Without being asked to, whatever wraps its store: here an answer is stored that moves no head."""

    def tampered() -> None:
        with audited():
            app = LocalApp(App(workflow("w", input=int).then(ask).commit()), **given())
            app.workflow("w").create_run("r").start(1)
            answer_without_a_move(app.engine.store)

    with pytest.raises(Violation, match="I5 SUSPENDED, but"):
        tampered()


def answer_without_a_move(store: Store) -> None:
    """Breaks I5, wherever it is watched."""
    loaded = store.load(RunRef("default", "r"))
    assert loaded is not None
    record = next(iter(loaded[1].values()))
    answered = replace(record, outcome=Outcome.RESU, gen=1, seq=9, answer=an_answer(1, wait="ask@0"))
    store.commit(loaded[0].run, 1, answered, record)


def test_a_store_is_watched_by_one_watcher_however_it_is_wrapped() -> None:
    """Each LocalApp on it adds its workflows; a wrapper that has met it before is not wrapped once more."""
    flow = workflow("w", input=int).then(ask).commit()
    memory = MemoryStore()
    wrapped = FaultyStore(memory, fine)
    app = LocalApp(App(workflow("v", input=int).then(charge).commit()), store=wrapped)
    watched = wrapped.inner
    others = [LocalApp(App(flow), store=wrapped), LocalApp(App(flow), store=FaultyStore(memory, fine))]
    assert isinstance(watched, WatchedStore)
    assert (watched, memory, {"v", "w"}) == (wrapped.inner, watched.inner, {*watched.graphs})
    others[1].workflow("w").create_run("r").start(1)
    assert [RunRef("default", "r")] == [run for run, _, _ in watched.records]
    assert app.store is wrapped


def test_a_watcher_of_the_tests_own_is_left_as_it_is() -> None:
    """It knows the workflows it was given."""
    watched = WatchedStore(MemoryStore())
    app = LocalApp(App(workflow("w", input=int).then(ask).commit()), store=FaultyStore(watched, fine))
    app.workflow("w").create_run("r").start(1)
    answer_without_a_move(app.store)
    assert {} == watched.graphs


class Plain(MemoryStore):
    """A store of somebody's own: not watched."""


@pytest.mark.parametrize("size", [1, 100_000])
def test_who_wraps_a_store_sees_no_call_of_its_watcher(size: int) -> None:
    """Neither at the store nor at the blob store, however large the values are; and the run ends well."""

    @step
    def grow(n: int, ctx: StepContext[str, str]) -> str:
        if ctx.resume_data is None:
            ctx.suspend("p" * n)
        ctx.set_state({"kept": ctx.resume_data})
        return ctx.resume_data

    def seen(memory: MemoryStore) -> tuple[list[str], list[str]]:
        calls: list[str] = []
        blobs = FaultyBlobs(MemoryBlobs())
        store = FaultyStore(memory, lambda call: calls.append(call.verb))
        flow = workflow("w", input=int, output=str, state=dict[str, str]).then(grow).then(same).commit()
        run = LocalApp(App(flow), store=store, blobs=blobs).workflow("w").create_run("r")
        run.start(size)
        assert "a" * size == run.resume("a" * size).output
        return calls, [verb for verb, _ in blobs.calls]

    assert seen(Plain()) == seen(MemoryStore())


class Passing:
    """Passes everything on, what its store wraps included."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_wrapper_that_keeps_its_store_to_itself_is_left_as_it_is() -> None:
    """Nothing can be put in between there."""
    faulty = FaultyStore(MemoryStore(), fine)
    passing: Any = Passing(faulty)
    LocalApp(App(workflow("w", input=int).then(ask).commit()), store=passing)
    assert ({"_store": faulty}, MemoryStore) == (vars(passing), type(faulty.inner))


def test_a_store_of_somebodys_own_is_not_watched() -> None:
    """It may count its calls, or wrap what cannot be told from here."""
    store = FaultyStore(Plain(), fine)
    app = LocalApp(App(workflow("w", input=int).then(ask).commit()), store=store)
    assert [Plain, FaultyStore] == [type(store.inner), type(app.store)]


def test_runs_are_audited_when_a_test_is_over() -> None:
    """What has changed without a write is found then."""
    store = MemoryStore()

    def tampered() -> None:
        with audited():
            app = LocalApp(App(workflow("w", input=int).then(charge).commit()), store=store)
            app.workflow("w").create_run("r").start(1)
            scopes = next(iter(store._scopes.values()))
            item = next(iter(next(iter(scopes.values())).values()))
            item["by"] = {"N": "99"}

    with pytest.raises(Violation, match="I1 'charge' changed without a write"):
        tampered()


def test_arms_that_nobody_chose_are_found_where_a_container_has_ended() -> None:
    """What lies in it is not loaded any more, except for an audit."""
    inner = workflow("inner", input=int).branch((lambda n: n > 0, charge), (otherwise, ask)).commit()
    graph = workflow("w", input=int).then(inner).commit().compiled
    watched = WatchedStore(MemoryStore(), {"w": graph})
    watched.start(replace(a_head(), workflow="w", definition=graph.fingerprint, input=1))
    branch = next(iter(inner.compiled.nodes)).id
    chosen = a_record(f"inner/{branch}", output=["charge"], seq=2)
    for record in (a_record("inner"), chosen, a_record("inner/charge", seq=3), a_record("inner/ask", seq=4)):
        watched.commit(RUN, 1, record, None)
    with pytest.raises(Violation, match="I2 'inner/ask' has run, which branch"):
        watched.audit(RUN)


class WithEffects(MemoryStore):
    """Takes a record together with effects, and has no tables for these."""

    def commit_with(
        self, run: RunRef, incarnation: int, record: Any, prior: Any, effects: Effects, *, epoch: int | None = None
    ) -> Any:
        """See ``Store.commit_with``."""
        assert not effects
        assert epoch is None
        return self.commit(run, incarnation, record, prior)


def test_an_answer_that_is_stored_with_effects_and_moves_no_head_breaks_a_rule() -> None:
    """As one that is stored by itself: nobody would look."""
    flow = workflow("w", input=int).then(ask).commit()
    watched = WatchedStore(WithEffects(), {"w": flow.compiled})
    LocalApp(App(flow), store=watched).workflow("w").create_run("r").start(1)
    loaded = watched.load(RunRef("default", "r"))
    assert loaded is not None
    (record,) = loaded[1].values()
    answered = replace(record, outcome=Outcome.RESU, gen=1, seq=9, answer=an_answer(1, wait="ask@0"))
    with pytest.raises(Violation, match="I5 SUSPENDED, but"):
        watched.commit_with(loaded[0].run, 1, answered, record, ())


def test_a_watcher_bears_others_that_write_past_it() -> None:
    """Its rules hold all the same; only what was settled must stand."""
    store = MemoryStore()
    watched = WatchedStore(store)
    watched.start(a_running_head())
    watched.commit(RUN, 1, a_record(outcome=Outcome.RETRY), None)
    store.commit(RUN, 1, a_record(outcome=Outcome.RETRY, gen=1, seq=2), a_record(outcome=Outcome.RETRY))
    watched.commit(RUN, 1, a_record(gen=2, seq=3), a_record(outcome=Outcome.RETRY, gen=1, seq=2))
    watched.audit_all()
