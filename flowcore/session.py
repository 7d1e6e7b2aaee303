"""One worker driving one run it holds: decide, perform, commit, and decide again, until it can be given back.

Ends by releasing the run, or by noticing that it no longer holds it and writing nothing more. Every outcome is durable
before the next decision rests on it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, assert_never
from urllib.parse import quote

from flowcore.arrivals import look_back as look_early
from flowcore.authoring.graph import BranchNode, Graph, StepNode
from flowcore.beats import Beats
from flowcore.codec import NotJsonError, Shape, digest
from flowcore.core import heads
from flowcore.core.actions import Action, Broken, Done, Ended, Finish, Gather, Park, Place, Run, RunStep
from flowcore.core.admit import open_waits
from flowcore.core.alternatives import each
from flowcore.core.compat import overtaken
from flowcore.core.decide import Passed, decide
from flowcore.core.evolve import (
    Adopted,
    Begun,
    Failed,
    FailedOnce,
    Skipped,
    StepEvent,
    Succeeded,
    Suspended,
    beaten,
    context_at,
    evolve,
    kept,
    state_at,
)
from flowcore.core.rename import as_met
from flowcore.errors import (
    BlobLost,
    EffectRefused,
    InvalidPayload,
    NeedsDynamoDB,
    OutsideError,
    PayloadTooLarge,
)
from flowcore.fanout import close, deliver, gather, patience, unpark, waits_in_children
from flowcore.hold import Hold, KeptBack
from flowcore.hooks import lease, tell
from flowcore.keys import RunRef, StepKey, beat_of, dotted, emit_of, inside, once_of, parents_of, step_of, told_of
from flowcore.mailbox import listeners_of, look_back
from flowcore.migrations import registered
from flowcore.model import Head, Json, Outcome, RunStatus, Snapshot, StepFailure, StepRecord, Wait
from flowcore.parcels import brought, replace
from flowcore.pmap import PMap
from flowcore.ports import EffectMoved, Effects, HeadMoved, RecordMoved, Written
from flowcore.receipts import remember
from flowcore.renewal import Outdated, is_step, outdated, renewed_snapshot, renewed_state
from flowcore.runner import Runner, View, conclude, is_async
from flowcore.spans import Stretch, with_id
from flowcore.tries import Try, is_at_most_once, promised_by, time_for

if TYPE_CHECKING:
    from flowcore.engine import Engine


_ANYTHING: Shape[Any] = Shape(Any)
_LOGGER = logging.getLogger("flowcore.session")


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
    beat: timedelta = timedelta(seconds=10)
    """How often at most a heartbeat writes or reads anything."""
    notify_again: timedelta = timedelta(minutes=1)
    """The shortest pause before ``notify`` of a suspension is called again, when it failed; it doubles."""
    notify_rarely: timedelta = timedelta(hours=1)
    """The longest."""
    most_turns: int | None = None
    """Hand the run on after this many turns of decide and perform; 1 gives each step a process image of its own."""
    most_hops: int = 10_000
    """Times in a row a run may be handed on before it is held to go in circles."""


class _Fenced(BaseException):
    """This worker no longer holds the run: write nothing more. Never leaves this module.

    A ``BaseException``: inside a step it is no failure of the step, nor for it to catch.
    """


class _Unanswered(BaseException):
    """The store gave no answer inside a step, or has lost it.

    A ``BaseException``: it is no failure of the step, nor for it to catch. Never leaves this module.
    """

    def __init__(self, error: OutsideError | BlobLost) -> None:
        super().__init__(str(error))
        self.error = error


class Session:
    """One worker driving one run it holds. Ends by releasing the run, or by noticing that it no longer holds it."""

    def __init__(
        self, engine: Engine, graph: Graph, snapshot: Snapshot, deadline: datetime | None, *, per_step: bool = False
    ) -> None:
        """Drive ``snapshot``, which this process holds, until ``deadline``; ``per_step``: one step, then pause."""
        self.engine = engine
        self.graph = graph
        self.snapshot = snapshot
        self.deadline = deadline
        self.per_step = per_step
        self.is_stepped = False
        self.passed = Passed()
        self.underway: dict[StepKey, Try] = {}
        self.timed: set[Try] = set()
        self.crew = engine.crew(engine.loop)
        self.runner = Runner(engine.clock, engine.ids, engine.loop.wait_for)
        self.looked_at: datetime | None = engine.clock.now()
        self.is_lost = False
        self.hold = Hold(engine.store, snapshot.head)
        self.beats = Beats(engine, self.hold, deadline)
        self.details: dict[StepKey, Json] = {}
        """What steps have told with heartbeats, stored or not."""
        self.detailed_at: dict[StepKey, datetime] = {}
        self.kept_back = KeptBack()
        self.begun_once: set[StepKey] = set()
        self.writing = RLock()
        self.kept: dict[StepKey, StepRecord] = {}
        self.last_seq = 0
        self.order = Lock()
        tracer = engine.tracer
        self.stretch = None if tracer is None else Stretch(tracer, _traced(snapshot), engine.clock.now())
        self.turns = 0
        self.children: list[RunRef] = []
        """Those to be driven in this process, because no queue brings them to another."""
        self.outdated: dict[StepKey, str] = {}
        """Places that are not begun here, because what is stored for them fits no more, with the reason."""

    def run(self) -> Snapshot:
        """Turn after turn, until there is nothing left to do here."""
        try:
            unpark(self.engine, self.snapshot)
            self._adopt_definition()
            while not self._turn():
                pass
        except _Fenced:
            self._tell_of_stretch("lost")
            return self.engine.read_again(self.snapshot)
        except BlobLost as lost:
            return self._without(lost)
        except _Unanswered as unanswered:
            if isinstance(unanswered.error, BlobLost):
                return self._without(unanswered.error)
            raise unanswered.error from None
        finally:
            self.crew.dismiss()
        self._tell_of_stretch(self.snapshot.head.public_status)
        return self.snapshot

    def _without(self, lost: BlobLost) -> Snapshot:
        """A large value is needed that is gone: the run is blocked until it is there again; nothing else is lost.

        What is under way is waited for; what cannot be committed any more is done again, as after a crash.
        """
        try:
            while self.underway:
                self._collect(None)
            if self.kept_back:
                self._flush()
            self._catch_up()
        except (BlobLost, _Unanswered):
            pass
        except _Fenced:
            self._tell_of_stretch("lost")
            return self.engine.read(self.snapshot.head.run)
        self.snapshot = self.engine.blocked(self.snapshot, str(lost))
        self._tell_of_stretch(self.snapshot.head.public_status)
        return self.snapshot

    def _tell_of_stretch(self, status: str) -> None:
        if self.stretch is not None:
            self.stretch.over(self.snapshot, status, self.engine.clock.now())

    def _adopt_definition(self) -> None:
        """Go on under today's definition; what it has inserted in front of the reached position is skipped for good."""
        head = self.snapshot.head
        if head.definition == self.graph.fingerprint:
            return
        for key in list(overtaken(self.graph, self.snapshot)):
            if head.part is None or key.startswith(f"{head.part.key}["):
                self._write(Skipped(key=key), None)
            else:  # for the run it is a part of to write
                self.snapshot = evolve(self.snapshot, Skipped(key=key), self._now())
        self.snapshot = self.snapshot.with_head(replace(head, definition=self.graph.fingerprint))

    def _turn(self) -> bool:
        """Decide once and act on it; whether the session is over."""
        self._catch_up()
        decision = decide(self.graph, self.snapshot, self._now(), self.passed)
        goes_on = bool(self.underway) or isinstance(decision, Run)
        if (goes_on and self.kept_back.has_question) or self.kept_back.is_to_be_told:
            self._flush()
            return False
        match decision:
            case Run(actions, _) if self._is_blocked(actions):
                return self._block(next(iter(self.outdated.values())))
            case Run(actions, _) if gathers := [action for action in actions if isinstance(action, Gather)]:
                return self._gather(gathers)
            case Run(actions, _) if self.per_step:
                return self._step_once(actions)
            case Run(actions, retry):
                return self._go_on(actions, retry)
            case Park() | Finish() if self.underway:
                return self._collect(None)
            case Park(_, _, retry) if retry is not None and self._is_near(retry):
                self.engine.clock.wait_until(retry)
                return False
            case Park() if look_back(self.engine, self.snapshot) or look_early(self.engine, self.snapshot):
                self._take_up(self.engine.store.peek(self.snapshot.head.run))
                return False
            case Park(status, wake):
                waits = open_waits(self.snapshot)
                looks = [look for record in waits if (look := self._notify(record)) is not None]
                wake = min(looks if wake is None else [wake, *looks], default=None)
                return self._park(status, wake, waits)
            case Finish(result):
                return self._finish(result)
            case _:
                assert_never(decision)

    def _go_on(self, actions: tuple[Action, ...], retry: datetime | None) -> bool:
        """Do what is not under way yet, as far as there is time for it."""
        fresh = [action for action in actions if action.place.key not in self.underway]
        fresh = [action for action in fresh if action.place.key not in self.outdated]
        fitting = [action for action in fresh if self._has_time_for(action)]
        if fresh and not fitting:
            return self._hand_on() if not self.underway else self._collect(None)
        self._perform(fitting, retry)
        return False

    def _park(self, status: RunStatus, wake: datetime | None, waits: list[StepRecord]) -> bool:
        """Give the run back until ``wake``. Children wake it themselves; that they are looked after needs no hint."""
        head, now = self.snapshot.head, self._now()
        waits = [*waits, *waits_in_children(self.engine, self.snapshot)]
        if status is RunStatus.JOINING:
            look = now + patience(self.snapshot, now)
            if wake is None or wake > look:
                return self._release(heads.parked(head, now, status, look, waits), hint=False)
        return self._release(heads.parked(head, now, status, wake, waits))

    def _gather(self, gathers: list[Gather]) -> bool:
        """Look after the children of distributed foreaches, unless there is no time left for that."""
        if self.kept_back:  # children read what is stored
            self._flush()
            return False
        for action in gathers:
            self._look_up()
            gathered = gather(self.engine, self.snapshot, action, is_late=self._is_out_of_time)
            self.snapshot = gathered.snapshot
            self.children += gathered.children
            if not gathered.is_complete and not self.underway:
                return self._hand_on()
        return False

    def _is_blocked(self, actions: tuple[Action, ...]) -> bool:
        """Whether nothing is left to do but what cannot be begun with what is stored for it."""
        return bool(self.outdated) and not self.underway and all(a.place.key in self.outdated for a in actions)

    def _block(self, reason: str) -> bool:
        _LOGGER.error("run is blocked", extra={"run_id": self.snapshot.head.run.id, "reason": reason})
        return self._release(heads.blocked(self.snapshot.head, self._now(), reason))

    def _step_once(self, actions: tuple[Action, ...]) -> bool:
        """One step, with the bookkeeping in front of it; then the run is paused for whoever debugs it."""
        if self.is_stepped:
            return self._release(heads.paused(self.snapshot.head, self._now()))
        ready = [action for action in actions if action.place.key not in self.outdated]
        action = next((action for action in ready if not isinstance(action, RunStep)), ready[0])
        self._perform([action], None)
        while self.underway:
            self._collect(None)
        self.is_stepped = isinstance(action, RunStep)
        return False

    def _perform(self, candidates: list[Action], retry: datetime | None) -> None:
        fresh = [action for action in candidates if self._can_read_state(action)]
        self.turns += bool(fresh)
        self._fit_lease(fresh)
        if len(fresh) == 1 and not self.underway and not is_async(fresh[0]) and time_for(fresh[0]) is None:
            self._look_up()
            action = self._begun(fresh[0])
            if action is not None:
                prior = self.snapshot.records.get(action.place.key)
                self._commit(self.runner.perform(action, self._view(action)), prior, action)
            return
        for candidate in fresh:
            self._look_up()
            action = self._begun(candidate)
            if action is not None:
                self._start(action)
        if self.underway:
            self._collect(retry)

    def _fit_lease(self, beginning: list[Action]) -> None:
        """Hold the run as long as whoever is at work from now on has promised. Raises: _Fenced if it is lost."""
        if beginning:
            at_work = (*beginning, *(try_.action for try_ in self.underway.values()))
            self.beats.fit([promised_by(action) for action in at_work])
        if self.beats.is_lost:
            raise _Fenced

    def _begun(self, action: Action) -> Action | None:
        """The action, once it is written down that it begins if it may begin once only; None: another was faster."""
        if not is_at_most_once(action):
            return action
        key, held = action.place.key, self.snapshot.head
        prior = self.snapshot.records.get(key)
        attempt = 0 if prior is None else prior.attempt
        self.begun_once.add(key)
        self._write(Begun(key=key, attempt=attempt, started_at=self.engine.clock.now()), prior)
        record = self.snapshot.records.get(key)
        if record is None or record.outcome is not Outcome.START:
            return None
        if record.epoch > held.epoch:
            raise _Fenced  # in the eyes of this worker whoever has begun it would be dead
        return replace(action, prior=record) if record.epoch == held.epoch else None

    def _start(self, action: Action) -> None:
        key = action.place.key
        try_ = Try(action, self.snapshot.records.get(key), self.engine.clock, self)
        view = self._view(action, try_)
        self.underway[key] = try_
        if try_.timeout is not None:
            self.timed.add(try_)
        if is_async(action):
            self.crew.start_coroutine(try_, try_.watched_async(self.runner.perform_async(action, view)))
        else:
            self.crew.start_thread(try_, lambda: try_.watched(lambda: self.runner.perform(action, view)))

    def _collect(self, until: datetime | None) -> bool:
        """Wait for one outcome, at most ``until``, and commit it. Never ends the session."""
        now = self.engine.clock.now()
        pauses = [try_.may_end_late_at() - now for try_ in self.timed]
        if until is not None:
            pauses.append(until - self._now())
        came = self.crew.next(max(0.0, min(pauses).total_seconds()) if pauses else None)
        if came is not None:
            self._came_back(*came)
        else:
            self._give_up_overdue()
        return False

    def _came_back(self, try_: Try, event: StepEvent | None) -> None:
        """Commit what a try came to; one that came back late has timed out, whatever it brought."""
        del self.underway[try_.action.place.key]
        self.timed.discard(try_)
        if event is None or try_.is_late():
            event = self.runner.timed_out(try_.action, self._view(try_.action), try_.began_at or self._now())
        self._commit(event, try_.prior, try_.action)

    def _give_up_overdue(self) -> None:
        for try_ in [try_ for try_ in self.timed if try_.is_overdue()]:
            self.crew.give_up(try_)
            self._came_back(try_, None)

    def _commit(self, event: StepEvent, prior: StepRecord | None, action: Action) -> None:
        """Make one outcome durable; if another worker was faster, what it committed is adopted."""
        if self.snapshot.records.get(_key_of(event)) is not prior:
            return
        if isinstance(event, Failed) and (reason := outdated(self.graph, self.snapshot, event)) is not None:
            self._leave_alone(event, prior, reason)
            return
        self._look_up()
        self._catch_up()
        if isinstance(event, FailedOnce):
            self._keep_details(event.key)
        try:
            self._write(event, prior)
        except EffectRefused as error:
            began_at = event.started_at if isinstance(event, (Succeeded, Suspended)) else self._now()
            self._write(self.runner.refused(action, self._view(action), error, began_at), prior)
        except (PayloadTooLarge, InvalidPayload, NotJsonError, NeedsDynamoDB) as error:
            failure = StepFailure(type=type(error).__name__, message=str(error), step=dotted(_key_of(event)))
            self._fail(Failed(key=_key_of(event), failure=failure, started_at=self._now()), prior)

    def _leave_alone(self, event: Failed, prior: StepRecord | None, reason: str) -> None:
        """Begin a place no more in this process: a deploy has to bring what can read what is stored for it."""
        self.outdated[event.key] = reason
        if prior is not None and prior.outcome is Outcome.START and is_step(self.graph, event.key):
            # It may run at most once, and it was written down that it begins. It has not been called.
            now = self._now()
            again = FailedOnce(key=event.key, failure=event.failure, started_at=now, attempt=prior.attempt, until=now)
            self._write(again, prior)

    def _can_read_state(self, action: Action) -> bool:
        """Whether the shared values are such as the place can be given; if not, it is left alone."""
        if registered():
            try:
                self._state_at(action)
            except Outdated as error:
                self.outdated[action.place.key] = str(error)
        return action.place.key not in self.outdated

    def _state_at(self, action: Action) -> Mapping[str, Json]:
        """The shared values as the place takes them. Raises: Outdated."""
        place = action.place
        shape = place.graph.state
        if isinstance(place.node, StepNode) and place.node.step.state.type is not Any:
            shape = place.node.step.state
        state: Mapping[str, Json] = renewed_state(shape, state_at(self.snapshot, place.key), place.graph.id)
        return state

    def _fail(self, event: Failed, prior: StepRecord | None) -> None:
        """Store that a place has failed; where not even that can be stored, the run fails. Raises: _Fenced then."""
        try:
            self._write(event, prior)
        except (PayloadTooLarge, InvalidPayload):
            self._release(heads.finished(self.snapshot.head, self._now(), failure=event.failure))
            raise _Fenced from None

    def _write(self, event: StepEvent, prior: StepRecord | None) -> None:
        if self.graph.fans_out and isinstance(event, (Succeeded, Failed)):
            close(self.engine, self.graph, self.snapshot, event.key)
        with self.writing:
            self._write_alone(event, prior)

    def _write_alone(self, event: StepEvent, prior: StepRecord | None) -> None:
        effects = event.effects if isinstance(event, (Succeeded, Suspended)) else ()
        if effects and self.kept_back:
            self._flush()  # what the author writes rests on it
            if self.snapshot.records.get(_key_of(event)) is not prior:
                return
        head = self.snapshot.head
        with self.order:
            last = max(self.snapshot.last_seq, self.last_seq)
            after = evolve(replace(self.snapshot, last_seq=last), event, self._now())
            self.last_seq = after.last_seq
        record = after.records[_key_of(event)]
        if prior is not None and isinstance(event, Suspended):
            remember(self.engine, self.snapshot.root, [prior])
        for listener in listeners_of(head, record):
            self.engine.store.listen(listener)
        if self._is_kept_back(prior) and not effects:
            self.kept_back.add(record, prior, self.engine.store.weigh(head.run, head.incarnation, record))
            self._happened(event, after)
            if self.kept_back.is_full or record.key in self.begun_once:
                self._flush()
            return
        store, place = self.engine.store, (head.run, head.incarnation, record, prior)
        written = store.commit_with(*place, effects) if effects else store.commit(*place)
        match written:
            case EffectMoved():
                raise _refusal(record.key, effects, written)
            case Written():
                self._happened(event, after)
                self._tell_of(record)
                if prior is not None and record.outcome is not Outcome.SUSP:
                    self._stop_listening(prior)
            case RecordMoved(standing):
                if standing is None:
                    raise _Fenced
                adopted = self._renewed(Snapshot(head=head, records=PMap({standing.key: standing})))
                self.snapshot = evolve(self.snapshot, Adopted(record=adopted.records[standing.key]), self._now())
            case _:
                assert_never(written)

    def _happened(self, event: StepEvent, after: Snapshot) -> None:
        self.snapshot = after
        if self.stretch is not None:
            self.stretch.step(self.graph, event, after, self.engine.clock.now())

    def _is_kept_back(self, prior: StepRecord | None) -> bool:
        """Whether an outcome may be stored later. Not one of a stored suspension: others may settle it meanwhile."""
        if self.graph.durability == "step":
            return False
        return prior is None or prior.outcome is not Outcome.SUSP or prior.key in self.kept_back

    def _flush(self) -> None:
        """Store what is kept back, and go on. Raises: _Fenced when the run is no longer held."""
        with self.writing:
            self._flush_alone()

    def _flush_alone(self) -> None:
        batch = self.kept_back.batch()
        written = self.hold.renew(self._now(), batch=batch)
        match written:
            case Written():
                self.kept_back.clear()
                self._catch_up()
                for record, _ in batch:
                    self._tell_of(record)
            case HeadMoved():
                self.is_lost = True
                raise _Fenced
            case RecordMoved():
                self._start_over()
            case _:
                assert_never(written)

    def _start_over(self) -> None:
        """Somebody who does not hold the run has written what is kept back: believe what is stored."""
        self.kept_back.clear()
        self.passed = Passed()
        self._take_up(self.engine.store.peek(self.snapshot.head.run))

    def _catch_up(self) -> None:
        """Believe the head as this worker has written it, unless others have written it as well."""
        with self.writing:
            self._catch_up_alone()

    def _catch_up_alone(self) -> None:
        held, standing = self.snapshot.head, self.hold.standing
        if not self.hold.has_moved and standing.version != held.version:
            known = replace(held, version=standing.version, updated_at=standing.updated_at)
            own = replace(known, lease_until=standing.lease_until, due=standing.due)
            self.snapshot = self.snapshot.with_head(own)

    def _stop_listening(self, prior: StepRecord) -> None:
        """A suspension is over by its deadline; a listener that stays behind is dropped by the next event."""
        with suppress(OutsideError):
            for listener in listeners_of(self.snapshot.head, prior):
                self.engine.store.unlisten(listener)

    def _tell_of(self, record: StepRecord) -> None:
        """Have whoever must answer told of a suspension, unless an event may have answered it already."""
        waits = each(record)
        if all(one.topic is None for one in waits):
            for one in waits:
                self._notify(one)

    def _notify(self, record: StepRecord) -> datetime | None:
        """See that whoever must answer has been told of a suspension; when there is something to tell again."""
        terms = None if record.outcome is not Outcome.SUSP else record.terms
        if terms is None or terms.notify is None:
            return None
        reminder, following = terms.rungs(record.at, self._now())
        head = self.snapshot.head
        wait = replace(Wait.of(head, record, reminder), doors=self.engine.doors(head.run.tenant))
        told = told_of(record.key, f"{wait.id.rsplit('@', 1)[1]}.{reminder}")
        if told in self.kept or told in self.snapshot.records or self._tell(record, terms.notify, wait, told):
            return following
        pace, now = self.engine.pace, self._now()
        return now + min(max(now - record.at, pace.notify_again), pace.notify_rarely)

    def _tell(self, record: StepRecord, name: str, wait: Wait[Json], told: StepKey) -> bool:
        """Call ``notify`` and write down that it need not be called again; whether it has returned."""
        node = self.graph.acting_at(dotted(record.key), None if record.instead is None else record.instead[0])
        assert isinstance(node, StepNode)  # only steps say that somebody is to be told
        try:
            self.runner.tell(node, name, wait)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, the suspension stands
            seen = {"run_id": wait.run_id, "step": dotted(record.key), "error_type": type(error).__name__}
            seen["stack"] = "".join(traceback.format_tb(error.__traceback__))
            _LOGGER.error("nobody could be told of a suspension", extra=seen)  # noqa: TRY400  # its message is payload
            return False
        head, acknowledged = self.snapshot.head, kept(self.snapshot, told, None, self._now())
        self.engine.store.commit(head.run, head.incarnation, acknowledged, None)
        self.kept[told] = acknowledged
        return True

    def _once(self, key: StepKey, make: Callable[[], Json], heed: Callable[[], None]) -> Json:
        """``ctx.once``: stored under its own key at once, so that it survives whatever becomes of the step.

        Also when the step's time runs out meanwhile: what ``make`` has done is done, and the next try must know of it.
        """
        heed()
        known = self.kept.get(key) or self.snapshot.records.get(key)
        if known is not None:
            return known.output
        self._store_around(key)
        head = self.snapshot.head
        record = kept(self.snapshot, key, make(), self._now())
        try:
            written = self.engine.store.commit(head.run, head.incarnation, record, None)
        except OutsideError as error:
            raise _Unanswered(error) from error
        if isinstance(written, RecordMoved) and written.record is not None:
            record = written.record
        self.kept[key] = record
        heed()
        return record.output

    def _beat(self, action: Action, details: Json, heed: Callable[[], None]) -> bool:
        """``ctx.heartbeat``: renew the lease and keep the details, each at most once an interval."""
        heed()
        key, promised = action.place.key, promised_by(action)
        goes_on = self.beats.beat(promised)
        self.is_lost = self.is_lost or not goes_on
        if details is not None and goes_on:
            self.details[key] = details
            last = self.detailed_at.get(key)
            if last is None or self.engine.clock.now() - last >= self.beats.interval(promised):
                self._keep_details(key)
        return not self.is_lost

    def _keep_details(self, step: StepKey) -> None:
        """Store what a step has told last, if it is not stored yet; if the store does not answer, it is told again."""
        key = beat_of(step)
        prior = self.kept.get(key) or self.snapshot.records.get(key)
        details = self.details.get(step, None if prior is None else prior.output)
        if details == (None if prior is None else prior.output):
            return
        self.detailed_at[step] = self.engine.clock.now()
        head = self.snapshot.head
        try:
            self._store_around(key)
            with self.order:
                last = max(self.snapshot.last_seq, self.last_seq)
                record = beaten(replace(self.snapshot, last_seq=last), key, details, prior, self._now())
                self.last_seq = record.seq
            written = self.engine.store.commit(head.run, head.incarnation, record, prior)
        except OutsideError as error:
            _LOGGER.warning(
                "the details of a heartbeat are not stored", extra={"run_id": head.run.id, "error": str(error)}
            )
            return
        if isinstance(written, Written):
            self.kept[key] = record

    def _store_around(self, key: StepKey) -> None:
        """See that what is stored at ``key`` will be found: a container that is kept back opens no scope."""
        if not any(container in self.kept_back for container in parents_of(key)):
            return
        try:
            self._flush()
        except OutsideError as error:
            raise _Unanswered(error) from error

    def _emit(self, key: StepKey, data: Json, heed: Callable[[], None]) -> None:
        """``ctx.emit``: one more stored thing; ordered after all before it, and before the step's outcome."""
        heed()
        if key in self.kept or key in self.snapshot.records:
            return
        self._store_around(key)
        head = self.snapshot.head
        with self.order:
            self.last_seq = max(self.snapshot.last_seq, self.last_seq) + 1
            attempt = 1 if step_of(key) not in self.snapshot.records else 2  # only the first pass tells the beginning
            record = replace(kept(self.snapshot, key, data, self._now()), seq=self.last_seq, attempt=attempt)
        try:
            self.engine.store.commit(head.run, head.incarnation, record, None)
        except OutsideError as error:
            raise _Unanswered(error) from error
        self.kept[key] = record

    def _finish(self, result: Done | Broken | Ended) -> bool:
        head, now = self.snapshot.head, self._now()
        if isinstance(result, Ended):
            self.engine.store.cancel(head.run, now=now)
            raise _Fenced
        if self.graph.fans_out:
            close(self.engine, self.graph, self.snapshot, None)
        if head.part is not None:
            return self._release(heads.finished(head, now))
        if isinstance(result, Broken):
            return self._release(heads.finished(head, now, failure=result.failure))
        output, failure = conclude(self.graph, result)
        try:
            return self._release(heads.finished(head, now, output=output, failure=failure))
        except (PayloadTooLarge, InvalidPayload) as error:
            failure = StepFailure(type=type(error).__name__, message=str(error))
            return self._release(heads.finished(head, now, failure=failure))

    def _hand_on(self) -> bool:
        head = self.snapshot.head
        if head.hops >= self.engine.pace.most_hops:
            message = f"the run was handed on {head.hops} times in a row without parking; it seems to go in circles"
            failure = StepFailure(type="TooManyHops", message=message)
            return self._release(heads.finished(head, self._now(), failure=failure))
        return self._release(heads.handed_on(head, self._now()))

    def _release(self, head: Head, *, hint: bool = True) -> bool:
        """Give the run back as ``head``. If somebody resumed meanwhile, go on with what they brought instead."""
        if self.hold.has_moved:
            self._take_up(self.hold.standing)
            return False
        held = self.snapshot.head
        if head.part is None:
            head = heads.kept_for(head, self.engine.retention_of(head.workflow))
            head = heads.owing(head, self.graph.hooks, lease(self.engine, self._now(), self.deadline))
        else:
            if self.kept_back:  # what is handed in must not be more than what is stored
                self._flush()
                return False
            self.looked_at = None
            self._look_up()
            deliver(self.engine, self.graph, self.snapshot, head)
        batch = {"batch": self.kept_back.batch()} if self.kept_back else {}
        written = self.engine.store.release(head, epoch=held.epoch, version=held.version, **batch)
        match written:
            case Written():
                self.kept_back.clear()
                self.snapshot = self.snapshot.with_head(head)
                if hint and (head.wake is not None or head.status is RunStatus.QUEUED):
                    self.engine.hints.send(head.run, at=head.wake or self._now(), version=head.version)
                if head.outbox:
                    self.snapshot = tell(self.engine, self.graph, self.snapshot)
                return True
            case HeadMoved(moved):
                self._take_up(moved)
                return False
            case RecordMoved():
                self._start_over()
                return False
            case _:
                assert_never(written)

    def _take_up(self, moved: Head | None) -> None:
        """Load again under the head that stands there now. Raises: _Fenced if it is no longer ours."""
        held = self.snapshot.head
        if moved is None or not self.hold.is_ours(moved):
            raise _Fenced
        if self.kept_back:
            self.hold.standing, self.hold.has_moved = moved, True
            self._flush()
            moved = self.hold.standing
        self.hold.read_under(moved)
        loaded = self.engine.load_held(replace(moved, definition=held.definition))
        if loaded is None:
            raise _Fenced
        self.snapshot = self._renewed(loaded)

    def _renewed(self, snapshot: Snapshot) -> Snapshot:
        """What was read, as today's types take it. Raises: _Fenced, once the run stands still, where they do not."""
        try:
            return renewed_snapshot(self.graph, as_met(self.graph, snapshot)[1])
        except Outdated as error:
            self._block(str(error))
            raise _Fenced from None

    def _look_up(self) -> None:
        """Read the head, at most once a ``peek``, to notice a cancel or a new holder. Raises: _Fenced.

        Asked before an outcome is written, and before a step is begun: a worker that was frozen past its lease must
        not repeat what another one has done since.
        """
        if self.is_lost:
            raise _Fenced
        now = self.engine.clock.now()
        if self.looked_at is not None and now - self.looked_at < self.engine.pace.peek:
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

    def _view(self, action: Action, try_: Try | None = None) -> View:
        snapshot, place = self.snapshot, action.place
        heed = _go_on if try_ is None else try_.heed
        prior = snapshot.records.get(place.key)
        if prior is not None:
            brought(prior)  # here, where a value that is lost blocks the run; in the runner it would fail the step

        # A stand-in is another step at the same place: what the first one has done once is not what it does.
        behind = "" if prior is None or prior.instead is None else f"{prior.instead[0]}:"
        own = once_of(place.key, behind.rstrip(":")) if behind else place.key

        def result_of(step: str) -> tuple[Shape[Any], Json] | None:
            try:
                return self._result_of(snapshot, place, step)
            except (OutsideError, BlobLost) as error:
                raise _Unanswered(error) from error

        return View(
            run_id=snapshot.root.run.id,
            workflow_id=place.graph.id,
            resource_id=snapshot.root.resource_id,
            idempotency_key=idempotency_key(snapshot.root, own),
            state=self._state_at(action),
            request_context=context_at(snapshot, place.key),
            result_of=result_of,
            once=lambda name, make: self._once(once_of(place.key, behind + quote(name, safe="")), make, heed),
            emit=lambda number, data: self._emit(
                emit_of(place.key, number, digest([behind, data] if behind else data)), data, heed
            ),
            remaining=lambda: self._remaining() if try_ is None else try_.remaining(self._remaining()),
            heartbeat=lambda details: self._beat(action, details, heed),
            heartbeat_details=self._details_of(place.key),
            cancelled=try_ or self,
            heed=heed,
        )

    def _result_of(self, snapshot: Snapshot, place: Place, step: str) -> tuple[Shape[Any], Json] | None:
        step = place.graph.called_here(step)
        node, key = place.graph.find(step), inside(place.home, step.replace(".", "/"))
        record = snapshot.records.get(key)
        if record is None and "." in step:  # inside a container; a finished one is not loaded
            record = self._renewed(self.engine.read(snapshot.head.run)).records.get(key)
        if node is None or isinstance(node, BranchNode) or record is None or not _has_output(record):
            return None
        return (_ANYTHING if record.outcome is Outcome.BAIL else node.gives), record.output

    def _details_of(self, step: StepKey) -> Json:
        """What a step has told last with a heartbeat, here or in another worker."""
        stored = self.kept.get(beat_of(step)) or self.snapshot.records.get(beat_of(step))
        return self.details.get(step, None if stored is None else stored.output)

    def _remaining(self) -> timedelta:
        if self.deadline is None:
            return self.engine.pace.lease
        return self.deadline - self.engine.clock.now()

    def _has_time_for(self, action: Action) -> bool:
        """Whether ``action`` is begun here, and not left to another worker.

        A step that says how long it may take needs that much left. A run that was handed on for it, and by whose new
        worker nothing has been done yet, is not handed on again: no other worker would have more time.
        """
        if self._is_out_of_time():
            return False
        needed = time_for(action)
        if needed is None or self.deadline is None or self._remaining() >= needed + self.engine.pace.margin:
            return True
        return self.turns == 0 and self.snapshot.head.hops > 0

    def _is_out_of_time(self) -> bool:
        """Whether no more work is begun here: too little time is left, or as much was done as one worker should."""
        most = self.engine.pace.most_turns
        if most is not None and self.turns >= most:
            return True
        return self.deadline is not None and self._remaining() < self.engine.pace.margin

    def _is_near(self, instant: datetime) -> bool:
        return instant - self._now() <= self.engine.pace.short_retry and not self._is_out_of_time()

    def _now(self) -> datetime:
        return self.engine.time_of(self.snapshot)


def idempotency_key(head: Head, key: StepKey) -> str:
    """The name of one effect: the same on each try of one place of one run, different everywhere else."""
    tenant = "" if head.run.tenant == "default" else f"{head.run.tenant}/"
    life = head.effects or head.incarnation
    again = "" if life == 1 else f"~{life}"
    full = f"{tenant}{head.run.id}{again}/{key}"
    return full if len(full) <= 200 else f"{full[:150]}-{digest(full)}"


def _traced(snapshot: Snapshot) -> Head:
    """The head as tracing sees it: a child's work belongs to the trace of the run it is a part of."""
    root = snapshot.root
    return replace(snapshot.head, trace=with_id(root.trace, root.run, "start")) if snapshot.around else snapshot.head


def _refusal(key: StepKey, effects: Effects, moved: EffectMoved) -> EffectRefused:
    verb, body = ("A write", {}) if moved.index is None else next(iter(effects[moved.index].items()))
    return EffectRefused(dotted(key), moved.index, verb, body.get("TableName"), moved.reason, moved.message)


def _go_on() -> None:
    """What a try without a timeout need heed."""


def _has_output(record: StepRecord) -> bool:
    return record.outcome in (Outcome.OK, Outcome.BAIL)


def _key_of(event: StepEvent) -> StepKey:
    return event.record.key if isinstance(event, Adopted) else event.key
