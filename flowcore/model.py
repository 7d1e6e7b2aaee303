"""What a run is, as values: statuses and their allowed changes, the head, one record per place, the snapshot of both.

Nothing here decides anything. A status may change only along a row of the two tables below, which only
``core/evolve.py`` and ``core/heads.py`` apply. Every instant is aware UTC in whole milliseconds; every value (``Json``)
is plain JSON as ``json.loads`` gives it and is never changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, Protocol, TypeAlias, get_args

from typing_extensions import TypeVar

from flowcore.errors import SettingsError
from flowcore.keys import RunRef, Scope, StepKey, index_of, path_of
from flowcore.pmap import PMap

Json: TypeAlias = Any
"""Plain JSON: None, bool, int, float, str, list, dict with string keys."""

T = TypeVar("T")
P = TypeVar("P", default=Any)


class RunStatus(StrEnum):
    """Where a run stands, as stored. ``public_status`` gives the word that users see."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    SUSPENDED = "SUSPENDED"
    JOINING = "JOINING"
    PAUSED = "PAUSED"
    BLOCKED = "BLOCKED"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


TERMINAL = frozenset({RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELED})
SELF_MOVING = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.JOINING})
"""Statuses in which somebody must act without being asked: such a head always has ``due``."""

_IDLE = frozenset({RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING, RunStatus.PAUSED, RunStatus.BLOCKED})
RUN_CHANGES: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(
        {RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.CANCELED, RunStatus.PAUSED},
    ),
    RunStatus.RUNNING: _IDLE | TERMINAL | {RunStatus.RUNNING, RunStatus.QUEUED},
    RunStatus.WAITING: frozenset(
        {RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.CANCELED, RunStatus.PAUSED},
    ),
    RunStatus.SUSPENDED: frozenset(
        {RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.CANCELED, RunStatus.PAUSED},
    ),
    RunStatus.JOINING: frozenset(
        {RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.CANCELED, RunStatus.PAUSED},
    ),
    RunStatus.PAUSED: frozenset({RunStatus.QUEUED, RunStatus.CANCELED, RunStatus.PAUSED}),
    RunStatus.BLOCKED: frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.CANCELED, RunStatus.BLOCKED}),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELED: frozenset(),
}
"""From each stored status, the statuses that one write may lead to. A terminal status absorbs."""


class Outcome(StrEnum):
    """What is committed about one place of a run."""

    OK = "ok"
    BAIL = "bail"
    ERR = "err"
    SKIP = "skip"
    SUSP = "susp"
    RESU = "resu"
    SLP = "slp"
    RETRY = "retry"
    START = "start"


SETTLED = frozenset({Outcome.OK, Outcome.BAIL, Outcome.ERR, Outcome.SKIP})
"""Outcomes that never change again."""

_ENDS = frozenset({Outcome.OK, Outcome.BAIL, Outcome.ERR})
STEP_CHANGES: Mapping[Outcome | None, frozenset[Outcome]] = {
    None: frozenset(Outcome) - {Outcome.RESU},
    Outcome.OK: frozenset(),
    Outcome.BAIL: frozenset(),
    Outcome.ERR: frozenset(),
    Outcome.SKIP: frozenset(),
    Outcome.SUSP: frozenset({Outcome.SUSP, Outcome.RESU, Outcome.OK, Outcome.ERR}),
    Outcome.RESU: _ENDS | {Outcome.SUSP, Outcome.RETRY, Outcome.START},
    Outcome.SLP: frozenset(),
    Outcome.RETRY: _ENDS | {Outcome.SUSP, Outcome.RETRY, Outcome.START},
    Outcome.START: _ENDS | {Outcome.START, Outcome.SUSP, Outcome.RETRY},
}
"""From each committed outcome (``None``: nothing yet), the outcomes that one write may lead to."""

PublicStatus: TypeAlias = Literal[
    "pending", "running", "waiting", "suspended", "paused", "success", "failed", "canceled"
]
PUBLIC_STATUSES: tuple[PublicStatus, ...] = get_args(PublicStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """An exception of a step as a value: its type's name, message, own JSON properties and causes; no stack."""

    type: str
    message: str
    properties: Mapping[str, Json] = field(default_factory=dict)
    cause: StepFailure | None = None
    step: str | None = None
    """Dotted id of the step that failed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What settled a suspension: the data, and the proof of who brought it."""

    wait: str
    """The id of the suspension it settled."""
    data: Json
    digest: str
    """Short hash of the data: tells a repeated answer from another one under the same idempotency key."""
    at: datetime
    by: str | None = None
    via: str = "python"
    idempotency_key: str | None = None
    on_behalf_of: str | None = None
    """The approver in whose place somebody voted to whom the vote was handed."""
    timed_out: bool = False
    among: tuple[str, ...] = ()
    """The ids of all suspensions that the same answer was for when it came, this one included; kept with the first."""
    counted: bool = False
    """Of an answer to an earlier suspension: that it was a vote, and another one settled it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """A vote was handed over: somebody answers in the place of an approver."""

    seat: str
    """The approver whose vote it is."""
    by: str
    """Who handed it over: the approver, or whom he had handed it to."""
    to: str
    at: datetime
    via: str = "python"


@dataclass(frozen=True, slots=True)
class Lapse:
    """What becomes of a suspension at its deadline: ``step`` runs in its place, or it gives ``output``, or it fails."""

    output: tuple[Json] | None
    step: str | None = None
    """The id of a stand-in that the step, or the entry, has declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a step has asked for about its suspension, beside the deadline."""

    approvers: tuple[str, ...] = ()
    """Who may answer; empty: anybody."""
    quorum: int = 1
    """How many different people must answer before the step goes on."""
    veto: str | None = None
    """Key in the answer as it is stored: where it is false, empty or missing, that answer settles it alone."""
    lapse: Lapse | None = None
    """None: the step starts again at the deadline."""
    listens: tuple[str, str] | None = None
    """An event of this name and key answers, too."""
    notify: str | None = None
    """Name of a function in the step's module that tells somebody."""
    allow_self: bool = True
    """Whether whoever started the run may answer."""
    remind: tuple[timedelta, ...] = ()
    """How long after its beginning the suspension is told of again, growing."""
    escalate: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """By reminder, growing: who may answer as well from its time on."""

    def rungs(self, began: datetime, now: datetime) -> tuple[int, datetime | None]:
        """How many reminders are due by ``now``, and when the next one is."""
        instants = [began + pause for pause in self.remind]
        due = sum(instant <= now for instant in instants)
        return due, instants[due] if due < len(instants) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One of several things that a suspension waits for; the first that comes settles it, and the others are over."""

    name: str
    payload: Json = None
    resume: str | None = None
    """Which arm of the step's resume type its answer must fit, by name; None: any of them."""
    terms: Terms = Terms()
    votes: tuple[Answer, ...] = ()
    delegations: tuple[Delegation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a step changed in the shared values, each key stamped with the Lamport order of its change.

    The stamps make merging commutative: per key the later change wins, whatever order records are read in, and a
    container that repeats its steps' changes when it closes undoes nobody else's. A removed key is stamped alone.
    """

    state: Mapping[str, tuple[int, Json]] = field(default_factory=dict)
    context: Mapping[str, tuple[int, Json] | tuple[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.state or self.context)

    def merged(self, other: Delta) -> Delta:
        """Both changes as one; per key the later stamp wins."""
        return Delta(state=_latest(self.state, other.state), context=_latest(self.context, other.context))


def _latest(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    if not other:
        return one
    merged = dict(one)
    for name, stamped in other.items():
        if name not in merged or stamped[0] >= merged[name][0]:
            merged[name] = stamped
    return merged


NO_CHANGE = Delta()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """The one committed fact about one place of a run; everything about the run's position is derived from these."""

    key: StepKey
    outcome: Outcome
    gen: int = 0
    """Grows by one with each rewrite of this record; a suspension's epoch."""
    seq: int
    """Lamport order: larger than every record this one was decided upon. Orders state changes."""
    epoch: int
    """The lease epoch of the worker that wrote it."""
    at: datetime
    started_at: datetime
    output: Json = None
    """ok, bail: the result. start: the container's input (nested), carried value (loop) or items (foreach).

    A step that runs at most once has a ``start`` too, without any: one of its passes has begun.
    """
    failure: StepFailure | None = None
    delta: Delta = NO_CHANGE
    attempt: int = 1
    until: datetime | None = None
    """slp, retry: when to go on. susp: the deadline."""
    payload: Json = None
    """What the step showed when it last suspended."""
    label: str | None = None
    listens: tuple[str, str] | None = None
    """susp: what settles it is an event of this name and key."""
    terms: Terms | None = None
    """susp: what else the step has asked for."""
    alternatives: tuple[Alternative, ...] = ()
    """susp: what it waits for, the first of which settles it. A record with a single one *is* that one: its payload,
    label, terms, votes and delegations are the record's own."""
    votes: tuple[Answer, ...] = ()
    """Answers that have been counted: those before the last one that a quorum needs, and that one."""
    delegations: tuple[Delegation, ...] = ()
    """Votes that were handed over, in order."""
    began: int | None = None
    """susp, rewritten by a vote or because one was handed over: the generation in which the suspension began."""
    given: tuple[Json] | None = None
    """The input that time travel gave a step, a nested workflow or a loop, instead of what stands before it."""
    instead: tuple[str, int] | None = None
    """The stand-in that runs here since nobody answered in time, and the generation since which; one that stands in
    for a stand-in behind it, with a colon."""
    answer: Answer | None = None
    asked: tuple[int, datetime, int] | None = None
    """With an answer: order and time of the suspension it settled, and the order of the answer itself."""
    spent: tuple[Answer, ...] = ()
    """Answers to earlier suspensions of this same place that carried an idempotency key, without their data."""
    opens: Scope | None = None
    """start: the scope whose records must be loaded with this one."""
    count: int | None = None
    """start: the loop's current turn, or the foreach's resolved concurrency."""

    @property
    def is_settled(self) -> bool:
        """Whether this record can never change again."""
        return self.outcome in SETTLED

    @property
    def occurrence(self) -> tuple[Outcome, int, int, int]:
        """Which write it is; the same however often it is read, and as whatever type, since."""
        return self.outcome, self.gen, self.seq, self.epoch

    @property
    def topic(self) -> tuple[str, str] | None:
        """The name and key of the event that settles it, if one does."""
        return self.listens or (None if self.terms is None else self.terms.listens)

    @property
    def shown(self) -> Json:
        """What whoever must answer sees: the payload, each alternative's, or which event is waited for."""
        if len(self.alternatives) > 1:
            return {each.name: each.payload for each in self.alternatives}
        return self.payload if self.listens is None else {"event": self.listens[0], "key": self.listens[1]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Under which ids and with which marks a run shows in tracing, as its caller gave them."""

    trace_id: str | None = None
    """32 hex digits."""
    parent_span_id: str | None = None
    """16 hex digits; of the caller's span."""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    context_keys: tuple[str, ...] = ()
    """Keys of the request context that spans show."""


NO_TRACE = Trace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some items of a distributed foreach, which a run of their own, a child, sees to."""

    run: str
    """The run the foreach is in, which may be a child itself."""
    key: StepKey
    """The foreach."""
    first: int
    stop: int
    """Behind the last item."""
    top: str
    """The run that is nobody's child: the one that users know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The one small record of a run that is rewritten: status, version, lease, when somebody must look again."""

    run: RunRef
    workflow: str
    definition: str
    """Fingerprint of the workflow the run last moved under."""
    input: Json
    input_hash: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    """The run's own clock: never goes backwards, whatever the machines' clocks do."""
    version: int = 1
    epoch: int = 0
    """Fencing token: grows with every claim; a holder of an older one may not release."""
    owner: str | None = None
    lease_until: datetime | None = None
    incarnation: int = 1
    effects: int | None = None
    """The incarnation whose idempotency keys the steps are given, after a redrive; None: this one's own."""
    wake: datetime | None = None
    due: datetime | None = None
    """When the sweeper must send a hint; present only while somebody must act."""
    attempts: int = 0
    """Claims in a row without a clean release."""
    hops: int = 0
    """Times in a row the run was handed on because a worker ran out of time, since something was last done in it."""
    output: Json = None
    failure: StepFailure | None = None
    blocked: str | None = None
    resource_id: str | None = None
    started_by: str | None = None
    """Who started the run, as its caller said; kept for life."""
    canceled_by: str | None = None
    state: Mapping[str, Json] = field(default_factory=dict)
    """As the run was started with; kept for life, as is the next. What steps change is in their records."""
    request_context: Mapping[str, Json] = field(default_factory=dict)
    trace: Trace = NO_TRACE
    """As the run was started with; kept for life. Its tags are what listings filter by."""
    continued: Trace | None = None
    """Under what the run goes on since the last resume."""
    waiting_since: datetime | None = None
    """Of a parked run: when the oldest of its open suspensions began. A listing's help, never believed."""
    deadline: datetime | None = None
    """Of a parked run: the first deadline of its open suspensions. A listing's help, too."""
    expires_at: datetime | None = None
    """Of an ended run: when it counts as gone."""
    outbox: tuple[str, ...] = ()
    """Hooks that are owed for the outcome this head is; ``due`` then is when whoever was to call them is given up."""
    told_of: int = 0
    """The number of the last thing that had happened when ``on_suspend`` was called; 0: never in this life."""
    part: Part | None = None
    """Of a child: which items of which run's foreach it sees to; kept for life. No listing shows it."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can change this run any more."""
        return self.status in TERMINAL

    def is_expired(self, now: datetime) -> bool:
        """Whether the run has ended so long ago that it counts as gone, though it can still be read."""
        return self.expires_at is not None and self.expires_at <= max(now, self.updated_at)

    @property
    def public_status(self) -> PublicStatus:
        """The word that users see: one of eight."""
        match self.status:
            case RunStatus.QUEUED:
                return "running" if self.epoch else "pending"
            case RunStatus.RUNNING:
                return "running"
            case RunStatus.WAITING | RunStatus.JOINING:
                return "waiting"
            case RunStatus.SUSPENDED:
                return "suspended"
            case RunStatus.PAUSED | RunStatus.BLOCKED:
                return "paused"
            case RunStatus.SUCCESS:
                return "success"
            case RunStatus.FAILED:
                return "failed"
            case RunStatus.CANCELED:
                return "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What is known of some neighbouring items of a distributed foreach; each set only ever tells what is durable.

    Sets and not counters: whoever adds an item a second time changes nothing.
    """

    key: StepKey
    """The foreach."""
    incarnation: int
    chunk: int
    """Which items: the ``chunk``-th so many."""
    total: int
    """Items of the whole foreach."""
    shard: int
    """Items that one child sees to."""
    done: frozenset[int] = frozenset()
    """Items whose record stands in the run."""
    failed: frozenset[int] = frozenset()
    """Those of them that have failed."""
    bailed: frozenset[int] = frozenset()
    """Those of them that have ended the workflow around the foreach."""
    parked: frozenset[int] = frozenset()
    """Items that wait for nothing but answers. A hint, as the next: only the child's own records say so."""
    asking: frozenset[int] = frozenset()
    """Items with an open suspension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """How far a whole distributed foreach is."""

    total: int
    shard: int
    done: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    bailed: frozenset[int] = frozenset()
    parked: frozenset[int] = frozenset()
    asking: frozenset[int] = frozenset()
    begun: int | None = None
    """Up to which item children are at work: behind, nothing can happen yet. None: not looked up."""
    wake: datetime | None = None
    """Where no queue wakes the children: when the first of them wants to be woken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one version: its head, the records of all open scopes, and what the records fold to.

    ``deltas`` (per scope, in Lamport order) and ``last_seq`` are derived from the records by ``core.evolve.fold``.
    """

    head: Head
    records: PMap[StepKey, StepRecord] = field(default_factory=PMap[StepKey, StepRecord])
    deltas: PMap[Scope, Delta] = field(default_factory=PMap[Scope, Delta])
    last_seq: int = 0

    around: Head | None = None
    """Of a child: the head of the run that is nobody's child. The child's records stand among those of that run."""
    fans: Mapping[StepKey, Fan] = field(default_factory=dict)
    """How far the open distributed foreaches are, as far as it has been looked up."""

    @property
    def root(self) -> Head:
        """The head with the input, state and request context that everything began with."""
        return self.around or self.head

    def with_head(self, head: Head) -> Snapshot:
        """The same records under another head."""
        return replace(self, head=head)


class Doors(Protocol):
    """Makes the addresses at which waits of one tenant can be answered."""

    def url(
        self,
        wait: Wait[Any],
        door: Literal["a", "cb"],
        *,
        actor: str | None,
        valid_for: timedelta | None,
        require_login: bool = False,
    ) -> str:
        """The signed address: ``a`` for a person's browser, ``cb`` for a program."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Generic[P]):
    """One open suspension, as the person or program that must answer sees it.

    Example:
        >>> from flowcore.model import Wait
        >>> Wait(id="approve@0", run_id="r-1", path=["approve"], payload={"reason": "large"}).path
        ['approve']
    """

    id: str
    """Names this occurrence; a later suspension of the same step has another id."""
    run_id: str
    path: list[str]
    label: str | None = None
    index: int | None = None
    payload: P
    deadline: datetime | None = None
    since: datetime | None = None
    approvers: Sequence[str] = ()
    """Who may answer, with whom votes were handed to in the place of who did; empty: anybody. For ``notify`` those as
    well who may since this reminder or an earlier one."""
    quorum: int = 1
    """How many different people must answer."""
    delegated: Mapping[str, str] = field(default_factory=dict)
    """By approver who has handed over his vote: who answers in his place."""
    escalates: Sequence[tuple[datetime, Sequence[str]]] = ()
    """From when on who else may answer."""
    allow_self: bool = True
    """Whether whoever started the run may answer."""
    answered_by: Sequence[str] = ()
    """Whose answers have been counted so far."""
    reminder: int = 0
    """For ``notify``: which reminder this is, from 1; 0 the first time."""
    born: datetime | None = field(default=None, repr=False, compare=False)
    """When its run was started: tells it from a wait of a later run of the same id."""
    doors: Doors | None = field(default=None, repr=False, compare=False)

    def approval_url(
        self, *, actor: str | None = None, valid_for: timedelta | None = None, require_login: bool = False
    ) -> str:
        """A signed link to the page on which a person answers exactly this suspension. Opening it decides nothing.

        Whoever holds the link can answer, so give each person a link of their own.

        Args:
            actor: who answers with it: what ``approvers=`` names, and what the run remembers.
            valid_for: from the suspension's beginning; left out, until 30 days after the deadline (it says then what
                became of it), or for a year.
            require_login: the link alone is not enough: whoever uses it must be known to what stands in front of
                ``/a/`` (an authorizer, or ``asgi(authorize=)``), as ``actor`` if there is one. Without ``actor`` he
                answers under the name by which he is known.
        Raises: SettingsError where the App has no ``links``.
        """
        return self._opened().url(self, "a", actor=actor, valid_for=valid_for, require_login=require_login)

    def callback_url(self, *, actor: str | None = None, valid_for: timedelta | None = None) -> str:
        """A signed URL to which a program posts its answer as JSON. Arguments and errors as for ``approval_url``."""
        return self._opened().url(self, "cb", actor=actor, valid_for=valid_for)

    def _opened(self) -> Doors:
        if self.doors is None:
            raise SettingsError(
                "This App has no links: give it App(links=Links(public_url, secrets)), or set FLOWCORE_PUBLIC_URL and "
                "FLOWCORE_LINK_SECRETS where it is deployed."
            )
        return self.doors

    @staticmethod
    def of(head: Head, record: StepRecord, reminder: int = 0) -> Wait[Json]:
        """The wait that a suspended record of a run stands for; ``reminder``: as this one shows it."""
        terms, seats = record.terms or Terms(), seats_of(record, reminder)
        return Wait(
            id=wait_id(record, head.incarnation),
            run_id=head.run.id if head.part is None else head.part.top,
            born=head.created_at,
            path=path_of(record.key),
            label=record.label,
            index=index_of(record.key),
            payload=record.shown,
            deadline=record.until,
            since=record.at,
            approvers=tuple(dict.fromkeys(seats.values())),
            quorum=terms.quorum,
            delegated={owner: holder for owner, holder in seats.items() if owner != holder},
            escalates=[(record.at + terms.remind[rung - 1], names) for rung, names in terms.escalate],
            allow_self=terms.allow_self,
            reminder=reminder,
            answered_by=tuple(vote.by or "" for vote in record.votes),
        )


def seats_of(record: StepRecord, rung: int) -> dict[str, str]:
    """By approver, who answers in his place or is he himself; ``rung``: how many reminders are due."""
    terms = record.terms or Terms()
    added = [name for number, names in terms.escalate if number <= rung for name in names]
    seats = {name: name for name in (*terms.approvers, *added)}
    return seats | {d.seat: d.to for d in record.delegations if d.seat in seats}


def wait_id(record: StepRecord, incarnation: int) -> str:
    """The id of the suspension that ``record`` is: its key, which occurrence, after time travel in which life.

    And which alternative, where it is only one.
    """
    life = "" if incarnation == 1 else f"~{incarnation}"
    which = f":{record.alternatives[0].name}" if len(record.alternatives) == 1 else ""
    return f"{record.key}@{record.gen if record.began is None else record.began}{life}{which}"


def wait_place(wait: str) -> tuple[StepKey, int]:
    """The key and the incarnation of the suspension that has this id; 0, which is none, when it is not such an id."""
    key, _, occurrence = wait.rpartition("@")
    _, _, life = occurrence.partition(":")[0].partition("~")
    return StepKey(key), int(life) if life.isdecimal() else int(not life)


def wait_number(wait: str) -> str:
    """Which occurrence of its step's suspensions has this id: the generation in which it began."""
    return wait.rpartition("@")[2].partition(":")[0].partition("~")[0]


def wait_whole(wait: str) -> str:
    """The id of the whole suspension, whichever of its alternatives ``wait`` is for."""
    key, _, occurrence = wait.rpartition("@")
    return f"{key}@{occurrence.partition(':')[0]}"


def wait_in_any_life(wait: str) -> str:
    """The same for the suspension and what a later life of its run has made of it."""
    choice = wait_choice(wait)
    return f"{wait.rpartition('@')[0]}@{wait_number(wait)}{'' if choice is None else f':{choice}'}"


def wait_choice(wait: str) -> str | None:
    """The name of the alternative that has this id; None when it is a suspension without any, or the whole one."""
    return wait.rpartition("@")[2].partition(":")[2] or None


Verdict: TypeAlias = Literal["applied", "counted", "delegated", "duplicate", "buffered", "stale", "rejected"]
"""What became of an arrival.

``counted``: others have to answer as well before the step goes on. ``delegated``: a vote was handed over.
``duplicate``: it had come before. ``buffered``: it is kept until its step asks. ``stale``: the suspension was over
already. ``rejected``: it cannot be meant, or its data does not fit.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one arrival: stored proof, the same for every copy of it.

    Example:
        >>> from flowcore import App, StepContext, step, workflow
        >>> @step
        ... def ask(order: str, ctx: StepContext[bool]) -> bool:
        ...     return ctx.suspend() if ctx.resume_data is None else ctx.resume_data
        >>> run = App(workflow("w", input=str, output=bool).then(ask).commit()).workflow("w").create_run()
        >>> _ = run.start("A-17")
        >>> _ = run.resume(True, by="ada")
        >>> [(receipt.verdict, receipt.by) for receipt in run.receipts()]
        [('applied', 'ada')]
    """

    verdict: Verdict
    wait: str
    """The suspension it was for; empty when it named none that ever was."""
    at: datetime
    """When it came; a ``duplicate`` that a caller is given says when the first one did."""
    by: str | None = None
    via: str = "python"
    step: str | None = None
    """Dotted id of the step that was meant, where that is known."""
    idempotency_key: str | None = None
    """Of an event its id."""
    reason: str | None = None
    """stale, rejected: the ``code`` of the error that the caller was told."""
    errors: tuple[Mapping[str, Json], ...] = ()
    """rejected: the first fields that did not fit, each with ``path`` and ``message``."""
    on_behalf_of: str | None = None
    """The approver whose vote it was, where somebody else gave it."""
    to: str | None = None
    """delegated: whom the vote was handed to."""
    winner: Mapping[str, Json] | None = None
    """stale: ``at``, ``by`` and ``via`` of what settled the suspension."""
    times: int = 1
    """How often the same came: repeats are counted here, not listed."""
    last_at: datetime | None = None
    """When it came last, if it came more than once."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What an event is about: its name and its key. Who sends and who waits meet here."""

    tenant: str
    event: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One open wait for an event. It may be stale: only the run's own record says whether the wait is open."""

    topic: Topic
    run: RunRef
    wait: str
    at: datetime
    until: datetime | None = None
    """The wait's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An event as it was sent; never changes but for who took it."""

    topic: Topic
    id: str
    """A second event of the same id is the same event."""
    data: Json
    digest: str
    at: datetime
    until: datetime
    """How long it is kept: for a wait that comes later, and to know its copies."""
    taker: tuple[str, str] | None = None
    """The run and the wait it has settled."""
    starts: str | None = None
    """The run that was started together with it, because there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """Everything at one topic, each the oldest first."""

    listeners: tuple[Listener, ...] = ()
    events: tuple[Sent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReceipt:
    """What became of an event: it settled a wait, is kept for one, or started a run; ``duplicate``: had done so before.

    Example:
        >>> from flowcore.model import EventReceipt
        >>> EventReceipt(event_id="e-1", verdict="buffered").run_id is None
        True
    """

    event_id: str
    verdict: Literal["applied", "buffered", "started", "duplicate"]
    run_id: str | None = None
    wait: str | None = None
    """Which it has settled; of a run that it started as well, if that came to wait for it in the call."""
    at: datetime | None = None
    """When it came. Told by ``app.event``, as is how long it is kept."""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing. ``cursor`` continues it, ``None`` at the end; iterating gives the items."""

    items: list[T]
    cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of a listing of runs."""

    run_id: str
    workflow_id: str
    status: PublicStatus
    created_at: datetime
    resource_id: str | None = None
    tags: tuple[str, ...] = ()
    waiting_since: datetime | None = None
    """When the oldest of its open suspensions began, if it is parked with one."""
    deadline: datetime | None = None
    """The first deadline of its open suspensions, if it is parked with one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a listing shows or counts: those for which everything that is given holds."""

    workflow: str | None = None
    statuses: tuple[PublicStatus, ...] = ()
    """One of these; none given: any."""
    resource_id: str | None = None
    tags: tuple[str, ...] = ()
    """All of these."""
    since: datetime | None = None
    """Created then or later."""
    until: datetime | None = None
    """Created then or earlier."""
    waiting: bool = False
    """With open suspensions: parked when it was last written, so not one that a worker drives just now."""
    deadline_before: datetime | None = None
    """With an open suspension whose deadline is before."""
    unexpired_at: datetime | None = None
    """Not ended so long ago that it counted as gone by then."""


EVERY_RUN = RunFilter()
