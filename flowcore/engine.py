"""Drives runs: claim, load, decide, perform, commit each outcome, decide again, until parked, ended or out of time.

The order of writes is the protocol. Everything this file believes about a run was either read after its claim or
written by itself; the store's conditions judge whether it may write. Knows ports, never adapters; calls no user code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, assert_never
from urllib.parse import quote

from flowcore.authoring.graph import BranchNode, ForeachNode, Graph, LoopNode, StepNode
from flowcore.codec import NotJsonError, Shape, digest
from flowcore.core import evolve as heads
from flowcore.core.admit import Meant, Refused, Repeated, Resume, admit, receipt_of
from flowcore.core.compat import conflict, overtaken
from flowcore.core.decide import Action, Broken, Done, Finish, Park, Passed, Run, decide
from flowcore.core.evolve import Adopted, Answered, Failed, Skipped, StepEvent, context_at, evolve, fold, kept, state_at
from flowcore.crew import Crew, EventLoop
from flowcore.errors import (
    ConflictError,
    DefinitionChanged,
    InvalidPayload,
    OutsideError,
    PayloadTooLarge,
    RunExists,
    RunNotFound,
    WorkflowNotFound,
)
from flowcore.hints import Hints
from flowcore.keys import RunRef, StepKey, dotted, inside, once_of
from flowcore.model import Answer, Head, Json, Outcome, Receipt, RunStatus, Snapshot, StepFailure, StepRecord, wait_id
from flowcore.ports import Claimed, Clock, HeadMoved, Ids, NotClaimable, RecordMoved, Store, Written
from flowcore.runner import Runner, View, conclude, is_async

_LOGGER = logging.getLogger("flowcore.engine")

MOST_TRIES = 20
"""Times a resume is decided anew because the head moved under it; each time somebody else made progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things may take. The defaults suit a Lambda worker."""

    lease: timedelta = timedelta(minutes=15)
    """How long a run is held when the worker has no deadline of its own."""
    lease_slack: timedelta = timedelta(seconds=10)
    """How much longer than the worker's own life its lease lasts."""
    margin: timedelta = timedelta(seconds=3)
    """No step is begun with less than this left: enough to commit, release and hint."""
    short_retry: timedelta = timedelta(seconds=1)
    """A retry this near is waited for in the process: dearer compute, but cheaper than parking and waking."""
    peek: timedelta = timedelta(seconds=1)
    """How often at most the head is read while steps run, to notice a cancel."""
    most_turns: int | None = None
    """Hand the run on after this many turns of decide and perform; 1 gives each step a process image of its own."""
    most_hops: int = 10_000
    """Times in a row a run may be handed on before it is held to go in circles."""


_TAKEABLE = frozenset({RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING, RunStatus.BLOCKED})
"""Statuses from which whoever brings an answer may drive on at once."""


class _Fenced(Exception):
    """This worker no longer holds the run: write nothing more. Never leaves this module."""


class _Unanswered(BaseException):
    """The store gave no answer inside a step. A ``BaseException``: it is no failure of the step, nor for it to catch.

    Never leaves this module.
    """

    def __init__(self, error: OutsideError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True, eq=False)
class Engine:
    """One engine serves all workflows of an App, from any number of threads."""

    graphs: Mapping[str, Graph]
    store: Store
    hints: Hints
    clock: Clock
    ids: Ids
    pace: Pace = field(default_factory=Pace)
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    crew: Callable[[EventLoop], Crew[StepKey, StepEvent]] = field(default=Crew, repr=False)
    """Makes the crew of one session; a test gives one whose order of outcomes it can replay."""

    # -- what arrives -----------------------------------------------------------------------------------------------

    def start(self, head: Head, *, here: bool, deadline: datetime | None = None) -> tuple[Snapshot, bool]:
        """Begin a run, or find the one that was begun with the same input; and whether this call began it.

        Args:
            head: as made by the caller, QUEUED at version 1.
            here: drive the run in this process; otherwise a worker is asked to.
        Raises: RunExists when another input or workflow stands under this id.
        """
        now = self.clock.now()
        if here:
            lease_until = self._lease_until(now, deadline)
            head = heads.held(replace(head, version=0), now, owner=self.ids.fresh(), lease_until=lease_until)
        else:
            head = replace(head, due=now + heads.QUEUED_GRACE)
        existing = self.store.start(head)
        if existing is not None:
            return self._begun_before(head, existing), False
        snapshot = fold(head, ())
        if here:
            return self._drive(self.graph(head.workflow), snapshot, deadline), True
        self.hints.send(head.run, at=now, version=head.version)
        return snapshot, True

    def look(self, run: RunRef, *, deadline: datetime | None = None) -> Head | None:
        """A hint has come: drive the run if there is anything to do. None when there is no such run."""
        now = self.clock.now()
        lease_until = self._lease_until(now, deadline)
        due = lease_until + heads.LEASE_GRACE
        claim = self.store.claim(run, owner=self.ids.fresh(), now=now, lease_until=lease_until, due=due)
        match claim:
            case NotClaimable(head):
                if head is not None and head.wake is not None and head.wake > now and not head.is_terminal:
                    self.hints.send(run, at=head.wake, version=head.version)
                return head
            case Claimed(head):
                return self._claimed(head, deadline)
            case _:
                assert_never(claim)

    def resume(
        self,
        run: RunRef,
        data: Json,
        resume: Resume,
        *,
        by: str | None = None,
        via: str = "python",
        here: bool,
        deadline: datetime | None = None,
    ) -> tuple[Snapshot, Receipt]:
        """Settle a suspension with ``data``; exactly one of several racing answers is applied.

        Raises: RunNotFound, InvalidPayload, and what ``admit`` refuses with; the run is untouched then.
        """
        owner = self.ids.fresh()
        # A copy of an answer that a finished turn or child has had is known by its key alone. A wait's id needs no such
        # care: it is open or it is not.
        everything = resume.idempotency_key is not None and resume.wait is None
        for _ in range(MOST_TRIES):
            graph, snapshot = self._loaded(run, everything=everything)
            verdict = admit(graph, snapshot, resume)
            if isinstance(verdict, Refused):
                graph, snapshot = self._loaded(run, everything=True)
                verdict = admit(graph, snapshot, resume)
            match verdict:
                case Refused(error):
                    raise error
                case Repeated(first):
                    self._hint_again(snapshot.head)
                    return snapshot, first
                case Meant(records):
                    answers = [self._answer(graph, snapshot, record, data, resume, by, via) for record in records]
                case _:
                    assert_never(verdict)
            lease_until = self._lease_until(self.clock.now(), deadline) if here else None
            written = self._settle(snapshot, list(zip(records, answers, strict=True)), owner, lease_until)
            if written is not None:
                return self._resumed(graph, written, owner, here=here, deadline=deadline), receipt_of(answers[0])
        raise ConflictError(f"Run {run.id!r} moved {MOST_TRIES} times while it was being resumed. Try again.")

    def cancel(self, run: RunRef) -> Head:
        """Stop a run for good, from any process; an ended run keeps its status. Raises: RunNotFound."""
        head = self.store.cancel(run, now=self.clock.now())
        if head is None:
            raise RunNotFound(run.id)
        if self.hints.scheduler is not None and head.status is RunStatus.CANCELED:
            self.hints.scheduler.unschedule(run, version=head.version - 1)
        return head

    def read(self, run: RunRef, *, everything: bool = True) -> Snapshot:
        """The run as it stands. Raises: RunNotFound."""
        loaded = self.store.load(run, everything=everything)
        if loaded is None:
            raise RunNotFound(run.id)
        return fold(loaded[0], loaded[1].values())

    def graph(self, workflow: str) -> Graph:
        """The compiled workflow of that id. Raises: WorkflowNotFound."""
        try:
            return self.graphs[workflow]
        except KeyError:
            raise WorkflowNotFound(workflow, self.graphs) from None

    # -- start and resume -------------------------------------------------------------------------------------------

    def _begun_before(self, head: Head, existing: Head) -> Snapshot:
        if existing.workflow != head.workflow or existing.input_hash != head.input_hash:
            raise RunExists(existing.run.id, existing.workflow)
        self._hint_again(existing)
        return self.read(existing.run)

    def _hint_again(self, head: Head) -> None:
        """A repeated request may mean that the first one died before its hint."""
        if head.status is RunStatus.QUEUED:
            self.hints.send(head.run, at=self.clock.now(), version=head.version)

    def _loaded(self, run: RunRef, *, everything: bool = False) -> tuple[Graph, Snapshot]:
        snapshot = self.read(run, everything=everything)
        graph = self.graph(snapshot.head.workflow)
        if snapshot.head.definition != graph.fingerprint and not snapshot.head.is_terminal:
            reason = conflict(graph, snapshot)
            if reason is not None:
                raise DefinitionChanged(run.id, reason)
        return graph, snapshot

    def _answer(
        self, graph: Graph, snapshot: Snapshot, record: StepRecord, data: Json, resume: Resume, by: str | None, via: str
    ) -> Answer:
        """The data, checked against the step's resume type before anything is written."""
        node = step_node(graph, record.key)
        accepted = node.step.resume.accept(f"resume data of step {dotted(record.key)!r}", data)
        return Answer(
            wait=wait_id(record),
            data=accepted,
            digest=resume.digest,
            at=self._now(snapshot),
            by=by,
            via=via,
            idempotency_key=resume.idempotency_key,
        )

    def _settle(
        self, snapshot: Snapshot, pairs: list[tuple[StepRecord, Answer]], owner: str, lease_until: datetime | None
    ) -> Snapshot | None:
        """Write each answer together with the head; None when somebody else was faster before the first was written.

        With ``lease_until``, ``owner`` holds the run afterwards, unless somebody drives it already.

        Several pairs are the items of one foreach, which all get the same data; whoever settles one of them meanwhile
        keeps it.
        """
        is_settled = False
        for record, answer in pairs:
            for _ in range(MOST_TRIES):
                if snapshot.head.is_terminal or snapshot.records.get(record.key) != record:
                    break
                written = self._answered(snapshot, record, answer, owner, lease_until)
                if written is not None:
                    snapshot, is_settled = written, True
                    break
                if not is_settled:
                    return None
                snapshot = self.read(snapshot.head.run, everything=False)
        return snapshot if is_settled else None

    def _answered(
        self, snapshot: Snapshot, record: StepRecord, answer: Answer, owner: str, lease_until: datetime | None
    ) -> Snapshot | None:
        """One answer together with the head; None when something has moved."""
        now = self._now(snapshot)
        if lease_until is not None and snapshot.head.status in _TAKEABLE:
            head = heads.held(snapshot.head, now, owner=owner, lease_until=lease_until)
        else:
            head = heads.queued(snapshot.head, now)
        after = evolve(snapshot, Answered(key=record.key, answer=answer), now)
        written = self.store.resume(head, after.records[record.key], version=snapshot.head.version, prior=record)
        return after.with_head(head) if isinstance(written, Written) else None

    def _resumed(
        self, graph: Graph, snapshot: Snapshot, owner: str, *, here: bool, deadline: datetime | None
    ) -> Snapshot:
        """After the answer is stored: drive on if this process holds the run now, else see that somebody does."""
        head = snapshot.head
        if head.status is RunStatus.RUNNING and head.owner == owner:
            return self._drive(graph, snapshot, deadline)
        if head.status is RunStatus.QUEUED:
            self.hints.send(head.run, at=head.updated_at, version=head.version)
            if here:
                self.look(head.run, deadline=deadline)
                return self.read(head.run)
        return snapshot

    # -- driving ----------------------------------------------------------------------------------------------------

    def _claimed(self, head: Head, deadline: datetime | None) -> Head:
        loaded = self.store.load(head.run, head)
        if loaded is None:
            raise RunNotFound(head.run.id)
        snapshot = fold(head, loaded[1].values())
        graph = self.graphs.get(head.workflow)
        if graph is None:
            reason = f"no workflow {head.workflow!r} is served here; deploy it again, then resume or cancel the run"
            return self._blocked(snapshot, reason).head
        return self._drive(graph, snapshot, deadline).head

    def _drive(self, graph: Graph, snapshot: Snapshot, deadline: datetime | None) -> Snapshot:
        """Drive a run this worker holds until it is parked, ended or handed on; the run as it stands then."""
        if snapshot.head.definition != graph.fingerprint:
            reason = conflict(graph, snapshot)
            if reason is not None:
                return self._blocked(snapshot, reason)
        return _Session(self, graph, snapshot, deadline).run()

    def _blocked(self, snapshot: Snapshot, reason: str) -> Snapshot:
        held = snapshot.head
        head = heads.blocked(held, self._now(snapshot), reason)
        written = self.store.release(head, epoch=held.epoch, version=held.version)
        _LOGGER.error("run is blocked", extra={"run_id": held.run.id, "reason": reason})
        return snapshot.with_head(head) if isinstance(written, Written) else self.read(held.run)

    def _lease_until(self, now: datetime, deadline: datetime | None) -> datetime:
        return (now + self.pace.lease if deadline is None else deadline) + self.pace.lease_slack

    def _now(self, snapshot: Snapshot) -> datetime:
        """The run's own time: never before what has already happened to it, whatever this machine's clock says."""
        return max(self.clock.now(), snapshot.head.updated_at)


class _Session:
    """One worker driving one run it holds. Ends by releasing the run, or by noticing that it no longer holds it."""

    def __init__(self, engine: Engine, graph: Graph, snapshot: Snapshot, deadline: datetime | None) -> None:
        self.engine = engine
        self.graph = graph
        self.snapshot = snapshot
        self.deadline = deadline
        self.passed = Passed()
        self.underway: dict[StepKey, StepRecord | None] = {}
        self.crew = engine.crew(engine.loop)
        self.runner = Runner(engine.clock, engine.ids, engine.loop.wait_for)
        self.looked_at = engine.clock.now()
        self.is_lost = False
        self.kept: dict[StepKey, StepRecord] = {}
        self.turns = 0

    def run(self) -> Snapshot:
        """Turn after turn, until there is nothing left to do here."""
        try:
            self._adopt_definition()
            while not self._turn():
                pass
        except _Fenced:
            return self.engine.read(self.snapshot.head.run)
        except _Unanswered as unanswered:
            raise unanswered.error from None
        finally:
            self.crew.dismiss()
        return self.snapshot

    def _adopt_definition(self) -> None:
        """Go on under today's definition; what it has inserted in front of the reached position is skipped for good."""
        head = self.snapshot.head
        if head.definition == self.graph.fingerprint:
            return
        for key in list(overtaken(self.graph, self.snapshot)):
            self._write(Skipped(key=key), None)
        self.snapshot = self.snapshot.with_head(replace(head, definition=self.graph.fingerprint))

    def _turn(self) -> bool:
        """Decide once and act on it; whether the session is over."""
        decision = decide(self.graph, self.snapshot, self._now(), self.passed)
        match decision:
            case Run(actions, retry):
                fresh = [action for action in actions if action.place.key not in self.underway]
                if fresh and self._is_out_of_time():
                    return self._hand_on() if not self.underway else self._collect(None)
                self._perform(fresh, retry)
                return False
            case Park() | Finish() if self.underway:
                return self._collect(None)
            case Park(_, _, retry) if retry is not None and self._is_near(retry):
                self.engine.clock.wait_until(retry)
                return False
            case Park(status, wake):
                return self._release(heads.parked(self.snapshot.head, self._now(), status, wake))
            case Finish(result):
                return self._finish(result)
            case _:
                assert_never(decision)

    def _perform(self, fresh: list[Action], retry: datetime | None) -> None:
        self.turns += bool(fresh)
        if len(fresh) == 1 and not self.underway and not is_async(fresh[0]):
            action = fresh[0]
            prior = self.snapshot.records.get(action.place.key)
            self._commit(self.runner.perform(action, self._view(action)), prior)
            return
        for action in fresh:
            self._start(action)
        self._collect(retry)

    def _start(self, action: Action) -> None:
        key, view = action.place.key, self._view(action)
        self.underway[key] = self.snapshot.records.get(key)
        if is_async(action):
            self.crew.start_coroutine(key, self.runner.perform_async(action, view))
        else:
            self.crew.start_thread(key, lambda: self.runner.perform(action, view))

    def _collect(self, until: datetime | None) -> bool:
        """Wait for one outcome, at most ``until``, and commit it. Never ends the session."""
        timeout_s = None if until is None else max(0.0, (until - self._now()).total_seconds())
        came = self.crew.next(timeout_s)
        if came is not None:
            key, event = came
            self._commit(event, self.underway.pop(key))
        return False

    def _commit(self, event: StepEvent, prior: StepRecord | None) -> None:
        """Make one outcome durable; if another worker was faster, what it committed is adopted."""
        if self.snapshot.records.get(_key_of(event)) is not prior:
            return
        self._look_up()
        try:
            self._write(event, prior)
        except (PayloadTooLarge, NotJsonError) as error:
            failure = StepFailure(type=type(error).__name__, message=str(error), step=dotted(_key_of(event)))
            self._write(Failed(key=_key_of(event), failure=failure, started_at=self._now()), prior)

    def _write(self, event: StepEvent, prior: StepRecord | None) -> None:
        head = self.snapshot.head
        after = evolve(self.snapshot, event, self._now())
        written = self.engine.store.commit(head.run, head.incarnation, after.records[_key_of(event)], prior)
        match written:
            case Written():
                self.snapshot = after
            case RecordMoved(record):
                if record is None:
                    raise _Fenced
                self.snapshot = evolve(self.snapshot, Adopted(record=record), self._now())
            case _:
                assert_never(written)

    def _once(self, key: StepKey, make: Callable[[], Json]) -> Json:
        """``ctx.once``: stored under its own key at once, so that it survives whatever becomes of the step."""
        known = self.kept.get(key) or self.snapshot.records.get(key)
        if known is not None:
            return known.output
        head = self.snapshot.head
        record = kept(self.snapshot, key, make(), self._now())
        try:
            written = self.engine.store.commit(head.run, head.incarnation, record, None)
        except OutsideError as error:
            raise _Unanswered(error) from error
        if isinstance(written, RecordMoved) and written.record is not None:
            record = written.record
        self.kept[key] = record
        return record.output

    def _finish(self, result: Done | Broken) -> bool:
        head, now = self.snapshot.head, self._now()
        if isinstance(result, Broken):
            return self._release(heads.finished(head, now, failure=result.failure))
        output, failure = conclude(self.graph, result)
        try:
            return self._release(heads.finished(head, now, output=output, failure=failure))
        except PayloadTooLarge as error:
            failure = StepFailure(type=type(error).__name__, message=str(error))
            return self._release(heads.finished(head, now, failure=failure))

    def _hand_on(self) -> bool:
        head = self.snapshot.head
        if head.hops >= self.engine.pace.most_hops:
            message = f"the run was handed on {head.hops} times in a row without parking; it seems to go in circles"
            failure = StepFailure(type="TooManyHops", message=message)
            return self._release(heads.finished(head, self._now(), failure=failure))
        return self._release(heads.handed_on(head, self._now()))

    def _release(self, head: Head) -> bool:
        """Give the run back as ``head``. If somebody resumed meanwhile, go on with what they brought instead."""
        held = self.snapshot.head
        written = self.engine.store.release(head, epoch=held.epoch, version=held.version)
        match written:
            case Written():
                self.snapshot = self.snapshot.with_head(head)
                if head.wake is not None or head.status is RunStatus.QUEUED:
                    self.engine.hints.send(head.run, at=head.wake or self._now(), version=head.version)
                return True
            case HeadMoved(moved):
                self._take_up(moved)
                return False
            case _:
                assert_never(written)

    def _take_up(self, moved: Head | None) -> None:
        """Load again under the head that stands there now. Raises: _Fenced if it is no longer ours."""
        held = self.snapshot.head
        if moved is None or moved.epoch != held.epoch or moved.status is not RunStatus.RUNNING:
            raise _Fenced
        loaded = self.engine.store.load(moved.run, moved)
        if loaded is None:
            raise _Fenced
        self.snapshot = fold(replace(moved, definition=held.definition), loaded[1].values())

    def _look_up(self) -> None:
        """Now and then read the head, to notice a cancel or a new holder. Raises: _Fenced."""
        if self.is_lost:
            raise _Fenced
        now = self.engine.clock.now()
        if now - self.looked_at < self.engine.pace.peek:
            return
        self.looked_at = now
        head = self.engine.store.peek(self.snapshot.head.run)
        if head is None or head.epoch != self.snapshot.head.epoch:
            self.is_lost = True
            raise _Fenced

    def is_set(self) -> bool:
        """Whether the run was taken from this worker: the ``cancelled`` flag a step can look at."""
        try:
            self._look_up()
        except _Fenced:
            return True
        return self.is_lost

    def _view(self, action: Action) -> View:
        snapshot, place = self.snapshot, action.place
        head = snapshot.head

        def result_of(step: str) -> tuple[Shape[Any], Json] | None:
            node, key = place.graph.find(step), inside(place.home, step.replace(".", "/"))
            record = snapshot.records.get(key)
            if record is None and "." in step:  # inside a container; a finished one is not loaded
                record = self.engine.read(head.run).records.get(key)
            if node is None or isinstance(node, BranchNode) or record is None or not _has_output(record):
                return None
            return node.gives, record.output

        return View(
            run_id=head.run.id,
            workflow_id=place.graph.id,
            resource_id=head.resource_id,
            idempotency_key=idempotency_key(head, place.key),
            state=state_at(snapshot, place.key),
            request_context=context_at(snapshot, place.key),
            result_of=result_of,
            once=lambda name, make: self._once(once_of(place.key, quote(name, safe="")), make),
            remaining=self._remaining,
            cancelled=self,
        )

    def _remaining(self) -> timedelta:
        if self.deadline is None:
            return self.engine.pace.lease
        return self.deadline - self.engine.clock.now()

    def _is_out_of_time(self) -> bool:
        """Whether no more work is begun here: too little time is left, or as much was done as one worker should."""
        most = self.engine.pace.most_turns
        if most is not None and self.turns >= most:
            return True
        return self.deadline is not None and self._remaining() < self.engine.pace.margin

    def _is_near(self, instant: datetime) -> bool:
        return instant - self._now() <= self.engine.pace.short_retry and not self._is_out_of_time()

    def _now(self) -> datetime:
        return self.engine._now(self.snapshot)


def step_node(graph: Graph, key: StepKey) -> StepNode:
    """The step that a key of a record names, loop and foreach bodies included. Raises: InvalidPayload."""
    node = graph.find(dotted(key))
    if isinstance(node, (LoopNode, ForeachNode)):
        node = node.body
    if not isinstance(node, StepNode):
        raise InvalidPayload(
            "step", [{"path": dotted(key), "message": "is no step that takes an answer", "type": "step"}]
        )
    return node


def idempotency_key(head: Head, key: StepKey) -> str:
    """The name of one effect: the same on each try of one place of one run, different everywhere else."""
    tenant = "" if head.run.tenant == "default" else f"{head.run.tenant}/"
    again = "" if head.incarnation == 1 else f"~{head.incarnation}"
    full = f"{tenant}{head.run.id}{again}/{key}"
    return full if len(full) <= 200 else f"{full[:150]}-{digest(full)}"


def _has_output(record: StepRecord) -> bool:
    return record.outcome in (Outcome.OK, Outcome.BAIL)


def _key_of(event: StepEvent) -> StepKey:
    return event.record.key if isinstance(event, Adopted) else event.key
