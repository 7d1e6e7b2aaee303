"""One locked moto for the session; a fresh deployment of the expense example for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.testing.moto import REGION, fresh_table, locked_moto
from flowcore.testing.quick_moto import without_wire
from tests.e2e.deployment import Deployment, deployed


@pytest.fixture(scope="session")
def clients() -> Iterator[dict[str, Any]]:
    """Clients of a locked moto in this process."""
    with locked_moto():
        yield {
            "dynamodb": without_wire(dynamo_client(region=REGION)),
            "sqs": boto3.client("sqs", region_name=REGION),
            "scheduler": boto3.client("scheduler", region_name=REGION),
        }


@pytest.fixture
def deployment(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deployment]:
    """The expense example, deployed in this process."""
    monkeypatch.setenv("EXPENSE_BANK_FILE", str(tmp_path / "bank.sqlite"))
    with fresh_table(clients["dynamodb"]) as table:
        yield from deployed("examples.expense:app", table, clients["sqs"], clients["scheduler"], monkeypatch)
