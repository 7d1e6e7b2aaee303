"""What racing callers are told could have happened one call after the other: of a store, and of an App."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.core import heads
from flowcore.errors import AlreadyResumed, RunFinished
from flowcore.keys import RunRef
from flowcore.model import Answer, Head, Outcome, RunStatus, StepRecord
from flowcore.ports import HeadMoved, RecordMoved, Store, Written
from flowcore.testing import SeededIds
from flowcore.testing.contract import NOW, a_head, a_record, racing
from flowcore.testing.history import NoOrder, Recorder, ordered
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from tests.property.rows import told
from tests.property.threads import restless

CALLERS, CALLS = 6, 5
_SOON = NOW + timedelta(minutes=1)


# -- a store, as one head and one record -------------------------------------------------------------------------------

Held: TypeAlias = tuple[str, int, int, tuple[str, int, str] | None] | None
"""Status, version and epoch of the head; outcome, generation and author of the record. None: no run."""


def one_at_a_time(held: Held, what: Any) -> Iterator[tuple[Held, Any]]:
    """What ``Store`` promises of one run with one record, when nobody else is there."""
    verb, *given = what
    if verb == "start":
        yield (("QUEUED", 1, 0, None), "put") if held is None else (held, held[:3])
        return
    if held is None:
        return
    status, version, epoch, record = held
    match verb, *given:
        case ["claim"] if status in ("QUEUED", "WAITING"):
            yield ("RUNNING", version + 1, epoch + 1, record), ("RUNNING", version + 1, epoch + 1)
        case ["claim"] | ["peek"]:
            yield held, held[:3]
        case ["commit", prior, new]:
            yield ((status, version, epoch, new), "written") if (record and record[:2]) == prior else (held, record)
        case ["release", known_version, known_epoch, to]:
            is_mine = held[:3] == ("RUNNING", known_version, known_epoch)
            yield ((to, version + 1, epoch, record), "written") if is_mine else (held, held[:3])
        case ["resume", known_version, prior, new]:
            if (record and record[:2]) != prior:
                yield held, record
            elif version != known_version:
                yield held, held[:3]
            else:
                yield ("QUEUED" if status != "RUNNING" else status, version + 1, epoch, new), "written"
        case ["cancel"]:
            ended = ("CANCELED", version + 1, epoch + 1)
            yield (held, held[:3]) if status == "CANCELED" else ((*ended, record), ended)
        case _:
            raise AssertionError(f"nobody asks a store to {verb}")


class Caller:
    """Somebody who does at random what he believes to be allowed, and remembers what he is told."""

    def __init__(self, name: str, store: Store, run: RunRef, recorder: Recorder, seed: int) -> None:
        self.name, self.store, self.run, self.recorder = name, store, run, recorder
        self.chance = random.Random(seed)
        self.head: Head | None = None
        self.record: StepRecord | None = None

    def __call__(self) -> None:
        for _ in range(CALLS):
            verbs: list[Callable[[], None]] = [self.claims, self.peeks, self.commits]
            if self.head is not None and not self.head.is_terminal:
                verbs += [self.releases, self.resumes] * 2
            if self.chance.random() < 0.05:
                verbs = [self.cancels]
            self.chance.choice(verbs)()

    def peeks(self) -> None:
        """The head."""
        self.head = self._call(["peek"], lambda: self.store.peek(self.run), _three)

    def claims(self) -> None:
        """The right to drive."""
        claim = partial(self.store.claim, self.run, owner=self.name, now=NOW, lease_until=_SOON, due=_SOON)
        reply = self._call(["claim"], claim, lambda reply: _three(reply.head))
        self.head = reply.head

    def commits(self) -> None:
        """A suspension, where nothing stands, or the next one."""
        prior, new = self._next(Outcome.SUSP)
        what = ["commit", _two(prior), _seen(new)]
        self._learn(self._call(what, lambda: self.store.commit(self.run, 1, new, prior), _told), new)

    def resumes(self) -> None:
        """An answer to the suspension that is known."""
        if self.head is None or self.record is None or self.record.outcome is not Outcome.SUSP:
            return self.peeks()
        prior, new = self._next(Outcome.RESU)
        assert prior is not None
        before, head = self.head, heads.queued(self.head, NOW)
        what = ["resume", before.version, _two(prior), _seen(new)]
        reply = self._call(what, lambda: self.store.resume(head, new, version=before.version, prior=prior), _told)
        self._learn(reply, new)
        self.head = reply.head if isinstance(reply, HeadMoved) else head if isinstance(reply, Written) else before
        return None

    def releases(self) -> None:
        """The run given back as one that sleeps, and may be claimed again at once."""
        if self.head is None or self.head.status is not RunStatus.RUNNING:
            return self.claims()
        held, head = self.head, heads.parked(self.head, NOW, RunStatus.WAITING, NOW)
        what = ["release", held.version, held.epoch, "WAITING"]
        reply = self._call(what, lambda: self.store.release(head, epoch=held.epoch, version=held.version), _told)
        self.head = reply.head if isinstance(reply, HeadMoved) else head
        return None

    def cancels(self) -> None:
        """The end."""
        self.head = self._call(["cancel"], lambda: self.store.cancel(self.run, now=NOW), _three)

    def _next(self, outcome: Outcome) -> tuple[StepRecord | None, StepRecord]:
        prior = self.record
        new = a_record("ask", outcome=outcome, gen=0 if prior is None else prior.gen + 1, seq=1)
        answer = Answer(wait="ask@0", data=1, digest="d", at=NOW, by=self.name)
        return prior, replace(new, answer=answer)

    def _learn(self, reply: Any, new: StepRecord) -> None:
        self.record = (
            reply.record if isinstance(reply, RecordMoved) else new if isinstance(reply, Written) else self.record
        )

    def _call(self, what: Any, do: Callable[[], Any], tell: Callable[[Any], Any]) -> Any:
        return self.recorder.call(self.name, what, do, tell=tell)


def _three(head: Head | None) -> Any:
    return None if head is None else (head.status.value, head.version, head.epoch)


def _two(record: StepRecord | None) -> Any:
    return None if record is None else (record.outcome.value, record.gen)


def _seen(record: StepRecord | None) -> Any:
    return None if record is None else (record.outcome.value, record.gen, record.answer and record.answer.by)


def _told(reply: Any) -> Any:
    if isinstance(reply, HeadMoved):
        return _three(reply.head)
    return _seen(reply.record) if isinstance(reply, RecordMoved) else "written"


def history(store: Store, seed: int, race: Any) -> Recorder:
    """What ``CALLERS`` ask a store at once, and are told."""
    recorder, run = Recorder(), RunRef("default", f"r-{seed}")
    head = a_head(run=run)
    starters = [lambda: recorder.call("z", ["start"], lambda: store.start(head), tell=lambda h: _three(h) or "put")]
    callers = [Caller(f"c{n}", store, run, recorder, seed * 100 + n) for n in range(CALLERS - 1)]
    race([*starters, *(lambda c=c: c() if store.peek(run) else None for c in callers)])
    race([*callers, lambda: None])
    return recorder


def bad_histories(store: Store, seeds: range) -> Iterator[str]:
    """What no order explains."""
    with racing(CALLERS) as race, restless():
        for seed in seeds:
            try:
                ordered(history(store, seed, race).calls, None, one_at_a_time)
            except NoOrder as none:
                yield f"seed {seed}: {none}"


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, pytest.param(10_000, marks=pytest.mark.proof)])
def test_a_store_in_memory_could_be_asked_one_at_a_time(count: int) -> None:
    """Starts, claims, commits, releases, resumes and cancels of one run by six at once."""
    began = time.monotonic()
    bad = list(bad_histories(MemoryStore(), range(count)))
    told("histories", count, len(bad), time.monotonic() - began, seed=f"0-{count - 1}")
    assert [] == bad


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, pytest.param(300, marks=pytest.mark.proof)])
def test_dynamodb_could_be_asked_one_at_a_time(count: int) -> None:
    """The same over boto3 and the real adapter."""
    began, bad = time.monotonic(), list[str]()
    with locked_moto(), ExitStack() as tables:
        client = StrictClient(dynamo_client(region=REGION))
        for first in range(0, count, 10):
            tables.close()
            table = tables.enter_context(fresh_table(client))
            store = DynamoStore(client, table, SeededIds(), pause=lambda _: None)
            bad += bad_histories(store, range(first, min(first + 10, count)))
    told("histories-moto", count, len(bad), time.monotonic() - began, seed=f"0-{count - 1}")
    assert [] == bad


class Hasty(MemoryStore):
    """Looks first and writes then; somebody else may come in between."""

    def commit(self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None) -> Any:
        """See ``Store.commit``, which this is not."""
        loaded = self.load(run, everything=True)
        standing = loaded and loaded[1].get(record.key)
        if _two(standing or None) != _two(prior):
            return RecordMoved(standing or None)
        time.sleep(0)
        loaded = self.load(run, everything=True)
        return super().commit(run, incarnation, record, loaded[1].get(record.key) if loaded else None)


class Forgetful(MemoryStore):
    """Tells whoever releases that it has happened, and does nothing when somebody was faster."""

    def release(self, head: Head, *, epoch: int, version: int, **more: Any) -> Any:
        """See ``Store.release``, which this is not."""
        super().release(head, epoch=epoch, version=version, **more)
        return Written()


@pytest.mark.parametrize("broken", [Hasty, Forgetful])
def test_a_store_that_is_not_atomic_is_found_out(broken: type[MemoryStore]) -> None:
    """Soon; and the calls that cannot be explained are told."""
    bad = next(bad_histories(broken(), range(1_000)))
    assert "No order of these" in bad
    assert "none of these can come next" in bad


# -- an App ------------------------------------------------------------------------------------------------------------


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for somebody's number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


FLOW = workflow("w", input=int, output=int).then(ask).commit()
Known: TypeAlias = tuple[str | None, str | None]
"""Who has answered, and how the run has ended, if it has."""


NOTHING: Known = (None, None)


def one_caller(known: Known, what: Any) -> Iterator[tuple[Known, Any]]:
    """What an App promises of a run that waits for one answer. That it is driven on meanwhile is nobody's call."""
    winner, end = known
    if what == "cancel":
        for reached in [end] if end or winner is None else ["canceled", "success"]:
            yield (winner, reached or "canceled"), reached or "canceled"
    elif end == "canceled":
        yield known, "finished"
    elif winner is None:
        yield (what, end), "applied"
    else:
        yield known, f"lost to {winner}"


def of_an_app(app: App, run_id: str, racers: int, race: Any, *, cancels: bool) -> Recorder:
    """What is told to those who answer one run at once, and to somebody who cancels it."""
    recorder = Recorder()
    app.workflow("w").create_run(run_id).start(0)

    def answer(by: str) -> str:
        try:
            app.resume(run_id, 1, by=by)
        except AlreadyResumed as error:
            return f"lost to {error.winner['by']}"
        except RunFinished:
            return "finished"
        return "applied"

    calls: list[Any] = [lambda by=f"p{n}": recorder.call(by, by, lambda: answer(by)) for n in range(racers - cancels)]
    if cancels:
        calls.append(lambda: recorder.call("boss", "cancel", lambda: app.cancel(run_id).status))
    race(calls)
    recorder.call("late", "late", lambda: answer("late"))  # what has been told once holds
    recorder.call("late", "cancel", lambda: app.cancel(run_id).status)
    return recorder


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, pytest.param(2_000, marks=pytest.mark.proof)])
def test_an_app_could_be_asked_one_at_a_time(count: int) -> None:
    """Eight to 32 answers and a cancel at once: who is told what fits one order."""
    began, bad = time.monotonic(), list[str]()
    app = App(FLOW)
    with restless():
        for racers in (8, 32):
            with racing(racers) as race:
                for turn in range(count // 2):
                    calls = of_an_app(app, f"r-{racers}-{turn}", racers, race, cancels=turn % 2 == 0).calls
                    try:
                        ordered(calls, NOTHING, one_caller)
                    except NoOrder as none:
                        bad.append(str(none))
    told("histories-app", count, len(bad), time.monotonic() - began)
    assert [] == bad


def test_an_order_is_found_or_there_is_none() -> None:
    """A register: a value is read that was written meanwhile; not one that was overwritten before."""

    def register(value: int, what: tuple[str, int]) -> Iterator[tuple[int, int]]:
        yield (what[1], what[1]) if what[0] == "write" else (value, value)

    def asked(*rows: tuple[str, int, int, int | None]) -> Any:
        recorder = Recorder()
        for verb, value, began, ended in rows:
            call = recorder.calls.append
            call(_asked(verb, value, began, ended))
        return recorder.calls

    assert 3 == len(ordered(asked(("write", 1, 0, 5), ("read", 1, 1, 2), ("read", 1, 3, 4)), 0, register))
    assert 2 == len(ordered(asked(("write", 1, 0, None), ("read", 1, 1, 2)), 0, register))
    assert 1 == len(ordered(asked(("write", 1, 0, None), ("read", 0, 1, 2)), 0, register))
    with pytest.raises(NoOrder, match="none of these can come next"):
        ordered(asked(("write", 1, 0, 1), ("read", 0, 2, 3)), 0, register)


@pytest.mark.parametrize("told", ["canceled", "success"])
def test_an_order_of_many_who_change_nothing_is_found_at_once(told: str) -> None:
    """Thirty who have lost side by side, and one who cancels: they are not tried in all their sets."""
    from flowcore.testing.history import Asked  # noqa: PLC0415  # as below

    won = Asked(who="p0", what="p0", told="applied", began=0, ended=100)
    lost = [Asked(who=f"p{n}", what=f"p{n}", told="lost to p0", began=n, ended=100 + n) for n in range(1, 31)]
    boss = Asked(who="boss", what="cancel", told=told, began=50, ended=150)
    late = Asked(
        who="late", what="late", told={"canceled": "finished", "success": "lost to p0"}[told], began=200, ended=201
    )
    steps: list[Known] = []

    def counted(known: Known, what: Any) -> Iterator[tuple[Known, Any]]:
        steps.append(known)
        return one_caller(known, what)

    assert 33 == len(ordered([boss, *lost, won, late], NOTHING, counted))
    assert len(steps) < 5_000
    with pytest.raises(NoOrder):
        ordered([boss, *lost, won, replace(late, told="applied")], NOTHING, counted)
    assert len(steps) < 10_000


def _asked(verb: str, value: int, began: int, ended: int | None) -> Any:
    from flowcore.testing.history import Asked  # noqa: PLC0415  # nobody else here makes one by hand

    return Asked(who="x", what=(verb, value), told=value, began=began, ended=ended)
