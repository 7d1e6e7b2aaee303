"""A workflow as plain JSON."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import StepContext, create_step, step, workflow
from flowcore.app import App
from flowcore.authoring.describe import printable, wording
from flowcore.testing.generate import sample
from flowcore.testing.local import LocalApp
from tests.unit.drawn import HOSTILE, a_step, hostile, is_small, walk, wide

FOUND = {node["path"]: node for node in walk(wide().graph()) if node["kind"] != "step" or "step" in node}


def own(path: str) -> dict[str, Any]:
    """What a node says beside its id, its path and what is in it."""
    return {k: v for k, v in FOUND[path].items() if k not in ("id", "path", "description", "nodes", "body", "arms")}


ROWS = [
    ("first", {"kind": "step", "step": "first", "retries": 2}),
    ("second", {"kind": "step", "step": "first", "retries": 0}),
    ("middle", {"kind": "workflow", "workflow": "middle"}),
    ("middle.again", {"kind": "workflow", "workflow": "again"}),
    ("middle.both", {"kind": "parallel"}),
    ("pick", {"kind": "map", "fields": ["a", "b"]}),
    ("listed", {"kind": "map", "computed": "[value]"}),
    ("each", {"kind": "foreach", "concurrency": 1}),
    ("fan", {"kind": "foreach", "concurrency": 3}),
    ("computed", {"kind": "foreach", "computed": "len(values) + 1"}),
    ("ways", {"kind": "branch"}),
    ("rest", {"kind": "sleep", "seconds": 259_200.0}),
    ("nap", {"kind": "sleep", "computed": "timedelta(seconds=value)"}),
    ("may", {"kind": "sleep_until", "at": "2031-05-01T12:00:00Z"}),
    ("dawn", {"kind": "sleep_until", "computed": "is_small"}),
    ("wait-for-order-paid", {"kind": "wait_for_event", "event": "order.paid", "key": "A-17", "seconds": 7_200.0}),
    ("sent", {"kind": "wait_for_event", "event": "order.sent", "computed": "order['id']"}),
]


@pytest.mark.parametrize(("path", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_a_node_says_what_it_does(path: str, expected: dict[str, Any]) -> None:
    """Each kind has its own few words, spelled as the builder's verbs."""
    assert expected == own(path)


@pytest.mark.parametrize(("path", "kind"), [("poll", "dountil"), ("turns", "dowhile")])
def test_a_loop_names_its_condition(path: str, kind: str) -> None:
    """The loop and its body share a path, as they share an id in a run."""
    loops = [node for node in walk(wide().graph()) if node["path"] == path and "body" in node]
    assert [(kind, "is_small", path)] == [(loop["kind"], loop["condition"], loop["body"]["path"]) for loop in loops]


def test_an_arm_has_its_condition_in_words_and_otherwise_comes_last() -> None:
    """A name where there is one; of a lambda what it says."""
    ways, size = FOUND["ways"], FOUND["middle.inner.size"]
    assert [("is_small", False), ("otherwise", True)] == [(arm["when"], arm["otherwise"]) for arm in ways["arms"]]
    assert [("is_small", False), ("value > 2", False)] == [(arm["when"], arm["otherwise"]) for arm in size["arms"]]


def test_a_step_says_how_long_it_may_take() -> None:
    """In seconds; one without a timeout says nothing."""
    slow = step(timeout=timedelta(minutes=2))(is_small)
    assert [120.0, None] == [
        made.graph()["nodes"][0].get("timeout_s")
        for made in (workflow("w").then(slow).commit(), workflow("w").then(a_step("x")).commit())
    ]


def test_paths_lead_through_nested_workflows_and_items() -> None:
    """Arms stand in the scope of their fork; what is in a foreach stands under every item."""
    assert {"middle.inner.small", "middle.weigh", "fan[*]", "fan[*].inner.size", "turns.sign"} <= FOUND.keys()


@pytest.mark.parametrize("seed", range(30))
def test_every_path_is_found_in_the_compiled_workflow(seed: int) -> None:
    """A path in a picture is a path everywhere."""
    made = sample(seed, size=12).workflow
    assert [] == [node["path"] for node in walk(made.graph()) if made.compiled.find(node["path"]) is None]


@pytest.mark.parametrize("seed", range(30))
def test_every_step_of_a_run_is_in_the_description(seed: int) -> None:
    """Whatever a run lists under ``steps`` has its place in the picture."""
    made = sample(seed, size=12)
    result = LocalApp(App(made.workflow)).workflow(made.workflow.id).create_run("r").start(made.input)
    paths = {node["path"] for node in walk(made.workflow.graph())}
    met = {re.sub(r"\[\d+\]", "[*]", id) for id in result.steps}
    assert set() == met - paths


def test_schemas_are_there_on_demand() -> None:
    """And only then."""

    class Answer(BaseModel):
        approved: bool

    @step
    def ask(number: int, ctx: StepContext[Answer, str]) -> int:
        return number

    made = workflow("asks", input=int, output=int).then(ask).commit()
    data = made.graph(schemas=True)
    assert {"type": "integer"} == data["schemas"]["input"]
    assert {"input", "output", "state", "request_context"} == data["schemas"].keys()
    schemas = data["nodes"][0]["schemas"]
    assert {"type": "string"} == schemas["suspend"]
    assert {"approved"} == schemas["resume"]["properties"].keys()
    assert "schemas" not in json.dumps(made.graph())


class Part(BaseModel):
    """A type that contains itself."""

    name: str
    parts: list[Part] = []


ANY_OBJECT = {"type": "object", "additionalProperties": True}
WORKFLOW_DOORS = {"input", "output", "state", "request_context"}
STEP_DOORS = WORKFLOW_DOORS | {"resume", "suspend"}
DOORS: list[tuple[str, set[str], set[str]]] = [
    ("", WORKFLOW_DOORS, set()),
    ("child", WORKFLOW_DOORS, set()),
    ("child.ask", STEP_DOORS, {"request_context"}),
    ("turns", STEP_DOORS, {"request_context"}),
    ("fan[*]", WORKFLOW_DOORS, set()),
    ("fan[*].ask", STEP_DOORS, {"request_context"}),
    ("one", STEP_DOORS, {"request_context"}),
    ("plain", STEP_DOORS, STEP_DOORS),
]


def described() -> dict[str, Any]:
    """Nodes with doors by path: nested, in a loop, in a foreach, in an arm."""

    @step
    def ask(value: Part, ctx: StepContext[Part, Part, Part]) -> Part:
        return value

    typed: Any = {"input": Part, "output": Part, "state": Part, "request_context": Part}
    child = workflow("child", **typed).then(ask).commit()
    plain = create_step(id="plain", execute=lambda value: value)
    flow: Any = workflow("flow", **typed)
    flow = flow.then(child).dowhile(ask, bool, id="turns").parallel(ask.clone(id="one"), plain)
    made = flow.map(list, id="listed").foreach(child, id="fan").map(lambda value: value[0], id="first").commit()
    drawn = made.graph(schemas=True)
    return {node["path"]: node["schemas"] for node in (drawn, *walk(drawn)) if "schemas" in node}


@pytest.mark.parametrize(("path", "doors", "undeclared"), DOORS, ids=[row[0] for row in DOORS])
def test_every_door_is_there_wherever_its_node_stands(path: str, doors: set[str], undeclared: set[str]) -> None:
    """A program that makes forms of them need not know where a node is; what nobody declared accepts everything."""
    schemas = described()[path]
    assert doors == schemas.keys()
    assert undeclared == {door for door, schema in schemas.items() if schema == {}}
    assert [] == [ref for schema in schemas.values() for ref in dangling(schema, schema)]


def test_an_undeclared_state_is_any_object() -> None:
    """Its steps share names, whatever they are."""
    schemas = workflow("w").map(bool).commit().graph(schemas=True)["schemas"]
    assert ({}, {}, ANY_OBJECT, ANY_OBJECT) == tuple(
        schemas[door] for door in ("input", "output", "state", "request_context")
    )


def dangling(schema: Any, root: Any) -> Iterator[str]:
    """The references in a schema that lead nowhere in it."""
    if isinstance(schema, dict):
        if "$ref" in schema and schema["$ref"].removeprefix("#/$defs/") not in root["$defs"]:
            yield schema["$ref"]
        for inner in schema.values():
            yield from dangling(inner, root)
    elif isinstance(schema, list):
        for inner in schema:
            yield from dangling(inner, root)


def test_a_door_without_a_json_schema_is_null() -> None:
    """A type that pydantic can validate but not describe hides nothing else."""
    takes = a_step("calls").clone(id="calls")
    made = workflow("calls", input=Callable[[], int]).then(takes).commit()
    assert None is made.graph(schemas=True)["schemas"]["input"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_data(text: str) -> None:
    """JSON needs no escaping beyond its own; only halves of surrogate pairs cannot be sent."""
    data = json.loads(json.dumps(hostile(text).graph(schemas=True), ensure_ascii=False).encode())
    assert printable(text) == data["description"] == data["nodes"][0]["description"]
    assert printable(text)[:200] == data["nodes"][1]["arms"][0]["when"]


def test_the_same_workflow_is_the_same_data() -> None:
    """Down to the order of keys."""
    assert json.dumps(wide().graph(schemas=True)) == json.dumps(wide().graph(schemas=True))


class Called:
    """A condition that is no function."""

    def __call__(self, value: Any) -> bool:
        """Whether it holds."""
        return bool(value)

    def method(self, value: Any) -> bool:
        """Whether it holds, as a method."""
        return bool(value)


one, other = (lambda value: value + 1, lambda value: value - 1)
outer = lambda value: sorted(value, key=lambda inner: inner * 2)  # noqa: E731  # the subject
WORDS: list[tuple[Any, str]] = [
    (is_small, "is_small"),
    (Called(), "Called"),
    (Called().method, "method"),
    (functools.partial(is_small, 1), "is_small"),
    (one, "value + 1"),
    (other, "value - 1"),
    (outer, "sorted(value, key=lambda inner: inner * 2)"),
    (functools.lru_cache(lambda value: value * 2), "value * 2"),
    (lambda value: value >
        2, "value > 2"),
    (eval("lambda value: value"), "lambda"),  # noqa: S307  # a lambda whose source nobody has
    (len, "len"),
    (bool, "bool"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "expected"), WORDS, ids=[row[1] for row in WORDS])
def test_a_function_in_words(function: Any, expected: str) -> None:
    """Two lambdas on one line are told apart; one without a source is called what it is."""
    assert expected == wording(function)
