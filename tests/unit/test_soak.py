"""What the soak compares with: each of its workflows undisturbed, and a book in which each key counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.soak import Report, entered, undisturbed
from infra.local.soak_flows import FLOWS


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


def test_a_report_tells_what_is_stuck_or_wrong() -> None:
    """Each on a line of its own, and how many in the second."""
    report = Report(7, started=2, wrong=["s-1 (wide) is stuck in RUNNING: overdue"])
    told = str(report).splitlines()
    assert "runs: 2 started; none ended; 1 stuck or wrong" == told[1]
    assert "s-1 (wide) is stuck in RUNNING: overdue" == told[-1]
