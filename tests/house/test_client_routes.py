"""What the API can do, the client can: no route without its operation, no field of an answer without its place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore.app import App
from flowcore.client import Client, DeliveryLine, WorkflowInfo, operations
from flowcore.client.call import Call
from flowcore.core.events import Event
from flowcore.core.health import Finding
from flowcore.core.view import StepResult
from flowcore.http import bodies, shapes
from flowcore.model import EventReceipt, Receipt, RunSummary, StepFailure, Wait
from flowcore.results import RunResult
from flowcore.run import Run
from infra.functions import ROUTES

ROOT = Path(__file__).resolve().parents[2]

MAKERS: dict[str, Callable[..., Call[Any]]] = {
    name: make
    for name, make in vars(operations).items()
    if inspect.isfunction(make) and make.__module__ == operations.__name__ and not name.startswith("_")
}


def test_every_route_is_asked_by_an_operation() -> None:
    """The routes that operations ask are those that are deployed, and the callback door; a page is for a browser."""
    asked = {make(*_texts(make)).route for make in MAKERS.values()}
    assert {*ROUTES, "POST /cb/{token}"} - {"GET /v1/docs"} == asked


_NOT_FROM_AFAR = {"self", "by", "via", "per_step"}
"""Said by who calls, and how; ``per_step`` is for whoever debugs in his own process."""
_IN_HEADERS = {"version", "idempotency_key", "event_id", "drive"}


@pytest.mark.parametrize(
    ("verb", "body", "operation"),
    [
        (Run.start, bodies.StartBody, operations.start),
        (Run.resume, bodies.ResumeBody, operations.resume),
        (Run.delegate, bodies.DelegateBody, operations.delegate),
        (Run.time_travel, bodies.TravelBody, operations.time_travel),
        (Run.fork, bodies.ForkBody, operations.fork),
        (App.send_event, bodies.EventBody, operations.send_event),
    ],
)
def test_what_a_verb_can_be_told_can_be_told_from_afar(
    verb: Callable[..., Any], body: type[BaseModel], operation: Callable[..., Any]
) -> None:
    """Over HTTP and with the client."""
    wanted = set(inspect.signature(verb).parameters) - _NOT_FROM_AFAR
    wanted -= {"drive"} if verb is App.send_event else set()  # it is told what happened, and waits for no run
    headers = _IN_HEADERS | ({"wait"} if verb is Run.start else set())
    assert set() == wanted - headers - set(body.model_fields)
    assert set() == wanted - set(inspect.signature(operation).parameters)


def test_every_operation_is_a_method_of_the_clients() -> None:
    """Under its own name; ``healthy`` asks ``health``."""
    offered = {name for name, make in MAKERS.items() if getattr(getattr(Client, name, None), "make", None) is make}
    assert {"health"} == set(MAKERS) - offered


def _texts(make: Callable[..., Call[Any]]) -> list[str]:
    """A text for each argument that has to be given."""
    parameters = inspect.signature(make).parameters.values()
    return ["x" for one in parameters if one.default is one.empty]


PAIRS: tuple[tuple[type[BaseModel], type[Any], set[str]], ...] = (
    (shapes.RunShown, RunResult, {"resume_labels"}),
    (shapes.StepShown, StepResult, set()),
    (shapes.Failure, StepFailure, set()),
    (shapes.ReceiptShown, Receipt, set()),
    (shapes.SummaryShown, RunSummary, set()),
    (shapes.WaitShown, Wait, set()),
    (shapes.EventShown, Event, set()),
    (shapes.EventReceiptShown, EventReceipt, set()),
    (shapes.FindingShown, Finding, set()),
    (shapes.WorkflowShown, WorkflowInfo, set()),
    (shapes.DeliveryShown, DeliveryLine, set()),
)
"""What the API answers, what a client makes of it, and what the latter works out by itself."""


@pytest.mark.parametrize(("shown", "made", "derived"), PAIRS, ids=lambda one: getattr(one, "__name__", ""))
def test_nothing_that_is_answered_is_lost(shown: type[BaseModel], made: type[Any], derived: set[str]) -> None:
    """Every field of an answer is one of the value that a client gives."""
    assert set() == set(shown.model_fields) - {field.name for field in fields(made)} - derived


def test_front_end_of_the_examples_asks_what_there_is() -> None:
    """Every path in its source is a route."""
    source = (ROOT / "examples" / "react" / "Approvals.tsx").read_text(encoding="utf-8")
    asked = re.findall(r"`(/v1/[^`?]*)", source)
    paths = {re.sub(r"\{\w+\}", "*", route.partition(" ")[2]) for route in ROUTES}
    assert len(asked) > 3
    assert set() == {re.sub(r"\$\{[^}]+\}", "*", path) for path in asked} - paths
