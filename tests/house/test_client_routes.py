"""What the API can do, the client can: no route is added without its operation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flowcore.client import Client, operations
from flowcore.client.call import Call
from infra.functions import ROUTES

MAKERS: dict[str, Callable[..., Call[Any]]] = {
    name: make
    for name, make in vars(operations).items()
    if inspect.isfunction(make) and make.__module__ == operations.__name__ and not name.startswith("_")
}


def test_every_route_is_asked_by_an_operation() -> None:
    """The routes that operations ask are those that are deployed, and the callback door."""
    asked = {make(*_texts(make)).route for make in MAKERS.values()}
    assert {*ROUTES, "POST /cb/{token}"} == asked


def test_every_operation_is_a_method_of_the_clients() -> None:
    """Under its own name; ``healthy`` asks ``health``."""
    offered = {name for name, make in MAKERS.items() if getattr(getattr(Client, name, None), "make", None) is make}
    assert {"health"} == set(MAKERS) - offered


def _texts(make: Callable[..., Call[Any]]) -> list[str]:
    """A text for each argument that has to be given."""
    parameters = inspect.signature(make).parameters.values()
    return ["x" for one in parameters if one.default is one.empty]
