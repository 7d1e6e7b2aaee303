"""What one worker holds of a run: the head as it stands, and the outcomes that are kept back until a boundary.

The head may be written while steps are at work: together with outcomes, or to say that the worker lives. Each such
write counts the version on, under the condition that nobody else has. Where somebody has (an answer came), the write is
repeated upon what stands there, but the worker goes on believing the version that its records were read under: so its
release is refused, and it reads again. Taking over the other version instead would lose the answer.
"""

from __future__ import annotations

from datetime import datetime
from threading import Lock

from flowcore.core import heads
from flowcore.core.alternatives import each
from flowcore.errors import ConflictError
from flowcore.keys import StepKey
from flowcore.model import Head, Outcome, RunStatus, StepRecord
from flowcore.ports import Batch, HeadMoved, RecordMoved, Store, Written

_MOST_TRIES = 20
"""Times a write of the head is repeated because it moved; each time an answer came."""
_MOST_KEPT = 48
_HEAVIEST = 256 * 1024
"""Outcomes, and bytes, kept back at most: they fit into one transaction, and a crash loses no more than that."""


class Hold:
    """The head as it stands for the worker that holds the run. Used from any of its threads."""

    def __init__(self, store: Store, head: Head) -> None:
        self.standing = head
        self.has_moved = False
        """Whether somebody else has written the head since the records were read."""
        self.is_halted = False
        """Whether the run is known to have been stopped; see ``halts``."""
        self._store = store
        self._lock = Lock()

    def renew(
        self, now: datetime, *, lease_until: datetime | None = None, batch: Batch = ()
    ) -> Written | HeadMoved | RecordMoved:
        """Write the head as one that goes on being driven, with ``batch``. HeadMoved: it is no longer ours."""
        written = {"batch": batch} if batch else {}
        with self._lock:
            for _ in range(_MOST_TRIES):
                held, head = self.standing, heads.renewed(self.standing, now, lease_until)
                reply = self._store.release(head, epoch=held.epoch, version=held.version, **written)
                if isinstance(reply, Written):
                    self.standing = head
                if not isinstance(reply, HeadMoved) or not self.is_ours(reply.head):
                    return reply
                assert reply.head is not None
                self.standing, self.has_moved = reply.head, True
        raise ConflictError(
            f"Run {self.standing.run.id!r} moved {_MOST_TRIES} times while its outcomes were written. Try again."
        )

    def is_ours(self, head: Head | None) -> bool:
        """Whether whoever wrote ``head`` has left the run to this worker."""
        return head is not None and (head.epoch, head.status) == (self.standing.epoch, RunStatus.RUNNING)

    def halts(self, head: Head | None) -> bool:
        """Whether whoever wrote ``head`` has stopped the run and given it to nobody else; that is not forgotten.

        What this worker has in hand is stored then, and nothing more is begun.
        """
        is_lost = head is None or head.is_terminal or head.epoch != self.standing.epoch
        halts = not is_lost and not self.is_ours(head)
        self.is_halted = self.is_halted or halts
        return halts

    def read_under(self, head: Head) -> None:
        """The records have been read anew, under ``head``."""
        self.standing, self.has_moved = head, False


class KeptBack:
    """Outcomes that are not stored yet, with what stands in their place."""

    def __init__(self) -> None:
        self._records: dict[StepKey, tuple[StepRecord, StepRecord | None]] = {}
        self._weight = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: StepKey) -> bool:
        return key in self._records

    def add(self, record: StepRecord, prior: StepRecord | None, weight: int) -> None:
        """Keep ``record``, which follows ``prior`` and takes ``weight`` bytes."""
        standing = self._records[record.key][1] if record.key in self._records else prior
        self._records[record.key] = (record, standing)
        self._weight += weight

    def batch(self) -> Batch:
        """Everything, in Lamport order."""
        return sorted(self._records.values(), key=lambda pair: pair[0].seq)

    def clear(self) -> None:
        """They are stored, or nobody wants them any more."""
        self._records.clear()
        self._weight = 0

    @property
    def is_full(self) -> bool:
        """Whether no more is kept back."""
        return len(self._records) >= _MOST_KEPT or self._weight >= _HEAVIEST

    @property
    def has_question(self) -> bool:
        """Whether there is a suspension among them, which nobody can answer."""
        return any(record.outcome is Outcome.SUSP for record, _ in self._records.values())

    @property
    def is_to_be_told(self) -> bool:
        """Whether somebody is to be told of such a suspension, or an event may have come for it."""
        asked = [record for record, _ in self._records.values() if record.outcome is Outcome.SUSP]
        waits = [wait for record in asked for wait in each(record)]
        return any(wait.topic or (wait.terms and wait.terms.notify) for wait in waits)
