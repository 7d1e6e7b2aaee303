"""The OpenAPI document is valid, names every route and every problem, and every answer keeps to it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from flowcore import App
from flowcore.http.everything import served
from flowcore.http.openapi import ANSWERS, problem_types
from flowcore.http.problems import TYPE_PREFIX
from infra.functions import ROUTES
from tests.unit.test_http_access import Shop, token
from tests.unit.web import Web


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As it is served."""
    answer = Web(App(), *[lambda app, n=n: served(app)[n] for n in range(len(served(App())))]).get("/v1/openapi.json")
    assert 200 == answer.status
    found: dict[str, Any] = answer.body
    return found


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    """By the specification's own schema."""
    OpenAPIV31SpecValidator(document).validate()
    assert "3.1.0" == document["openapi"]


def test_document_has_every_route_and_no_other(document: dict[str, Any]) -> None:
    """Those of the table, those that are served and those that are deployed are the same."""
    drawn = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert set(ANSWERS) == drawn
    deployed = {re.sub(r"\{(run|wait)\}", r"{\1_id}", key) for key in ROUTES}
    assert drawn == deployed - {"GET /v1/openapi.json", "GET /v1/docs"}


def test_document_names_every_problem(document: dict[str, Any]) -> None:
    """Those that tests elsewhere have met are among them."""
    problem = document["components"]["schemas"]["Problem"]
    types = {type.removeprefix(TYPE_PREFIX) for type in problem["properties"]["type"]["enum"]}
    assert set(problem_types()) == types
    assert all(f"`{type}`" in problem["description"] for type in types)
    assert {"run-not-found", "already-resumed", "version-mismatch", "route-not-found", "link-expired"} <= types


def test_operations_are_in_groups(document: dict[str, Any]) -> None:
    """Which a page shows one under the other, each with what it is about, and none empty."""
    found = {
        f"{method.upper()} {path}": operation["tags"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {(tag["name"],) for tag in document["tags"] if tag["description"]} == set(map(tuple, found.values()))
    assert [path for path in document["paths"] if path.startswith("/v1/waits")] == [
        *("/v1/waits", "/v1/waits/{wait_id}", "/v1/waits/{wait_id}/answer")
    ]
    assert ["runs"] == found["POST /v1/workflows/{workflow}/runs"] == found["GET /v1/runs/{run_id}/events"]
    assert ["operations"] == found["GET /v1/doctor"] == found["GET /healthz"]


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    """What a generated client calls them."""
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    assert {"start_run", "get_run", "resume_run", "list_runs"} <= set(names)


def test_answers_keep_to_the_document(document: dict[str, Any]) -> None:
    """One of each that a plain run brings about; what random requests get, another test looks at."""
    shop = Shop()
    every = token("admin")
    keys = [key for key in ANSWERS if key.startswith("GET /v1") and "graph" not in key and "hooks" not in key]
    for key in keys:
        answer = shop.call(re.sub(r"\{(run|wait)_id\}", r"{\1}", key), authorizer=every)
        assert 200 == answer.status, (key, answer.text)
        method, path = key.split(" ")
        schema = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
        _validate(document, schema, answer.body, key)
    resumed = shop.call("POST /v1/runs/{run}/resume", authorizer=every, body='{"data": "y"}')
    _validate(document, {"$ref": "#/components/schemas/RunShown"}, resumed.body, "resume")
    again = shop.call("POST /v1/runs/{run}/resume", authorizer=every, body='{"data": "z"}')
    _validate(document, {"$ref": "#/components/schemas/Problem"}, again.body, "resume again")


def _validate(document: dict[str, Any], schema: dict[str, Any], value: Any, what: str) -> None:
    whole = {**schema, "components": document["components"]}
    assert [] == [error.message for error in Draft202012Validator(whole).iter_errors(value)], what
