"""What a step may hand to ``ctx.commit_with``; where there is no DynamoDB it fails."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import App
from flowcore.testing import LocalApp
from tests.builders import a_step, a_workflow

PUT = {"Put": {"TableName": "orders", "Item": {"id": "o-1"}}}


def _failure(*effects: Any) -> Any:
    flow = a_workflow(lambda w: w.then(a_step("x", lambda v, ctx: ctx.commit_with(*effects))))
    return LocalApp(App(flow)).workflow("flow").create_run("r-1").start(1).error


def test_it_needs_dynamodb() -> None:
    """In memory there are no tables; the step says so instead of losing the write."""
    failure = _failure(PUT)
    assert ("NeedsDynamoDB", "x") == (failure.type, failure.step)
    assert "give LocalApp a DynamoStore on moto" in failure.message


@pytest.mark.parametrize(
    ("effect", "type_", "words"),
    [
        ("put", "TypeError", "it got str"),
        ({}, "TypeError", "it got []"),
        ({"Get": {}}, "TypeError", "it got ['Get']"),
        ({**PUT, "Delete": {}}, "TypeError", "one of Put, Update, Delete, ConditionCheck each"),
        ({"Put": {"Item": {"id": 1}}}, "ValueError", "a Put without TableName"),
        ({"Update": {"TableName": "orders"}}, "ValueError", "an Update without Key"),
        ({"Update": None}, "ValueError", "without TableName and Key"),
    ],
)
def test_what_is_no_entry_of_a_transaction_fails_the_call(effect: Any, type_: str, words: str) -> None:
    """At the line that made it."""
    failure = _failure(effect)
    assert type_ == failure.type
    assert words.replace("an Update", "a Update") in failure.message


def test_there_is_a_bound() -> None:
    """What a transaction takes."""
    assert "50 writes" in _failure(*[PUT] * 51).message


def test_nothing_handed_over_is_nothing() -> None:
    """An empty list needs no DynamoDB."""
    assert _failure() is None
