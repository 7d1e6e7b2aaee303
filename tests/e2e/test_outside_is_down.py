"""What callers and messages get when something behind the functions does not answer, or was never configured."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from flowcore.errors import QueueUnavailable, SettingsError, StoreUnavailable
from tests.e2e.deployment import Deployment

SMALL = {"employee": "ada", "amount": 6_000, "purpose": "books"}
NOWHERE = "http://127.0.0.1:1"


def test_unreachable_table_is_503_with_retry_after(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller is told to try again and nothing about our inside; the log names the endpoint."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", NOWHERE)
    deployment.start_cold()
    logger = deployment._function("handlers.api").logger._logger
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "level", logging.ERROR)

    answer = deployment.call("GET", "/v1/runs/r-1")

    assert (answer.status, answer.body["type"].rsplit("/", 1)[1]) == (503, "store-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert NOWHERE not in str(answer.body)
    assert NOWHERE in caplog.text


def test_message_fails_and_comes_again_when_the_table_is_unreachable(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hint is reported as failed, so that SQS delivers it again; the log says why, and of which run."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL, "run_id": "r-1"})
    (hint,) = deployment.messages()
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", NOWHERE)
    deployment.start_cold()
    monkeypatch.setattr(deployment._function("handlers.worker").logger._logger, "level", logging.ERROR)

    assert deployment.work(hint) == ["m-0"]
    (failed,) = [line for line in caplog.records if line.message == "look failed"]
    assert failed.exc_info is not None
    assert ("r-1", StoreUnavailable) == (vars(failed)["run_id"], failed.exc_info[0])


def test_start_survives_a_queue_that_does_not_answer(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is committed; its hint is lost and counted, and the sweeper finds it once the queue is back."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", NOWHERE)
    deployment.start_cold()
    answer = deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL, "run_id": "r-1"})
    assert answer.status == 202
    assert '"HintsLost":[1.0]' in capsys.readouterr().out

    monkeypatch.delenv("AWS_ENDPOINT_URL_SQS")
    deployment.forward(seconds=10)
    deployment.settle()

    assert deployment.call("GET", "/v1/runs/r-1").body["status"] == "waiting"


def test_sweep_that_fails_is_missed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It tells no number of runs, not even 0: the alarm that waits for one goes off."""
    deployment.sweep()
    assert '"OverdueRuns":[0.0]' in capsys.readouterr().out
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", NOWHERE)
    deployment.start_cold()

    with pytest.raises(StoreUnavailable), pytest.warns(UserWarning, match="No application metrics"):
        deployment.sweep()

    assert "OverdueRuns" not in capsys.readouterr().out


FAULTS = [
    ({"FLOWCORE_TABLE": ""}, "FLOWCORE_TABLE is not set"),
    ({"FLOWCORE_APP": "nowhere.at.all:app"}, "there is no module 'nowhere'"),
    ({"FLOWCORE_APP": "examples.expense:nothing"}, "has no 'nothing'"),
    ({"FLOWCORE_APP": "examples.expense:Expense"}, "and not an App"),
]


@pytest.mark.parametrize(("environment", "message"), FAULTS)
@pytest.mark.parametrize("function", ["handlers.api", "handlers.worker", "handlers.sweep"])
def test_function_with_a_wrong_environment_stops_at_its_start(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, environment: dict[str, Any], message: str, function: str
) -> None:
    """Before the first event, with an error that names the setting."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    deployment.start_cold()

    with pytest.raises(SettingsError, match=message):
        deployment._function(function)
    assert function not in sys.modules


def test_errors_of_the_outside_ask_to_be_retried() -> None:
    """The platform tries again; a caller may too."""
    assert StoreUnavailable("x").retryable
    assert QueueUnavailable("x").retryable
