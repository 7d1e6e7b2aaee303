"""What the outside world is told of steps, where somebody has asked for it by name. Pure.

As with runs, an event is derived from what a record was and what it has become. A record that is copied into a later
life of its run, or folded together with others, tells what it told before, under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowcore.cloudevents import CloudEvent, Kind, Telling, fitting, instant_text, source_of
from flowcore.core.events import failure_json
from flowcore.keys import RunRef, dotted, index_of, is_once, turn_number
from flowcore.model import Json, Outcome, StepRecord, wait_id
from flowcore.parcels import parcels_in, replace

_KINDS: dict[Outcome, Kind] = {
    Outcome.OK: "step-success",
    Outcome.BAIL: "step-bailed",
    Outcome.ERR: "step-failed",
    Outcome.SKIP: "step-skipped",
    Outcome.SUSP: "step-suspended",
    Outcome.RESU: "step-resumed",
    Outcome.SLP: "step-waiting",
    Outcome.RETRY: "step-retrying",
}
"""A step that has begun is told of by nobody: most never say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """The records of one item of a run before and after it was written."""

    run: RunRef
    incarnation: int
    before: Sequence[StepRecord]
    after: Sequence[StepRecord]

    @property
    def tenant(self) -> str:
        """Whose run it is."""
        return self.run.tenant

    def told(self, telling: Telling) -> list[CloudEvent]:
        """What it tells, in order."""
        was = {record.key: record for record in self.before}
        return [
            self._event(kind, record, telling)
            for record in self.after
            if (kind := _kind(was.get(record.key), record)) is not None and kind in telling.kinds
        ]

    def _event(self, kind: Kind, record: StepRecord, telling: Telling) -> CloudEvent:
        """The id has no incarnation in it, so that a copy in a later life is the same event."""
        at = int(record.at.timestamp() * 1000)
        values = _values(record) if telling.include_payload else {}
        return CloudEvent(
            id=f"{self.run.id}/{record.key}/{at}/{record.gen}/{kind}",
            source=source_of(self.run),
            kind=kind,
            subject=self.run.id,
            time=record.at,
            data={**self._facts(kind, record), **fitting({**_answerer(kind, record), **values})},
        )

    def _facts(self, kind: Kind, record: StepRecord) -> dict[str, Json]:
        found: dict[str, Json] = {
            "run_id": self.run.id,
            "tenant": self.run.tenant,
            "incarnation": self.incarnation,
            "step": dotted(record.key),
            "index": index_of(record.key),
            "iteration": turn_number(record.key),
            "attempt": record.attempt,
            "wait": _wait(record, self.incarnation) if kind == "step-suspended" else None,
            "label": record.label if kind == "step-suspended" else None,
            "until": instant_text(record.until),
        }
        return {name: value for name, value in found.items() if value is not None}


def _kind(before: StepRecord | None, after: StepRecord) -> Kind | None:
    """None where users see no change: a side effect, a vote that is counted, the same written again."""
    if is_once(after.key) or (after.outcome is Outcome.SUSP and after.began is not None):
        return None
    if before is not None and (before.outcome, before.gen) == (after.outcome, after.gen):
        return None
    return _KINDS.get(after.outcome)


def _wait(record: StepRecord, incarnation: int) -> str:
    """The id of a suspension; without looking at its alternatives where those are too large for the item.

    A single one is its record's label, and where there are several the record has none: see core.alternatives.
    """
    if "alternatives" not in parcels_in(record):
        return wait_id(record, incarnation)
    whole = wait_id(replace(record, alternatives=()), incarnation)
    return whole if record.label is None else f"{whole}:{record.label}"


def _answerer(kind: Kind, record: StepRecord) -> dict[str, Callable[[], Json]]:
    """Who answered, over which channel: no values, but stored with what he said, and so perhaps in the bucket."""
    if kind != "step-resumed":
        return {}
    return {
        "by": lambda: None if record.answer is None else record.answer.by,
        "via": lambda: None if record.answer is None else record.answer.via,
    }


def _values(record: StepRecord) -> dict[str, Callable[[], Json]]:
    shown = record.outcome is Outcome.SUSP
    return {
        "output": lambda: record.output,
        "payload": lambda: record.shown if shown else None,
        "resume_data": lambda: None if record.answer is None else record.answer.data,
        "error": lambda: failure_json(record.failure),
    }
