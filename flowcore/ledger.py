"""The book of a run in the hands of the worker that holds it: what it believes, and each entry made durable.

Everything the worker believes of the run was read after its claim, or written through here; outcomes that others were
faster with are adopted. Notices when the run is no longer held, and then writes nothing more. Decides nothing, and
begins nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Lock, RLock
from typing import TYPE_CHECKING, assert_never

from flowcore.authoring.graph import Graph
from flowcore.core import heads
from flowcore.core.decide import Passed
from flowcore.core.evolve import Adopted, Failed, StepEvent, Succeeded, Suspended, evolve
from flowcore.core.rename import as_met
from flowcore.errors import EffectRefused, OutsideError
from flowcore.fanout.children import close
from flowcore.fanout.share import deliver
from flowcore.hold import Hold, KeptBack
from flowcore.hooks import last_of, lease, tell
from flowcore.keys import StepKey, dotted, parents_of
from flowcore.mailbox import listeners_of
from flowcore.model import Head, Outcome, RunStatus, Snapshot, StepFailure, StepRecord
from flowcore.notices import Notices
from flowcore.parcels import replace
from flowcore.pmap import PMap
from flowcore.ports import Batch, EffectMoved, Effects, HeadMoved, RecordMoved, Written
from flowcore.receipts import remember
from flowcore.renewal import Outdated, renewed_snapshot
from flowcore.spans import Stretch

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.session")


class Fenced(BaseException):
    """This worker no longer holds the run: write nothing more. Never leaves the session.

    A ``BaseException``: inside a step it is no failure of the step, nor for it to catch.
    """


class Halted(Fenced):
    """Somebody has paused the run: what is under way is still to be stored, and nothing more is begun."""


class Ledger:
    """One run as the worker that holds it knows it. Written from any of the worker's threads."""

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        snapshot: Snapshot,
        deadline: datetime | None,
        notices: Notices,
        stretch: Stretch | None,
    ) -> None:
        self.engine = engine
        self.graph = graph
        self.snapshot = snapshot
        """The run as this worker believes it."""
        self.passed = Passed()
        """What a decision need not walk through again, as long as ``snapshot`` grows by what happens alone."""
        self.hold = Hold(engine.store, snapshot.head)
        self.kept_back = KeptBack()
        self.at_once: set[StepKey] = set()
        """Where an outcome is not kept back for long: what is done there may be done once only."""
        self.last_seq = 0
        """The number of what this worker has stored last, outcome or not."""
        self.is_lost = False
        """Whether the run was taken from this worker, as far as it has noticed."""
        self.looked_at: datetime | None = engine.clock.now()
        """When the head was read last, to notice that."""
        self._deadline = deadline
        self._notices = notices
        self._stretch = stretch
        self._writing = RLock()
        self._order = Lock()

    # -- what stands ------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The run's own time; see ``Engine.time_of``."""
        return self.engine.time_of(self.snapshot)

    def stands(self, key: StepKey, prior: StepRecord | None) -> bool:
        """Whether ``prior`` is what stands at ``key``, as far as this worker knows; it may have been read again."""
        standing = self.snapshot.records.get(key)
        return (standing and standing.occurrence) == (prior and prior.occurrence)

    def remaining(self) -> timedelta:
        """How long this worker may go on."""
        if self._deadline is None:
            return self.engine.pace.lease
        return self._deadline - self.engine.clock.now()

    def look_up(self, *, begins: bool = False) -> None:
        """Read the head, at most once a ``peek``, to notice a cancel, a new holder or a pause. Raises: Fenced; Halted.

        Asked before an outcome is written, and before a step is begun: a worker that was frozen past its lease must
        not repeat what another one has done since.

        Args:
            begins: something is to be begun, which it is not in a paused run: ``Halted`` is raised then.
        """
        if self.is_lost:
            raise Fenced
        if begins and self.hold.is_halted:
            raise Halted
        now = self.engine.clock.now()
        if self.looked_at is not None and now - self.looked_at < self.engine.pace.peek:
            return
        self.looked_at = now
        head = self.engine.store.peek(self.snapshot.head.run)
        if head is None or head.epoch != self.snapshot.head.epoch:
            self.is_lost = True
            raise Fenced
        if self.hold.halts(head) and begins:
            raise Halted

    def is_set(self) -> bool:
        """Whether the run was taken from this worker: the ``cancelled`` flag a step can look at."""
        try:
            self.look_up()
        except Fenced:
            return True
        return self.is_lost

    def catch_up(self) -> None:
        """Believe the head as this worker has written it, unless others have written it as well."""
        with self._writing:
            self._catch_up_alone()

    def _catch_up_alone(self) -> None:
        held, standing = self.snapshot.head, self.hold.standing
        if not self.hold.has_moved and standing.version != held.version:
            known = replace(held, version=standing.version, updated_at=standing.updated_at)
            own = replace(known, lease_until=standing.lease_until, due=standing.due)
            self.snapshot = self.snapshot.with_head(own)

    def take_up(self, moved: Head | None) -> None:
        """Load again under the head that stands there now. Raises: Fenced if it is no longer ours."""
        held = self.snapshot.head
        if moved is None or not self.hold.is_ours(moved):
            raise Halted if self.hold.halts(moved) else Fenced
        if self.kept_back:
            self.hold.standing, self.hold.has_moved = moved, True
            self.flush()
            moved = self.hold.standing
        self.hold.read_under(moved)
        loaded = self.engine.load_held(replace(moved, definition=held.definition))
        if loaded is None:
            raise Fenced
        self.snapshot = self.snapshot.with_head(loaded.head)  # under which the run is given back if the rest misfits
        self.snapshot = self.renewed(loaded)

    def renewed(self, snapshot: Snapshot) -> Snapshot:
        """What was read, as today's types take it. Raises: Fenced, once the run stands still, where they do not."""
        try:
            return renewed_snapshot(self.graph, as_met(self.graph, snapshot)[1])
        except Outdated as error:
            self.block(str(error))
            raise Fenced from None

    # -- entries ----------------------------------------------------------------------------------------------------

    def write(self, event: StepEvent, prior: StepRecord | None) -> None:
        """Make what has happened durable, or keep it back for a while; what another was faster with is adopted.

        Raises: Fenced; EffectRefused; what the store says of an outcome it cannot take.
        """
        if self.graph.fans_out and isinstance(event, (Succeeded, Failed)):
            close(self.engine, self.graph, self.snapshot, event.key)
        with self._writing:
            self._write_alone(event, prior)

    def _write_alone(self, event: StepEvent, prior: StepRecord | None) -> None:
        effects = event.effects if isinstance(event, (Succeeded, Suspended)) else ()
        if effects and self.kept_back:
            self.flush()  # what the author writes rests on it
            if not self.stands(key_of(event), prior):
                return
        head = self.snapshot.head
        with self._order:
            last = max(self.snapshot.last_seq, self.last_seq)
            after = evolve(replace(self.snapshot, last_seq=last), event, self.now())
            self.last_seq = after.last_seq
        record = after.records[key_of(event)]
        if prior is not None and isinstance(event, Suspended):
            remember(self.engine, self.snapshot.root, [prior])
        for listener in listeners_of(head, record):
            self.engine.store.listen(listener)
        if self._is_kept_back(prior) and not effects:
            self.kept_back.add(record, prior, self.engine.store.weigh(head.run, head.incarnation, record))
            self._happened(event, after)
            # Where a worker has died since the run was last given back the next one may as well, at the same place:
            # what is done before it has to be seen, or the first step of the stretch passes for the one that kills.
            has_lost_workers = head.attempts > 1
            if self.kept_back.is_full or record.key in self.at_once or has_lost_workers:
                self.flush()
            return
        written = self._stored(record, prior, effects)
        match written:
            case Written():
                self._happened(event, after)
                self._notices.tell_of(self.snapshot, record)
                if prior is not None and record.outcome is not Outcome.SUSP:
                    self._stop_listening([prior])
                self._stop_listening(_left_waiting(event, self.snapshot))
            case RecordMoved(standing):
                if standing is None:
                    raise Fenced
                adopted = self.renewed(Snapshot(head=head, records=PMap({standing.key: standing})))
                self.snapshot = evolve(self.snapshot, Adopted(record=adopted.records[standing.key]), self.now())
            case _:
                assert_never(written)

    def _stored(self, record: StepRecord, prior: StepRecord | None, effects: Effects) -> Written | RecordMoved:
        """What the store says of one outcome that is not kept back. Raises: Fenced; EffectRefused."""
        head, store = self.snapshot.head, self.engine.store
        if not effects:
            return store.commit(head.run, head.incarnation, record, prior)
        # Where a successor keeps outcomes back it folds a first one with others, which the condition on the record's
        # own item does not see: its effects would happen beside another outcome.
        epoch = head.epoch if prior is None and self.graph.durability == "boundary" else None
        written = store.commit_with(head.run, head.incarnation, record, prior, effects, epoch=epoch)
        match written:
            case HeadMoved(moved):
                raise self._given_up(moved)
            case EffectMoved():
                raise _refusal(record.key, effects, written)
            case _:
                return written

    def _happened(self, event: StepEvent, after: Snapshot) -> None:
        self.snapshot = after
        if self._stretch is not None:
            self._stretch.step(self.graph, event, after, self.engine.clock.now())

    def _stop_listening(self, records: Iterable[StepRecord]) -> None:
        """Their suspensions are over without an event; a listener that stays behind is dropped by the next one."""
        with suppress(OutsideError):
            for record in records:
                for listener in listeners_of(self.snapshot.head, record):
                    self.engine.store.unlisten(listener)

    def numbered(self, make: Callable[[Snapshot], StepRecord]) -> StepRecord:
        """What ``make`` makes of the snapshot as its next record: numbered behind all that this worker has stored."""
        with self._order:
            last = max(self.snapshot.last_seq, self.last_seq)
            record = make(replace(self.snapshot, last_seq=last))
            self.last_seq = record.seq
        return record

    # -- what is kept back ------------------------------------------------------------------------------------------

    def _is_kept_back(self, prior: StepRecord | None) -> bool:
        """Whether an outcome may be stored later. Not one of a stored suspension: others may settle it meanwhile."""
        if self.graph.durability == "step":
            return False
        return prior is None or prior.outcome is not Outcome.SUSP or prior.key in self.kept_back

    def flush(self) -> None:
        """Store what is kept back, and go on. Raises: Fenced when the run is no longer held."""
        with self._writing:
            self._flush_alone()

    def _flush_alone(self) -> None:
        batch = self.kept_back.batch()
        written = self.hold.renew(self.now(), batch=batch)
        match written:
            case Written():
                self.kept_back.clear()
                self.catch_up()
                for record, _ in batch:
                    self._notices.tell_of(self.snapshot, record)
            case HeadMoved(moved):
                given_up = self._given_up(moved)
                if isinstance(given_up, Halted):
                    self._keep_what_runs_once(batch)
                raise given_up
            case RecordMoved():
                self._start_over()
            case _:
                assert_never(written)

    def _given_up(self, moved: Head | None) -> Fenced:
        """What to raise where the head that stands there now is not one under which this worker drives the run."""
        if self.hold.halts(moved):
            return Halted()
        self.is_lost = True
        return Fenced()

    def _keep_what_runs_once(self, batch: Batch) -> None:
        """Store, of what is kept back in a paused run, how steps have ended that run at most once; the rest is lost.

        As after a crash. Nothing that such an end rests on is lost with it, for all was stored when the step began; and
        a record of that stands there, so that nobody has folded another end with others, which a condition on the
        record alone would not see. A beginning is not stored: nothing would tell that the step was never called.
        """
        self.kept_back.clear()
        head = self.snapshot.head
        for record, prior in batch:
            is_end = record.outcome is not Outcome.START and prior is not None and prior.outcome is Outcome.START
            if record.key in self.at_once and is_end:
                self.engine.store.commit(head.run, head.incarnation, record, prior)

    def flush_around(self, key: StepKey) -> None:
        """See that what is stored at ``key`` will be found: a container that is kept back opens no scope."""
        if any(container in self.kept_back for container in parents_of(key)):
            self.flush()

    def _start_over(self) -> None:
        """Somebody who does not hold the run has written what is kept back: believe what is stored."""
        self.kept_back.clear()
        self.passed = Passed()
        self.take_up(self.engine.store.peek(self.snapshot.head.run))

    # -- giving the run back ----------------------------------------------------------------------------------------

    def release(self, head: Head, *, hint: bool = True) -> bool:
        """Give the run back as ``head``. If somebody resumed meanwhile, go on with what they brought instead."""
        if self.hold.has_moved:
            self.take_up(self.hold.standing)
            return False
        held = self.snapshot.head
        if head.part is None:
            head = heads.kept_for(head, self.engine.retention_of(head.workflow))
            until = lease(self.engine, self.now(), self._deadline)
            head = heads.owing(head, self.graph.hooks, until, last_of(self.graph, self.snapshot))
        else:
            if self.kept_back:  # what is handed in must not be more than what is stored
                self.flush()
                return False
            self.looked_at = None
            self.look_up(begins=True)
            deliver(self.engine, self.graph, self.snapshot, head)
        batch = {"batch": self.kept_back.batch()} if self.kept_back else {}
        written = self.engine.store.release(head, epoch=held.epoch, version=held.version, **batch)
        match written:
            case Written():
                self.kept_back.clear()
                self.snapshot = self.snapshot.with_head(head)
                if head.is_terminal and head.part is None:
                    self._stop_listening(self.snapshot.records.values())
                if hint and (head.wake is not None or head.status is RunStatus.QUEUED):
                    self.engine.hints.send(head.run, at=head.wake or self.now(), version=head.version)
                if head.outbox:
                    self.snapshot = tell(self.engine, self.graph, self.snapshot)
                return True
            case HeadMoved(moved):
                self.take_up(moved)
                return False
            case RecordMoved():
                self._start_over()
                return False
            case _:
                assert_never(written)

    def fail(self, failure: StepFailure) -> None:
        """End the run with a failure that is no place's, and its children with it, whatever others bring meanwhile."""
        if self.graph.fans_out:
            close(self.engine, self.graph, self.snapshot, None)
        while not self.release(heads.finished(self.snapshot.head, self.now(), failure=failure)):
            pass

    def block(self, reason: str) -> bool:
        """Give the run back to stand still until somebody has mended what ``reason`` says; see ``release``."""
        _LOGGER.error("run is blocked", extra={"run_id": self.snapshot.head.run.id, "reason": reason})
        return self.release(heads.blocked(self.snapshot.head, self.now(), reason))


def _left_waiting(event: StepEvent, snapshot: Snapshot) -> Iterator[StepRecord]:
    """What lies in a container that has failed, or was bailed out of, whatever it still waits for."""
    if not isinstance(event, (Failed, Succeeded)) or event.closes is None:
        return
    if isinstance(event, Failed) or event.bailed:
        inside = (f"{event.key}/", f"{event.key}[", f"{event.key}#")
        yield from (record for key, record in snapshot.records.items() if key.startswith(inside))


def key_of(event: StepEvent) -> StepKey:
    """Where the event happened."""
    return event.record.key if isinstance(event, Adopted) else event.key


def _refusal(key: StepKey, effects: Effects, moved: EffectMoved) -> EffectRefused:
    verb, body = ("A write", {}) if moved.index is None else next(iter(effects[moved.index].items()))
    return EffectRefused(dotted(key), moved.index, verb, body.get("TableName"), moved.reason, moved.message)
