"""What a step in progress may ask of the run around it, and what it has stored beside its outcome.

``ctx.once``, ``ctx.emit`` and what heartbeats tell lie under keys of their own, stored at once: they survive whatever
becomes of the step. Called from the threads that steps run in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from flowcore.authoring.graph import BranchNode, StepNode
from flowcore.beats import Beats
from flowcore.codec import Shape, digest
from flowcore.contexts import View
from flowcore.core.actions import Action, Place
from flowcore.core.evolve import beaten, context_at, kept, state_at
from flowcore.errors import BlobLost, OutsideError, PayloadTooLarge
from flowcore.keys import StepKey, beat_of, dotted, emit_of, inside, once_of, step_of
from flowcore.ledger import Ledger
from flowcore.model import Head, Json, Outcome, Snapshot, StepRecord
from flowcore.parcels import brought, replace
from flowcore.ports import RecordMoved, Written
from flowcore.renewal import renewed_state
from flowcore.tries import Try, promised_by

_ANYTHING: Shape[Any] = Shape(Any)
_LOGGER = logging.getLogger("flowcore.session")


class Unanswered(BaseException):
    """The store gave no answer inside a step, or has lost it.

    A ``BaseException``: it is no failure of the step, nor for it to catch. Never leaves the session.
    """

    def __init__(self, error: OutsideError | BlobLost) -> None:
        super().__init__(str(error))
        self.error = error


class Views:
    """The run as the steps of one worker see it, and what they have stored beside their outcomes."""

    def __init__(self, ledger: Ledger, beats: Beats) -> None:
        self.kept: dict[StepKey, StepRecord] = {}
        """What steps have stored beside their outcomes since the records were read."""
        self._engine = ledger.engine
        self._ledger = ledger
        self._beats = beats
        self._details: dict[StepKey, Json] = {}
        """What steps have told with heartbeats, stored or not."""
        self._detailed_at: dict[StepKey, datetime] = {}

    def view(self, action: Action, try_: Try | None = None) -> View:
        """The run around ``action``; ``try_``: the one it is performed in, where it has a thread or time of its own."""
        snapshot, place = self._ledger.snapshot, action.place
        heed = _go_on if try_ is None else try_.heed
        prior = snapshot.records.get(place.key)
        if prior is not None:
            brought(prior)  # here, where a value that is lost blocks the run; in the runner it would fail the step

        behind = _behind(prior)
        beat = beat_of(place.key, behind)
        own = once_of(place.key, behind.rstrip(":")) if behind else place.key

        def result_of(step: str) -> tuple[Shape[Any], Json] | None:
            try:
                return self._result_of(snapshot, place, step)
            except (OutsideError, BlobLost) as error:
                raise Unanswered(error) from error

        remaining = self._ledger.remaining
        return View(
            run_id=snapshot.root.run.id,
            workflow_id=place.graph.id,
            resource_id=snapshot.root.resource_id,
            started_by=snapshot.root.started_by,
            idempotency_key=idempotency_key(snapshot.root, own),
            state=self.state_at(action),
            request_context=context_at(snapshot, place.key),
            result_of=result_of,
            once=lambda name, make: self._once(once_of(place.key, behind + quote(name, safe="")), make, heed),
            emit=lambda number, data: self._emit(
                emit_of(place.key, number, digest([behind, data] if behind else data)), data, heed
            ),
            remaining=remaining if try_ is None else lambda: try_.remaining(remaining()),
            heartbeat=lambda details: self._beat(action, beat, details, heed),
            heartbeat_details=self._details_of(beat),
            cancelled=try_ or self._ledger,
            heed=heed,
        )

    def state_at(self, action: Action) -> Mapping[str, Json]:
        """The shared values as the place takes them. Raises: Outdated."""
        place = action.place
        shape = place.graph.state
        if isinstance(place.node, StepNode) and place.node.step.state.type is not Any:
            shape = place.node.step.state
        state: Mapping[str, Json] = renewed_state(shape, state_at(self._ledger.snapshot, place.key), place.graph.id)
        return state

    def _result_of(self, snapshot: Snapshot, place: Place, step: str) -> tuple[Shape[Any], Json] | None:
        step = place.graph.called_here(step)
        node, key = place.graph.find(step), inside(place.home, step.replace(".", "/"))
        record = snapshot.records.get(key)
        if record is None and "." in step:  # inside a container; a finished one is not loaded
            record = self._ledger.renewed(self._engine.read(snapshot.head.run)).records.get(key)
        if node is None or isinstance(node, BranchNode) or record is None or not _has_output(record):
            return None
        return (_ANYTHING if record.outcome is Outcome.BAIL else node.gives), record.output

    def _known(self, key: StepKey) -> StepRecord | None:
        return self.kept.get(key) or self._ledger.snapshot.records.get(key)

    def _once(self, key: StepKey, make: Callable[[], Json], heed: Callable[[], None]) -> Json:
        """``ctx.once``: stored under its own key at once, so that it survives whatever becomes of the step.

        Also when the step's time runs out meanwhile: what ``make`` has done is done, and the next try must know of it.
        """
        heed()
        known = self._known(key)
        if known is not None:
            return known.output
        self._flush_around(key)
        head = self._ledger.snapshot.head
        record = kept(self._ledger.snapshot, key, make(), self._ledger.now())
        try:
            written = self._engine.store.commit(head.run, head.incarnation, record, None)
        except OutsideError as error:
            raise Unanswered(error) from error
        if isinstance(written, RecordMoved) and written.record is not None:
            record = written.record
        self.kept[key] = record
        heed()
        return record.output

    def _emit(self, key: StepKey, data: Json, heed: Callable[[], None]) -> None:
        """``ctx.emit``: one more stored thing; ordered after all before it, and before the step's outcome."""
        heed()
        if self._known(key) is not None:
            return
        self._flush_around(key)
        head = self._ledger.snapshot.head

        def told(snapshot: Snapshot) -> StepRecord:
            attempt = 1 if step_of(key) not in snapshot.records else 2  # only the first pass tells the beginning
            return replace(kept(snapshot, key, data, self._ledger.now()), attempt=attempt)

        record = self._ledger.numbered(told)
        try:
            self._engine.store.commit(head.run, head.incarnation, record, None)
        except OutsideError as error:
            raise Unanswered(error) from error
        self.kept[key] = record

    def _beat(self, action: Action, key: StepKey, details: Json, heed: Callable[[], None]) -> bool:
        """``ctx.heartbeat``: renew the lease and keep the details, each at most once an interval."""
        heed()
        promised = promised_by(action)
        goes_on = self._beats.beat(promised)
        self._ledger.is_lost = self._ledger.is_lost or not goes_on
        if details is not None and goes_on:
            self._details[key] = details
            last = self._detailed_at.get(key)
            if last is None or self._engine.clock.now() - last >= self._beats.interval(promised):
                self._keep_details(key)
        return not self._ledger.is_lost

    def _details_of(self, key: StepKey) -> Json:
        """What a step has told last with a heartbeat, here or in another worker."""
        stored = self._known(key)
        return self._details.get(key, None if stored is None else stored.output)

    def keep_details(self, step: StepKey) -> None:
        """Store what a step has told last, if it is not stored yet; if the store does not answer, it is told again.

        Raises: PayloadTooLarge for what can never be stored; it is forgotten then, so that the next try finds here
            what it would find in any other worker.
        """
        self._keep_details(beat_of(step, _behind(self._ledger.snapshot.records.get(step))))

    def _keep_details(self, key: StepKey) -> None:
        prior = self._known(key)
        details = self._details.get(key, None if prior is None else prior.output)
        if details == (None if prior is None else prior.output):
            return
        self._detailed_at[key] = self._engine.clock.now()
        head = self._ledger.snapshot.head
        try:
            self._flush_around(key)
            record = self._ledger.numbered(lambda snapshot: beaten(snapshot, key, details, prior, self._ledger.now()))
            written = self._engine.store.commit(head.run, head.incarnation, record, prior)
        except OutsideError as error:
            _LOGGER.warning(
                "the details of a heartbeat are not stored", extra={"run_id": head.run.id, "error": str(error)}
            )
            return
        except PayloadTooLarge as error:
            self._details.pop(key, None)
            subject = f"What step {dotted(step_of(key))!r} told with its heartbeat"
            raise PayloadTooLarge(subject, error.size, error.limit) from error
        if isinstance(written, Written):
            self.kept[key] = record

    def _flush_around(self, key: StepKey) -> None:
        try:
            self._ledger.flush_around(key)
        except OutsideError as error:
            raise Unanswered(error) from error


def _behind(record: StepRecord | None) -> str:
    """What stands before the names of what is stored beside a step: nothing, or which stand-in is at work there.

    It is another step at the same place: what the first one has done once, or told, is not what it does.
    """
    return "" if record is None or record.instead is None else f"{record.instead[0]}:"


def idempotency_key(head: Head, key: StepKey) -> str:
    """The name of one effect: the same on each try of one place of one run, different everywhere else."""
    tenant = "" if head.run.tenant == "default" else f"{head.run.tenant}/"
    life = head.effects or head.incarnation
    again = "" if life == 1 else f"~{life}"
    full = f"{tenant}{head.run.id}{again}/{key}"
    return full if len(full) <= 200 else f"{full[:150]}-{digest(full)}"


def _go_on() -> None:
    """What a try without a timeout need heed."""


def _has_output(record: StepRecord) -> bool:
    return record.outcome in (Outcome.OK, Outcome.BAIL)
