"""One worker driving one run it holds: decide, perform, commit, and decide again, until it can be given back.

Ends by releasing the run, or by noticing that it no longer holds it and writing nothing more. Every outcome is durable
before the next decision rests on it: ledger.py sees to that. What steps may ask for is in views.py, how they are
performed and what becomes of them in underway.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, assert_never

from flowcore.arrivals import has_come
from flowcore.arrivals import look_back as look_early
from flowcore.authoring.graph import Graph
from flowcore.beats import Beats
from flowcore.core import heads
from flowcore.core.actions import (
    Action,
    Broken,
    Decision,
    Done,
    Ended,
    Finish,
    Gather,
    Leave,
    Park,
    Run,
    RunStep,
    TimeOut,
)
from flowcore.core.admit import open_waits
from flowcore.core.compat import overtaken
from flowcore.core.decide import MOST_CLAIMS, decide
from flowcore.core.evolve import Skipped, evolve
from flowcore.errors import BlobLost, InvalidPayload, InvariantError, PayloadTooLarge
from flowcore.failures import outlined
from flowcore.fanout.children import close, closing_fans
from flowcore.fanout.gather import gather, patience
from flowcore.fanout.share import unpark
from flowcore.fanout.whole import waits_in_children
from flowcore.keys import RunRef, StepKey
from flowcore.ledger import Fenced, Halted, Ledger
from flowcore.mailbox import look_back
from flowcore.model import Head, Outcome, RunStatus, Snapshot, StepFailure, StepRecord
from flowcore.notices import Notices
from flowcore.parcels import replace
from flowcore.pmap import PMap
from flowcore.runner import Runner, conclude
from flowcore.spans import Stretch, with_id
from flowcore.tries import time_for
from flowcore.underway import Underway
from flowcore.views import Unanswered, Views

if TYPE_CHECKING:
    from flowcore.engine import Engine


class Session:
    """One worker driving one run it holds. Ends by releasing the run, or by noticing that it no longer holds it."""

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        snapshot: Snapshot,
        deadline: datetime | None,
        *,
        per_step: bool = False,
        is_fresh: bool = False,
    ) -> None:
        """Drive ``snapshot``, which this process holds, until ``deadline``.

        Args:
            per_step: one step, then pause.
            is_fresh: no worker has more time than there is until ``deadline``.
        """
        self.engine = engine
        self.graph = graph
        self.deadline = deadline
        self.per_step = per_step
        self.is_fresh = is_fresh
        self.is_stepped = False
        self.began_at = snapshot.last_seq
        """The order of the newest record that was there already."""
        runner = Runner(engine.clock, engine.ids, engine.loop.wait_for, lambda: engine.time_of(self.ledger.snapshot))
        tracer = engine.tracer
        self.stretch = None if tracer is None else Stretch(tracer, _traced(snapshot), engine.clock.now())
        self.notices = Notices(engine, graph, runner)
        self.ledger = Ledger(engine, graph, snapshot, deadline, self.notices, self.stretch)
        beats = Beats(engine, self.ledger.hold, deadline)
        self.underway = Underway(self.ledger, Views(self.ledger, beats), beats, runner, engine.crew(engine.loop))
        self.children: list[RunRef] = []
        """Those to be driven in this process, because no queue brings them to another."""
        self.lacks_children = False
        """Whether children are missing that there was no time to begin."""
        self.gathered: dict[StepKey, PMap[StepKey, StepRecord]] = {}
        """The distributed foreaches that were looked after, and the records of the run at that time."""

    def run(self) -> Snapshot:
        """Turn after turn, until there is nothing left to do here."""
        try:
            unpark(self.engine, self.ledger.snapshot)
            self._adopt_definition()
            self._drive()
        except Fenced:
            return self._fenced()
        except BlobLost as lost:
            return self._without(lost)
        except Unanswered as unanswered:
            if isinstance(unanswered.error, BlobLost):
                return self._without(unanswered.error)
            raise unanswered.error from None
        except InvariantError as error:
            if self.ledger.snapshot.head.attempts <= MOST_CLAIMS:  # what it was may be over when the next worker looks
                raise
            self.ledger.snapshot = self.engine.blocked(self.ledger.snapshot, str(error))
        finally:
            self.underway.dismiss()
        self._tell_of_stretch(self.ledger.snapshot.head.public_status)
        return self.ledger.snapshot

    def _drive(self) -> None:
        """Turn after turn. Raises: Fenced, of a paused run once what is under way has come back and is stored."""
        try:
            while not self._turn():
                pass
        except Halted:
            while self.underway:
                with suppress(Halted):
                    self.underway.collect(None)
            raise

    def _fenced(self) -> Snapshot:
        """The run as whoever holds it now has left it."""
        self._tell_of_stretch("lost")
        return self.engine.read_again(self.ledger.snapshot)

    def _without(self, lost: BlobLost) -> Snapshot:
        """A large value is needed that is gone: the run is blocked until it is there again; nothing else is lost.

        What is under way is waited for; what cannot be committed any more is done again, as after a crash.
        """
        try:
            self.underway.collect_all()
            if self.ledger.kept_back:
                self.ledger.flush()
            self.ledger.catch_up()
        except (BlobLost, Unanswered):
            pass
        except Fenced:
            return self._fenced()
        self.ledger.snapshot = self.engine.blocked(self.ledger.snapshot, str(lost))
        self._tell_of_stretch(self.ledger.snapshot.head.public_status)
        return self.ledger.snapshot

    def _tell_of_stretch(self, status: str) -> None:
        if self.stretch is not None:
            self.stretch.over(self.ledger.snapshot, status, self.engine.clock.now())

    def _adopt_definition(self) -> None:
        """Go on under today's definition; what it has inserted in front of the reached position is skipped for good."""
        ledger, head = self.ledger, self.ledger.snapshot.head
        if head.definition == self.graph.fingerprint:
            return
        for key in list(overtaken(self.graph, ledger.snapshot)):
            if head.part is None or key.startswith(f"{head.part.key}["):
                ledger.write(Skipped(key=key), None)
            else:  # for the run it is a part of to write
                ledger.snapshot = evolve(ledger.snapshot, Skipped(key=key), ledger.now())
        ledger.snapshot = ledger.snapshot.with_head(replace(head, definition=self.graph.fingerprint))

    # -- a turn -------------------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Decide once and act on it; whether the session is over."""
        ledger = self.ledger
        ledger.catch_up()
        decision = self._decided()
        if self._has_seen_to_questions(decision):
            return False
        match decision:
            case Run(actions, _) if self._is_blocked(actions):
                return ledger.block(next(iter(self.underway.outdated.values())))
            case Run(actions, _) if gathers := [action for action in actions if isinstance(action, Gather)]:
                return self._gather(gathers)
            case Run(actions, _) if self.per_step:
                return self._step_once(actions)
            case Run(actions, retry):
                return self._go_on(actions, retry)
            case Park() | Finish() if self.underway:
                self.underway.collect(self.notices.look_at)
                return False
            case Park() if self.lacks_children:
                return self._hand_on()
            case Park(_, _, retry) if retry is not None and self._is_near(retry):
                self.engine.clock.wait_until(retry)
                return False
            case Park() if look_back(self.engine, ledger.snapshot) or look_early(self.engine, ledger.snapshot):
                ledger.take_up(self.engine.store.peek(ledger.snapshot.head.run))
                return False
            case Park(status, wake):
                waits = open_waits(ledger.snapshot)
                looks = [look for one in waits if (look := self.notices.see_to(ledger.snapshot, one)) is not None]
                wake = min(looks if wake is None else [wake, *looks], default=None)
                return self._park(status, wake, waits)
            case Finish(result):
                return self._finish(result)
            case _:
                assert_never(decision)

    def _decided(self) -> Decision:
        """What comes next. Where old knowledge would put an end to what waits for an answer, it is looked once more."""
        ledger = self.ledger
        decision = decide(self.graph, ledger.snapshot, ledger.now(), ledger.passed)
        if self._leaves_questions(decision) and (moved := self._moved()) is not None:
            ledger.take_up(moved)
            decision = decide(self.graph, ledger.snapshot, ledger.now(), ledger.passed)
        while self._has_come_in_time(decision):
            decision = decide(self.graph, ledger.snapshot, ledger.now(), ledger.passed)
        if old := self._long_gathered(decision):
            fans = {key: fan for key, fan in ledger.snapshot.fans.items() if key not in old}
            ledger.snapshot = replace(ledger.snapshot, fans=fans)
            decision = decide(self.graph, ledger.snapshot, ledger.now(), ledger.passed)
        return decision

    def _has_seen_to_questions(self, decision: Decision) -> bool:
        """Whether questions were stored, or are answered by what has come, so that it has to be decided again.

        Whoever must answer is told and reminded in time also while other work goes on.
        """
        ledger = self.ledger
        if self._has_question_for_others(decision):
            ledger.flush()
            return True
        due = self.notices.due(ledger.snapshot) if self.underway or isinstance(decision, Run) else []
        if due and look_back(self.engine, ledger.snapshot, {one.key for one in due}):
            ledger.take_up(self.engine.store.peek(ledger.snapshot.head.run))
            return True
        for one in due:
            self.notices.see_to(ledger.snapshot, one)
        return False

    def _has_question_for_others(self, decision: Decision) -> bool:
        """Whether a question is kept back that is to be stored before the run is given back.

        While work goes on somebody may answer; or the answer has come already, and is taken by what is stored.
        """
        kept_back = self.ledger.kept_back
        if kept_back.is_to_be_told or not kept_back.has_question:
            return kept_back.has_question
        if self.underway or isinstance(decision, Run):
            return True
        return isinstance(decision, Park) and has_come(self.engine, self.ledger.snapshot)

    def _is_blocked(self, actions: tuple[Action, ...]) -> bool:
        """Whether nothing is left to do but what cannot be begun with what is stored for it."""
        outdated = self.underway.outdated
        return bool(outdated) and not self.underway and all(a.place.key in outdated for a in actions)

    def _go_on(self, actions: tuple[Action, ...], retry: datetime | None) -> bool:
        """Do what is not under way yet, as far as there is time for it."""
        fresh = [action for action in actions if action.place.key not in self.underway]
        fresh = [action for action in fresh if action.place.key not in self.underway.outdated]
        fitting = [action for action in fresh if self._has_time_for(action)]
        look_at = self.notices.look_at
        if not fresh or fitting:
            self.underway.perform(fitting, look_at if retry is None else min(retry, look_at or retry))
            return False
        if not self.underway:
            return self._hand_on()
        self.underway.collect(look_at)
        return False

    def _step_once(self, actions: tuple[Action, ...]) -> bool:
        """One step, with the bookkeeping in front of it; then the run is paused for whoever debugs it."""
        if self.is_stepped:
            return self.ledger.release(heads.paused(self.ledger.snapshot.head, self.ledger.now()))
        ready = [action for action in actions if action.place.key not in self.underway.outdated]
        action = next((action for action in ready if not isinstance(action, RunStep)), ready[0])
        self.underway.perform([action], None)
        self.underway.collect_all()
        self.is_stepped = isinstance(action, RunStep)
        return False

    def _gather(self, gathers: list[Gather]) -> bool:
        """Look after the children of distributed foreaches, unless there is no time left for that."""
        ledger = self.ledger
        if ledger.kept_back:  # children read what is stored
            ledger.flush()
            return False
        for action in gathers:
            ledger.look_up(begins=True)
            gathered = gather(self.engine, ledger.snapshot, action, is_late=self._must_stop)
            ledger.snapshot = gathered.snapshot
            self.children += gathered.children
            self.lacks_children = self.lacks_children or not gathered.is_complete
            if self.lacks_children and not self.underway:
                return self._hand_on()
        self.gathered |= dict.fromkeys((action.place.key for action in gathers), ledger.snapshot.records)
        return False

    def _must_stop(self) -> bool:
        """Whether there is no time left to begin children. Raises: Fenced when the run is over, or somebody else's."""
        self.ledger.look_up(begins=True)
        return self._is_out_of_time()

    def _leaves_questions(self, decision: Decision) -> bool:
        """Whether a container would end, by a failure or a bail, in which something waits for an answer.

        An answer that is applied is to be used, and what has come while the last step was at work this worker does not
        know. Where the run itself ends, its release would tell.
        """
        ending = _broken_leaves(decision) if isinstance(decision, Run) else []
        if not ending:
            return False
        inside = tuple(f"{key}{mark}" for key in ending for mark in "/[#")
        records = self.ledger.snapshot.records.values()
        return any(record.outcome is Outcome.SUSP and record.key.startswith(inside) for record in records)

    def _moved(self) -> Head | None:
        """The head as somebody else has written it since the records were read; None if nobody has."""
        hold = self.ledger.hold
        if hold.has_moved:
            return hold.standing
        head = self.engine.store.peek(hold.standing.run)
        return None if head is not None and head.version == hold.standing.version else head

    def _has_come_in_time(self, decision: Decision) -> bool:
        """Whether something has come for a wait that is to lapse now; then it is taken, and the run read again.

        Nobody may have looked since: other work went on beside the wait, the code did not fit, or the sender has died.
        """
        lapsing = [one for one in decision.actions if isinstance(one, TimeOut)] if isinstance(decision, Run) else []
        at = {action.place.key for action in lapsing} - {*self.underway.tries, *self.underway.outdated}
        if not at or self.ledger.kept_back.has_question:  # which is stored first
            return False
        ledger, moved = self.ledger, self._moved() if self.underway.turns else None
        if moved is None:
            if not (look_back(self.engine, ledger.snapshot, at) or look_early(self.engine, ledger.snapshot)):
                return False
            moved = self.engine.store.peek(ledger.snapshot.head.run)
        ledger.take_up(moved)
        return True

    def _long_gathered(self, decision: Decision) -> set[StepKey]:
        """The distributed foreaches that would end though an item of theirs, when last looked at, waited for an answer.

        What was done here since may have taken long. An answer that was given meanwhile is to be used, and would be
        lost with the child. Where nothing was done since, they were looked at a moment ago.
        """
        snapshot = self.ledger.snapshot
        if not any(fan.parked for fan in snapshot.fans.values()):
            return set()
        ending: list[StepKey | None] = []
        match decision:
            case Finish() if not self.underway:
                ending = [None]
            case Run():
                ending = [key for key in _broken_leaves(decision) if key not in self.underway]
            case _:
                pass
        closing = {start.key for key in ending for start in closing_fans(snapshot, key)}
        return {
            key
            for key, fan in snapshot.fans.items()
            if fan.parked and key in closing and self.gathered.get(key) is not snapshot.records
        }

    # -- the end ------------------------------------------------------------------------------------------------------

    def _park(self, status: RunStatus, wake: datetime | None, waits: Sequence[StepRecord | heads.Open]) -> bool:
        """Give the run back until ``wake``. Children wake it themselves; that they are looked after needs no hint."""
        ledger, head, now = self.ledger, self.ledger.snapshot.head, self.ledger.now()
        waits = [*waits, *waits_in_children(self.engine, ledger.snapshot, is_late=self._is_late)]
        if status is RunStatus.JOINING:
            look = now + patience(ledger.snapshot, now)
            if wake is None or wake > look:
                return ledger.release(heads.parked(head, now, status, look, waits), hint=False)
        return ledger.release(heads.parked(head, now, status, wake, waits))

    def _finish(self, result: Done | Broken | Ended) -> bool:
        ledger, head, now = self.ledger, self.ledger.snapshot.head, self.ledger.now()
        if isinstance(result, Ended):
            self.engine.store.cancel(head.run, now=now)
            raise Fenced
        if self.graph.fans_out:
            close(self.engine, self.graph, ledger.snapshot, None)
        if head.part is not None:
            return ledger.release(heads.finished(head, now))
        output, failure = (None, result.failure) if isinstance(result, Broken) else conclude(self.graph, result)
        try:
            return ledger.release(heads.finished(head, now, output=output, failure=failure))
        except (PayloadTooLarge, InvalidPayload) as error:
            said = StepFailure(type=type(error).__name__, message=str(error)) if failure is None else outlined(failure)
            return ledger.release(heads.finished(head, now, failure=said))

    def _hand_on(self) -> bool:
        ledger, head = self.ledger, self.ledger.snapshot.head
        has_moved = ledger.snapshot.last_seq > self.began_at
        if head.hops >= self.engine.pace.most_hops and not has_moved:
            message = (
                f"the run was handed on {head.hops} times in a row and nothing was done; it seems to go in circles"
            )
            failure = StepFailure(type="TooManyHops", message=message)
            ledger.fail(failure)
            return True
        return ledger.release(heads.handed_on(head, ledger.now(), has_moved=has_moved))

    # -- the time that is left ----------------------------------------------------------------------------------------

    def _has_time_for(self, action: Action) -> bool:
        """Whether ``action`` is begun here, and not left to another worker.

        A step that says how long it may take needs that much left. A run that was handed on for it, and by whose new
        worker nothing has been done yet, neither in this run nor in another, is not handed on again: no other worker
        would have more time.
        """
        if self._is_out_of_time():
            return False
        needed = time_for(action)
        if needed is None or self.deadline is None or self.ledger.remaining() >= needed + self.engine.pace.margin:
            return True
        return self.is_fresh and self.underway.turns == 0 and self.ledger.snapshot.head.hops > 0

    def _is_out_of_time(self) -> bool:
        """Whether no more work is begun here: too little time is left, or as much was done as one worker should."""
        most = self.engine.pace.most_turns
        if most is not None and self.underway.turns >= most:
            return True
        return self._is_late()

    def _is_late(self) -> bool:
        """Whether no more than the time to give the run back is left."""
        return self.deadline is not None and self.ledger.remaining() < self.engine.pace.margin

    def _is_near(self, instant: datetime) -> bool:
        """Whether it is waited for here. By this machine's clock: the run's may be far ahead of it, and stand still."""
        return instant - self.engine.clock.now() <= self.engine.pace.short_retry and not self._is_out_of_time()


def _broken_leaves(decision: Run) -> list[StepKey]:
    """The containers that are to end by a failure or a bail."""
    leaves = (one for one in decision.actions if isinstance(one, Leave) and not isinstance(one.result, Done))
    return [leave.place.key for leave in leaves]


def _traced(snapshot: Snapshot) -> Head:
    """The head as tracing sees it: a child's work belongs to the trace of the run it is a part of."""
    root = snapshot.root
    return replace(snapshot.head, trace=with_id(root.trace, root.run, "start")) if snapshot.around else snapshot.head
