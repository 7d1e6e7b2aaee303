"""Generated workflows under every single fault: whatever goes wrong once, they become what they become undisturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.model import Json, Wait
from flowcore.ports import Store
from flowcore.testing import Exploration, SeededIds, explore
from flowcore.testing.generate import Sample, sample
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from tests.property.rows import trying

full_size = (pytest.mark.slow, pytest.mark.proof)


def calm_samples() -> Iterator[Sample]:
    """Those in which nothing fails or bails, so that the order of parallel steps makes no difference."""
    return (made for seed in range(10_000) if (made := sample(seed, size=5)).is_calm)


def explored(made: Sample, store: Callable[[], Store] = MemoryStore) -> Exploration:
    """Every single fault of one sample."""

    def answer(wait: Wait[Json]) -> Any:
        if wait.path[-1].split("[", 1)[0] in made.timed:
            raise KeyError
        return {"times": 9, "word": 1}

    given: dict[str, Any] = {"state": {"last": "given"}, "request_context": {"mark": "given", "other": 1}}
    return explore(made.workflow, made.input, answers=answer, store=store, **given)


@pytest.mark.slow
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.gate), pytest.param(12, marks=pytest.mark.proof)])
def test_generated_workflows_bear_every_single_fault(count: int) -> None:
    """Dying before and after each write, lost replies, take-overs, unruly hints."""
    with trying("faults") as row:
        tried = [explored(made).schedules for made in islice(calm_samples(), count)]
        row.count = sum(tried)
    assert len(tried) == count


@pytest.mark.slow
@pytest.mark.proof
def test_a_generated_workflow_bears_every_single_fault_on_dynamodb() -> None:
    """The same over boto3 and the real adapter."""
    with locked_moto(), ExitStack() as tables:
        client = StrictClient(dynamo_client(region=REGION))

        def store() -> DynamoStore:
            tables.close()  # of the trial before
            table = tables.enter_context(fresh_table(client))
            return DynamoStore(client, table, SeededIds(), pause=lambda _: None)

        tried = explored(next(calm_samples()), store).schedules
    print(f"\n{tried} schedules of a workflow on DynamoDB")
    assert tried > 30
