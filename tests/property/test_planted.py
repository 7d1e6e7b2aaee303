"""The proofs that try things at random, with something planted that they must report: what looks at nothing is green.

The others show it where they stand: mutants, scenarios, histories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from flowcore.adapters.memory import MemoryStore
from flowcore.keys import RunRef
from flowcore.model import StepRecord
from flowcore.ports import Store
from flowcore.testing.invariants import Violation
from flowcore.testing.search import quiet
from tests.property.fuzz import Served, fuzz
from tests.property.join_storm import JoinStorm
from tests.property.scenarios import (
    EveryAnswerWins,
    JoinsByCounter,
    LastWriterWins,
    NoDueOnSleep,
    NoFence,
    ReleaseByEpoch,
    ResumeLeavesHead,
    StateForgotten,
)
from tests.property.seeds import wrong_with
from tests.property.test_gone_back import gone_back
from tests.property.test_racing_resumes import bad_rounds
from tests.property.test_state_machine import Life, LifeOfMany, lives

STORMS = 300
"""More than it takes: most are found by the first few."""


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (LastWriterWins, "I1 "),
        (ResumeLeavesHead, "I5 "),
        (NoDueOnSleep, "I4 "),
        (StateForgotten, "output '"),
        pytest.param(NoFence, "SUSPENDED", marks=pytest.mark.slow),
        pytest.param(ReleaseByEpoch, "SUSPENDED", marks=pytest.mark.slow),
    ],
)
def test_storms_report_a_broken_store(table: Callable[[], Store], told: str) -> None:
    """By the rules of the store that watches, by what the interpreter says, or because the run is stuck."""
    with quiet():
        found = next((wrong for seed in range(STORMS) if (wrong := wrong_with(seed, table()))), ["nothing"])
    assert told in found[0]


class BringsTooLittle(MemoryStore):
    """A new life begins without what was done last."""

    def bring(self, incarnation: int, records: Sequence[tuple[RunRef, StepRecord]], **others: Any) -> bool:
        """See ``Store.bring``."""
        return super().bring(incarnation, records[:-1], **others)


def test_who_goes_back_reports_a_store_that_brings_too_little() -> None:
    """What the run has taken along it does again."""

    def went_back() -> None:
        for seed in range(STORMS):
            list(gone_back(seed, BringsTooLittle()))

    with quiet(), pytest.raises(Violation, match="I1 "):
        went_back()


@pytest.mark.parametrize(
    ("kind", "broken", "told"),
    [(Life, ResumeLeavesHead, "I5 "), (Life, NoDueOnSleep, "stuck"), (LifeOfMany, JoinsByCounter, "I6 ")],
)
def test_lives_report_a_broken_store(kind: type[Life], broken: type[MemoryStore], told: str) -> None:
    """Whatever happens to come first."""
    with pytest.raises((Violation, AssertionError), match=told):
        lives(60, 30, type("Broken", (kind,), {"table": broken}), is_made_small=False)


@pytest.mark.parametrize(("broken", "told"), [(JoinsByCounter, "I6 "), (LastWriterWins, "I1 ")])
def test_storms_over_a_join_report_a_broken_store(broken: Callable[[], Store], told: str) -> None:
    """One of the first few."""

    def stormed() -> None:
        for seed in range(5):
            JoinStorm(seed, shards=10, size=3, blows=0.1, frozen=0.1, table=broken()).drive()

    with pytest.raises(Violation, match=told):
        stormed()


def test_races_report_that_two_have_won() -> None:
    """And that the store has refused nobody."""
    wrong = bad_rounds(1, EveryAnswerWins())
    assert ["were told that they won", "only 0 came too late at the store itself"] == [wrong[0][-23:], wrong[1]]


class Broken(Served):
    """An API of which one answer in two is not what it has to be."""

    def ask(self, request: Any) -> Any:
        """The answer, spoilt."""
        answer = super().ask(request)
        return self.spoilt(answer) if self.statuses.total() % 2 == 0 else answer

    def spoilt(self, answer: Any) -> Any:
        """What is made of it."""
        raise NotImplementedError


class Faulty(Broken):
    """It has a fault that nobody has foreseen."""

    def spoilt(self, answer: Any) -> Any:
        self.log.error("fault", exc_info=ZeroDivisionError())
        return answer


class Unavailable(Broken):
    """It answers with what the document does not know."""

    def spoilt(self, answer: Any) -> Any:
        answer.status_code = 502
        return answer


class Shapeless(Broken):
    """It leaves out what the document promises."""

    def spoilt(self, answer: Any) -> Any:
        answer._content = b"{}"
        return answer


class Untyped(Broken):
    """It tells problems as it tells everything."""

    def spoilt(self, answer: Any) -> Any:
        answer.headers["content-type"] = "application/json"
        return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (Faulty, GenerationMode.POSITIVE),
        (Unavailable, GenerationMode.POSITIVE),
        (Shapeless, GenerationMode.POSITIVE),
        (Untyped, GenerationMode.NEGATIVE),
    ],
)
def test_random_requests_report_a_broken_api(kind: type[Served], mode: GenerationMode) -> None:
    """A fault, a status, a body and a type of content that must not be."""
    with pytest.raises((AssertionError, FailureGroup)):
        fuzz("GET /v1/runs", 10, mode, number=1, kind=kind)
