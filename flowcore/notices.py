"""Telling whoever must answer: ``notify`` of a suspended step is called once it is stored, until it has returned.

What was told is written down under a key of its own, so that no later worker tells it again.
"""

from __future__ import annotations

import logging
import traceback
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore.authoring.graph import Graph, StepNode
from flowcore.core.alternatives import each
from flowcore.core.evolve import kept
from flowcore.keys import StepKey, dotted, told_of
from flowcore.model import Json, Outcome, Snapshot, StepRecord, Wait
from flowcore.parcels import replace
from flowcore.runner import Runner

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.session")


class Notices:
    """What one worker that drives one run has told those who must answer."""

    def __init__(self, engine: Engine, graph: Graph, runner: Runner) -> None:
        self.told: set[StepKey] = set()
        """What has been told, and written down, since the records were read."""
        self._engine = engine
        self._graph = graph
        self._runner = runner

    def tell_of(self, snapshot: Snapshot, record: StepRecord) -> None:
        """Have whoever must answer told of a suspension, unless an event may have answered it already."""
        waits = each(record)
        if all(one.topic is None for one in waits):
            for one in waits:
                self.see_to(snapshot, one)

    def see_to(self, snapshot: Snapshot, record: StepRecord) -> datetime | None:
        """See that whoever must answer has been told of a suspension; when there is something to tell again."""
        terms = None if record.outcome is not Outcome.SUSP else record.terms
        if terms is None or terms.notify is None:
            return None
        reminder, following = terms.rungs(record.at, self._engine.time_of(snapshot))
        head = snapshot.head
        wait = replace(Wait.of(head, record, reminder), doors=self._engine.doors(head.run.tenant))
        told = told_of(record.key, f"{wait.id.rsplit('@', 1)[1]}.{reminder}")
        if told in self.told or told in snapshot.records or self._tell(snapshot, record, terms.notify, wait, told):
            return following
        pace, now = self._engine.pace, self._engine.time_of(snapshot)
        return now + min(max(now - record.at, pace.notify_again), pace.notify_rarely)

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
