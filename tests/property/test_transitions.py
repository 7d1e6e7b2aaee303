"""Every cell of the two tables in ``model.py``: what stands there works, what does not is our own mistake."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from flowcore.core import heads
from flowcore.core.evolve import (
    Answered,
    Failed,
    FailedOnce,
    FellAsleep,
    Opened,
    Skipped,
    StepEvent,
    Succeeded,
    Suspended,
    evolve,
    fold,
)
from flowcore.errors import InvariantError
from flowcore.keys import StepKey
from flowcore.model import RUN_CHANGES, STEP_CHANGES, Answer, Outcome, RunStatus, StepFailure
from flowcore.testing.contract import NOW, a_head, a_record

KEY = StepKey("charge")
WRONG = StepFailure(type="ValueError", message="no")
EVENTS: dict[Outcome, StepEvent] = {
    Outcome.OK: Succeeded(key=KEY, output=1, started_at=NOW),
    Outcome.BAIL: Succeeded(key=KEY, output=1, started_at=NOW, bailed=True),
    Outcome.ERR: Failed(key=KEY, failure=WRONG, started_at=NOW),
    Outcome.SKIP: Skipped(key=KEY),
    Outcome.SUSP: Suspended(key=KEY, payload=None, label=None, until=None, started_at=NOW),
    Outcome.RESU: Answered(key=KEY, answer=Answer(wait="charge@0", data=1, digest="d", at=NOW)),
    Outcome.SLP: FellAsleep(key=KEY, until=NOW, started_at=NOW),
    Outcome.RETRY: FailedOnce(key=KEY, failure=WRONG, started_at=NOW, attempt=1, until=NOW),
    Outcome.START: Opened(key=KEY, value=1, opens=None, count=None, started_at=NOW),
}


@pytest.mark.parametrize(("before", "after"), list(product([None, *Outcome], Outcome)))
def test_a_place_changes_along_the_table(before: Outcome | None, after: Outcome) -> None:
    """A record follows another only where the table says so, one generation later."""
    records = [] if before is None else [a_record(KEY, before, gen=4)]
    snapshot = fold(a_head(), records)
    if after not in STEP_CHANGES[before]:
        with pytest.raises(InvariantError, match="'charge'"):
            evolve(snapshot, EVENTS[after], NOW)
        return
    record = evolve(snapshot, EVENTS[after], NOW).records[KEY]
    assert (after, 0 if before is None else 5) == (record.outcome, record.gen)


@pytest.mark.parametrize(("before", "after"), list(product(RunStatus, RunStatus)))
def test_a_run_changes_along_the_table(before: RunStatus, after: RunStatus) -> None:
    """A head follows another only where the table says so, one version later; the end absorbs."""
    head = a_head(status=before, version=7)
    if after not in RUN_CHANGES[before]:
        with pytest.raises(InvariantError, match="'r-1' at version 7"):
            heads._moved(head, after, NOW)
        return
    moved = heads._moved(head, after, NOW)
    assert (after, 8) == (moved.status, moved.version)


MOVES: list[tuple[str, Any, RunStatus]] = [
    ("queued", lambda head: heads.queued(head, NOW), RunStatus.QUEUED),
    ("held", lambda head: heads.held(head, NOW, owner="w", lease_until=NOW), RunStatus.RUNNING),
    ("waiting", lambda head: heads.parked(head, NOW, RunStatus.WAITING, NOW), RunStatus.WAITING),
    ("suspended", lambda head: heads.parked(head, NOW, RunStatus.SUSPENDED, None), RunStatus.SUSPENDED),
    ("handed on", lambda head: heads.handed_on(head, NOW), RunStatus.QUEUED),
    ("finished", lambda head: heads.finished(head, NOW, output=1), RunStatus.SUCCESS),
    ("failed", lambda head: heads.finished(head, NOW, failure=WRONG), RunStatus.FAILED),
    ("blocked", lambda head: heads.blocked(head, NOW, "why"), RunStatus.BLOCKED),
    ("canceled", lambda head: heads.canceled(head, NOW), RunStatus.CANCELED),
]


@pytest.mark.parametrize(
    ("move", "before"), list(product(MOVES, RunStatus)), ids=lambda row: row[0] if isinstance(row, tuple) else row
)
def test_each_move_leads_where_its_name_says(move: tuple[str, Any, RunStatus], before: RunStatus) -> None:
    """Or nowhere at all. Only ``queued`` leaves a run alone that is driven or paused: it moves on anyway."""
    name, made, after = move
    head = replace(a_head(), status=before)
    if name == "queued" and before in (RunStatus.RUNNING, RunStatus.PAUSED):
        after = before
    if after in RUN_CHANGES[before]:
        assert after == made(head).status
    else:
        with pytest.raises(InvariantError):
            made(head)
