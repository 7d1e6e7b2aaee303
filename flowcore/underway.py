"""What a worker has under way in one run: actions are begun, waited for, and what they come to is committed.

One at a time in the session's own thread, several in those of a crew. What comes back is judged here: too late, another
worker was faster, or a deploy has taken away what could read it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore.beats import Beats
from flowcore.codec import NotJsonError
from flowcore.core.actions import Action, Doubt
from flowcore.core.evolve import Begun, Failed, FailedOnce, StepEvent, Succeeded, Suspended
from flowcore.errors import EffectRefused, InvalidPayload, NeedsDynamoDB, PayloadTooLarge
from flowcore.keys import StepKey, dotted
from flowcore.ledger import Fenced, Halted, Ledger, key_of
from flowcore.migrations import registered
from flowcore.model import Outcome, StepFailure, StepRecord
from flowcore.parcels import replace
from flowcore.renewal import Outdated, is_step, outdated
from flowcore.runner import Runner, is_async
from flowcore.tries import CameTo, Try, is_at_most_once, promised_by, time_for
from flowcore.views import Views

if TYPE_CHECKING:
    from flowcore.crew import Crew

_LOGGER = logging.getLogger("flowcore.session")


class Underway:
    """The actions that one worker has begun in one run, and what becomes of them."""

    def __init__(self, ledger: Ledger, views: Views, beats: Beats, runner: Runner, crew: Crew[Try, CameTo]) -> None:
        self.tries: dict[StepKey, Try] = {}
        """Those that have not come back."""
        self.turns = 0
        """How often something was begun."""
        self.outdated: dict[StepKey, str] = {}
        """Places that are not begun here, because what is stored for them fits no more, with the reason."""
        self.views = views
        self.crew = crew
        self._timed: set[Try] = set()
        self._ledger = ledger
        self._beats = beats
        self._runner = runner
        self._clock = ledger.engine.clock

    def __len__(self) -> int:
        return len(self.tries)

    def __contains__(self, key: StepKey) -> bool:
        return key in self.tries

    # -- begun --------------------------------------------------------------------------------------------------------

    def perform(self, candidates: Sequence[Action], retry: datetime | None) -> None:
        """Begin what can be begun, and commit one outcome, waited for until ``retry`` at most. Raises: Fenced."""
        fresh = [action for action in candidates if self._can_read_state(action)]
        self.turns += bool(fresh)
        self._fit_lease(fresh)
        if len(fresh) == 1 and not self.tries and not is_async(fresh[0]) and time_for(fresh[0]) is None:
            self._ledger.look_up(begins=True)
            action = self._begun(fresh[0])
            if action is not None:
                prior = self._ledger.snapshot.records.get(action.place.key)
                self._commit(self._runner.perform(action, self.views.view(action)), prior, action)
            return
        for candidate in fresh:
            self._ledger.look_up(begins=True)
            action = self._begun(candidate)
            if action is not None:
                self._start(action)
        if self.tries:
            self.collect(retry)

    def _can_read_state(self, action: Action) -> bool:
        """Whether the shared values are such as the place can be given; if not, it is left alone."""
        if registered():
            try:
                self.views.state_at(action)
            except Outdated as error:
                self.outdated[action.place.key] = str(error)
        return action.place.key not in self.outdated

    def _fit_lease(self, beginning: list[Action]) -> None:
        """Hold the run as long as whoever is at work from now on has promised. Raises: Fenced if it is lost."""
        if beginning:
            at_work = (*beginning, *(try_.action for try_ in self.tries.values()))
            self._beats.fit([promised_by(action) for action in at_work])
        if self._beats.is_lost:
            raise Fenced

    def _begun(self, action: Action) -> Action | None:
        """The action, once it is written down that it begins if it may begin once only; None: another was faster.

        Where this very worker has begun it and nothing tells how it ended, what it came to was lost on the way to the
        store: it is in doubt.
        """
        if not is_at_most_once(action):
            return action
        key, held = action.place.key, self._ledger.snapshot.head
        prior = self._ledger.snapshot.records.get(key)
        if prior is not None and prior.outcome is Outcome.START and prior.epoch > held.epoch:
            raise Fenced  # frozen between its claim and its reading, this worker has read what its successor has begun
        if prior is not None and prior.outcome is Outcome.START and prior.epoch == held.epoch:
            return Doubt(action.place)
        attempt = 0 if prior is None else prior.attempt
        self._ledger.at_once.add(key)
        self._ledger.write(Begun(key=key, attempt=attempt, started_at=self._clock.now()), prior)
        record = self._ledger.snapshot.records.get(key)
        if record is None or record.outcome is not Outcome.START:
            return None
        if record.epoch > held.epoch:
            raise Fenced  # in the eyes of this worker whoever has begun it would be dead
        return replace(action, prior=record) if record.epoch == held.epoch else None

    def _start(self, action: Action) -> None:
        key = action.place.key
        try_ = Try(action, self._ledger.snapshot.records.get(key), self._clock, self._ledger)
        view = self.views.view(action, try_)
        self.tries[key] = try_
        if try_.timeout is not None:
            self._timed.add(try_)
        if is_async(action):
            self.crew.start_coroutine(try_, try_.watched_async(self._runner.perform_async(action, view)))
        else:
            self.crew.start_thread(try_, lambda: try_.watched(lambda: self._runner.perform(action, view)))

    # -- come back ----------------------------------------------------------------------------------------------------

    def collect(self, until: datetime | None) -> None:
        """Wait for one outcome, at most ``until``, and commit it."""
        now = self._clock.now()
        pauses = [try_.may_end_late_at() - now for try_ in self._timed]
        if until is not None:
            pauses.append(until - now)
        came = self.crew.next(max(0.0, min(pauses).total_seconds()) if pauses else None)
        if came is not None:
            self._came_back(*came)
        else:
            self._give_up_overdue()

    def collect_all(self) -> None:
        """Wait until nothing is under way any more."""
        while self.tries:
            self.collect(None)

    def dismiss(self) -> None:
        """Begin nothing more, and let the threads go."""
        self.crew.dismiss()

    def _came_back(self, try_: Try, event: CameTo) -> None:
        """Commit what a try came to; one that came back late has timed out, whatever it brought.

        Raises: Halted where the try itself has met the pause: what it would have come to rests on what is not stored.
        """
        del self.tries[try_.action.place.key]
        self._timed.discard(try_)
        if isinstance(event, Halted):
            raise event
        if event is None or try_.is_late():
            view = self.views.view(try_.action)
            event = self._runner.timed_out(try_.action, view, try_.began_at or self._ledger.now())
        self._commit(event, try_.prior, try_.action)

    def _give_up_overdue(self) -> None:
        for try_ in [try_ for try_ in self._timed if try_.is_overdue()]:
            self.crew.give_up(try_)
            self._came_back(try_, None)

    # -- committed ----------------------------------------------------------------------------------------------------

    def _commit(self, event: StepEvent, prior: StepRecord | None, action: Action) -> None:
        """Make one outcome durable; if another worker was faster, what it committed is adopted."""
        if not self._ledger.stands(key_of(event), prior):
            return
        if isinstance(event, Failed):
            reason = outdated(self._ledger.graph, self._ledger.snapshot, event)
            if reason is not None:
                self._leave_alone(event, prior, reason)
                return
        self._ledger.look_up()
        self._ledger.catch_up()
        if isinstance(event, FailedOnce):
            self._keep_details(event.key)
        try:
            self._ledger.write(event, prior)
        except EffectRefused as error:
            began_at = event.started_at if isinstance(event, (Succeeded, Suspended)) else self._ledger.now()
            refused = self._runner.refused(action, self.views.view(action), error, began_at)
            self._ledger.write(refused, prior)
        except (PayloadTooLarge, InvalidPayload, NotJsonError, NeedsDynamoDB) as error:
            failure = StepFailure(type=type(error).__name__, message=str(error), step=dotted(key_of(event)))
            self._fail(Failed(key=key_of(event), failure=failure, started_at=self._ledger.now()), prior)

    def _keep_details(self, step: StepKey) -> None:
        """Store how far a failed try came, for the next one; what cannot be stored does not keep it from ending."""
        try:
            self.views.keep_details(step)
        except PayloadTooLarge as error:
            seen = {"run_id": self._ledger.snapshot.head.run.id, "error": str(error)}
            _LOGGER.warning("the details of a heartbeat are not stored", extra=seen)

    def _leave_alone(self, event: Failed, prior: StepRecord | None, reason: str) -> None:
        """Begin a place no more in this process: a deploy has to bring what can read what is stored for it."""
        self.outdated[event.key] = reason
        if prior is not None and prior.outcome is Outcome.START and is_step(self._ledger.graph, event.key):
            # It may run at most once, and it was written down that it begins. It has not been called.
            now = self._ledger.now()
            again = FailedOnce(key=event.key, failure=event.failure, started_at=now, attempt=prior.attempt, until=now)
            self._ledger.write(again, prior)

    def _fail(self, event: Failed, prior: StepRecord | None) -> None:
        """Store that a place has failed; where not even that can be stored, the run fails. Raises: Fenced then."""
        try:
            self._ledger.write(event, prior)
        except (PayloadTooLarge, InvalidPayload):
            self._ledger.fail(event.failure)
            raise Fenced from None
