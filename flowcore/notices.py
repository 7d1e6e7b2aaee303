"""Telling whoever must answer: ``notify`` of a suspended step is called once it is stored, until it has returned.

What was told is written down under a key of its own, so that no later worker tells it again.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flowcore.authoring.graph import Graph, StepNode
from flowcore.core.admit import open_waits
from flowcore.core.alternatives import each
from flowcore.core.evolve import kept
from flowcore.keys import StepKey, dotted, told_of
from flowcore.model import Json, Outcome, Snapshot, StepRecord, Wait, wait_id
from flowcore.parcels import replace
from flowcore.runner import Runner

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.session")
_AT_ONCE = datetime.min.replace(tzinfo=UTC)


class Notices:
    """What one worker that drives one run has told those who must answer, and when there is something to tell."""

    def __init__(self, engine: Engine, graph: Graph, runner: Runner) -> None:
        self.told: set[StepKey] = set()
        """What has been told, and written down, since the records were read."""
        self.again: dict[StepKey, datetime] = {}
        """What nobody could be told, and when that is tried again."""
        self.look_at: datetime | None = _AT_ONCE
        """When there may be something to tell of a suspension that was seen; None: never."""
        self.unseen: set[StepKey] = set()
        """Suspensions that are stored, and that an event may have answered already."""
        self._engine = engine
        self._graph = graph
        self._runner = runner

    def tell_of(self, snapshot: Snapshot, record: StepRecord) -> None:
        """Have whoever must answer told of a suspension, unless an event may have answered it already."""
        waits = each(record)
        if any(one.topic is not None for one in waits):
            self.unseen.add(record.key)
            return
        for one in waits:
            self.see_to(snapshot, one)

    def due(self, snapshot: Snapshot) -> list[StepRecord]:
        """The open suspensions of which there is something to tell by now; all are looked at only when one may be."""
        now = self._engine.time_of(snapshot)
        if self.look_at is not None and self.look_at <= now:
            waits, self.look_at = open_waits(snapshot), None
        elif self.unseen:
            stored = (snapshot.records.get(key) for key in self.unseen)
            waits = [one for record in stored if record is not None for one in each(record)]
        else:
            return []
        self.unseen.clear()
        due = list[StepRecord]()
        for one in waits:
            look = self._look(snapshot, one)
            if look is not None and look <= now:
                due.append(one)
            else:
                self._expect(look)
        return due

    def see_to(self, snapshot: Snapshot, record: StepRecord) -> datetime | None:
        """See that whoever must answer has been told of a suspension; when there is something to tell again."""
        look, now = self._look(snapshot, record), self._engine.time_of(snapshot)
        if look is not None and look <= now:
            assert record.terms is not None  # there is something to tell
            assert record.terms.notify is not None
            reminder, _ = record.terms.rungs(record.at, now)
            head, told = snapshot.head, _told_at(snapshot, record, reminder)
            wait = replace(Wait.of(head, record, reminder), doors=self._engine.doors(head.run.tenant))
            if not self._tell(snapshot, record, record.terms.notify, wait, told):
                pace, now = self._engine.pace, self._engine.time_of(snapshot)
                self.again[told] = now + min(max(now - record.at, pace.notify_again), pace.notify_rarely)
            look = self._look(snapshot, record)
        self._expect(look)
        return look

    def _look(self, snapshot: Snapshot, record: StepRecord) -> datetime | None:
        """When there is something to tell of a suspension: the next reminder, or what nobody has been told yet."""
        terms = None if record.outcome is not Outcome.SUSP else record.terms
        if terms is None or terms.notify is None:
            return None
        now = self._engine.time_of(snapshot)
        reminder, following = terms.rungs(record.at, now)
        told = _told_at(snapshot, record, reminder)
        if told in self.told or told in snapshot.records:
            return following
        again = self.again.get(told, now)
        return again if following is None else min(again, following)

    def _expect(self, look: datetime | None) -> None:
        if look is not None:
            self.look_at = look if self.look_at is None else min(self.look_at, look)

    def _tell(self, snapshot: Snapshot, record: StepRecord, name: str, wait: Wait[Json], told: StepKey) -> bool:
        """Call ``notify`` and write down that it need not be called again; whether it has returned."""
        node = self._graph.acting_at(dotted(record.key), None if record.instead is None else record.instead[0])
        assert isinstance(node, StepNode)  # only steps say that somebody is to be told
        try:
            self._runner.tell(node, name, wait)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, the suspension stands
            seen = {"run_id": wait.run_id, "step": dotted(record.key), "error_type": type(error).__name__}
            seen["stack"] = "".join(traceback.format_tb(error.__traceback__))
            _LOGGER.error("nobody could be told of a suspension", extra=seen)  # noqa: TRY400  # its message is payload
            return False
        head, acknowledged = snapshot.head, kept(snapshot, told, None, self._engine.time_of(snapshot))
        self._engine.store.commit(head.run, head.incarnation, acknowledged, None)
        self.told.add(told)
        return True


def _told_at(snapshot: Snapshot, record: StepRecord, reminder: int) -> StepKey:
    """Where it is written down that somebody was told."""
    occurrence = wait_id(record, snapshot.head.incarnation).rsplit("@", 1)[1]
    return told_of(record.key, f"{occurrence}.{reminder}")
