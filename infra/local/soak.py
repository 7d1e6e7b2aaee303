"""``python -m infra.local soak``: many runs on the local stack while workers are killed and frozen, as long as asked.

Runs are started, their questions answered (sometimes by two at once), a few are canceled; hints are sent twice, worker
processes get SIGKILL, or SIGSTOP until others have gone on in their place; the clock jumps when nothing moves any more.
In the end no rule may be broken, nothing stuck and nobody due. Runs of the shapes in ``soak_flows.py`` must have become
what they become undisturbed as well, their effects counted once per idempotency key; those of another App what their
``soak_plan.Plan`` asks.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.s3 import S3Blobs
from flowcore.adapters.sqs import SqsQueue
from flowcore.adapters.system import SystemIds
from flowcore.app import App
from flowcore.authoring.graph import EventNode
from flowcore.codec import digest
from flowcore.errors import InvalidPayload, RequestError
from flowcore.inbox import asked
from flowcore.keys import RunRef, dotted
from flowcore.model import Head, Json, RunStatus, Wait
from flowcore.ops import doctor
from flowcore.ports import Records
from flowcore.testing import LocalApp
from flowcore.testing.invariants import head_violations, run_violations
from flowcore.testing.trial import answer_to, next_approver
from infra.local import soak_flows
from infra.local.clock import StackClock
from infra.local.drawn import drawn
from infra.local.logs import Line
from infra.local.pool import FunctionPool
from infra.local.soak_flows import ANSWER, BOOK, EVENT, PACE
from infra.local.soak_plan import Plan, UnsaidError, found
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
_BREAKDOWNS = ("InvariantError", "look failed")
"""What no worker may print."""
_BREAKDOWNS_OF_OURS = ("Traceback", *_BREAKDOWNS)
"""The same where the steps are ours: what they raise on purpose is told without these words."""
_STARTER = "soak"
"""Whoever starts the runs; some steps do not let him answer, and want to know who he was."""
_NEVER = datetime.max.replace(tzinfo=UTC)
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
    left: dict[str, bool] = field(default_factory=dict)
    """By open wait with a deadline: whether it is left to it."""
    refused: str = ""
    """Why the last answer does not fit, if it does not."""


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


class Stack(Protocol):
    """What the soak needs of the ``LocalStack`` its runs are on."""

    pools: dict[str, FunctionPool]

    @property
    def idle(self) -> bool:
        """See ``LocalStack.idle``."""
        ...

    def forward(self, step: timedelta) -> None:
        """See ``LocalStack.forward``."""
        ...

    def logs(self, function: str) -> Sequence[Line]:
        """See ``LocalStack.logs``."""
        ...


class Watch(Protocol):
    """Real time in seconds, as the module ``time`` has it."""

    def monotonic(self) -> float:
        """Seconds from anywhere."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Let so many pass."""
        ...


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

    def __init__(
        self,
        stack: Stack,
        app: App,
        seed: int,
        *,
        plan: Plan,
        book: Path | None = None,
        watch: Watch = time,
    ) -> None:
        """On ``stack``, which serves ``app``.

        Args:
            book: where the steps of ``soak_flows`` enter what they do; None: another App is served.
            watch: how real time passes.
        """
        self.stack, self.app, self.plan, self.book, self.watch = stack, app, plan, book, watch
        self.chance = random.Random(seed)
        self.report = Report(seed)
        self.flows = list(plan.inputs or app.workflows)
        self.usual = {} if book is None else {flow: undisturbed(flow) for flow in self.flows}
        self.open: dict[str, _Known] = {}
        self.ended: dict[str, Seen] = {}
        self.frozen: list[_Frozen] = []
        self.moved_at = watch.monotonic()
        self.still = 0

    # -- the story --------------------------------------------------------------------------------------------------

    def go(self, *, blows: int, seconds: float = float("inf"), at_once: int = 8) -> Report:
        """Have ``at_once`` runs side by side, strike so often, and see all of them to their end.

        Args:
            seconds: after so long nothing new is begun, and nobody is struck any more.
        Raises: UnsaidError when there is no input for a workflow.
        """
        began = self.watch.monotonic()
        while self.still < _MOST_JUMPS:
            goes_on = self.report.blows < blows and self.watch.monotonic() - began < seconds
            if goes_on and len(self.open) < at_once:
                self._start()
            self._look()
            if not goes_on and not self.open and not self._due():
                break
            if goes_on:
                self._strike()
            self._thaw(everybody=False)
            self._disturb()
            if self._is_quiet() and not self._answer_all():
                self._jump()
        self._thaw(everybody=True)
        self._wait_for_calm()
        self._look_again()
        self._tell_of_those_left()
        self.report.seconds = self.watch.monotonic() - began
        return self.report

    def entries(self) -> dict[str, set[str]]:
        """What stands in the book: by run, the places that had an effect; each key counts once."""
        return {} if self.book is None else entered(self.book)

    def _start(self) -> None:
        number, flow = self.report.started, self.flows[self.report.started % len(self.flows)]
        run_id, input = f"s-{number}", self._input(flow)
        self.report.started += 1
        self.open[run_id] = _Known(flow, is_doomed=self.chance.random() < _CANCELED)
        self.app.workflow(flow).create_run(run_id).start(input, by=_STARTER, wait=None)
        self.plan.begun(self.app, run_id, self.chance)

    def _input(self, flow: str) -> Any:
        if flow in self.plan.inputs:
            return self.plan.inputs[flow](self.chance)
        try:
            return drawn(self.app.workflows[flow].compiled.takes, self.chance)
        except InvalidPayload as unfit:
            raise UnsaidError(f"Say Plan(inputs={{{flow!r}: ...}}); none that is drawn is taken: {unfit}") from unfit

    def _look(self) -> None:
        """What has become of the open runs; questions are answered."""
        for run_id, known in list(self.open.items()):
            head = self._peek(run_id)
            if head is None or (known.head is not None and head.version == known.head.version):
                self._note_lateness(known)
                continue
            known.head, known.late_since, known.refused = head, None, ""
            self.moved_at, self.still = self.watch.monotonic(), 0
            if head.is_terminal and not head.outbox:
                self._judge(run_id, self.open.pop(run_id), head)
            elif head.status is RunStatus.SUSPENDED:
                self._answer(run_id, known)

    def _note_lateness(self, known: _Known) -> None:
        now = self.watch.monotonic()
        if known.head is None or known.head.due is None or known.head.due > self.app.clock.now():
            known.late_since = None
        elif known.late_since is None:
            known.late_since = now
        else:
            self.report.latest_s = max(self.report.latest_s, now - known.late_since)

    def _answer_all(self) -> bool:
        """Answer also whoever asks in a child, of which the head of its run does not tell; whether that helps."""
        changed = [self._answer(run_id, known) for run_id, known in self.open.items()]
        return any(changed)

    def _answer(self, run_id: str, known: _Known) -> bool:
        """Answer whoever asks in a run; whether that has changed anything."""
        taken = False
        for wait in self.app.run(run_id).result().waits:
            try:
                data = self._data(known, wait)
            except KeyError:
                continue  # it is left to its deadline
            except InvalidPayload as unfit:
                known.refused = str(unfit)
                continue
            told = self._bring(run_id, known, wait, data)
            self.report.answers.update(told)
            taken = taken or not {"applied", "counted"}.isdisjoint(told)
        return taken

    def _data(self, known: _Known, wait: Wait[Json]) -> Any:
        """What a wait is answered with. Raises: KeyError when it is left to its deadline; InvalidPayload."""
        answers = self.plan.answers
        try:
            return answer_to(wait, {} if answers is None else answers)
        except KeyError:
            may_be_left = wait.deadline is not None
            if may_be_left and (answers is not None or known.left.setdefault(wait.id, self.chance.random() < 0.5)):
                raise
        return drawn(asked(self.app, wait.run_id, wait.id).answer, self.chance)

    def _bring(self, run_id: str, known: _Known, wait: Wait[Json], data: Any) -> list[str]:
        """Send the event, or have people answer, two at once now and then; what they are told."""
        if isinstance(self.app.workflows[known.flow].compiled.find(".".join(wait.path)), EventNode):
            event, key = wait.payload["event"], wait.payload["key"]
            id = digest([run_id, wait.id, data, self.report.jumps])  # another one later: that went elsewhere
            return [self._told(known, lambda: self.app.send_event(event, key, data, event_id=id))]
        people = [next_approver(wait), *wait.approvers, "bob"][: self.chance.choice([1, 1, 2])]
        with ThreadPoolExecutor(len(people)) as crowd:
            asked = [partial(self.app.resume, run_id, data, wait=wait.id, by=by) for by in people]
            return list(crowd.map(lambda ask: self._told(known, lambda: ask().receipt), asked))

    def _told(self, known: _Known, ask: Callable[[], Any]) -> str:
        """The verdict, or why there is none."""
        try:
            return str(ask().verdict)
        except RequestError as refused:
            if isinstance(refused, InvalidPayload):
                known.refused = str(refused)
            return type(refused).__name__

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        heads = [known.head for known in self.open.values() if known.head is not None]
        if any(head.attempts >= _CLAIMS for head in heads):
            return
        until = self.watch.monotonic() + _PATIENCE_S
        while not self._at_work() and self.watch.monotonic() < until:
            self.watch.sleep(0.005)
        self.watch.sleep(self.chance.random() * 0.1)
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
            self.frozen.append(_Frozen(pid, self.watch.monotonic(), self.report.jumps, driven))
            self.report.frozen += 1
        else:
            self.report.killed += 1

    def _at_work(self) -> list[int]:
        stopped = {one.pid for one in self.frozen}
        return [pid for pid in self.stack.pools["WorkerFunction"].pids_at_work() if pid not in stopped]

    def _thaw(self, *, everybody: bool) -> None:
        """Let those go on in whose place somebody else has, or who have been frozen for too long."""
        for one in list(self.frozen):
            waited, is_overtaken = self.watch.monotonic() - one.since, self._is_overtaken(one)
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
        now = self.watch.monotonic()
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
        self.moved_at = self.watch.monotonic()

    # -- what must hold ---------------------------------------------------------------------------------------------

    def _judge(self, run_id: str, known: _Known, head: Head) -> None:
        self.report.ended[head.public_status] += 1
        self.ended[run_id] = self._seen(known.flow, head, self.entries())
        wrong = list(self._unusual(self.ended[run_id], is_canceled=known.is_canceled))
        if head.status is not RunStatus.CANCELED or not known.is_canceled:
            wrong += self.plan.ends(known.flow, self.app.run(run_id).result())
        wrong += head_violations(None, head)
        loaded = self.app.store.load(head.run)
        if loaded is not None:
            wrong += run_violations(self.app.workflows[known.flow].compiled, *loaded)
        self.report.wrong += [f"{run_id} ({known.flow}): {line}" for line in wrong]

    def _unusual(self, seen: Seen, *, is_canceled: bool) -> Iterator[str]:
        """What of a run is not as it is undisturbed, where that is known."""
        usual, head = self.usual.get(seen.flow), seen.head
        if usual is None:
            return
        if head.status is RunStatus.CANCELED and is_canceled:
            yield from (f"effect {key} is none of this run" for key in seen.keys - usual.keys)
            return
        pairs = [("status", head.public_status, usual.status), ("output", head.output, usual.output)]
        pairs += [("effects", sorted(seen.keys), sorted(usual.keys))]
        yield from (f"{what} {found!r}, not {right!r}" for what, found, right in pairs if found != right)

    def _due(self) -> list[str]:
        """Runs, and children of runs, that are over or should be, and that somebody would look at all the same."""
        heads = [self.app.store.peek(run) for run in self.app.store.due(_NEVER, limit=100)]
        ended = (head for head in heads if head is not None and head.expires_at is None)
        return [head.run.id for head in ended if (head.part.top if head.part else head.run.id) not in self.open]

    def _seen(self, flow: str, head: Head, entries: Mapping[str, set[str]]) -> Seen:
        loaded = self.app.store.load(head.run, everything=True)
        return Seen(flow, *(loaded or (head, {})), frozenset(entries.get(head.run.id, ())))

    def _wait_for_calm(self) -> None:
        """Those who have thawed do what they still believe to have to do."""
        until = self.watch.monotonic() + _CALM_S
        while not self.stack.idle and self.watch.monotonic() < until:
            self.watch.sleep(0.05)

    def _look_again(self) -> None:
        """Nobody who thawed late may have changed a run that had ended."""
        entries = self.entries()
        kept = {run_id: seen for run_id, seen in self.ended.items() if not seen.head.is_expired(self.app.clock.now())}
        for run_id, seen in kept.items():
            keys = self.usual[seen.flow].keys if self.usual else frozenset()
            found = changes(seen, self._seen(seen.flow, seen.head, entries), keys)
            self.report.wrong += [f"{run_id} ({seen.flow}): {line}, since it was over" for line in found]

    def _tell_of_those_left(self) -> None:
        found = {finding.run_id: finding for finding in doctor(self.app)} if self.open else {}
        for run_id, known in self.open.items():
            finding = found.get(run_id)
            said = f"{finding.ailment}: {finding.detail}" if finding else "the doctor finds nothing"
            status = known.head.status if known.head else "unknown"
            said += f". Its answer was refused: {known.refused}" if known.refused else ""
            self.report.wrong.append(f"{run_id} ({known.flow}) is stuck in {status}: {said}")
        self.report.wrong += [f"{run_id} is over, and somebody would look at it all the same" for run_id in self._due()]
        for process in self._broken_down():
            self.report.wrong.append(f"a worker broke down: {process}")

    def _broken_down(self) -> Iterator[str]:
        """What no worker may say: that something went wrong that is no step's."""
        words = _BREAKDOWNS if self.book is None else _BREAKDOWNS_OF_OURS
        lines = (line.text for line in self.stack.logs("WorkerFunction"))
        return (text for text in lines if any(word in text for word in words))


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


def served(stack: LocalStack, app: App) -> App:
    """The App as it stands on the stack, for somebody who does not drive runs."""
    told = stack.environment("WorkerFunction")
    return app.on(
        store=DynamoStore(stack.client("dynamodb"), told["FLOWCORE_TABLE"], SystemIds()),
        queue=SqsQueue(stack.client("sqs"), told["FLOWCORE_QUEUE_URL"]),
        blobs=S3Blobs(told["FLOWCORE_BUCKET"], make=lambda: stack.client("s3")),
        clock=StackTime(stack.clock),
    )


OURS = "infra.local.soak_flows:app"
"""Workflows of many shapes, which are soaked when nobody names others."""
Soaking: TypeAlias = Callable[[int, str], AbstractContextManager[Soak]]


@contextmanager
def soaking(seed: int, name: str = OURS, *, pace_s: float = 0.3) -> Iterator[Soak]:
    """A stack whose workers serve the App of that name, ``module:attribute``. Raises: UnsaidError."""
    app, plan = found(name)
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book" if name == OURS else None
        environment = {BOOK: str(book), PACE: str(pace_s)} if book else {}
        parameters = {"AppModule": name, "WorkerTimeout": "60", "WorkerBatchSize": "1"}
        with LocalStack(parameters=parameters, environment=environment, max_sandboxes=3) as stack:
            yield Soak(stack, served(stack, app), seed, plan=plan, book=book)


def main(arguments: Sequence[str], soaking: Soaking = soaking) -> int:
    """Soak, and tell what has happened; 1 if a run is stuck or has become what it should not."""
    parser = argparse.ArgumentParser(prog="python -m infra.local soak", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="then nothing new is begun")
    parser.add_argument("--seed", type=int, default=None, help="of what goes wrong; drawn and told when left out")
    parser.add_argument("--at-once", type=int, default=8, help="runs side by side")
    parser.add_argument("--app", default=OURS, help="module:attribute; a soak_plan.Plan named soak may stand beside it")
    asked = parser.parse_args(arguments)
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    print(f"Soaking for {asked.minutes:g} minutes with seed {seed} ...", flush=True)
    try:
        with soaking(seed, asked.app) as soak:
            report = soak.go(blows=10**9, seconds=asked.minutes * 60, at_once=asked.at_once)
    except UnsaidError as unsaid:
        parser.error(str(unsaid))
    print(report)
    return int(bool(report.wrong))
