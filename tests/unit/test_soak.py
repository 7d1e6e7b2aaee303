"""What the soak compares with: each of its workflows undisturbed, and a book in which each key counts once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowcore.model import Head, RunStatus, StepRecord
from infra.local.soak import Report, Seen, changes, entered, undisturbed
from infra.local.soak_flows import FLOWS
from tests.builders import a_head, a_record


@pytest.mark.parametrize("flow", [flow.id for flow in FLOWS])
def test_a_flow_ends_well_when_nobody_disturbs_it(flow: str) -> None:
    """And has effects to count."""
    usual = undisturbed(flow)
    assert "success" == usual.status
    assert usual.keys


def test_an_effect_is_counted_once_per_key(tmp_path: Path) -> None:
    """Whichever process entered it, and however often."""
    book = tmp_path / "book"
    assert {} == entered(book)
    book.write_text("s-1/pay 7\ns-1/pay 8\ns-1/nap/ship 8\ns-2/pay 9\n", "utf-8")
    assert {"s-1": {"pay", "nap/ship"}, "s-2": {"pay"}} == entered(book)


PAID, SHIPPED = a_record("pay"), a_record("ship")
ENDED = a_head(status=RunStatus.SUCCESS, owner=None, lease_until=None, due=None)
CANCELED = replace(ENDED, status=RunStatus.CANCELED)


def seen(head: Head = ENDED, *records: StepRecord, keys: str = "pay") -> Seen:
    """A run that is over, with these records."""
    return Seen("nap", head, {record.key: record for record in records}, frozenset(keys.split()))


LATE: dict[str, tuple[Seen, Seen, list[str]]] = {
    "nothing": (seen(ENDED, PAID), seen(ENDED, PAID), []),
    "its head": (seen(), seen(replace(ENDED, version=9)), ["SUCCESS at version 2 became SUCCESS at 9"]),
    "a record": (seen(ENDED, PAID), seen(ENDED, replace(PAID, output=9)), ["the record of 'pay' became another one"]),
    "a record too many": (seen(), seen(ENDED, PAID), ["the record of 'pay' became another one"]),
    "a step it does not have": (
        seen(),
        seen(keys="pay nap/pay"),
        ["effect nap/pay happened, which is none of this run"],
    ),
    "canceled, a step under way": (seen(CANCELED, PAID), seen(CANCELED, PAID, SHIPPED, keys="pay ship"), []),
    "canceled, and done again": (
        seen(CANCELED, PAID),
        seen(CANCELED, replace(PAID, output=9)),
        ["the record of 'pay' became another one"],
    ),
}


@pytest.mark.parametrize(("before", "after", "expected"), LATE.values(), ids=LATE)
def test_what_a_worker_that_thaws_late_does_to_a_run_that_is_over_is_told(
    before: Seen, after: Seen, expected: list[str]
) -> None:
    """Its head, its records and its effects stay as they are."""
    assert expected == list(changes(before, after, frozenset({"pay", "ship"})))


def test_who_froze_and_lost_nothing_counts_as_nobody_struck() -> None:
    """Only others that have gone on in his place make it a blow."""
    assert 5 == Report(7, killed=3, frozen=4, taken_over=2).blows


def test_a_report_tells_what_is_stuck_or_wrong() -> None:
    """Each on a line of its own, and how many in the second."""
    report = Report(7, started=2, wrong=["s-1 (wide) is stuck in RUNNING: overdue"])
    told = str(report).splitlines()
    assert "runs: 2 started; none ended; 1 stuck or wrong" == told[1]
    assert "s-1 (wide) is stuck in RUNNING: overdue" == told[-1]
