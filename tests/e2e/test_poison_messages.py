"""Messages that nobody can use: acknowledged, counted, and none keeps its neighbours from being handled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.deployment import Deployment

SMALL = {"employee": "grace", "amount": 12, "purpose": "a book"}


def hint(**changes: Any) -> str:
    """A well-formed hint at a run that is not there, but for ``changes``."""
    return json.dumps({"v": 1, "tenant": "default", "run": "gone", "at": 0, **changes})


POISON = {
    "not JSON": "{",
    "empty": "",
    "nothing": "null",
    "a list": "[]",
    "deeply nested": "[" * 100_000,
    "a later form": hint(v=2),
    "no run": hint(run=""),
    "a key instead of a run": hint(run="r-1#HEAD"),
    "a run of a number": hint(run=7),
    "a tenant with separators": hint(tenant="default#R"),
    "a time that is none": hint(at=True),
    "a time beyond the calendar": hint(at=10**18),
    "a run that is gone": hint(),
    "a run of another tenant": hint(tenant="acme", run="r-1"),
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON)
def test_poison_message_is_acknowledged(deployment: Deployment, body: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not come again, and is counted."""
    assert [] == deployment.work(body)

    printed = capsys.readouterr().out
    assert '"HintsForNobody":[1.0]' in printed or '"MessagesDropped":[1.0]' in printed


def test_poison_messages_keep_nobody_from_being_handled(deployment: Deployment) -> None:
    """Those of the same batch, before and behind them; a run of that id is not another tenant's."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL, "run_id": "r-1"})
    (good,) = deployment.messages()
    before = deployment.call("GET", "/v1/runs/r-1").body
    assert [] == deployment.work(*POISON.values())
    assert before == deployment.call("GET", "/v1/runs/r-1").body

    assert [] == deployment.work(POISON["not JSON"], good, POISON["a run that is gone"])
    assert "waiting" == deployment.call("GET", "/v1/runs/r-1").body["status"]
