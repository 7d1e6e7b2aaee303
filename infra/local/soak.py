"""``python -m infra.local soak``: many runs on the local stack while workers are killed and frozen, as long as asked.

Runs of the shapes in ``soak_flows.py`` are started, their questions answered (sometimes by two at once), a few are
canceled; hints are sent twice, worker processes get SIGKILL, or SIGSTOP until others have gone on in their place; the
clock jumps when nothing moves any more. In the end every run must have become what it becomes undisturbed, its effects
counted once per idempotency key, no rule broken, and nothing stuck.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.sqs import SqsQueue
from flowcore.adapters.system import SystemIds
from flowcore.app import App
from flowcore.errors import RequestError
from flowcore.keys import RunRef, dotted
from flowcore.model import Head, RunStatus
from flowcore.ops import doctor
from flowcore.ports import Records
from flowcore.testing import LocalApp
from flowcore.testing.invariants import run_violations
from infra.local import soak_flows
from infra.local.clock import StackClock
from infra.local.soak_flows import ANSWER, BOOK, EVENT, FLOWS, PACE
from infra.local.stack import LocalStack

_CANCELED = 0.1
"""Share of the runs that somebody cancels."""
_QUIET_S = 0.7
"""Nothing has moved for so long: time may pass."""
_BUSY_S = 10.0
"""The same while somebody is at work, who may be slow, or may have come for no reason."""
_PATIENCE_S = 0.4
"""For a worker that is in the middle of something, to strike it there."""
_SOON_OVERTAKEN_S = 2.0
"""Somebody has been frozen for so long: time passes, so that another one may take his place."""
_LONGEST_FROZEN_S = 45.0
"""Lambda would end him after 60."""
_SHORTEST_JUMP = timedelta(seconds=61)
"""The sweeper comes once a minute."""
_MOST_JUMPS = 15
"""In a row, without anything moving: then what is left is stuck."""
_CALM_S = 60.0
"""The most that those who have thawed take until they are done."""
_BREAKDOWNS = ("Traceback", "InvariantError", "look failed")
"""What no worker may print; what a step raises on purpose is told without these words."""
_CLAIMS = 3
"""Nobody is struck while a run has so many workers in a row that died of it: after five its step would be given up."""


@dataclass(slots=True)
class Report:
    """What has happened, and what should not have."""

    seed: int
    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    frozen: int = 0
    taken_over: int = 0
    """Of the frozen ones: others had gone on before they thawed."""
    jumps: int = 0
    hints: int = 0
    """Sent again for no reason."""
    answers: Counter[str] = field(default_factory=Counter)
    latest_s: float = 0.0
    """The longest, in real seconds, that a run stood still although somebody should have come."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def blows(self) -> int:
        """Workers killed, or frozen until others had gone on: a worker that thaws with nothing lost was not struck."""
        return self.killed + self.taken_over

    def __str__(self) -> str:
        ended = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()))
        answers = ", ".join(f"{count} {verdict}" for verdict, count in sorted(self.answers.items()))
        lines = [
            f"seed {self.seed}, {self.seconds:.0f} s",
            f"runs: {self.started} started; {ended or 'none ended'}; {len(self.wrong)} stuck or wrong",
            f"workers: {self.killed} killed, {self.frozen} frozen ({self.taken_over} taken over before they thawed)",
            f"answers: {answers or 'none'}; {self.hints} hints sent for no reason; the clock jumped {self.jumps} times",
            f"the longest anybody was waited for, once he was due: {self.latest_s:.1f} s of real time",
        ]
        return "\n".join([*lines, *self.wrong])


@dataclass(frozen=True, slots=True)
class Usual:
    """What becomes of a run that nobody disturbs."""

    status: str
    output: Any
    keys: frozenset[str]


@dataclass(slots=True)
class _Known:
    """A run under way, as it was last seen."""

    flow: str
    head: Head | None = None
    is_doomed: bool = False
    """Whether somebody will cancel it, sooner or later."""
    is_canceled: bool = False
    late_since: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A run that has ended, as it was found then."""

    flow: str
    head: Head
    records: Records
    keys: frozenset[str]
    """The places that had an effect."""


@dataclass(slots=True)
class _Frozen:
    pid: int
    since: float
    jumps: int
    driven: dict[str, Head]
    """Runs that were driven then, and have not moved until time has passed: his is among them."""


class StackTime:
    """``flowcore.ports.Clock`` of the stack."""

    def __init__(self, clock: StackClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        """See ``Clock.now``."""
        instant = self._clock.now()
        return instant.replace(microsecond=instant.microsecond // 1000 * 1000)

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``; nobody here drives runs."""
        raise NotImplementedError(instant)


class Soak:
    """Runs, and what is done to those who drive them."""

    def __init__(self, stack: LocalStack, book: Path, seed: int) -> None:
        """On ``stack``, whose workers serve ``soak_flows`` and enter into ``book``."""
        self.stack, self.book = stack, book
        self.chance = random.Random(seed)
        self.report = Report(seed)
        told = stack.environment("WorkerFunction")
        self.app: App = soak_flows.app.on(
            store=DynamoStore(stack.client("dynamodb"), told["FLOWCORE_TABLE"], SystemIds()),
            queue=SqsQueue(stack.client("sqs"), told["FLOWCORE_QUEUE_URL"]),
            clock=StackTime(stack.clock),
        )
        self.usual = {flow.id: undisturbed(flow.id) for flow in FLOWS}
        self.open: dict[str, _Known] = {}
        self.ended: dict[str, Seen] = {}
        self.frozen: list[_Frozen] = []
        self.moved_at = time.monotonic()
        self.still = 0

    # -- the story --------------------------------------------------------------------------------------------------

    def go(self, *, blows: int, seconds: float = float("inf"), at_once: int = 8) -> Report:
        """Have ``at_once`` runs side by side, strike so often, and see all of them to their end.

        Args:
            seconds: after so long nothing new is begun, and nobody is struck any more.
        """
        began = time.monotonic()
        while self.still < _MOST_JUMPS:
            goes_on = self.report.blows < blows and time.monotonic() - began < seconds
            if goes_on and len(self.open) < at_once:
                self._start()
            self._look()
            if not goes_on and not self.open:
                break
            if goes_on:
                self._strike()
            self._thaw(everybody=False)
            self._disturb()
            if self._is_quiet():
                self._jump()
        self._thaw(everybody=True)
        self._wait_for_calm()
        self._look_again()
        self._tell_of_those_left()
        self.report.seconds = time.monotonic() - began
        return self.report

    def entries(self) -> dict[str, set[str]]:
        """What stands in the book: by run, the places that had an effect; each key counts once."""
        return entered(self.book)

    def _start(self) -> None:
        number, flow = self.report.started, FLOWS[self.report.started % len(FLOWS)]
        run_id = f"s-{number}"
        self.report.started += 1
        self.open[run_id] = _Known(flow.id, is_doomed=self.chance.random() < _CANCELED)
        self.app.workflow(flow.id).create_run(run_id).start(1, wait=None)
        if flow.id == "parcel" and self.chance.random() < 0.3:
            self.app.send_event(EVENT, run_id, ANSWER, event_id=run_id)

    def _look(self) -> None:
        """What has become of the open runs; questions are answered."""
        for run_id, known in list(self.open.items()):
            head = self._peek(run_id)
            if head is None or (known.head is not None and head.version == known.head.version):
                self._note_lateness(known)
                continue
            known.head, known.late_since = head, None
            self.moved_at, self.still = time.monotonic(), 0
            if head.is_terminal:
                self._judge(run_id, self.open.pop(run_id), head)
            elif head.status is RunStatus.SUSPENDED:
                self._answer(run_id, known)

    def _note_lateness(self, known: _Known) -> None:
        now = time.monotonic()
        if known.head is None or known.head.due is None or known.head.due > self.app.clock.now():
            known.late_since = None
        elif known.late_since is None:
            known.late_since = now
        else:
            self.report.latest_s = max(self.report.latest_s, now - known.late_since)

    def _answer(self, run_id: str, known: _Known) -> None:
        if known.flow == "parcel":
            told = self.app.send_event(EVENT, run_id, ANSWER, event_id=run_id).verdict
            self.report.answers[told] += 1
        elif known.flow != "late":
            people = ["ada", "bob"][: self.chance.choice([1, 1, 2])]
            racers = [threading.Thread(target=self._resume, args=(run_id, by)) for by in people]
            for racer in racers:
                racer.start()
            for racer in racers:
                racer.join()

    def _resume(self, run_id: str, by: str) -> None:
        verdict = "applied"
        try:
            self.app.resume(run_id, ANSWER, label="ask" if self.open[run_id].flow != "turns" else None, by=by)
        except RequestError as refused:
            verdict = type(refused).__name__
        self.report.answers[verdict] += 1

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        heads = [known.head for known in self.open.values() if known.head is not None]
        if any(head.attempts >= _CLAIMS for head in heads):
            return
        until = time.monotonic() + _PATIENCE_S
        while not self._at_work() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(self.chance.random() * 0.1)
        if not (busy := self._at_work()):
            return
        pid = self.chance.choice(busy)
        freezes = not self.frozen and self.chance.random() < 0.4
        try:
            os.kill(pid, signal.SIGSTOP if freezes else signal.SIGKILL)
        except ProcessLookupError:
            return
        if freezes:
            now = [self._peek(run_id) for run_id in self.open]
            driven = {head.run.id: head for head in now if head is not None and head.status is RunStatus.RUNNING}
            self.frozen.append(_Frozen(pid, time.monotonic(), self.report.jumps, driven))
            self.report.frozen += 1
        else:
            self.report.killed += 1

    def _at_work(self) -> list[int]:
        stopped = {one.pid for one in self.frozen}
        return [pid for pid in self.stack.pools["WorkerFunction"].pids_at_work() if pid not in stopped]

    def _thaw(self, *, everybody: bool) -> None:
        """Let those go on in whose place somebody else has, or who have been frozen for too long."""
        for one in list(self.frozen):
            waited, is_overtaken = time.monotonic() - one.since, self._is_overtaken(one)
            if one.driven and not (everybody or is_overtaken or waited > _LONGEST_FROZEN_S):
                continue
            self.report.taken_over += is_overtaken
            self.frozen.remove(one)
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGCONT)

    def _is_overtaken(self, one: _Frozen) -> bool:
        """Whether time has passed, and somebody else holds what he believes to hold."""
        now = [(self._peek(run_id), head) for run_id, head in one.driven.items()]
        return self.report.jumps > one.jumps and any(head and head.epoch > was.epoch for head, was in now)

    def _peek(self, run_id: str) -> Head | None:
        return self.app.store.peek(RunRef("default", run_id))

    def _disturb(self) -> None:
        """A hint for no reason; seldom a cancel."""
        if not self.open or self.chance.random() > 0.1:
            return
        run_id = self.chance.choice(list(self.open))
        self.app.engine.hints.send(RunRef("default", run_id), at=self.app.clock.now(), version=0)
        self.report.hints += 1
        if self.open[run_id].is_doomed and self.chance.random() < 0.3:
            self.open[run_id].is_canceled = True
            self.app.cancel(run_id)

    def _is_quiet(self) -> bool:
        """Whether nothing will move before time passes. A worker that is slow to start on a busy machine may."""
        now = time.monotonic()
        soon = any(one.jumps == self.report.jumps and now - one.since > _SOON_OVERTAKEN_S for one in self.frozen)
        is_busy = sum(pool.busy for pool in self.stack.pools.values()) > len(self.frozen)
        return soon or now - self.moved_at > (_BUSY_S if is_busy else _QUIET_S)

    def _jump(self) -> None:
        """Let time pass until somebody is woken by a timer, or by the sweeper because no timer came."""
        heads, now = [known.head for known in self.open.values() if known.head is not None], self.app.clock.now()
        alarms = [head.wake for head in heads if self.chance.random() < 0.7] + [head.due for head in heads]
        ahead = min((alarm - now for alarm in alarms if alarm is not None and alarm > now), default=_SHORTEST_JUMP)
        for one in self.frozen:
            if one.jumps == self.report.jumps:
                seen = [(run_id, self._peek(run_id), was) for run_id, was in one.driven.items()]
                one.driven = {run_id: was for run_id, head, was in seen if head and head.version == was.version}
        self.stack.forward(max(ahead + timedelta(seconds=1), _SHORTEST_JUMP))
        self.report.jumps += 1
        self.still += 1
        self.moved_at = time.monotonic()

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _judge(self, run_id: str, known: _Known, head: Head) -> None:
        self.report.ended[head.public_status] += 1
        seen = self.ended[run_id] = self._seen(known.flow, head, self.entries())
        usual, keys = self.usual[known.flow], seen.keys
        if head.status is RunStatus.CANCELED and known.is_canceled:
            wrong = [f"effect {key} is none of this run" for key in keys - usual.keys]
        else:
            pairs = [("status", head.public_status, usual.status), ("output", head.output, usual.output)]
            pairs += [("effects", sorted(keys), sorted(usual.keys))]
            wrong = [f"{what} {found!r}, not {right!r}" for what, found, right in pairs if found != right]
        loaded = self.app.store.load(head.run)
        if loaded is not None:
            wrong += run_violations(self.app.workflows[known.flow].compiled, *loaded)
        self.report.wrong += [f"{run_id} ({known.flow}): {line}" for line in wrong]

    def _seen(self, flow: str, head: Head, entries: Mapping[str, set[str]]) -> Seen:
        loaded = self.app.store.load(head.run, everything=True)
        return Seen(flow, *(loaded or (head, {})), frozenset(entries.get(head.run.id, ())))

    def _wait_for_calm(self) -> None:
        """Those who have thawed do what they still believe to have to do."""
        until = time.monotonic() + _CALM_S
        while not self.stack.idle and time.monotonic() < until:
            time.sleep(0.05)

    def _look_again(self) -> None:
        """Nobody who thawed late may have changed a run that had ended."""
        entries = self.entries()
        for run_id, seen in self.ended.items():
            found = changes(seen, self._seen(seen.flow, seen.head, entries), self.usual[seen.flow].keys)
            self.report.wrong += [f"{run_id} ({seen.flow}): {line}, since it was over" for line in found]

    def _tell_of_those_left(self) -> None:
        found = {finding.run_id: finding for finding in doctor(self.app)} if self.open else {}
        for run_id, known in self.open.items():
            finding = found.get(run_id)
            said = f"{finding.ailment}: {finding.detail}" if finding else "the doctor finds nothing"
            status = known.head.status if known.head else "unknown"
            self.report.wrong.append(f"{run_id} ({known.flow}) is stuck in {status}: {said}")
        for process in self._broken_down():
            self.report.wrong.append(f"a worker broke down: {process}")

    def _broken_down(self) -> Iterator[str]:
        """What no worker may say: that something went wrong that is no step's."""
        lines = (line.text for line in self.stack.logs("WorkerFunction"))
        return (text for text in lines if any(word in text for word in _BREAKDOWNS))


def changes(seen: Seen, now: Seen, keys: frozenset[str]) -> Iterator[str]:
    """What has become of a run that had ended, and should not have.

    Where it was canceled, a worker that did not know yet may have done a step, and have kept its outcome.

    Args:
        keys: the places that have an effect when nobody disturbs.
    """
    if now.head != seen.head:
        yield f"{seen.head.status} at version {seen.head.version} became {now.head.status} at {now.head.version}"
    is_canceled = seen.head.status is RunStatus.CANCELED
    for key in sorted(seen.records.keys() | now.records.keys()):
        before, after = seen.records.get(key), now.records.get(key)
        if before != after and not (is_canceled and (before is None or not before.is_settled)):
            yield f"the record of {dotted(key)!r} became another one"
    yield from (f"effect {key} happened, which is none of this run" for key in sorted(now.keys - seen.keys - keys))


def entered(book: Path) -> dict[str, set[str]]:
    """What stands in the book: by run, the places that had an effect; each key counts once."""
    found: dict[str, set[str]] = {}
    for line in book.read_text("utf-8").splitlines() if book.exists() else ():
        run_id, _, place = line.split(" ", 1)[0].partition("/")
        found.setdefault(run_id, set()).add(place)
    return found


def undisturbed(flow: str) -> Usual:
    """Run the workflow in this process, on virtual time, with nobody who disturbs."""
    with tempfile.TemporaryDirectory() as folder, _environment({BOOK: str(Path(folder) / "book")}):
        app = LocalApp(soak_flows.app)
        run = app.workflow(flow).create_run("r")
        result = run.start(1)
        while result.status not in ("success", "failed"):
            asked = [wait for wait in result.waits if wait.deadline is None]
            if asked and flow == "parcel":
                app.send_event(EVENT, "r", ANSWER)
            elif asked:
                run.resume(ANSWER, wait=asked[0].id)
            app.advance(days=1)
            result = run.result()
        return Usual(result.status, result.output, frozenset(entered(Path(os.environ[BOOK]))["r"]))


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    was = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(was)


@contextmanager
def soaking(seed: int, *, pace_s: float = 0.3) -> Iterator[Soak]:
    """A stack whose workers serve the workflows of the soak."""
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book"
        environment = {BOOK: str(book), PACE: str(pace_s)}
        parameters = {"AppModule": "infra.local.soak_flows:app", "WorkerTimeout": "60", "WorkerBatchSize": "1"}
        with LocalStack(parameters=parameters, environment=environment, max_sandboxes=3) as stack:
            yield Soak(stack, book, seed)


def main(arguments: Sequence[str]) -> int:
    """Soak, and tell what has happened; 1 if a run is stuck or has become what it should not."""
    parser = argparse.ArgumentParser(prog="python -m infra.local soak", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="then nothing new is begun")
    parser.add_argument("--seed", type=int, default=None, help="of what goes wrong; drawn and told when left out")
    parser.add_argument("--at-once", type=int, default=8, help="runs side by side")
    asked = parser.parse_args(arguments)
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    print(f"Soaking for {asked.minutes:g} minutes with seed {seed} ...", flush=True)
    with soaking(seed) as soak:
        report = soak.go(blows=10**9, seconds=asked.minutes * 60, at_once=asked.at_once)
    print(report)
    return int(bool(report.wrong))
