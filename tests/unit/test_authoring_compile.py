"""What commit() makes of a builder: ids, shapes, fingerprints; and every mistake it knows, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from flowcore import App, DefinitionError, create_step, otherwise, workflow
from flowcore.authoring.graph import BranchNode, ForeachNode, Graph, NestedNode, StepNode
from flowcore.authoring.mistakes import DEEPEST, MOST_ENTRIES
from tests.builders import a_graph, a_step, a_workflow

Build = Callable[[Any], Any]
A, B, C = (a_step(id) for id in "abc")
HOUR = timedelta(hours=1)
CHILD = a_workflow(lambda w: w.then(A), "child")


class Both(BaseModel):
    """Both arms."""

    a: Any
    b: Any


class Aliased(BaseModel):
    """Its second field has an id that is no Python name."""

    a: Any
    second: Any = Field(validation_alias="b")


@dataclass
class BothData:
    """Both arms, as a dataclass."""

    a: Any
    b: Any


class BothDict(TypedDict):
    """Both arms, as a dict."""

    a: Any
    b: Any


class Foreign:
    """A class pydantic knows nothing of."""


MISTAKES: dict[str, tuple[Build, list[tuple[str, str]]]] = {
    "empty": (lambda w: w, [("flow", "has no entries; add at least one")]),
    "a duplicate": (
        lambda w: w.then(A).then(B).then(A),
        [("a", "is used 2 times in this workflow; give the others an id=")],
    ),
    "a duplicate in an arm": (lambda w: w.then(A).parallel(A, B), [("a", "is used 2 times")]),
    "a duplicate in a branch": (lambda w: w.branch((bool, A), (otherwise, A)), [("a", "is used 2 times")]),
    "an arm like its parallel": (lambda w: w.parallel(A, id="a"), [("a", "is used 2 times")]),
    "a bad id": (lambda w: w.then(A, id="a.b"), [("a.b", "cannot be an id; use 1-64 ASCII letters")]),
    "a long id": (lambda w: w.map(bool, id="x" * 65), [("x" * 65, "cannot be an id")]),
    "no step": (lambda w: w.then(print, id="p"), [("p", "print (builtin_function_or_method) is not a step; decorate")]),
    "the result of a step": (lambda w: w.then(7, id="p"), [("p", "7 (int) is not a step; give what @step made")]),
    "steps in a list": (lambda w: w.parallel([A, B], id="p"), [("p", "a list of 2 is not a step; give the steps one")]),
    "an unfinished workflow": (
        lambda w: w.then(workflow("c").then(A)),
        [("c", "workflow 'c' is not a step (an uncommitted workflow: call .commit())")],
    ),
    "no step in an arm": (lambda w: w.parallel(A, print, id="p"), [("p", "is not a step")]),
    "an empty parallel": (lambda w: w.parallel(id="p"), [("p", "parallel has no steps; give it at least one")]),
    "an empty branch": (lambda w: w.branch(id="br"), [("br", "branch has no steps")]),
    "two otherwise": (
        lambda w: w.branch((otherwise, A), (otherwise, B), id="br"),
        [("br", "has more than one otherwise; keep one")],
    ),
    "a condition that is none": (lambda w: w.branch((3, A), id="br"), [("br, condition 0", "3 is not callable")]),
    "an arm without a condition": (lambda w: w.branch(A, id="br"), [("br, arm 0", "is step 'a'; give pairs")]),
    "arms in a list": (lambda w: w.branch([(bool, A)], id="br"), [("br, arm 0", "is a list of 1; give pairs")]),
    "an arm of three": (lambda w: w.branch((bool, A, B), id="br"), [("br, arm 0", "is a tuple of 3; give pairs")]),
    "an arm the wrong way round": (
        lambda w: w.branch((bool, B), (A, bool), id="br"),
        [("br, arm 1", "begins with step 'a'; the condition comes first")],
    ),
    "None as a condition": (lambda w: w.branch((None, A), id="br"), [("br, arm 0", "is step 'a'; give pairs")]),
    "a condition of three arguments": (
        lambda w: w.branch((lambda a, b, c: (a, b, c), A), id="br"),
        [("br, condition 0", "must take (value) or (value, ctx)")],
    ),
    "a loop without a condition": (lambda w: w.dountil(A, None), [("a, condition", "None is not callable")]),
    "a loop without a step": (lambda w: w.dowhile(print, bool, id="p"), [("p", "is not a step")]),
    "a foreach without a step": (lambda w: w.foreach(print, id="p"), [("p", "is not a step")]),
    "a concurrency that is none": (
        lambda w: w.foreach(A, concurrency="x"),
        [("a, concurrency", "'x' is not callable")],
    ),
    "fields that are missing": (
        lambda w: w.parallel(A, C, into=Both, id="p"),
        [("p", "into=Both must have one field per step id: missing ['c'], not a step ['b']")],
    ),
    "fields of a branch": (lambda w: w.branch((bool, A), into=BothData, id="br"), [("br", "not a step ['b']")]),
    "fields of a dict": (lambda w: w.parallel(A, into=BothDict, id="p"), [("p", "not a step ['b']")]),
    "a pause that is none": (lambda w: w.sleep(3, id="s"), [("s", "3 is no pause; give a timedelta or a function")]),
    "an instant that is none": (lambda w: w.sleep_until("x", id="s"), [("s", "'x' is no pause; give a datetime")]),
    "an instant as a pause": (
        lambda w: w.sleep(datetime(2030, 1, 1), id="s"),  # noqa: DTZ001  # its missing zone is not what is wrong
        [("s", "give a timedelta or a function of the value that returns one (sleep_until takes a datetime)")],
    ),
    "a pause as an instant": (lambda w: w.sleep_until(HOUR, id="s"), [("s", "(sleep takes a timedelta)")]),
    "an instant without a zone": (
        lambda w: w.sleep_until(datetime(2030, 1, 1), id="s"),  # noqa: DTZ001  # the mistake
        [("s", "sleep_until needs an aware datetime; add a timezone")],
    ),
    "a pause of no arguments": (lambda w: w.sleep(lambda: HOUR, id="s"), [("s", "must take (value)")]),
    "a map of nothing": (lambda w: w.map(3, id="m"), [("m", "3 is not callable")]),
    "no source": (
        lambda w: w.map({"k": {"x": 1}}, id="m"),
        [("m, key 'k'", "{'x': 1} is no source; use one of value, fn")],
    ),
    "two sources": (lambda w: w.map({"k": {"value": 1, "fn": bool}}, id="m"), [("m, key 'k'", "is no source")]),
    "a source that is no dict": (lambda w: w.map({"k": 3}, id="m"), [("m, key 'k'", "3 is no source")]),
    "a constant that is not JSON": (
        lambda w: w.map({"k": {"value": {1}}}, id="m"),
        [("m, key 'k'", "must be plain JSON")],
    ),
    "a source that is no function": (lambda w: w.map({"k": {"fn": 3}}, id="m"), [("m, key 'k'", "3 is not callable")]),
    "a later step": (
        lambda w: w.then(A).map({"k": {"step": "b"}}, id="m").then(B),
        [("m, key 'k'", "step 'b' does not stand before it; earlier ones: ['a']")],
    ),
    "one later step of two": (lambda w: w.then(A).map({"k": {"step": [A, B]}}, id="m"), [("m, key 'k'", "step 'b'")]),
    "a placeholder of nothing": (
        lambda w: w.then(A).map({"k": {"template": "${a.x} ${b.x}"}}, id="m"),
        [("m, key 'k'", "placeholder ${b.x} names neither init_data, input_data, state, request_context nor")],
    ),
    "several": (
        lambda w: w.then(A).then(A).sleep(3, id="s").foreach(print, id="x/y").parallel(),
        [
            ("s", "3 is no pause"),
            ("x/y", "cannot be an id"),
            ("x/y", "is not a step"),
            ("parallel", "no steps"),
            ("a", "2 times"),
        ],
    ),
}


@pytest.mark.parametrize(("build", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_commit_names_every_mistake(build: Build, expected: list[tuple[str, str]]) -> None:
    """Where it is, and what to do; all of them in one error."""
    with pytest.raises(DefinitionError) as caught:
        a_workflow(build)
    found = caught.value.mistakes
    assert len(expected) == len(found), str(caught.value)
    for (where, what), mistake in zip(expected, found, strict=True):
        assert mistake.where.startswith(where)
        assert what in mistake.what
        assert str(mistake) in str(caught.value)


TYPED: dict[str, tuple[Any, str]] = {
    **{
        f"a foreach over {type_}": (type_, "foreach needs a list")
        for type_ in (int, str, dict, dict[str, int], tuple[int, ...])
    },
}


@pytest.mark.parametrize(("type_", "words"), TYPED.values(), ids=TYPED)
def test_a_foreach_needs_a_list(type_: Any, words: str) -> None:
    """As far as the declared type tells; the rest is found out when it runs."""
    with pytest.raises(DefinitionError, match=words):
        a_workflow(lambda w: w.foreach(A), input=type_)


@pytest.mark.parametrize("type_", [list, list[int], Any], ids=str)
def test_a_foreach_takes_any_list(type_: Any) -> None:
    """Also one of undeclared items."""
    assert isinstance(a_graph(lambda w: w.foreach(A), input=type_).nodes[0], ForeachNode)


DOORS: dict[str, tuple[Callable[[], Any], list[tuple[str, str]]]] = {
    "a workflow's input": (lambda: workflow("flow", input=Foreign).then(A), [("flow", "its input type")]),
    "a workflow's output": (lambda: workflow("flow", output=Foreign).then(A), [("flow", "its output type")]),
    "a workflow's state": (lambda: workflow("flow", state=Foreign).then(A), [("flow", "its state type")]),
    "a step's doors": (
        lambda: workflow("flow").then(a_step("x", input=Foreign, resume=Foreign)),
        [("x", "its input type"), ("x", "its resume type")],
    ),
    "a loop's body": (
        lambda: workflow("flow").dountil(a_step("x", suspend=Foreign), bool),
        [("x", "its suspend type")],
    ),
    "an arm": (lambda: workflow("flow").parallel(a_step("x", state=Foreign), A), [("x", "its state type")]),
    "a join": (lambda: workflow("flow").parallel(A, into=Foreign, id="p"), [("p", "its result type")]),
}


@pytest.mark.parametrize(("build", "expected"), DOORS.values(), ids=DOORS)
def test_a_type_that_cannot_be_validated_is_a_mistake(
    build: Callable[[], Any], expected: list[tuple[str, str]]
) -> None:
    """It would otherwise fail the first run."""
    with pytest.raises(DefinitionError) as caught:
        build().commit()
    found = [(m.where, m.what[: len(what)]) for m, (_, what) in zip(caught.value.mistakes, expected, strict=True)]
    assert expected == found


def test_a_workflow_needs_an_id_of_its_own() -> None:
    """The same rule as for entries."""
    with pytest.raises(DefinitionError, match="cannot be a workflow id"):
        a_workflow(lambda w: w.then(A), "a/b")


def test_a_workflow_served_twice_is_a_mistake() -> None:
    """An App finds workflows by id."""
    with pytest.raises(DefinitionError, match="child: is served twice"):
        App(CHILD, CHILD)


def chained(count: int) -> Build:
    """That many steps."""

    def build(builder: Any) -> Any:
        for number in range(count):
            builder = builder.then(A, id=f"a{number}")
        return builder

    return build


def test_a_workflow_has_a_largest_size() -> None:
    """Counted with what is nested in it: a larger graph is data."""
    half = a_workflow(chained(MOST_ENTRIES // 2 - 1), "half")
    assert isinstance(a_graph(lambda w: w.then(half).then(half, id="again")), Graph)
    with pytest.raises(DefinitionError, match=f"has {MOST_ENTRIES + 1} entries with those nested in it"):
        a_graph(lambda w: w.then(half).dountil(half, bool, id="again").then(A))


def nested(depth: int) -> Any:
    """A workflow nested that deep."""
    flow = CHILD
    for level in range(depth - 1):
        inner = flow
        flow = a_workflow(lambda w, inner=inner: w.then(inner), f"level-{level}")  # type: ignore[misc]
    return flow


def test_a_workflow_has_a_largest_depth() -> None:
    """Every level costs a read on each wake."""
    deepest = nested(DEEPEST)
    assert isinstance(a_graph(lambda w: w.then(deepest)), Graph)
    with pytest.raises(DefinitionError, match=f"nests workflows {DEEPEST + 1} deep"):
        a_graph(lambda w: w.foreach(a_workflow(lambda v: v.then(deepest), "top")))


IDS: dict[str, tuple[Build, list[str]]] = {
    "steps": (lambda w: w.then(A).then(B), ["a", "b"]),
    "a step renamed": (lambda w: w.then(A, id="x"), ["x"]),
    "a loop, a foreach": (lambda w: w.dountil(A, bool).foreach(B).dowhile(C, bool), ["a", "b", "c"]),
    "containers": (
        lambda w: w.parallel(A, B).branch((bool, C), (otherwise, CHILD)),
        ["parallel-a-b", "branch-c-child"],
    ),
    "pauses and maps": (
        lambda w: w.sleep(HOUR).then(A).map(bool).sleep_until(datetime.now(UTC)),
        ["sleep-at-start", "a", "map-after-a", "sleep-until-after-map-after-a"],
    ),
    "two of a kind": (
        lambda w: w.then(A).map(bool, id="x").map(bool).then(B).map(bool),
        ["a", "x", "map-after-x", "b", "map-after-b"],
    ),
}


@pytest.mark.parametrize(("build", "expected"), IDS.values(), ids=IDS)
def test_entries_without_an_id_get_one_of_their_neighbours(build: Build, expected: list[str]) -> None:
    """Never of positions."""
    assert expected == [node.id for node in a_graph(build).nodes]


def test_ids_are_stable_under_insertion() -> None:
    """A step inserted elsewhere, and another process, leave them alone."""
    before = a_graph(lambda w: w.then(A).sleep(HOUR).parallel(B, C))
    after = a_graph(lambda w: w.then(CHILD).then(A).sleep(HOUR).parallel(B, C).map(bool))
    assert {node.id for node in before.nodes} <= {node.id for node in after.nodes}


def test_two_entries_that_would_share_a_name_get_two() -> None:
    """Two sleeps at one place, for instance in front of which everything was removed."""
    graph = a_graph(lambda w: w.parallel(A, id="p").parallel(A.clone(id="b"), id="q").map(bool).map(bool))
    assert ["p", "q", "map-after-q", "map-after-map-after-q"] == [node.id for node in graph.nodes]


def test_a_long_made_up_id_is_shortened() -> None:
    """It stays unique and stays an id."""
    arms = [a_step(f"step-with-a-rather-long-name-{number}") for number in range(9)]
    one, two = (a_graph(lambda w, last=last: w.parallel(*arms[:8], last)) for last in (arms[8], a_step("other")))  # type: ignore[misc]
    assert 61 == len(one.nodes[0].id)
    assert one.nodes[0].id != two.nodes[0].id


CHANGES: dict[str, Build] = {
    "another step": lambda w: w.then(B).sleep(HOUR, id="s"),
    "another kind": lambda w: w.map(bool, id="a").sleep(HOUR, id="s"),
    "another order": lambda w: w.sleep(HOUR, id="s").then(A),
    "one more": lambda w: w.then(A).sleep(HOUR, id="s").then(B),
    "a loop": lambda w: w.dountil(A, bool).sleep(HOUR, id="s"),
    "the other loop": lambda w: w.dowhile(A, bool).sleep(HOUR, id="s"),
    "a foreach": lambda w: w.foreach(A).sleep(HOUR, id="s"),
    "a distributed foreach": lambda w: w.foreach(A, distributed=True).sleep(HOUR, id="s"),
    "a parallel": lambda w: w.parallel(A, id="p").sleep(HOUR, id="s"),
    "a branch": lambda w: w.branch((bool, A), id="p").sleep(HOUR, id="s"),
    "a branch with otherwise": lambda w: w.branch((otherwise, A), id="p").sleep(HOUR, id="s"),
    "nested": lambda w: w.then(CHILD, id="a").sleep(HOUR, id="s"),
    "nested with more": lambda w: w.then(a_workflow(lambda v: v.then(A).then(B), "child"), id="a").sleep(HOUR, id="s"),
    "a foreach of a workflow": lambda w: w.foreach(CHILD, id="a").sleep(HOUR, id="s"),
}


def test_the_fingerprint_is_of_the_structure() -> None:
    """Kinds and ids in order; neither code nor types nor lengths."""
    plain = a_graph(lambda w: w.then(A).sleep(HOUR, id="s")).fingerprint
    other = create_step(id="a", execute=lambda value: [value], input=int, retries=3)
    assert plain == a_graph(lambda w: w.then(other).sleep(2 * HOUR, id="s"), "renamed", retries=4).fingerprint
    assert 1 + len(CHANGES) == len({plain, *(a_graph(build).fingerprint for build in CHANGES.values())})


def test_a_builder_is_left_as_it_was() -> None:
    """A common beginning may be shared."""
    common = workflow("flow").then(A)
    left, right = common.then(B).commit(), common.then(C).commit()
    assert (["a", "b"], ["a", "c"]) == tuple([n.id for n in flow.compiled.nodes] for flow in (left, right))


def test_a_clone_keeps_everything_but_the_id() -> None:
    """State type, retries, description and metadata, too."""
    flow = a_workflow(lambda w: w.then(A), state=Both, retries=3, description="said", metadata={"team": "pay"})
    clone = flow.clone(id="other")
    assert ("flow", "other") == (flow.id, clone.compiled.id)
    (node,) = clone.compiled.nodes
    assert isinstance(node, StepNode)
    assert 3 == node.retry.retries
    assert (Both, "said", {"team": "pay"}) == (clone.state.type, clone.description, clone.metadata)
    assert flow.compiled.fingerprint == clone.compiled.fingerprint


def test_a_step_says_itself_how_often_it_is_retried() -> None:
    """Otherwise the workflow says it, also for nothing."""
    graph = a_graph(lambda w: w.then(a_step("a", retries=0)).then(B), retries=3, backoff=HOUR)
    found = [(node.retry.retries, node.retry.backoff.initial) for node in graph.nodes if isinstance(node, StepNode)]
    assert [(0, HOUR), (3, HOUR)] == found


@pytest.mark.parametrize("into", [Both, BothData, BothDict, Aliased, dict[str, Any]], ids=str)
def test_into_takes_whatever_has_the_fields(into: Any) -> None:
    """A model, a dataclass, a TypedDict; an alias stands for an id that is no Python name."""
    node = a_graph(lambda w: w.parallel(A, B, into=into)).nodes[0]
    assert into is node.gives.type or into == node.gives.type


def test_the_dict_of_a_branch_may_lack_arms() -> None:
    """Only those that ran are there."""
    node = a_graph(lambda w: w.branch((bool, a_step("a", output=int)), (otherwise, a_step("b", output=str)))).nodes[0]
    assert isinstance(node, BranchNode)
    assert {"b": "x"} == node.gives.accept("x", {"b": "x"})
    assert ("a", "b") == tuple(arm.id for arm in node.nodes)


FOUND = [
    ("a", True),
    ("child", True),
    ("child.a", True),
    ("each[7].a", True),
    ("p", True),
    ("arm", True),
    ("poll.a", True),
    ("poll", True),
    ("x", False),
    ("a.x", False),
    ("child.x", False),
    ("a[0].a", False),
]


@pytest.mark.parametrize(("path", "expected"), FOUND)
def test_a_graph_finds_its_nodes(path: str, expected: bool) -> None:
    """By dotted path; item numbers do not matter, arms stand beside their container."""
    graph = a_graph(
        lambda w: (
            w.then(A)
            .then(CHILD)
            .parallel(a_step("arm"), id="p")
            .dountil(CHILD, bool, id="poll")
            .foreach(CHILD, id="each")
        )
    )
    node = graph.find(path)
    assert expected is (node is not None)
    if node is not None and path == "child":
        assert isinstance(node, NestedNode)


def test_a_workflow_is_not_called() -> None:
    """It is run, by an App."""
    with pytest.raises(TypeError, match=r"run it with App\(workflow\)"):
        CHILD(1)


def test_otherwise_says_what_it_is() -> None:
    """In an error message it reads as it was written."""
    assert "otherwise" == repr(otherwise)
