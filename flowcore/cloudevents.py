"""What the outside world is told of a run: one CloudEvent 1.0 for each change of its status. Pure.

An event is derived from what a head was and what it has become, so nothing has to be written for it, and whoever looks
at the same change again derives the same event with the same id. It carries no values of the run unless asked to.

Source: CloudEvents 1.0.2, "Context Attributes"; JSON Event Format 1.0.2, section 3, "Envelope".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from flowcore.codec import dumps
from flowcore.core.events import failure_json
from flowcore.errors import BlobLost, SettingsError
from flowcore.keys import RunRef
from flowcore.model import Head, Json, StepFailure

Kind: TypeAlias = Literal[
    "run-started",
    "run-running",
    "run-waiting",
    "run-suspended",
    "run-paused",
    "run-resumed",
    "run-restarted",
    "run-success",
    "run-failed",
    "run-canceled",
    "run-deleted",
    "step-suspended",
    "step-resumed",
    "step-waiting",
    "step-retrying",
    "step-success",
    "step-bailed",
    "step-failed",
    "step-skipped",
]
"""``run-running``: a worker has taken up what was pending. ``run-resumed``: it goes on, having waited or been suspended
or paused. ``run-restarted``: time travel, a redrive. The others say what the run has become."""
KINDS: tuple[Kind, ...] = get_args(Kind)
RUN_KINDS: tuple[Kind, ...] = KINDS[: KINDS.index("run-deleted") + 1]
"""What is told where nobody says otherwise; steps are told of by name only."""

PREFIX = "dev.flowcore."
"""In front of a kind: the ``type`` of its CloudEvent."""
MOST_BYTES = 200_000
"""Of the run's values in one event; larger ones are left out and named in ``omitted``. EventBridge takes 256 KB.

Source: Amazon EventBridge User Guide, "Calculating PutEvents event entry size".
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """Something that has happened to a run, for whoever wants to know."""

    id: str
    """Of this change: told again it is the same. Unique for its ``source``."""
    source: str
    """``/flowcore/<tenant>``."""
    kind: Kind
    subject: str
    """The run's id."""
    time: datetime
    data: Mapping[str, Json]

    @property
    def type(self) -> str:
        """``dev.flowcore.run-suspended`` and the like."""
        return PREFIX + self.kind

    def plain(self) -> dict[str, Json]:
        """The event in structured mode."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": instant_text(self.time),
            "datacontenttype": "application/json",
            "data": dict(self.data),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """What of a run is told.

    Raises: SettingsError for a kind that there is not.
    """

    kinds: frozenset[Kind] = frozenset(RUN_KINDS)
    include_payload: bool = False

    def __post_init__(self) -> None:
        refuse_strangers("events=", self.kinds)


@dataclass(frozen=True, slots=True)
class HeadChange:
    """A head before and after one write; None: it was not there, or is gone."""

    before: Head | None
    after: Head | None

    @property
    def tenant(self) -> str | None:
        """Whose run it is; None where there is none."""
        head = self.after or self.before
        return None if head is None else head.run.tenant

    def told(self, telling: Telling) -> list[CloudEvent]:
        """What it tells, in order."""
        return told(self.before, self.after, telling)


def source_of(run: RunRef) -> str:
    """The ``source`` of all that is told of a run."""
    return f"/flowcore/{run.tenant}"


def told(before: Head | None, after: Head | None, telling: Telling) -> list[CloudEvent]:
    """What a head that was ``before`` and is ``after`` tells, in order; None: it was not there, or is gone."""
    return [_event(kind, head, before, telling) for kind, head in _changes(before, after) if kind in telling.kinds]


def refuse_strangers(what: str, kinds: Iterable[str]) -> None:
    """Raise SettingsError for a kind of event that there is not."""
    strangers = sorted(set(kinds) - set(KINDS))
    if strangers:
        raise SettingsError(f"{what} has no {strangers[0]!r}; choose among {', '.join(KINDS)}.")


def _changes(before: Head | None, after: Head | None) -> Iterator[tuple[Kind, Head]]:
    before, after = _unless_gone(before), _unless_gone(after)
    if before is not None and (after is None or after.created_at != before.created_at):
        yield "run-deleted", before
        before = None
    if after is None:
        return
    if before is None:
        yield "run-started", after
    elif after.incarnation != before.incarnation:
        yield "run-restarted", after
    elif after.public_status != before.public_status:
        yield _became(before, after), after


def _unless_gone(head: Head | None) -> Head | None:
    """A run that is being removed is gone, though its head may stand for a while."""
    return None if head is None or head.is_expired(head.updated_at) else head


def _became(before: Head, after: Head) -> Kind:
    match after.public_status:
        case "pending" | "running":
            return "run-running" if before.public_status == "pending" else "run-resumed"
        case "waiting":
            return "run-waiting"
        case "suspended":
            return "run-suspended"
        case "paused":
            return "run-paused"
        case "success":
            return "run-success"
        case "failed":
            return "run-failed"
        case "canceled":
            return "run-canceled"


def _event(kind: Kind, head: Head, before: Head | None, telling: Telling) -> CloudEvent:
    """The id has the time of birth in it: a run that was deleted leaves its id, and its versions, to the next."""
    born = int(head.created_at.timestamp() * 1000)
    return CloudEvent(
        id=f"{head.run.id}/{born}/{head.version}/{kind}",
        source=source_of(head.run),
        kind=kind,
        subject=head.run.id,
        time=head.updated_at,
        data={**_facts(head, before), **(_values(head) if telling.include_payload else {})},
    )


def _facts(head: Head, before: Head | None) -> dict[str, Json]:
    """What is known of the run that is none of its values."""
    found: dict[str, Json] = {
        "run_id": head.run.id,
        "tenant": head.run.tenant,
        "workflow_id": head.workflow,
        "status": head.public_status,
        "was": None if before is None else before.public_status,
        "version": head.version,
        "incarnation": head.incarnation,
        "created_at": instant_text(head.created_at),
        "updated_at": instant_text(head.updated_at),
        "resource_id": head.resource_id,
        "tags": list(head.trace.tags),
        "trace_id": head.trace.trace_id,
        "wake_at": instant_text(head.wake),
        "deadline": instant_text(head.deadline),
        "started_by": head.started_by,
        "canceled_by": head.canceled_by,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _values(head: Head) -> dict[str, Json]:
    names = {"input": "input", "output": "output", "error": "failure", "blocked": "blocked"}
    return fitting({shown: partial(_value, head, name) for shown, name in names.items()})


def fitting(values: Mapping[str, Callable[[], Json]]) -> dict[str, Json]:
    """Those values that fit into an event together, and the names of the others: whoever needs them reads the run."""
    found: dict[str, Json] = {}
    omitted: list[str] = []
    left = MOST_BYTES
    for name, read in values.items():
        try:
            value = read()
            size = len(dumps(value).encode())
        except BlobLost:  # it lies in the bucket
            value, size = None, left + 1
        if size > left:
            omitted.append(name)
        elif value is not None:
            found[name] = value
            left -= size
    return {**found, **({"omitted": omitted} if omitted else {})}


def _value(head: Head, name: str) -> Json:
    value = getattr(head, name)
    return failure_json(value) if isinstance(value, StepFailure) else value


def instant_text(instant: datetime | None) -> str | None:
    """An instant as RFC 3339 has it."""
    return None if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wanted_of(events: Collection[str] | None) -> frozenset[Kind]:
    """The kinds that an ``events=`` names; every one of runs when it is left out. Raises: SettingsError."""
    if events is None:
        return frozenset(RUN_KINDS)
    refuse_strangers("events=", events)
    named: frozenset[Any] = frozenset(events)
    return named
