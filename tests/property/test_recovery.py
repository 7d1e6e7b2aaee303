"""How long a crash, a lost hint and a sweeper that is down hold a run up: on virtual time, at the worst moment.

The sweeper comes once a minute. Here it always came just too early: at the very instant at which the run was due.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flowcore.adapters.memory import MemoryStore
from flowcore.model import Head, RunStatus
from flowcore.testing import Strike
from flowcore.testing.faults import WRITES, Call, Fault
from flowcore.testing.schedule import Schedule
from flowcore.testing.trial import Asked, Ending, Trial
from tests.canonical import CANONICAL, WORLD

AFTER_A_CRASH = timedelta(seconds=90)
"""From the end of the dead worker's lease, or from when the run had to move if nobody held it."""
AFTER_A_LOST_HINT = timedelta(seconds=150)
MS = timedelta(milliseconds=1)
_EVER = datetime(9999, 1, 1, tzinfo=UTC)
WITHOUT = ("chain", "branch")
"""They need no hint."""


class Timed(Trial):
    """A trial that looks at the clock; its sweeper has always just been there."""

    down = timedelta(0)
    """For how long the sweeper does not come at all, from the crash on."""
    crashed_at: datetime | None = None
    moved_at: datetime | None = None
    """When the next write after the crash was made."""

    def __init__(self, asked: Asked, schedule: Schedule) -> None:
        """See ``Trial``."""
        super().__init__(asked, schedule)
        self.must_move_at: datetime | None = None
        self.is_hinted = True
        """Whether who must move then has a hint: a run that waits for its children looks after them without one."""

    def _struck(self, call: Call) -> Fault | None:
        is_first = self.crashed_at is not None and self.moved_at is None and not self.is_calm
        if is_first and call.verb in WRITES:
            self.moved_at = self.clock.now()
        fault = super()._struck(call)
        if fault is not None:
            self.crashed_at = self.clock.now()
        return fault

    def _let_pass(self, result: object) -> None:
        head = self._due_first()
        if head is not None and head.due is not None:
            if self.crashed_at is not None and self.must_move_at is None:
                self.must_move_at = _free_at(head) or self.clock.now()
                self.is_hinted = head.status is not RunStatus.JOINING
            waits_for = head.due if self.crashed_at is None else max(head.due, self.crashed_at + self.down)
            self.app._swept_at = waits_for
        super()._let_pass(result)  # type: ignore[arg-type]

    def _due_first(self) -> Head | None:
        """The run, or the child of it, at which somebody must look first."""
        refs = self.watched.due(_EVER, limit=1)
        return self.watched.peek(refs[0] if refs else self.run)


def _free_at(head: Head) -> datetime | None:
    """When nobody holds the run any more, or it had to move; hooks that are owed are held like a run, with no lease."""
    if head.outbox:
        return head.due
    return head.lease_until if head.status is RunStatus.RUNNING else head.wake


def tried(name: str, schedule: Schedule = (), down: timedelta = timedelta(0)) -> tuple[Timed, Ending]:
    """One trial of a canonical workflow."""
    one = CANONICAL[name]
    asked = Asked(one.workflow, one.input, {}, one.answers, WORLD.clear, WORLD.copy, one.outcome, 0, MemoryStore)
    trial = Timed(asked, schedule)
    trial.down = down
    return trial, trial.ending()


def crashes(usual: Ending) -> Iterator[Strike]:
    """Dying before and after each write."""
    yield from usual.course.strikes(["dies-before", "dies-after"])


def takes_a_hint_with_it(strike: Strike, usual: Ending) -> bool:
    """Whether the worker died with the hint that had brought it, or before the one it was about to send."""
    return usual.course.writes[strike.at - 1] in ("claim", "release", "start")


def held_up(trial: Timed, strike: Strike, usual: Ending) -> timedelta | None:
    """For how long after it had to move the run did not; None: somebody went on at once, or all was done."""
    if trial.must_move_at is None:
        was_last = strike == Strike("dies-after", len(usual.course.writes))
        assert (None if was_last else trial.crashed_at) == trial.moved_at, usual.course.told(strike)
        return None
    assert trial.moved_at is not None, usual.course.told(strike)
    return trial.moved_at - trial.must_move_at


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", CANONICAL)
def test_ninety_seconds_after_any_crash_the_run_moves_again(name: str) -> None:
    """Once nobody can believe the dead worker to be alive; and it becomes what it always becomes."""
    _, usual = tried(name)
    late = []
    for strike in crashes(usual):
        trial, ending = tried(name, (strike,))
        assert [] == ending.differences(usual)
        if (pause := held_up(trial, strike, usual)) is not None:
            late.append(pause)
            is_hinted = trial.is_hinted and not takes_a_hint_with_it(strike, usual)
            allowed = AFTER_A_CRASH if is_hinted else AFTER_A_LOST_HINT
            assert pause <= allowed + MS, ending.course.told(strike)
    print(f"\n{name}: at most {max(late)} after any of {len(late)} crashes")
    assert max(late) > timedelta(seconds=60)


@pytest.mark.parametrize("name", [name for name in CANONICAL if name not in WITHOUT])
def test_a_lost_hint_costs_at_most_150_seconds(name: str) -> None:
    """Each of them in turn: the run ends so much later at most, and as it always does."""
    trial, usual = tried(name)
    ends_at = trial.clock.now()
    late = []
    for strike in usual.course.strikes(["hint-lost"]):
        trial, ending = tried(name, (strike,))
        assert [] == ending.differences(usual)
        late.append(trial.clock.now() - ends_at)
        assert late[-1] <= AFTER_A_LOST_HINT + MS
    assert max(late) > timedelta(seconds=60)  # so it was needed


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", CANONICAL)
def test_nothing_is_lost_with_the_sweeper_down_for_an_hour(name: str) -> None:
    """Whoever died meanwhile is found when it comes again."""
    _, usual = tried(name)
    pauses = []
    for strike in crashes(usual):
        trial, ending = tried(name, (strike,), down=timedelta(hours=1))
        assert [] == ending.differences(usual)
        if held_up(trial, strike, usual) is not None:
            assert trial.must_move_at is not None
            assert trial.moved_at is not None
            assert trial.crashed_at is not None
            comes_again_at = max(trial.crashed_at + timedelta(hours=1), trial.must_move_at)
            assert trial.moved_at <= comes_again_at + AFTER_A_LOST_HINT + MS
            pauses.append(trial.moved_at - trial.crashed_at)
    assert max(pauses) >= timedelta(hours=1)  # so it was down
