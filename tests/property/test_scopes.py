"""The scope that is asked for and the route that is served are found by two readers of a path: they must agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import App, step, workflow
from flowcore.errors import FlowcoreError, Forbidden, RunNotFound
from flowcore.http.access import NEEDED, PUBLIC, Scope, guarded, scope_of, wait_id_of
from flowcore.http.api import Api
from flowcore.http.everything import served_with_docs
from flowcore.testing import LocalApp
from infra.functions import ROUTES
from tests.unit.web import Quiet


@step
def same(text: str) -> str:
    """Nothing to do."""
    return text


APP = LocalApp(App(workflow("ask", input=str, output=str).then(same).commit()))
APP.workflow("ask").create_run("theirs", "c-2").start("x")
RESOLVER: Any = Api(APP, served_with_docs, Quiet())._made("default")

WORDS = "v1 runs waits workflows hooks events counts graph resume cancel delegate answer receipts healthz openapi.json"
ODD = [
    "",
    ".",
    "..",
    "%2e%2e",
    "V1",
    "Runs",
    "theirs;x",
    "th eirs",
    "theirs\n",
    "\u00e9",
    "theirs%2Fgraph",
    "~",
    "x" * 200,
]
PARTS = st.sampled_from([*WORDS.split(), *ODD, "theirs", "ask", "{run}", "{wait}", wait_id_of("theirs", "ask@0")])
METHODS = st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "get", "Post", "delete"])
MADE_UP = st.lists(PARTS, max_size=6).map("/".join).map("/{}".format)
THEIRS = {"run": "theirs", "wait": wait_id_of("theirs", "ask@0"), "workflow": "ask", "name": "ask", "id": "theirs"}
MARKS = ["/", "//", "/.", "/..", "%2f", "\n", " ", "?", ";", "x", "\u00e9", "/graph", "/v1", "#"]
SELDOM = st.sampled_from([False, False, False, True])


@st.composite
def asked_of(draw: st.DrawFn, keys: Sequence[str]) -> tuple[str, str]:
    """Method and path of one of these routes, about what there is; seldom with something put in, or made up."""
    if draw(SELDOM):
        return draw(METHODS), draw(MADE_UP)
    method, path = draw(st.sampled_from(keys)).format(**THEIRS).split(" ")
    if draw(SELDOM):
        at = draw(st.integers(0, len(path)))
        path = path[:at] + draw(st.sampled_from(MARKS)) + path[at:]
    return (draw(METHODS) if draw(SELDOM) else method), path


OF_RUNS = [key for key in ROUTES if "{run}" in key or "{wait}" in key]
ENOUGH = 20
"""Of a hundred draws, that many have to get as far as what is tested: most of them do."""


def routed(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    """The route that is served, by the resolver's own words, and its variables."""
    for route in [*RESOLVER._static_routes, *RESOLVER._dynamic_routes]:
        if route.method == method.upper() and (match := route.rule.match(path)):
            return f"{route.method} {route.path}", match.groupdict()
    return None


def needed(served_route: str) -> Scope | None:
    """The scope of a route, by its own words: names of variables do not matter."""
    shape = _shape(served_route.replace("<", "{").replace(">", "}"))
    if shape in {_shape(key) for key in PUBLIC}:
        return None
    found: list[Scope] = [scope for key, scope in NEEDED.items() if _shape(key) == shape]
    return found[0] if found else "admin"


def _shape(key: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in key.split("/"))


@pytest.mark.parametrize("key", ROUTES)
def test_scope_is_that_of_the_route(key: str) -> None:
    """For each route as it is meant to be asked for."""
    method, path = key.split(" ")
    found = routed(method, path.replace("{", "").replace("}", ""))
    assert found is not None
    assert scope_of(method, path.replace("{", "").replace("}", "")) == needed(found[0])


def test_no_path_needs_less_than_the_route_it_is_served_by() -> None:
    """Whatever is done to a path: the scope asked for is that of the route that is served, or an admin's."""
    served: list[str] = []

    @given(asked_of(ROUTES))
    def tried(asked: tuple[str, str]) -> None:
        found = routed(*asked)
        if found is not None:
            served.append(found[0])
            assert scope_of(*asked) in (needed(found[0]), "admin")

    tried()
    assert len(served) > ENOUGH


def test_no_path_reaches_a_run_of_somebody_else() -> None:
    """Where a route names a run, or a wait of one, a caller with runs of his own does not get to it by any spelling."""
    reached: list[str] = []

    @given(asked_of(OF_RUNS))
    def tried(asked: tuple[str, str]) -> None:
        found = routed(*asked)
        if found is None or not {"run_id", "wait_id"} & found[1].keys():
            return
        reached.append(found[0])
        with pytest.raises(FlowcoreError) as refused:
            guarded(APP, "c-1", *asked, {})
        assert isinstance(refused.value, RunNotFound | Forbidden)

    tried()
    assert len(reached) > ENOUGH
