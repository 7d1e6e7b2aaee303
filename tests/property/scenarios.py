"""Who meets over a run in ``flowcore.testing.space``, and the protocol with one rule taken out, which must show there.

``python -m tests.property.scenarios`` searches them all, or those that are named, and tells how many states there are;
``--broken`` tells the shortest way into trouble for each rule taken out.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flowcore import StepContext, otherwise, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.core.admit import Resume
from flowcore.keys import RunRef, StepKey
from flowcore.mailbox import send
from flowcore.model import Head, Join, Listener, RunStatus, Sent, StepRecord, Topic
from flowcore.ports import HeadMoved, RecordMoved, Records, Written
from flowcore.testing.replay import RUN, Player, ScriptedStore, answers, cancels, chance, leave_mark, sends
from flowcore.testing.space import BEGIN, TICK, Scenario, Space


@step
def first(value: int) -> int:
    """Something to lose."""
    return value + 1


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value + ctx.resume_data


@step
def hurried(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number, but not for ever."""
    if ctx.timed_out:
        return value
    if ctx.resume_data is None:
        ctx.suspend(timeout=timedelta(seconds=200))
    return value + ctx.resume_data


@step
def last(value: Any) -> int:
    """Something to do in the end."""
    return sum(value.values()) if isinstance(value, dict) else value


@step(retries=1, backoff=timedelta(seconds=100))
def flaky(value: int, ctx: StepContext) -> int:
    """Fails the first time, if that is worse."""
    if ctx.attempt == 1 and chance():
        raise ConnectionError
    return value + 10


def _answered(records: Records, step: str) -> int | None:
    """The number that was stored for a step; None if none was."""
    record = records.get(StepKey(step))
    return None if record is None or record.answer is None or record.answer.timed_out else record.answer.data


@step(semantics="at_most_once")
def charge(value: int) -> int:
    """Must not run twice: where a worker may have died in it, it has failed."""
    leave_mark()
    return value + 1


@step(id="heard", semantics="at_most_once")
def heard(value: int, ctx: StepContext[int]) -> int:
    """Waits for an event where it has left a record before, that it has begun."""
    if ctx.resume_data is None:
        ctx.suspend(key="k", label="paid")
    return ctx.resume_data


def noted(_: Any) -> None:
    """What somebody wants called: a hook, or the notification of a suspension."""


@step
def told(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number, and has somebody told of it."""
    if ctx.resume_data is None:
        ctx.suspend(notify=noted)
    return value + ctx.resume_data


NAP = workflow("nap", input=int, output=int).sleep(timedelta(seconds=100)).then(first).commit()
PLAIN = workflow("plain", input=int, output=int).then(first).then(ask).then(last).commit()
BESIDE = workflow("beside", input=int, output=int).parallel(ask, NAP).then(last).commit()
KEPT = workflow("kept", input=int, output=int, durability="boundary").then(first).then(ask).then(last).commit()
ONCE = workflow("once", input=int, output=int).then(charge).then(last).commit()
HOOKED = workflow("hooked", input=int, output=int, on_suspend=noted, on_finish=noted).then(ask).commit()
TOLD = workflow("told", input=int, output=int).then(told).then(last).commit()
HURRY = workflow("hurry", input=int, output=int).then(hurried).then(last).commit()
BRANCH = (
    workflow("fork", input=int, output=int)
    .branch((lambda value: chance() == 0, first), (otherwise, flaky), id="way")
    .then(last)
    .commit()
)
EVENT = workflow("event", input=int, output=int).wait_for_event("paid", key="k", model=int).then(last).commit()
HEARD = workflow("heard", input=int, output=int).then(heard).then(last).commit()
TOPIC = Topic("default", "paid", "k")


def ada(flow: Any, step: str = "ask") -> Player:
    """Answers, and leaves the rest to a worker."""
    return Player("ada", answers(10, "ada", step=step, here=False), flow)


def bob(flow: Any, step: str = "ask") -> Player:
    """Answers, and drives on himself."""
    return Player("bob", answers(20, "bob", step=step, here=True), flow)


def _by_hand(step: str = "ask") -> Any:
    return lambda engine: engine.resume(RUN, 30, Resume(step=step, digest="30", by="eve"), here=False)


def _sent(id: str, data: int) -> Sent:
    return Sent(topic=TOPIC, id=id, data=data, digest=str(data), at=BEGIN, until=BEGIN + timedelta(days=7))


def _one_arm(records: Records) -> list[int]:
    """What comes out of the arm that was decided upon; nothing is right if the other one was begun."""
    begun = {str(key) for key in records} & {"first", "flaky"}
    chosen = set(records[StepKey("way")].output if StepKey("way") in records else begun)
    return [2 if "first" in chosen else 11] if begun <= chosen and len(chosen) == 1 else []


def _event_by_hand(engine: Any) -> str:
    return send(engine, _sent("e-3", 10), here=False).verdict


def _ends(expected: Any) -> Any:
    return lambda head, records: head.status is RunStatus.SUCCESS and head.output in expected(records)


_PLAIN_ENDS = _ends(lambda records: [2 + (_answered(records, "ask") or 99)])
_SHOP = Player("shop", sends(_sent("e-1", 10), here=False), EVENT, sends=(TOPIC, "e-1"))
_BANK = Player("bank", sends(_sent("e-2", 20), here=True), EVENT, sends=(TOPIC, "e-2"))

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="an answer",
            workflow=PLAIN,
            input=1,
            others=[bob(PLAIN)],
            looks=3,
            right=_PLAIN_ENDS,
            answer=_by_hand(),
        ),
        Scenario(
            name="an answer and a cancel",
            workflow=PLAIN,
            input=1,
            others=[bob(PLAIN), Player("cancel", cancels, PLAIN)],
            right=_PLAIN_ENDS,
            answer=_by_hand(),
        ),
        Scenario(
            name="two answers at once",
            workflow=PLAIN,
            input=1,
            others=[ada(PLAIN), bob(PLAIN)],
            is_parked=True,
            right=_PLAIN_ENDS,
            answer=_by_hand(),
        ),
        Scenario(
            name="an answer, where the clocks of workers are ahead",
            workflow=PLAIN,
            input=1,
            others=[ada(PLAIN)],
            looks=3,
            skew=TICK,
            right=_PLAIN_ENDS,
            answer=_by_hand(),
        ),
        Scenario(
            name="an answer beside a sleep",
            workflow=BESIDE,
            input=1,
            others=[bob(BESIDE)],
            is_parked=True,
            right=_ends(lambda records: [3 + (_answered(records, "ask") or 99)]),
            answer=_by_hand(),
        ),
        Scenario(
            name="an answer, where outcomes are kept back until a boundary",
            workflow=KEPT,
            input=1,
            others=[bob(KEPT)],
            looks=3,
            deaths=2,
            ticks=2,
            right=_PLAIN_ENDS,
            answer=_by_hand(),
        ),
        Scenario(
            name="a step that runs at most once, and a cancel",
            workflow=ONCE,
            input=1,
            most_marks=1,
            others=[Player("cancel", cancels, ONCE)],
            looks=3,
            deaths=2,
            right=lambda head, _: head.output == 2 or head.status is RunStatus.FAILED,
        ),
        Scenario(
            name="an answer and a cancel, with hooks",
            workflow=HOOKED,
            input=1,
            others=[ada(HOOKED), Player("cancel", cancels, HOOKED)],
            is_parked=True,
            right=_ends(lambda records: [1 + (_answered(records, "ask") or 99)]),
            answer=_by_hand(),
        ),
        Scenario(
            name="an answer to a wait that somebody is told of",
            workflow=TOLD,
            input=1,
            others=[bob(TOLD, "told")],
            right=_ends(lambda records: [1 + (_answered(records, "told") or 99)]),
            answer=_by_hand("told"),
        ),
        Scenario(
            name="an answer and its deadline",
            workflow=HURRY,
            input=1,
            others=[bob(HURRY, "hurried")],
            is_parked=True,
            ticks=2,
            right=_ends(lambda records: [1 + (_answered(records, "hurried") or 0)]),
            answer=_by_hand("hurried"),
        ),
        Scenario(
            name="a branch that cannot decide, and a step that fails",
            workflow=BRANCH,
            input=1,
            looks=4,
            ticks=2,
            right=_ends(_one_arm),
        ),
        Scenario(
            name="a branch that cannot decide, and a cancel",
            workflow=BRANCH,
            input=1,
            others=[Player("cancel", cancels, BRANCH)],
            right=_ends(_one_arm),
        ),
        Scenario(
            name="an event that comes when it likes",
            workflow=EVENT,
            input=1,
            others=[_BANK],
            right=_ends(lambda records: [10, 20]),
            answer=_event_by_hand,
        ),
        Scenario(
            name="an event, and a step that has left a record before it waits",
            workflow=HEARD,
            input=1,
            others=[Player("bank", sends(_sent("e-2", 20), here=True), HEARD, sends=(TOPIC, "e-2"))],
            looks=1,
            right=lambda head, _: head.output in (10, 20) or head.status is RunStatus.FAILED,
            answer=_event_by_hand,
        ),
        Scenario(
            name="two events for one wait",
            workflow=EVENT,
            input=1,
            others=[_SHOP, _BANK],
            is_parked=True,
            looks=1,
            right=_ends(lambda records: [10, 20]),
            answer=_event_by_hand,
        ),
    )
}


# -- the protocol, broken ----------------------------------------------------------------------------------------------


def _onto(standing: Head, head: Head) -> Head:
    """``head`` as a careful writer would put it in the place of another one than he has seen."""
    later = max(standing.updated_at, head.updated_at)
    return replace(head, version=standing.version + 1, epoch=standing.epoch, updated_at=later)


class ReleaseByEpoch(MemoryStore):
    """Release asks for the epoch alone: what somebody brought meanwhile is not seen."""

    def release(self, head: Head, *, epoch: int, version: int, **more: Any) -> Any:
        """See ``Store.release``."""
        standing = self.peek(head.run)
        if standing is None or (standing.status, standing.epoch) != (RunStatus.RUNNING, epoch):
            return HeadMoved(standing)
        return self.move(_onto(standing, head), version=standing.version)


class NoFence(MemoryStore):
    """Release asks for nothing: a worker that thaws gives back what is no longer its own."""

    def release(self, head: Head, *, epoch: int, version: int, **more: Any) -> Any:
        """See ``Store.release``."""
        standing = self.peek(head.run)
        if standing is None or standing.status is not RunStatus.RUNNING:
            return HeadMoved(standing)
        return self.move(_onto(standing, head), version=standing.version)


class LastWriterWins(MemoryStore):
    """A record is written whatever stands there."""

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        loaded = self.load(run, everything=True)
        standing = None if loaded is None else loaded[1].get(record.key)
        return super().commit(run, incarnation, record, standing)


class JoinsByCounter(MemoryStore):
    """Items that come home are counted, and not told apart."""

    def join(self, run: RunRef, added: Join, **more: Any) -> Join | None:
        """See ``Joins.join``."""
        place = (added.key, added.chunk)
        known = sum(len(join.done) for join in self.joins(run, added.incarnation) if (join.key, join.chunk) == place)
        return super().join(run, replace(added, done=frozenset(range(known, known + len(added.done)))), **more)


class EveryAnswerWins(MemoryStore):
    """An answer is written whatever stands there, and its giver told that it was his."""

    def resume(self, head: Head, record: StepRecord, *, version: int, prior: StepRecord, **more: Any) -> Any:
        """See ``Store.resume``."""
        with self._lock:
            loaded = self.load(head.run, everything=True)
            assert loaded is not None
            standing, records = loaded
            head = _onto(standing, head)
            return super().resume(head, record, version=standing.version, prior=records[record.key], **more)


class StateForgotten(MemoryStore):
    """What steps have put into the state is gone when their worker gives the run back."""

    def release(self, head: Head, *, epoch: int, version: int, **more: Any) -> Any:
        """See ``Store.release``."""
        return super().release(replace(head, state={}), epoch=epoch, version=version, **more)


class ResumeLeavesHead(MemoryStore):
    """An answer is stored, and the head is not touched."""

    def resume(self, head: Head, record: StepRecord, *, version: int, prior: StepRecord, **more: Any) -> Any:
        """See ``Store.resume``."""
        return super().commit(head.run, head.incarnation, record, prior)


class NoDueOnSleep(MemoryStore):
    """A run that sleeps says nothing to the sweeper."""

    def release(self, head: Head, *, epoch: int, version: int, **more: Any) -> Any:
        """See ``Store.release``."""
        due = None if head.status is RunStatus.WAITING else head.due
        return super().release(replace(head, due=due), epoch=epoch, version=version, **more)


class NobodyListens(MemoryStore):
    """Who waits for an event looks for it, but tells nobody."""

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""


class ResumeInTwoWrites(ScriptedStore):
    """The record first and the head after it."""

    def resume(self, head: Head, record: StepRecord, *, version: int, prior: StepRecord, **more: Any) -> Any:
        """See ``Store.resume``."""
        written = self.commit(head.run, head.incarnation, record, prior)
        if not isinstance(written, Written):
            return written
        return self.script.ask("move", lambda store: store.move(head, version=version), head, version)


class RecordsBeforeHead(ScriptedStore):
    """What has happened is read before the run is claimed."""

    early: Records | None = None

    def claim(self, run: RunRef, **claim: Any) -> Any:
        """See ``Store.claim``."""
        loaded = self.load(run)
        self.early = None if loaded is None else loaded[1]
        return super().__getattr__("claim")(run, **claim)

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``."""
        early, self.early = self.early, None
        if head is not None and early is not None:
            return head, early
        return super().load(run, head, everything=everything)


class DecisionsForgotten(ScriptedStore):
    """Which arm was chosen is not written down."""

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        return Written() if record.key == "way" else super().__getattr__("commit")(run, incarnation, record, prior)


_SMALL = replace(SCENARIOS["an answer"], others=[ada(PLAIN)], looks=2)

MUTANTS: Mapping[str, Scenario] = {
    "release checks only the epoch": replace(_SMALL, table=ReleaseByEpoch),
    "last writer wins on a step": replace(_SMALL, table=LastWriterWins),
    "decisions are not journaled": replace(
        SCENARIOS["a branch that cannot decide, and a step that fails"], store=DecisionsForgotten
    ),
    "resume does not touch the head": replace(_SMALL, table=ResumeLeavesHead),
    "resume is two writes": replace(_SMALL, store=ResumeInTwoWrites),
    "no due on a sleep": replace(SCENARIOS["an answer beside a sleep"], table=NoDueOnSleep),
    "no fence": replace(_SMALL, table=NoFence),
    "steps are read before the head": replace(_SMALL, store=RecordsBeforeHead),
    "nobody listens for events": replace(SCENARIOS["an event that comes when it likes"], table=NobodyListens),
}
"""Joins by a counter are shown elsewhere: they need a fan-out."""


def main() -> int:
    """Search; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.property.scenarios", description=main.__doc__)
    parser.add_argument("names", nargs="*", help="of scenarios; all of them when left out")
    parser.add_argument("--most", type=int, default=1_000_000, help="states of each")
    parser.add_argument("--broken", action="store_true", help="the protocol with a rule taken out")
    asked = parser.parse_args()
    logging.getLogger("flowcore").setLevel(logging.CRITICAL + 1)
    known, states, bad = MUTANTS if asked.broken else SCENARIOS, 0, 0
    for name in asked.names or known:
        began, found = time.monotonic(), Space(known[name]).search(asked.most)
        states, bad = states + found.states, bad + (found.violation is not None)
        print(f"{name}: " * asked.broken + f"{found} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{states:,} states, {bad} ways into trouble")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
