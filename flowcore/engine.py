"""What arrives at a run: start, hint, resume, cancel. Reads, judges, writes, and lets a session drive what it holds.

The order of writes is the protocol. Everything this file believes about a run was either read after its claim or
written by itself; the store's conditions judge whether it may write. Knows ports, never adapters; calls no user code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

from flowcore import receipts
from flowcore.answering import TAKEABLE, take
from flowcore.arrivals import keep
from flowcore.authoring.graph import Graph
from flowcore.core import heads
from flowcore.core.admit import Resume
from flowcore.core.compat import conflict
from flowcore.core.evolve import fold
from flowcore.core.fan import fans_of
from flowcore.core.rename import as_met
from flowcore.crew import Crew, EventLoop
from flowcore.errors import (
    BlobLost,
    CapacityError,
    ConflictError,
    DefinitionChanged,
    OutsideError,
    PartOfRun,
    RequestError,
    RunExists,
    RunNotFound,
    WorkflowNotFound,
)
from flowcore.fanout.children import cancel_children, delete_children, put_off
from flowcore.fanout.share import touch, within
from flowcore.fanout.whole import Which, whole
from flowcore.hints import Hints
from flowcore.hooks import begin, lease, take_over, tell
from flowcore.keys import RunRef, StepKey
from flowcore.mailbox import EventGone, stop_listening
from flowcore.model import (
    Doors,
    Head,
    Json,
    Receipt,
    RunStatus,
    Sent,
    Snapshot,
)
from flowcore.pace import Pace
from flowcore.parcels import replace
from flowcore.ports import Claimed, Clock, Ids, LinkMaker, NotClaimable, Store, Tracer, Written
from flowcore.renewal import Outdated, renewed_snapshot
from flowcore.session import Session
from flowcore.spans import with_id
from flowcore.tries import CameTo, Try

_LOGGER = logging.getLogger("flowcore.engine")

MOST_TRIES = 20
"""Times a write is decided anew because the head moved under it; each time somebody else made progress."""


_WAKEABLE = frozenset({RunStatus.WAITING, RunStatus.SUSPENDED})
"""Statuses in which a hint that comes early is sent again. Children wake the run that waits for them."""

_STOPPED = frozenset({RunStatus.PAUSED, RunStatus.BLOCKED})
"""Statuses of a run whose children do not go on."""


@dataclass(slots=True, eq=False)
class Engine:
    """One engine serves all workflows of an App, from any number of threads."""

    graphs: Mapping[str, Graph]
    store: Store
    hints: Hints
    clock: Clock
    ids: Ids
    pace: Pace = field(default_factory=Pace)
    retention: timedelta | None = None
    """How long ended runs are kept whose workflow does not say; None: for ever."""
    tracer: Tracer | None = None
    links: LinkMaker | None = None
    loop: EventLoop = field(default_factory=EventLoop, repr=False)
    crew: Callable[[EventLoop], Crew[Try, CameTo]] = field(default=Crew, repr=False)
    """Makes the crew of one session; a test gives one whose order of outcomes it can replay."""

    # -- what arrives -----------------------------------------------------------------------------------------------

    def start(
        self,
        head: Head,
        *,
        here: bool,
        deadline: datetime | None = None,
        per_step: bool = False,
        sent: Sent | None = None,
    ) -> tuple[Snapshot, bool]:
        """Begin a run, or find the one that was begun with the same input; and whether this call began it.

        Args:
            head: as made by the caller, QUEUED at version 1.
            here: drive the run in this process; otherwise a worker is asked to.
            sent: an event to be kept together with it; both are written, or neither.
        Raises: RunExists when another input or workflow stands under this id. EventGone when the event is kept already.
        """
        graph = self.graph(head.workflow)
        if self.tracer is not None:
            head = replace(head, trace=with_id(head.trace, head.run, "start"))
        if graph.hooks.on_start is not None:
            standing = self.store.peek(head.run)
            if standing is not None and not standing.is_expired(self.clock.now()):
                return self._begun_before(head, standing), False
            begin(self, graph, head)
        now = self.clock.now()
        if here:
            lease_until = self.lease_until(now, deadline)
            head = heads.held(replace(head, version=0), now, owner=self.ids.fresh(), lease_until=lease_until)
        else:
            head = replace(head, due=now + heads.QUEUED_GRACE)
        standing, is_new = self._put(head, sent)
        if not is_new:
            return self._begun_before(head, standing), False
        head, snapshot = standing, fold(standing, ())
        if here:
            return self.drive(graph, snapshot, deadline, per_step=per_step), True
        self.hints.send(head.run, at=now, version=head.version)
        return snapshot, True

    def look(
        self, run: RunRef, *, deadline: datetime | None = None, per_step: bool = False, is_fresh: bool = False
    ) -> Head | None:
        """A hint has come: drive the run if there is anything to do. None when there is no such run.

        ``is_fresh``: ``deadline`` is as far away as any worker's is.
        """
        now = self.clock.now()
        claim = self._claim(run, deadline)
        match claim:
            case NotClaimable(head):
                if head is not None and head.wake is not None and head.wake > now and head.status in _WAKEABLE:
                    self.hints.send(run, at=head.wake, version=head.version)
                elif head is None or not head.outbox:
                    status = None if head is None else head.status
                    self.hints.stale.add()
                    _LOGGER.info("a hint is stale and dropped", extra={"run_id": run.id, "status": status})
                if head is not None and head.outbox:
                    return take_over(self, head, deadline)
                return self._unless_expired(head)
            case Claimed(head):
                try:
                    return self._claimed(head, deadline, per_step=per_step, is_fresh=is_fresh)
                except RunNotFound:  # it was deleted while it was being driven
                    return None
            case _:
                assert_never(claim)

    def resume(
        self,
        run: RunRef,
        data: Json,
        resume: Resume,
        *,
        here: bool,
        deadline: datetime | None = None,
        taken: Sent | None = None,
        keep_for: timedelta | None = None,
        per_step: bool = False,
    ) -> tuple[Snapshot, Receipt]:
        """Settle a suspension with ``data``; exactly one of several racing answers is applied.

        Args:
            taken: the event that ``data`` came with, and its taker; both are written, or neither.
            keep_for: where the step waits for nobody yet, keep the answer for so long.
        Raises: RunNotFound, InvalidPayload, CapacityError, and what ``admit`` refuses with; the run is untouched then,
            and a receipt is kept that says so. EventGone when the event has settled another wait.
        """
        try:
            if keep_for is None:
                snapshot, receipt = take(
                    self, run, data, resume, here=here, deadline=deadline, taken=taken, per_step=per_step
                )
            else:
                snapshot, receipt = keep(self, run, data, resume, keep_for, here=here, deadline=deadline)
        except (RequestError, CapacityError) as error:
            if taken is None:
                receipts.refuse(self, run, resume, error)
            raise
        if receipt.verdict == "duplicate":
            receipts.repeat(self, snapshot.head, resume, receipt)
        return snapshot, receipt

    def cancel(self, run: RunRef, *, by: str | None = None) -> Head:
        """Stop a run for good, from any process; an ended run keeps its status. Raises: RunNotFound."""
        hooked = any(graph.hooks.on_finish is not None or graph.fans_out for graph in self.graphs.values())
        if hooked or self.retention is not None or any(graph.retention is not None for graph in self.graphs.values()):
            head = self._canceled(run, by)
        else:
            head = self.store.cancel(run, now=self.clock.now(), by=by)
        if head is None or head.is_expired(self.clock.now()):
            raise RunNotFound(run.id)
        if head.status is RunStatus.CANCELED:
            self.hints.forget(run, version=head.version - 1)
            with suppress(OutsideError, BlobLost):  # it is canceled; who listens in vain is dropped by the next event
                stop_listening(self.store, head)
            if self.may_have_had_children(head):
                cancel_children(self, head)
            if head.part is not None:
                touch(self, RunRef(run.tenant, head.part.run))
        return head

    def delete(self, run: RunRef) -> None:
        """Remove a run for good; one under way is canceled first. Raises: RunNotFound, PartOfRun.

        Of one that somebody may have been at work at just now an empty head stays for a while: what he still writes is
        removed with that, and no new run of this id meets it.
        """
        self.whole_run(self.peek(run))
        for _ in range(MOST_TRIES):
            head = self.cancel(run)
            delete_children(self, head)
            now = self.clock.now()
            stays = now < head.updated_at + heads.REMOVAL_GRACE
            last = heads.buried(head, now) if stays else heads.removed(head, now)
            if self.store.delete(run, last=last, stays=stays):
                return
        raise ConflictError(f"Run {run.id!r} moved {MOST_TRIES} times while it was being deleted. Try again.")

    def read(
        self, run: RunRef, *, everything: bool = True, which: Which = "shown", at: StepKey | None = None
    ) -> Snapshot:
        """The run as it stands; with ``everything`` that its children have done. Raises: RunNotFound.

        ``at``: read only children that see to this place.
        """
        snapshot = self.as_it_stands(run, everything=everything)
        graph = self.graphs.get(snapshot.head.workflow)
        if graph is None or not graph.fans_out:
            return snapshot
        return whole(self, graph, snapshot, everything=everything, which=which, at=at)

    def counted(self, run: RunRef) -> Snapshot:
        """The run's head with what its distributed foreaches count; no record and no child. Raises: RunNotFound."""
        head = self.peek(run)
        graph = self.graphs.get(head.workflow)
        if graph is None or not graph.fans_out:
            return Snapshot(head=head)
        return Snapshot(head=head, fans=fans_of(self.store.joins(run, head.incarnation)))

    def read_again(self, snapshot: Snapshot) -> Snapshot:
        """A run that this worker has lost, as it stands now. Raises: RunNotFound.

        Of a child its head alone, if it is still there: nobody is told more of it, and what stands around it are the
        records of all items of the run it is a part of.
        """
        if snapshot.head.part is None:
            return self.read(snapshot.head.run)
        return snapshot.with_head(self.store.peek(snapshot.head.run) or snapshot.head)

    def load_held(self, head: Head) -> Snapshot | None:
        """A run that this worker holds, with the records of its open scopes; a child's among those around it.

        None when it has gone, or is a child whose work nobody wants any more.
        """
        loaded = self.store.load(head.run, head)
        return None if loaded is None else within(self, fold(head, loaded[1].values()))

    def as_it_stands(self, run: RunRef, *, everything: bool = True) -> Snapshot:
        """The run without what its children know. Raises: RunNotFound."""
        loaded = self.store.load(run, everything=everything)
        if loaded is None or loaded[0].is_expired(self.clock.now()):
            raise RunNotFound(run.id)
        snapshot = within(self, fold(loaded[0], loaded[1].values()), everything=everything)
        if snapshot is None:
            raise RunNotFound(run.id)
        return snapshot

    def whole_run(self, head: Head) -> Head:
        """The same head, if it is not that of a child, which has no life of its own. Raises: PartOfRun."""
        if head.part is not None:
            raise PartOfRun(head.run.id, head.part.top)
        return head

    def peek(self, run: RunRef) -> Head:
        """The run's head alone. Raises: RunNotFound."""
        head = self.store.peek(run)
        if head is None or head.is_expired(self.clock.now()):
            raise RunNotFound(run.id)
        return head

    def retention_of(self, workflow: str) -> timedelta | None:
        """How long ended runs of a workflow are kept; None: for ever."""
        graph = self.graphs.get(workflow)
        return self.retention if graph is None or graph.retention is None else graph.retention

    def graph(self, workflow: str) -> Graph:
        """The compiled workflow of that id. Raises: WorkflowNotFound."""
        try:
            return self.graphs[workflow]
        except KeyError:
            raise WorkflowNotFound(workflow, self.graphs) from None

    def met(self, snapshot: Snapshot) -> tuple[Graph, Snapshot]:
        """The workflow of a run as the run has met it, and the run as it sees that. Raises: WorkflowNotFound."""
        return as_met(self.graph(snapshot.head.workflow), snapshot)

    def seen(self, snapshot: Snapshot) -> tuple[Graph | None, Snapshot]:
        """The same for whoever only looks: no workflow where none of that id is served."""
        graph = self.graphs.get(snapshot.head.workflow)
        return (None, snapshot) if graph is None else as_met(graph, snapshot)

    # -- start ------------------------------------------------------------------------------------------------------

    def _put(self, head: Head, sent: Sent | None) -> tuple[Head, bool]:
        """Start the run, in the place of an expired one of that id if need be; its head or the one in its way.

        In such a place it has a life of its own: whoever was at work at the other run may still write into its life.
        """
        for _ in range(MOST_TRIES):
            standing = self.store.start(head) if sent is None else self.store.start_with(head, sent)
            if isinstance(standing, Sent):
                raise EventGone
            if standing is None:
                return head, True
            if not standing.is_expired(self.clock.now()):
                return standing, False
            head = replace(head, incarnation=self.next_life(standing))
            self.remove(standing)
        raise ConflictError(f"An expired run {head.run.id!r} is still being removed. Try again.")

    def _begun_before(self, head: Head, existing: Head) -> Snapshot:
        if existing.workflow != head.workflow or existing.input_hash != head.input_hash:
            raise RunExists(existing.run.id, existing.workflow)
        self.hint_again(existing)
        return self.read(existing.run)

    def hint_again(self, head: Head) -> None:
        """A repeated request may mean that the first one died before its hint."""
        if head.status is RunStatus.QUEUED:
            self.hints.send(head.run, at=self.clock.now(), version=head.version)

    def loaded(self, run: RunRef, *, everything: bool = False, which: Which = "few") -> tuple[Graph, Snapshot]:
        """A run with the workflow at hand; see ``read``.

        Raises: RunNotFound, WorkflowNotFound, DefinitionChanged.
        """
        graph, snapshot = self.met(self.read(run, everything=everything, which=which))
        if snapshot.head.definition != graph.fingerprint and not snapshot.head.is_terminal:
            reason = conflict(graph, snapshot)
            if reason is not None:
                raise DefinitionChanged(run.id, reason)
        return graph, snapshot

    # -- a change from outside --------------------------------------------------------------------------------------

    def next_life(self, head: Head) -> int:
        """The number of a new incarnation.

        Drawn, not counted: what an attempt that died has left behind must not be met by the next one.
        """
        return head.incarnation + 1 + int(self.ids.draw() * 1_000_000)

    def looked_at(self, head: Head, *, here: bool, deadline: datetime | None, per_step: bool = False) -> Snapshot:
        """The run after somebody was told to look at it: this process, or a worker."""
        if here:
            self.look(head.run, deadline=deadline, per_step=per_step)
        else:
            self.hints.send(head.run, at=head.updated_at, version=head.version)
        return self.read(head.run)

    def _canceled(self, run: RunRef, by: str | None) -> Head | None:
        """Canceled together with when it expires and the hook it owes; called here, or by a worker if there are.

        Costs a read more than a plain cancel: whose run it is must be known first.
        """
        for _ in range(MOST_TRIES):
            head = self.store.peek(run)
            if head is None or head.is_terminal:
                return head
            graph = self.graphs.get(head.workflow)
            now = max(self.clock.now(), head.updated_at)
            here = self.hints.queue is None
            until = lease(self, now, None) if here else now
            moved = heads.canceled(head, now, by)
            if head.part is None:  # a child is no run: nobody hears of it, and it goes when its run does
                moved = heads.kept_for(moved, self.retention_of(head.workflow))
                moved = moved if graph is None else heads.owing(moved, graph.hooks, until)
            if graph is not None and graph.fans_out:
                moved = heads.owing_children(moved, until)
            if not isinstance(self.store.move(moved, version=head.version), Written):
                continue
            if graph is None or not moved.outbox:
                return moved
            if here:
                loaded = self.store.load(run, moved, everything=True)
                return tell(self, graph, fold(moved, loaded[1].values() if loaded else ())).head
            self.hints.send(run, at=now, version=moved.version)
            return moved
        raise ConflictError(f"Run {run.id!r} moved {MOST_TRIES} times while it was being canceled. Try again.")

    def may_have_had_children(self, head: Head) -> bool:
        """Whether a run may have children that the workflow at hand does not know of: it is gone, or was another."""
        graph = self.graphs.get(head.workflow)
        return graph is None or not (graph.fans_out or head.definition == graph.fingerprint)

    # -- removing what has expired ----------------------------------------------------------------------------------

    def _unless_expired(self, head: Head | None) -> Head | None:
        """The head; None if it has expired, and then it is removed."""
        if head is None or not head.is_expired(self.clock.now()):
            return head
        if head.due is not None and head.due <= self.clock.now():
            self.remove(head)
        return None

    def remove(self, head: Head) -> None:
        """Remove an expired run for good, unless it has changed.

        Its children go while it still tells of them; a life that it begins meanwhile would begin its own again. Then
        the head is written: whoever wants to bring the run back to life (time travel) finds it changed, and learns from
        then on that it is gone; whoever finds it half removed goes on when ``due`` has passed.
        """
        delete_children(self, head)
        self.store.delete(head.run, last=heads.removed(head, self.clock.now()))

    # -- driving ----------------------------------------------------------------------------------------------------

    def _claimed(self, head: Head, deadline: datetime | None, *, per_step: bool, is_fresh: bool) -> Head:
        try:
            snapshot = self.load_held(head)
        except BlobLost as lost:
            return self.blocked(Snapshot(head=head), str(lost)).head
        if snapshot is None:
            return self._unwanted(head)
        if snapshot.around is not None and snapshot.around.status in _STOPPED:
            return self._waiting(snapshot, snapshot.around)
        graph = self.graphs.get(head.workflow)
        if graph is None:
            reason = f"no workflow {head.workflow!r} is served here; deploy it again, then resume or cancel the run"
            return self.blocked(snapshot, reason).head
        return self.drive(graph, snapshot, deadline, per_step=per_step, is_fresh=is_fresh).head

    def _claim(self, run: RunRef, deadline: datetime | None) -> Claimed | NotClaimable:
        now = self.clock.now()
        lease_until = self.lease_until(now, deadline)
        due = lease_until + heads.LEASE_GRACE
        return self.store.claim(run, owner=self.ids.fresh(), now=now, lease_until=lease_until, due=due)

    def _unwanted(self, head: Head) -> Head:
        """A child whose run has ended, or begun a new life, ends as well; begun for one that was deleted, it goes.

        Raises: RunNotFound.
        """
        if head.part is None:
            raise RunNotFound(head.run.id)
        ended = self.store.cancel(head.run, now=self.clock.now()) or head
        whole_run = self.store.peek(RunRef(head.run.tenant, head.part.top))
        if whole_run is None or whole_run.is_expired(self.clock.now()) or whole_run.created_at != head.created_at:
            delete_children(self, ended)
            self.store.delete(head.run)
        return ended

    def _waiting(self, snapshot: Snapshot, stopped: Head) -> Head:
        """A child whose run an operator has stopped goes on when that does.

        Whoever has the run go on takes up those that were put off before. So it is looked once more whether it stands.
        """
        held = snapshot.head
        head = put_off(held, self.time_of(snapshot), since=stopped.updated_at)
        if not isinstance(self.store.release(head, epoch=held.epoch, version=held.version), Written):
            return head
        standing, wake = self.store.peek(stopped.run), head.wake
        if standing is not None and standing.status not in _STOPPED:
            moved = heads.requeued(head, self.clock.now())
            if isinstance(self.store.move(moved, version=head.version), Written):
                head, wake = moved, moved.updated_at
        if wake is not None:
            self.hints.send(head.run, at=wake, version=head.version)
        return head

    def drive(
        self,
        graph: Graph,
        snapshot: Snapshot,
        deadline: datetime | None,
        *,
        per_step: bool = False,
        is_fresh: bool = False,
    ) -> Snapshot:
        """Drive a run this worker holds until it is parked, ended or handed on; the run as it stands then."""
        while True:
            met, snapshot = as_met(graph, snapshot)
            if snapshot.head.definition != met.fingerprint:
                reason = conflict(met, snapshot)
                if reason is not None:
                    return self.blocked(snapshot, reason)
            try:
                snapshot = renewed_snapshot(met, snapshot)
            except (Outdated, BlobLost) as error:
                return self.blocked(snapshot, str(error))
            session = Session(self, met, snapshot, deadline, per_step=per_step, is_fresh=is_fresh)
            snapshot = session.run()
            if not session.children or snapshot.head.status not in TAKEABLE:
                return snapshot
            children = dict.fromkeys(session.children)
            looked = [self.look(child, deadline=deadline, is_fresh=is_fresh) for child in children]
            if deadline is not None and any(head and head.status is RunStatus.QUEUED for head in looked):
                return self.read_again(snapshot)  # it needs more time than is left; to look again would find the same
            claim = self._claim(snapshot.head.run, deadline)
            loaded = self.load_held(claim.head) if isinstance(claim, Claimed) else None
            if loaded is None:
                return self.read_again(snapshot)
            snapshot = loaded

    def blocked(self, snapshot: Snapshot, reason: str) -> Snapshot:
        """Give back a run this worker holds, to stand still until somebody has mended what ``reason`` says."""
        held = snapshot.head
        head = heads.blocked(held, self.time_of(snapshot), reason)
        written = self.store.release(head, epoch=held.epoch, version=held.version)
        _LOGGER.error("run is blocked", extra={"run_id": held.run.id, "reason": reason})
        return snapshot.with_head(head) if isinstance(written, Written) else self.read(held.run)

    def doors(self, tenant: str) -> Doors | None:
        """Where waits of a tenant are answered from outside; None where this deployment signs no links."""
        return None if self.links is None else self.links.for_tenant(tenant)

    def lease_until(self, now: datetime, deadline: datetime | None) -> datetime:
        """How long a worker that begins ``now`` and must stop at ``deadline`` holds what it takes."""
        return (now + self.pace.lease if deadline is None else deadline) + self.pace.lease_slack

    def time_of(self, snapshot: Snapshot) -> datetime:
        """The run's own time: never before what has already happened to it, whatever this machine's clock says."""
        return max(self.clock.now(), snapshot.head.updated_at)
