"""The App: the workflows that a deployment serves, on a store and its helpers. Holds no run state of its own.

Two Apps on one store see the same runs. Without a queue an App drives runs in the calling process until they park or
end; with one, ``start`` and ``resume`` commit, ask a worker to look, and return.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from flowcore.authoring.graph import CENTURY
from flowcore.authoring.step import Step
from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.buses import Source
from flowcore.cloudevents import Telling, wanted_of
from flowcore.codec import Shape, digest
from flowcore.core import view
from flowcore.core.health import OVERDUE
from flowcore.deliveries import Webhook, meaning, replay
from flowcore.delivery_log import Delivery, DeliveryLog
from flowcore.engine import Engine
from flowcore.errors import (
    BlobLost,
    DefinitionError,
    MalformedRequest,
    Mistake,
    RunNotFound,
    SettingsError,
    WorkflowNotFound,
)
from flowcore.fanout.children import queued_children
from flowcore.fanout.whole import Which
from flowcore.hints import Hints, sweep
from flowcore.keys import LONGEST_NAME, RunRef, event_mistake, is_name, is_run_id, key_mistake
from flowcore.mailbox import receipt_of, send
from flowcore.model import (
    PUBLIC_STATUSES,
    EventReceipt,
    Head,
    Json,
    Page,
    PublicStatus,
    RunFilter,
    RunSummary,
    Sent,
    Topic,
    Wait,
)
from flowcore.outgoing import Outgoing
from flowcore.pace import Pace
from flowcore.ports import Blobs, Clock, Ids, LinkMaker, Queue, Scheduler, Store, Tracer
from flowcore.results import RunResult
from flowcore.run import Run
from flowcore.starting import Start, first_head
from flowcore.tracing import Tracing, accepted_tags

In = TypeVar("In")
Out = TypeVar("Out")
R = TypeVar("R")

DEFAULT_TENANT = "default"
_LOGGER = logging.getLogger("flowcore.app")
_LATEST = datetime.max.replace(tzinfo=UTC)
_ANYTHING: Shape[Any] = Shape(Any)


class App:
    """The registry of workflows that a deployment serves, on a store and its helpers.

    Without arguments besides workflows everything lives in memory, so a script or a notebook works at once.

    Args:
        store: where runs live.
        scheduler: fires wakes that are further away than a queue message can be delayed.
        queue: hands runs to workers; without one, runs are driven in the calling process.
        blobs: where values lie whose JSON is longer than 64 KB, of any size up to ``largest_value``; without, a value
            has to fit into an item of the store: 350 KB.
        clock: the time of day.
        ids: fresh names and chance.
        pace: leases, margins and other durations.
        retention: how long runs are kept after they have ended, where their workflow does not say; for ever when left
            out. A run that has expired counts as gone at once and is removed, item by item, by whoever looks for it
            next: the sweeper, or a start of the same id. A run that has not ended is never removed.
        tracer: is told what runs and steps took, as ``flowcore.ports.Span`` values; ``flowcore.adapters.otel`` has one
            for OpenTelemetry.
        webhooks: doors for signed deliveries; see ``flowcore.deliveries.Webhook``.
        sources: what messages of buses and topics mean that come through the resume queue; ``flowcore.buses.Source``.
        events: which changes of a run's status are told on the event bus of the stack, by names that are in
            ``flowcore.cloudevents.KINDS``; all of them when left out.
        include_payload: such an event carries input, output and error of the run.
        outgoing: who is told over HTTPS; see ``flowcore.outgoing.Outgoing``.
        deliveries: where what has come through webhooks and sources is logged.
        links: signs the addresses that ``Wait.approval_url`` and ``Wait.callback_url`` give; ``flowcore.links.Links``.
        largest_value: bytes of JSON that one value may have, with ``blobs``; 50 MB when left out. A step that gives a
            larger one fails with ``PayloadTooLarge``, and nothing of it is written.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> app = App(workflow("greeting", input=str, output=str).then(greet).commit())
        >>> app.workflow("greeting").create_run().start("Ada").output
        'Hello, Ada'
    """

    def __init__(
        self,
        *workflows: Workflow[Any, Any] | WorkflowBuilder[Any, Any, Any],
        store: Store | None = None,
        scheduler: Scheduler | None = None,
        queue: Queue | None = None,
        blobs: Blobs | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        pace: Pace | None = None,
        retention: timedelta | None = None,
        tracer: Tracer | None = None,
        links: LinkMaker | None = None,
        webhooks: Iterable[Webhook] = (),
        sources: Iterable[Source] = (),
        events: Collection[str] | None = None,
        include_payload: bool = False,
        outgoing: Iterable[Outgoing] = (),
        deliveries: DeliveryLog | None = None,
        largest_value: int | None = None,
    ) -> None:
        from flowcore.adapters.memory import MemoryDeliveries, MemoryScheduler, MemoryStore  # noqa: PLC0415  # only without a store
        from flowcore.adapters.system import SystemClock, SystemIds  # noqa: PLC0415  # only without others

        committed = [_committed(w) for w in workflows]
        _refuse_duplicates(committed)
        self.workflows: Mapping[str, Workflow[Any, Any]] = {w.id: w for w in committed}
        self.tenant = DEFAULT_TENANT
        clock = clock or SystemClock()
        self.ids: Ids = ids or SystemIds()
        self.largest_value = _above_zero(largest_value)
        self.store: Store = _with_room(store or MemoryStore(), blobs, self.ids, self.largest_value)
        self.queue = queue
        webhooks, sources = tuple(webhooks), tuple(sources)
        _refuse_namesakes([*webhooks, *sources])
        self.webhooks: Mapping[str, Webhook] = {webhook.name: webhook for webhook in webhooks}
        self.sources: Mapping[str, Source] = {source.name: source for source in sources}
        self.telling = Telling(kinds=wanted_of(events), include_payload=include_payload)
        self.outgoing: Mapping[str, Outgoing] = _named_once(outgoing)
        self.deliveries: DeliveryLog = deliveries or MemoryDeliveries()
        self.scheduler: Scheduler | None = scheduler or (None if store else MemoryScheduler())
        self.engine = Engine(
            graphs={w.id: w.compiled for w in committed},
            store=self.store,
            hints=Hints(self.queue, self.scheduler, clock),
            clock=clock,
            ids=self.ids,
            pace=pace or Pace(),
            retention=_positive(retention),
            tracer=tracer,
            links=links,
        )

    @property
    def blobs(self) -> Blobs | None:
        """Where large values lie, if they may be large."""
        blobs: Blobs | None = getattr(self.store, "blobs", None)
        return blobs

    @property
    def clock(self) -> Clock:
        """The time of day, as this App sees it."""
        return self.engine.clock

    def on(
        self,
        *,
        store: Store,
        scheduler: Scheduler | None = None,
        queue: Queue | None = None,
        blobs: Blobs | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        pace: Pace | None = None,
        retention: timedelta | None = None,
        tracer: Tracer | None = None,
        links: LinkMaker | None = None,
        deliveries: DeliveryLog | None = None,
        largest_value: int | None = None,
    ) -> App:
        """The same workflows on other ports: how a deployment puts the author's App onto AWS."""
        return App(
            *self.workflows.values(),
            store=store,
            scheduler=scheduler,
            queue=queue,
            blobs=blobs,
            clock=clock or self.clock,
            ids=ids or self.ids,
            pace=pace or self.engine.pace,
            retention=retention or self.engine.retention,
            tracer=tracer or self.engine.tracer,
            links=links or self.engine.links,
            webhooks=self.webhooks.values(),
            sources=self.sources.values(),
            events=self.telling.kinds,
            include_payload=self.telling.include_payload,
            outgoing=self.outgoing.values(),
            deliveries=deliveries or self.deliveries,
            largest_value=largest_value or self.largest_value,
        )

    def for_tenant(self, tenant: str) -> App:
        """The same App for the runs of another tenant; the tenant is part of every key."""
        if not is_run_id(tenant):
            raise MalformedRequest(f"{tenant!r} cannot name a tenant; use 1-128 letters, digits and ._:@-")
        other = App.__new__(App)
        other.__dict__.update(self.__dict__)
        other.tenant = tenant
        return other

    @overload
    def workflow(self, workflow: str) -> ServedWorkflow[Any, Any]: ...
    @overload
    def workflow(self, workflow: Workflow[In, Out] | WorkflowBuilder[In, Out, Out]) -> ServedWorkflow[In, Out]: ...

    def workflow(self, workflow: Any) -> ServedWorkflow[Any, Any]:
        """A workflow of this App, by id or by object (which keeps its types). Raises: WorkflowNotFound."""
        id = workflow if isinstance(workflow, str) else workflow.id
        if id not in self.workflows:
            raise WorkflowNotFound(id, self.workflows)
        return ServedWorkflow(self, self.workflows[id])

    def run(self, run_id: str) -> Run[Any, Any]:
        """A handle on a run; loads nothing by itself."""
        return Run(self, RunRef(self.tenant, run_id), None, None)

    @overload
    def resume(
        self,
        run_id: str,
        data: R,
        *,
        step: Step[Any, Any, R, Any],
        index: int | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        via: str = "python",
        wait: str | None = None,
        request_context: Mapping[str, Any] | None = None,
        retry_count: int | None = None,
        tracing: Tracing | None = None,
        keep: timedelta | None = None,
        drive: timedelta | None = None,
        per_step: bool = False,
    ) -> RunResult[Any]: ...
    @overload
    def resume(
        self,
        run_id: str,
        data: Any = None,
        *,
        step: str | list[str] | None = None,
        label: str | None = None,
        wait: str | None = None,
        index: int | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        via: str = "python",
        request_context: Mapping[str, Any] | None = None,
        retry_count: int | None = None,
        tracing: Tracing | None = None,
        keep: timedelta | None = None,
        drive: timedelta | None = None,
        per_step: bool = False,
    ) -> RunResult[Any]: ...

    def resume(self, run_id: str, data: Any = None, **options: Any) -> RunResult[Any]:
        """Answer a suspension of a run; see ``Run.resume``."""
        return self.run(run_id).resume(data, **options)

    def delegate(
        self,
        run_id: str,
        *,
        by: str | None,
        to: str,
        step: Step[Any, Any, Any, Any] | str | list[str] | None = None,
        label: str | None = None,
        wait: str | None = None,
        index: int | None = None,
        via: str = "python",
    ) -> RunResult[Any]:
        """Hand the vote of an approver to somebody else; see ``Run.delegate``."""
        return self.run(run_id).delegate(by=by, to=to, step=step, label=label, wait=wait, index=index, via=via)

    def cancel(self, run_id: str, *, by: str | None = None) -> RunResult[Any]:
        """Stop a run for good; see ``Run.cancel``."""
        return self.run(run_id).cancel(by=by)

    def redrive(self, run_id: str) -> RunResult[Any]:
        """Have a failed run go on from what has failed; see ``Run.redrive``."""
        return self.run(run_id).redrive()

    def list_runs(
        self,
        *,
        workflow: str | None = None,
        status: PublicStatus | Sequence[PublicStatus] | None = None,
        resource_id: str | None = None,
        tag: str | Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunSummary]:
        """Runs of this tenant, newest first; all given filters must hold.

        A page may be shorter than ``limit``, or even empty, where few of very many runs match: only a page whose
        ``cursor`` is None is the last one.

        Args:
            status: this one, or one of several.
            tag: a tag that the run was started with, or several that it must all have.
            since: created then or later.
            until: created then or earlier.
        Raises: MalformedRequest, InvalidPayload.
        """
        if limit < 1:
            raise MalformedRequest(f"limit={limit} is below 1; ask for at least one run")
        wanted = self._wanted(workflow, status, resource_id, tag, since, until)
        return self.store.list_runs(self.tenant, wanted, limit=limit, cursor=cursor)

    def counts(
        self,
        *,
        workflow: str | None = None,
        resource_id: str | None = None,
        tag: str | Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[PublicStatus, int]:
        """How many runs of this tenant there are in each status, 0 included; filters as for ``list_runs``.

        Reads the index, never a run. On DynamoDB it looks at every run created between ``since`` and ``until``: about
        5,000 with each request, 25 for half a read unit. A million runs are 200 requests and a quarter of a cent, so
        give ``since`` where there are many. Raises: MalformedRequest, InvalidPayload.
        """
        wanted = self._wanted(workflow, None, resource_id, tag, since, until)
        found = self.store.count_runs(self.tenant, wanted)
        return {status: found.get(status, 0) for status in PUBLIC_STATUSES}

    def _wanted(
        self,
        workflow: str | None,
        status: PublicStatus | Sequence[PublicStatus] | None,
        resource_id: str | None,
        tag: str | Sequence[str] | None,
        since: datetime | None,
        until: datetime | None,
    ) -> RunFilter:
        """What a caller asks for, checked, without runs that count as gone."""
        statuses = (status,) if isinstance(status, str) else tuple(status or ())
        strangers = [word for word in statuses if word not in PUBLIC_STATUSES]
        if strangers:
            raise MalformedRequest(f"{strangers[0]!r} is no status of a run; use one of {', '.join(PUBLIC_STATUSES)}")
        _refuse_naive(since, until)
        return RunFilter(
            workflow=workflow,
            statuses=statuses,
            resource_id=resource_id,
            tags=accepted_tags((tag,) if isinstance(tag, str) else tag or ()),
            since=since,
            until=until,
            unexpired_at=self.clock.now(),
        )

    def send_event(
        self,
        name: str,
        key: str,
        data: Any = None,
        *,
        event_id: str | None = None,
        keep: timedelta = timedelta(days=7),
        start_if_absent: Start[Any] | None = None,
        drive: timedelta | None = None,
    ) -> EventReceipt:
        """Tell whoever waits for it that something has happened: ``wait_for_event(name, key=...)``.

        Settles the oldest open wait. When there is none, the event is kept and the first wait that comes takes it.

        Args:
            key: what it is about; must be the key that the wait was given.
            data: must fit the model of the wait.
            event_id: a second event of the same id, name and key is the same event, and is told what became of it.
            keep: how long the event waits for somebody, and its copies are known; at most a century.
            start_if_absent: when nobody waits and there is no run of that id, start it and keep the event in one
                transaction: both happen, or neither. A run that exists, ended or not, is left alone.
            drive: with a queue, drive the run here for at most this long instead of leaving it to a worker.
        Raises: MalformedRequest; InvalidPayload when the data fits no wait that is open, or the input not the workflow
            that is to be started; WorkflowNotFound; IdempotencyKeyReused.
        """
        mistake = event_mistake(name) or key_mistake(key) or _event_id_mistake(event_id, keep)
        if mistake is not None:
            raise MalformedRequest(mistake)
        plain, now = _ANYTHING.accept(f"data of event {name!r}", data), self.clock.now()
        topic = Topic(self.tenant, name, key)
        id = self.ids.fresh() if event_id is None else event_id
        sent = Sent(topic=topic, id=id, data=plain, digest=digest(plain), at=now, until=now + keep)
        first = None if start_if_absent is None else first_head(self, start_if_absent, topic)
        here = self.queue is None or drive is not None
        return send(self.engine, sent, first, here=here, deadline=None if drive is None else now + drive)

    def event(self, name: str, key: str, event_id: str) -> EventReceipt:
        """What has become of an event that was sent with this id: ``applied`` to a wait, or still ``buffered`` for one.

        Known as long as the event is kept. Raises: EventNotFound.
        """
        return receipt_of(self.engine, Topic(self.tenant, name, key), event_id)

    def list_deliveries(self, webhook: str, *, limit: int = 50, cursor: str | None = None) -> Page[Delivery]:
        """What has come through a webhook or a source in the last 30 days, the newest first, without the bodies.

        Raises: WebhookNotFound, MalformedRequest.
        """
        if limit < 1:
            raise MalformedRequest(f"limit={limit} is below 1; ask for at least one delivery")
        return self.deliveries.deliveries(meaning(self, webhook).tenant, webhook, limit=limit, cursor=cursor)

    def replay_delivery(self, webhook: str, id: str) -> Delivery:
        """Give one delivery another chance: one that was filtered, fitted nothing, or was for nobody.

        It is judged by what its webhook says today. What it has settled already it does not settle again, as long as
        the event is kept (``keep=`` of the webhook): a delivery that is given another chance later is a new event.

        Raises: WebhookNotFound, DeliveryNotFound.
        """
        return replay(self, webhook, id)

    def waits(
        self,
        *,
        workflow: str | None = None,
        resource_id: str | None = None,
        tag: str | Sequence[str] | None = None,
        label: str | None = None,
        assignee: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Wait[Json]]:
        """The inbox: the open suspensions of this tenant's parked runs, oldest runs first, each page by their own age.

        The index keeps runs by the time of their creation, so a run that was started earlier and asked later comes
        before one that was started later and asked earlier. Sleeping and paused runs are found as well, a run that a
        worker drives just now is not.

        Reads each run it shows, and no other; up to ``limit`` of them, so a page may hold more than ``limit`` waits
        when a run has several, and fewer, or none, when ``label`` or ``assignee`` fits few: only ``cursor`` None is the
        end.

        Of a distributed foreach of which more than a hundred workers' shares wait for answers, those in the first
        hundred are shown, and the others as these are answered; ``progress`` of the run counts all. With ``label``,
        ``assignee`` or ``due_before`` every share is read.

        Args:
            label: of the suspension.
            assignee: only suspensions that this person may answer by now, and has not answered yet.
            due_before: only suspensions whose deadline is before.
        Raises: MalformedRequest, InvalidPayload.
        """
        if limit < 1:
            raise MalformedRequest(f"limit={limit} is below 1; ask for at least one run")
        _refuse_naive(due_before)
        asked = self._wanted(workflow, None, resource_id, tag, None, None)
        wanted = replace(asked, waiting=True, deadline_before=due_before)
        page = self.store.list_runs(self.tenant, wanted, limit=limit, cursor=cursor, oldest_first=True)
        which: Which = "shown" if label is None and assignee is None and due_before is None else "few"
        found = [wait for summary in page for wait in self._waits_of(summary.run_id, assignee, which)]
        meant = [wait for wait in found if _is_meant(wait, label, due_before)]
        return Page(sorted(meant, key=_age), page.cursor)

    def _waits_of(self, run_id: str, assignee: str | None, which: Which) -> list[Wait[Json]]:
        """The open suspensions of a run that a listing has named and that may be gone by now, or not to be read."""
        try:
            snapshot = self.engine.read(RunRef(self.tenant, run_id), everything=False, which=which)
            seen = self.engine.seen(snapshot)[1]
            found = view.waits(seen) if assignee is None else view.waits_for(seen, assignee, self.engine.time_of(seen))
        except RunNotFound:
            return []
        except BlobLost as lost:  # one broken run must not hide what all the others wait for
            _LOGGER.error("an open suspension cannot be shown", extra={"run_id": run_id, "error": str(lost)})  # noqa: TRY400  # its place says enough
            return []
        return [replace(wait, doors=self.engine.doors(self.tenant)) for wait in found]

    def look(self, run: RunRef, *, deadline: datetime | None = None, is_fresh: bool = True) -> Head | None:
        """Drive a run if there is anything to do in it: what a worker does with a hint. None: no such run.

        Args:
            deadline: when this worker's life ends.
            is_fresh: whether all of its life is still before it. One that has spent some on other runs hands on a step
                whose ``timeout=`` does not fit into the rest; otherwise the second in a row begins it.
        """
        return self.engine.look(run, deadline=deadline, is_fresh=is_fresh)

    def hint(self, run_id: str) -> None:
        """Have a run looked at now: one that a transaction of yours has started or answered with its items.

        With a queue a worker is asked to, without one the run is driven here; so are the items of a distributed foreach
        that wait for a worker, at a read for each child that is not done. A hint that is lost, or never given, is made
        up for by the sweeper. Harmless where there is no such run, or nothing to do in it.
        """
        run = RunRef(self.tenant, run_id)
        for one in (*queued_children(self.engine, run), run):
            if self.queue is None:
                self.engine.look(one)
            else:
                self.engine.hints.send(one, at=self.clock.now(), version=0)

    def overdue(self, by: timedelta = OVERDUE, *, limit: int = 1000) -> int:
        """How many runs, of all tenants, somebody should have looked at longer ago than ``by``; counts up to ``limit``.

        Above 0 for minutes means that the sweeper does not help: workers are down, throttled, or die of these runs.
        """
        return len(self.store.due(self.clock.now() - by, limit=limit))

    def sweep(self, *, limit: int = 1000) -> int:
        """Ask a worker to look at every run that is overdue; how many there were."""
        return sweep(self.store, self.engine.hints, self.clock.now(), limit=limit)


@dataclass(frozen=True, slots=True)
class ServedWorkflow(Generic[In, Out]):
    """A workflow of an App."""

    app: App
    workflow: Workflow[In, Out]

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self.workflow.id

    def create_run(
        self, run_id: str | None = None, resource_id: str | None = None, *, tags: Sequence[str] = ()
    ) -> Run[In, Out]:
        """A handle on a run that is not started yet; nothing is written.

        Args:
            run_id: 1-128 letters, digits and ``._:@-``; made up when left out.
            resource_id: whom or what the run is about; runs can be listed by it.
            tags: up to 10 of up to 64 characters; runs can be listed by each.
        Raises: MalformedRequest, InvalidPayload.
        """
        if run_id is not None and not is_run_id(run_id):
            raise MalformedRequest(f"{run_id!r} cannot be a run id; use 1-128 letters, digits and ._:@-")
        if resource_id is not None and not is_name(resource_id):
            raise MalformedRequest(
                f"{resource_id!r} cannot be a resource id; use text of 1 to {LONGEST_NAME} characters"
            )
        ref = RunRef(self.app.tenant, run_id or self.app.ids.fresh())
        return Run(self.app, ref, self.workflow, resource_id, tags=accepted_tags(tags), id_given=run_id is not None)


def _refuse_naive(*instants: datetime | None) -> None:
    for instant in instants:
        if instant is not None and instant.tzinfo is None:
            raise MalformedRequest(f"{instant.isoformat()} has no time zone; give an aware datetime")


def _is_meant(wait: Wait[Json], label: str | None, due_before: datetime | None) -> bool:
    if label is not None and wait.label != label:
        return False
    return due_before is None or (wait.deadline is not None and wait.deadline < due_before)


def _age(wait: Wait[Json]) -> tuple[datetime, str, str]:
    return wait.since or _LATEST, wait.run_id, wait.id


def _named_once(outgoing: Iterable[Outgoing]) -> dict[str, Outgoing]:
    named: dict[str, Outgoing] = {}
    for receiver in outgoing:
        if named.setdefault(receiver.name, receiver) is not receiver:
            raise SettingsError(f"Two receivers are named {receiver.name!r} in outgoing=; a letter names one of them.")
    return named


def _refuse_namesakes(told: Sequence[Webhook | Source]) -> None:
    """A webhook's name is its address, and both webhooks and sources are logged under theirs."""
    seen: set[str] = set()
    for each in told:
        if each.name in seen:
            raise SettingsError(f"Two webhooks or sources are named {each.name!r}; each needs a name of its own.")
        seen.add(each.name)


def _positive(retention: timedelta | None) -> timedelta | None:
    if retention is not None and not timedelta(0) < retention <= CENTURY:
        what = "is not positive, or above a century; leave it out to keep runs for ever"
        raise SettingsError(f"retention={retention} {what}")
    return retention


def _above_zero(largest: int | None) -> int | None:
    if largest is not None and largest < 1:
        raise SettingsError(f"largest_value={largest} lets no value pass; leave it out for 50 MB")
    return largest


def _with_room(store: Store, blobs: Blobs | None, ids: Ids, largest: int | None) -> Store:
    """The store with a blob store beside it, if there is one; a store that has one already may be given another."""
    if blobs is None:
        return store
    from flowcore.adapters.roomy import LARGEST_VALUE, RoomyStore  # noqa: PLC0415  # only with blobs

    plain = store.inner if isinstance(store, RoomyStore) else store
    return RoomyStore(plain, blobs, ids, largest=largest or LARGEST_VALUE)


def _event_id_mistake(event_id: str | None, keep: timedelta) -> str | None:
    if event_id is not None and not is_run_id(event_id):
        return f"{event_id!r} cannot be the id of an event; use 1-128 letters, digits and ._:@-"
    if timedelta(0) < keep <= CENTURY:
        return None
    what = "keeps nothing" if keep <= timedelta(0) else "cannot be reckoned with"
    return f"keep={keep} {what}; give a timedelta above 0, at most a century"


def _committed(given: Any) -> Workflow[Any, Any]:
    if isinstance(given, WorkflowBuilder):
        return given.commit()
    if isinstance(given, Workflow):
        return given
    what = f"step {given.id!r}" if isinstance(given, Step) else f"{given!r} ({type(given).__name__})"
    raise TypeError(f"An App serves workflows; {what} is none. Put steps into workflow(...).then(step).commit()")


def _refuse_duplicates(workflows: list[Workflow[Any, Any]]) -> None:
    seen: set[str] = set()
    for workflow in workflows:
        if workflow.id in seen:
            raise DefinitionError(workflow.id, [Mistake(workflow.id, "is served twice; give one of them another id")])
        seen.add(workflow.id)
