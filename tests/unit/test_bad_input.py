"""What people and programs get wrong. Each is told so by a typed error or a stored failure that names the place.

A run is never left ``running`` by it, and no worker dies of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flowcore import App, Backoff, DefinitionError, StepContext, Workflow, create_step, otherwise, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.graph import MOST_OPEN
from flowcore.codec import MOST_DEPTH, MOST_ROWS, Shape, field_errors
from flowcore.contexts import View
from flowcore.core.actions import Advance, Place
from flowcore.core.evolve import Failed, Opened
from flowcore.errors import (
    AlreadyResumed,
    IndexOutOfRange,
    InvalidPayload,
    MalformedRequest,
    NotRecorded,
    NotSuspended,
    RunExists,
    UnknownLabel,
    UnknownStep,
)
from flowcore.failures import LARGEST_PROPERTIES, LONGEST_MESSAGE, failure_of
from flowcore.fanout.share import touch
from flowcore.keys import ROOT, RunRef, StepKey
from flowcore.runner import MOST_TURNS, Runner
from flowcore.testing import FaultyStore, LocalApp
from flowcore.testing.clock import SeededIds, VirtualClock
from flowcore.testing.faults import Call
from tests.builders import a_step

Build = Callable[[Any], Any]
DEEP = 10_000
same = a_step("same")


def served(build: Build, **options: Any) -> LocalApp:
    """A LocalApp with the workflow ``flow``."""
    return LocalApp(App(build(workflow("flow", **options)).commit()))


def ran(build: Build, value: Any = 1, **options: Any) -> Any:
    """Its run ``r-1``, as it stands after its start; at rest whatever happened."""
    app = served(build, **options)
    result = app.workflow("flow").create_run("r-1").start(value)
    assert result == app.run("r-1").result()
    assert result.status not in ("pending", "running")
    return result


def nested(levels: int, *, wrap: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    """A value that many levels deep."""
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
RING: dict[str, Any] = {}
RING["a"] = RING


class Holder(BaseModel):
    """A model that holds anything."""

    thing: Any


NOT_JSON: Mapping[str, tuple[Any, str]] = {
    "an object": ({"a": [1, object()]}, "a[1] (object) cannot be stored as JSON"),
    "an object in a model": (Holder(thing=[object()]), "thing[0] (object) cannot be stored as JSON"),
    "NaN": ({"a": float("nan")}, "a (float) cannot be stored"),
    "infinity": ([float("-inf")], "[0] (float) cannot be stored"),
    "half a surrogate pair": ({"a": "\ud800"}, "a (str) cannot be stored"),
    "half a pair in a key": ({"\ud800": 1}, "the value (key '\\ud800' of type str)"),
    "bytes that are no text": ({"a": b"\xff"}, "a (bytes) cannot be stored"),
    "an endless number": ({"a": 10**5000}, "a (int) cannot be stored"),
    "a list in itself": (CYCLE, "nested deeper than 200 levels, or in a circle"),
    "a dict in itself": (RING, "nested deeper than 200 levels, or in a circle"),
    "a deep list": (nested(DEEP), "nested deeper than 200 levels"),
    "a deep dict": (nested(DEEP, wrap=lambda inner: {"a": inner}), "nested deeper than 200 levels"),
    "one level too many": (nested(MOST_DEPTH + 1), "nested deeper than 200 levels"),
    "a class": ({"a": int}, "a (type) cannot be stored"),
    "a function": ([len], "[0] (builtin_function_or_method) cannot be stored"),
}
every_not_json = pytest.mark.parametrize(("value", "told"), NOT_JSON.values(), ids=NOT_JSON)


# -- values that are not JSON -----------------------------------------------------------------------------------------


@every_not_json
@pytest.mark.parametrize(
    "leave",
    [
        lambda value, _: value,
        lambda value, ctx: ctx.suspend(value),
        lambda value, ctx: ctx.bail(value),
        lambda value, ctx: ctx.once("key", lambda: value),
        lambda value, ctx: ctx.emit(value),
        lambda value, ctx: ctx.set_state({"deep": value}),
        lambda value, ctx: ctx.request_context.update(deep=value),
    ],
    ids=["output", "suspend payload", "bail", "once", "emit", "state", "request context"],
)
def test_what_is_not_json_fails_the_step_that_gave_it(leave: Callable[[Any, Any], Any], value: Any, told: str) -> None:
    """With the place inside the value, whichever way it was to leave the step."""
    result = ran(lambda w: w.then(a_step("bad", lambda _, ctx: leave(value, ctx))))
    assert ("failed", "bad", []) == (result.status, result.error.step, result.waits)
    assert told.removeprefix("the value ") in result.error.message


@every_not_json
def test_what_is_not_json_is_refused_at_the_start(value: Any, told: str) -> None:
    """As input, state and request context alike; nothing is stored."""
    app = served(lambda w: w.then(same))
    run = app.workflow("flow").create_run("r-1")
    for given in ({"input": value}, {"input": 1, "state": {"a": value}}, {"input": 1, "request_context": {"a": value}}):
        with pytest.raises(InvalidPayload) as refused:
            run.start(**given)
        assert ("nested" if "nested" in told else "cannot be stored") in str(refused.value)
    assert [] == list(app.list_runs())


@every_not_json
def test_what_is_not_json_is_no_answer(value: Any, told: str) -> None:
    """The run stays suspended, and takes a better one."""
    app = served(lambda w: w.then(a_step("asks", lambda _, ctx: ctx.resume_data or ctx.suspend())))
    app.workflow("flow").create_run("r-1").start(1)
    with pytest.raises(InvalidPayload, match="nested" if "nested" in told else "cannot be stored"):
        app.resume("r-1", value)
    assert "fine" == app.resume("r-1", "fine").output


@every_not_json
def test_what_is_not_json_is_no_constant(value: Any, told: str) -> None:
    """Found when the workflow is committed."""
    with pytest.raises(DefinitionError, match="key 'k'"):
        workflow("flow").map({"k": {"value": value}}).commit()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({1, 2}, [1, 2]),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        (10**30, 10**30),
        (b"text", "text"),
        (Decimal("1.5"), "1.5"),
        (nested(MOST_DEPTH), nested(MOST_DEPTH)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_has_a_plain_form_takes_it(value: Any, stored: Any) -> None:
    """A step's output is written as pydantic writes it; what follows finds the same value, also the deepest."""
    result = ran(lambda w: w.then(a_step("gives", lambda _: value)).then(same))
    assert ("success", stored) == (result.status, result.output)


def test_a_value_that_grows_a_level_a_turn_ends() -> None:
    """Long before anything overflows: what is stored can be read again."""
    deeper = workflow("deeper").map({"k": {"template": "x"}, "v": {"init_data": "."}}).commit()
    result = ran(lambda w: w.dowhile(deeper, lambda _: True), nested(MOST_DEPTH - 3))
    assert "failed" == result.status
    assert "nested deeper than 200 levels" in result.error.message


def test_a_map_may_not_nest_what_is_deep_enough() -> None:
    """The failure is its own, not that of whoever reads its output."""
    result = ran(lambda w: w.map({"v": {"init_data": "."}}, id="deeper").then(same), nested(MOST_DEPTH))
    assert ("failed", "deeper", ["deeper"]) == (result.status, result.error.step, list(result.steps))


@pytest.mark.parametrize("given", [3, "abc", [1], [("a", 1)]], ids=str)
def test_state_and_request_context_have_names(given: Any) -> None:
    """Whatever is no mapping is refused by type."""
    run = served(lambda w: w.then(same)).workflow("flow").create_run()
    for options in ({"state": given}, {"request_context": given}):
        with pytest.raises(InvalidPayload, match=f"mapping of names to values .found {type(given).__name__}."):
            run.start(1, **options)


def test_a_million_wrong_fields_are_told_in_a_hundred_lines() -> None:
    """The message stays small enough to be stored, and says how many it leaves out."""
    with pytest.raises(ValidationError) as refused:
        Shape(list[int]).decode(["x"] * 5_000)
    rows = field_errors(refused.value)
    assert (MOST_ROWS + 1, "and 4900 more errors") == (len(rows), rows[-1]["message"])


# -- exceptions -------------------------------------------------------------------------------------------------------


class Mute(Exception):
    """Its message cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Wordless(Exception):
    """Its message is no text."""

    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307  # the subject


class Hollow(Exception):
    """Its properties cannot be read."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("nothing to see")


class Rootless(Exception):
    """Its cause cannot be read."""

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no cause")


class Nameless(type):
    """Makes classes whose name cannot be read."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Anonymous(Exception, metaclass=Nameless):
    """Of no name."""


def with_properties(**properties: Any) -> Exception:
    """An exception that carries these."""
    error = ValueError("odd")
    vars(error).update(properties)
    return error


def chained(length: int) -> Exception:
    """A long chain of causes."""
    error = ValueError("first")
    for number in range(length):
        following = ValueError(str(number))
        following.__cause__, error = error, following
    return error


def circular() -> Exception:
    """Two exceptions that cause each other."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


EXCEPTIONS: Mapping[str, tuple[BaseException, str, str]] = {
    "mute": (Mute(), "Mute", "(its message cannot be read)"),
    "wordless": (Wordless(), "Wordless", "(its message cannot be read)"),
    "hollow": (Hollow("h"), "Hollow", "h"),
    "rootless": (Rootless("r"), "Rootless", "r"),
    "anonymous": (Anonymous("a"), "Exception", "a"),
    "a long chain": (chained(100_000), "ValueError", "99999"),
    "a circle of causes": (circular(), "ValueError", "one"),
    "a deep message": (ValueError(nested(DEEP)), "ValueError", "(its message cannot be read)"),
    "an endless number": (ValueError(10**5000), "ValueError", "(its message cannot be read)"),
    "half a surrogate pair": (ValueError("\ud800"), "ValueError", "?"),
    "a cyclic property": (with_properties(ring=RING), "ValueError", "odd"),
    "an unwritable property": (with_properties(thing=object(), nan=float("nan")), "ValueError", "odd"),
    "a deep property": (with_properties(deep=nested(900)), "ValueError", "odd"),
    "a group": (ExceptionGroup("two", [ValueError("a"), TypeError("b")]), "ExceptionGroup", "two (2 sub-exceptions)"),
    "a group of signals": (
        BaseExceptionGroup("one", [KeyboardInterrupt()]),
        "BaseExceptionGroup",
        "one (1 sub-exception)",
    ),
    "an exit": (SystemExit(3), "SystemExit", "3"),
    "a cancelled wait": (asyncio.CancelledError(), "CancelledError", "CancelledError"),
    "the end of an iteration": (StopAsyncIteration("s"), "StopAsyncIteration", "s"),
    "a full stack": (RecursionError("r"), "RecursionError", "r"),
    "no memory": (MemoryError(), "MemoryError", "MemoryError"),
}


@pytest.mark.parametrize(("error", "type_", "message"), EXCEPTIONS.values(), ids=EXCEPTIONS)
@pytest.mark.parametrize("kind", ["def", "async def", "condition"])
def test_an_odd_exception_is_stored(kind: str, error: BaseException, type_: str, message: str) -> None:
    """As what it says of itself, as far as it says anything."""

    def throw(_: Any) -> Any:
        raise error

    async def throw_later(_: Any) -> Any:
        raise error

    builds: dict[str, Build] = {
        "def": lambda w: w.then(a_step("bad", throw)),
        "async def": lambda w: w.then(a_step("bad", throw_later)),
        "condition": lambda w: w.branch((throw, same), id="bad"),
    }
    result = ran(builds[kind])
    assert ("failed", type_, message, "bad") == (
        result.status,
        result.error.type,
        result.error.message,
        result.error.step,
    )


def test_an_endless_recursion_is_a_failure() -> None:
    """Of the step, not of its worker."""

    def again(value: Any) -> Any:
        return again(value)

    assert "RecursionError" == ran(lambda w: w.then(a_step("bad", again))).error.type


def test_a_huge_exception_is_cut() -> None:
    """Its message says how long it was; properties that do not fit are left out, the others kept."""
    failure = failure_of(with_properties(huge="x" * LARGEST_PROPERTIES, small=1))
    assert {"small": 1} == failure.properties

    def throw(_: Any) -> Any:
        raise ValueError("x" * 2_000_000)

    result = ran(lambda w: w.then(a_step("bad", throw)))
    assert "ValueError" == result.error.type
    assert LONGEST_MESSAGE < len(result.error.message) < LONGEST_MESSAGE + 50
    assert result.error.message.endswith(" characters)")


# -- functions that give the wrong thing ------------------------------------------------------------------------------


class Undecided:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise RuntimeError("cannot tell")


async def later(_: Any = None) -> bool:
    """A coroutine function."""
    return True


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("no", "gave str, which says neither yes nor no; let it return a bool"),
        ("", "gave str"),
        (b"", "gave bytes"),
        (later, "gave function"),
        (bool, "gave type"),
        (Undecided(), "cannot tell"),
    ],
    ids=["str", "empty str", "bytes", "uncalled", "class", "undecided"],
)
@pytest.mark.parametrize("kind", ["branch", "dowhile", "dountil"])
def test_a_condition_must_decide(kind: str, answer: Any, told: str) -> None:
    """What is true by its mere existence would choose a path silently."""
    builds: dict[str, Build] = {
        "branch": lambda w: w.branch((lambda _: answer, same), (otherwise, same.clone(id="other")), id="it"),
        "dowhile": lambda w: w.dowhile(same, lambda _: answer, id="it"),
        "dountil": lambda w: w.dountil(same, lambda _: answer, id="it"),
    }
    result = ran(builds[kind])
    assert ("failed", "it") == (result.status, result.error.step)
    assert told in result.error.message


@pytest.mark.parametrize("holds", [True, 1, [0], {"a": 1}, None, 0, [], {}], ids=str)
def test_what_python_holds_for_true_is(holds: Any) -> None:
    """Anything else than text and things to call."""
    result = ran(lambda w: w.branch((lambda _: holds, same), (otherwise, same.clone(id="other"))))
    assert ["same" if holds else "other"] == list(result.output)


def test_a_coroutine_that_a_plain_function_gives_is_awaited() -> None:
    """Nobody has to know which of the two a condition is."""
    assert {"same": 1} == ran(lambda w: w.branch((lambda _: later(), same), (otherwise, same.clone(id="x")))).output


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda w: w.sleep(lambda _: 5, id="it"), "sleep 'it' needs a timedelta, its function gave int"),
        (lambda w: w.sleep(lambda _: timedelta.max, id="it"), "ends after the year 9999"),
        (lambda w: w.sleep_until(lambda _: "now", id="it"), "needs a datetime, its function gave str"),
        (lambda w: w.sleep_until(lambda _: datetime(2030, 1, 1), id="it"), "needs an aware datetime"),  # noqa: DTZ001
        (lambda w: w.sleep_until(datetime.max.replace(tzinfo=UTC), id="it"), "ends after the year 9999"),
        (lambda w: w.foreach(same, concurrency=lambda _: "5", id="it"), "must be a number, not str"),
        (lambda w: w.foreach(same, concurrency=lambda _: None, id="it"), "must be a number, not NoneType"),
        (lambda w: w.map(lambda _: object(), id="it"), "(object) cannot be stored as JSON"),
        (lambda w: w.map(lambda _: 3).foreach(same, id="it"), "needs a list, its input is int"),
        (lambda w: w.map(lambda _: "abc").foreach(same, id="it"), "needs a list, its input is str"),
        (lambda w: w.map(lambda _: {"a": 1}).foreach(same, id="it"), "needs a list, its input is dict"),
        (lambda w: w.map(lambda _: None).foreach(same, id="it"), "needs a list, its input is NoneType"),
    ],
)
def test_a_function_that_gives_the_wrong_type_fails_its_entry(build: Build, told: str) -> None:
    """The failure says what was needed and what came."""
    result = ran(build, [1])
    assert ("failed", "it") == (result.status, result.error.step)
    assert told in result.error.message


@pytest.mark.parametrize("timeout", [5, "5", timedelta(0), timedelta(days=-1)], ids=str)
def test_a_suspension_must_last(timeout: Any) -> None:
    """One that is over at once would have its step suspend for ever."""
    result = ran(lambda w: w.then(a_step("asks", lambda _, ctx: ctx.suspend(timeout=timeout))))
    assert ("failed", "asks") == (result.status, result.error.step)
    assert "give a timedelta" in result.error.message


@pytest.mark.parametrize("label", ["", 3, b"x", ["a"], "x" * 5_000, "\ud800"], ids=lambda label: repr(label)[:10])
def test_a_label_is_text(label: Any) -> None:
    """What cannot be stored or typed is none."""
    result = ran(lambda w: w.then(a_step("asks", lambda _, ctx: ctx.suspend(label=label))))
    assert ("failed", "asks") == (result.status, result.error.step)
    assert "label=" in result.error.message


@pytest.mark.parametrize("key", ["", 3, None, "x" * 201, "\ud800"], ids=lambda key: repr(key)[:10])
def test_the_key_of_a_side_effect_is_text(key: Any) -> None:
    """It becomes part of a sort key."""
    called: list[int] = []
    result = ran(lambda w: w.then(a_step("pays", lambda _, ctx: ctx.once(key, lambda: called.append(1)))))
    assert ("failed", "pays", []) == (result.status, result.error.step, called)
    assert "text of 1 to 200 characters" in result.error.message


@pytest.mark.parametrize("key", ["a/b", "@1", "é", "a!b#c", "x" * 200], ids=lambda key: key[:10])
def test_any_short_text_is_a_key(key: str) -> None:
    """Whatever is in it: it is quoted."""
    assert 7 == ran(lambda w: w.then(a_step("pays", lambda _, ctx: ctx.once(key, lambda: 7)))).output


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "slots"),
    [
        (10**9, MOST_OPEN),
        (float("inf"), MOST_OPEN),
        (2.9, 2),
        (1, 1),
        (True, 1),
        (0, 1),
        (-1, 1),
        (float("nan"), 1),
        (float("-inf"), 1),
    ],
)
def test_concurrency_is_bounded(wanted: Any, slots: int) -> None:
    """Whether written down or computed."""
    app = served(lambda w: w.foreach(same, concurrency=wanted).foreach(same, concurrency=lambda _: wanted, id="again"))
    assert [1, 2] == app.workflow("flow").create_run("r-1").start([1, 2]).output
    loaded = app.store.load(RunRef("default", "r-1"), everything=True)
    assert loaded is not None
    assert [slots, slots] == [loaded[1][StepKey(id)].count for id in ("same", "again")]


def test_a_foreach_over_many_items_is_done_in_a_breath() -> None:
    """What has come meanwhile shares a turn: the price of an item does not grow with those beside it."""
    result = ran(lambda w: w.foreach(same, concurrency=10**9).map(len), [0] * 300)
    assert 300 == result.output


@pytest.mark.parametrize("tolerated", [-1, float("nan"), "1", None, True], ids=str)
def test_tolerated_failures_are_a_number(tolerated: Any) -> None:
    """From 0."""
    with pytest.raises(DefinitionError, match="is no count and no share"):
        workflow("flow", input=list[int]).foreach(same, tolerated_failures=tolerated).commit()


@pytest.mark.parametrize(("turn", "kind"), [(MOST_TURNS - 1, Opened), (MOST_TURNS, Failed)])
def test_a_loop_that_never_ends_is_ended(turn: int, kind: type) -> None:
    """After a million turns; whoever needs more has a workflow start the next one."""
    graph = workflow("flow").dowhile(same, lambda _: True).commit().compiled
    place = Place(key=StepKey("same"), node=graph.nodes[0], graph=graph, home=ROOT, init=1)
    clock = VirtualClock()
    runner = Runner(clock, SeededIds(), await_=asyncio.run, run_time=clock.now)
    event = runner.perform(Advance(place, 1, turn), a_view())
    assert isinstance(event, kind)
    if isinstance(event, Failed):
        assert ("TooManyTurns", "same") == (event.failure.type, event.failure.step)


def a_view() -> View:
    """What a runner wants to know of a run that is not there."""
    return View(
        run_id="r-1",
        workflow_id="flow",
        resource_id=None,
        idempotency_key="k",
        state={},
        request_context={},
        result_of=lambda _: None,
        once=lambda _, make: make(),
        emit=lambda *_: None,
        remaining=lambda: timedelta(1),
        cancelled=VirtualFlag(),
    )


class VirtualFlag:
    """Never set."""

    def is_set(self) -> bool:
        """See ``Flag.is_set``."""
        return False


def stacked(ids: str, levels: int) -> tuple[Workflow[Any, Any], DefinitionError | None]:
    """Workflows inside each other: the deepest that could be committed, and why the next one could not."""
    inner = workflow("w").then(same).commit()
    try:
        for number in range(levels):
            inner = workflow(ids.format(number)).then(inner).commit()
    except DefinitionError as error:
        return inner, error
    return inner, None


def test_workflows_ten_thousand_deep_are_refused() -> None:
    """At the first one that is too deep, long before Python's stack is."""
    deepest, refused = stacked("w{}", DEEP)
    assert "nests workflows 51 deep; at most 50 are allowed" in str(refused)
    assert 1 == LocalApp(App(deepest)).workflow(deepest.id).create_run().start(1).output


def test_ids_too_long_for_their_depth_are_refused() -> None:
    """A place whose key no store takes would otherwise be found in the middle of a run."""
    deepest, refused = stacked("{:064}", DEEP)
    assert "the sort key of a step in it has 1058 bytes; at most 1024 fit" in str(refused)
    assert 1 == LocalApp(App(deepest)).workflow(deepest.id).create_run().start(1).output


def test_where_not_even_a_failure_can_be_stored_the_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not left to be tried by one worker after another."""
    monkeypatch.setattr("flowcore.authoring.mistakes.LONGEST_SORT_KEY", 10**9)
    deepest, _ = stacked("{:064}", 20)
    result = LocalApp(App(deepest)).workflow(deepest.id).create_run("r-1").start(1)
    assert ("failed", "PayloadTooLarge") == (result.status, result.error and result.error.type)


def test_where_not_even_a_failure_can_be_stored_the_run_fails_though_somebody_writes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has written its head meanwhile changes nothing about that."""
    monkeypatch.setattr("flowcore.authoring.mistakes.LONGEST_SORT_KEY", 10**9)
    deepest, _ = stacked("{:064}", 20)
    writers = [touch]

    def written(call: Call) -> None:
        if call.verb == "release" and writers:
            writers.pop()(app.engine, RunRef("default", "r-1"))

    app = LocalApp(App(deepest), store=FaultyStore(MemoryStore(), written))
    result = app.workflow(deepest.id).create_run("r-1").start(1)
    assert ([], "failed") == (writers, result.status)


def test_ten_thousand_entries_are_refused() -> None:
    """Such a graph is data."""
    flow = workflow("flow")
    for number in range(5_001):
        flow = flow.then(same, id=f"s{number}")
    with pytest.raises(DefinitionError, match="has 5001 entries with those nested in it; at most 5000"):
        flow.commit()


# -- ids --------------------------------------------------------------------------------------------------------------

BAD_IDS: tuple[Any, ...] = (
    *("a/b", "a.b", "a#1", "a[0]", "a!b", "a@b"),
    *("", " a", "a ", "-a", "a\n", "a\x00", "x" * 65, "é", "日本", "\ud800", 3, b"a"),
)
MAKERS: Mapping[str, Callable[[Any], Any]] = {
    "a step": lambda name: create_step(id=name, execute=lambda value: value),
    "a decorated step": lambda name: step(id=name)(lambda value: value),
    "an entry": lambda name: workflow("flow").then(same, id=name).commit(),
    "a map": lambda name: workflow("flow").map(lambda value: value, id=name).commit(),
    "a parallel": lambda name: workflow("flow").parallel(same, id=name).commit(),
    "a workflow": lambda name: workflow(name).then(same).commit(),
    "a clone": lambda name: same.clone(id=name),
    "a workflow's clone": lambda name: workflow("flow").then(same).commit().clone(id=name),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("id", BAD_IDS, ids=ascii)
def test_an_id_that_keys_cannot_hold_is_refused(make: Callable[[Any], Any], id: Any) -> None:
    """Everywhere alike; the message shows it and says what an id is made of."""
    with pytest.raises(DefinitionError) as refused:
        make(id)
    assert f"{id!r} cannot be a" in str(refused.value)
    assert "use 1-64 ASCII letters, digits" in str(refused.value)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_id_may_have_64_characters(make: Callable[[Any], Any]) -> None:
    """And no more."""
    make("x" * 64)


@pytest.mark.parametrize("id", ["", "a/b", "a#b", " a", "é", "x" * 129, 3, b"r"], ids=ascii)
def test_a_run_id_that_keys_cannot_hold_is_refused(id: Any) -> None:
    """For a run that is begun as for one that is forked."""
    app = served(lambda w: w.then(same))
    app.workflow("flow").create_run("r-1").start(1)
    with pytest.raises(MalformedRequest, match="cannot be a run id"):
        app.workflow("flow").create_run(id)
    with pytest.raises(MalformedRequest, match="cannot be a run id"):
        app.run("r-1").fork("same", run_id=id)


@pytest.mark.parametrize("id", ["", 3, "x" * 5_000, "\ud800"], ids=lambda text: repr(text)[:10])
def test_a_resource_id_is_text(id: Any) -> None:
    """Runs are listed by it."""
    with pytest.raises(MalformedRequest, match="cannot be a resource id"):
        served(lambda w: w.then(same)).workflow("flow").create_run(resource_id=id)


@pytest.mark.parametrize(
    ("build", "id"),
    [
        (lambda w: w.then(same).then(same), "same"),
        (lambda w: w.then(same).then(a_step("other").clone(id="same")), "same"),
        (lambda w: w.then(same).parallel(same, a_step("b")), "same"),
        (lambda w: w.parallel(same, a_step("b")).branch((bool, a_step("b"))), "b"),
        (lambda w: w.parallel(a_step("same"), a_step("same")), "same"),
        (lambda w: w.then(same).foreach(same), "same"),
        (lambda w: w.then(same).dowhile(a_step("x"), bool, id="same"), "same"),
        (lambda w: w.then(a_step("map-after-same")).then(same).map(bool), "map-after-same"),
        (lambda w: w.then(same).then(workflow("same").map(bool).commit()), "same"),
    ],
)
def test_an_id_used_twice_is_refused(build: Build, id: str) -> None:
    """Also after a clone, across arms, and when one of the two was made up."""
    with pytest.raises(DefinitionError, match=f"{id}: is used 2 times in this workflow"):
        build(workflow("flow")).commit()


def test_made_up_ids_do_not_collide() -> None:
    """Nor do those of two workflows inside each other, which have keys of their own."""
    inner = workflow("inner").map(lambda value: value).map(lambda value: value).commit()
    result = ran(lambda w: w.map(lambda value: value).map(lambda value: value).then(inner))
    assert ("success", 5) == (result.status, len(result.steps))


# -- requests ---------------------------------------------------------------------------------------------------------


def asks(_: Any, ctx: StepContext[Any]) -> Any:
    """Suspends under a label of its own."""
    if ctx.resume_data is None:
        ctx.suspend(label=f"item-{ctx.index}")
    return ctx.resume_data


def three_asked() -> LocalApp:
    """A foreach of which the items 0 and 2 wait, and item 1 is done."""
    app = served(lambda w: w.foreach(a_step("ask", asks), concurrency=3))
    app.workflow("flow").create_run("r-1").start([1, 2, 3])
    app.resume("r-1", "done", index=1)
    return app


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ({"index": 1}, IndexOutOfRange, "Suspended items: 0, 2"),
        ({"index": 3}, IndexOutOfRange, "Suspended items: 0, 2"),
        ({"index": -1}, IndexOutOfRange, "Suspended items: 0, 2"),
        ({"index": 10**30}, IndexOutOfRange, "Suspended items"),
        ({"index": True}, MalformedRequest, "index=True must be a whole number, not bool"),
        ({"index": False}, MalformedRequest, "not bool"),
        ({"index": 0.0}, MalformedRequest, "not float"),
        ({"index": "0"}, MalformedRequest, "not str"),
        ({"step": "ask[1]"}, AlreadyResumed, "Step 'ask[1]' of run 'r-1' was already resumed"),
        ({"label": "item-1"}, AlreadyResumed, "already resumed"),
        ({"wait": "ask[1]@0"}, AlreadyResumed, "already resumed"),
        ({"step": "ask[9]"}, NotSuspended, "Resume one of: 'ask[0]', 'ask[2]'"),
        ({"step": "nope"}, UnknownStep, "Suspended now: 'ask[0]', 'ask[2]'"),
        ({"step": ""}, UnknownStep, "Suspended now"),
        ({"step": "ask.deeper"}, UnknownStep, "Suspended now"),
        ({"step": "a/b#1[2]!x"}, UnknownStep, "Suspended now"),
        ({"step": []}, UnknownStep, "Suspended now"),
        ({"step": 3}, MalformedRequest, "3 names no step"),
        ({"step": ["ask", 0]}, MalformedRequest, "0 names no step"),
        ({"label": "nope"}, UnknownLabel, "Open labels: 'item-0', 'item-2'"),
        ({"label": ""}, MalformedRequest, "label='' must be text"),
        ({"label": 3}, MalformedRequest, "label=3 must be text"),
        ({"wait": "nope"}, NotSuspended, "Resume one of"),
        ({"wait": 3}, MalformedRequest, "wait=3 must be text"),
        ({"index": 0, "retry_count": -1}, MalformedRequest, "retry_count=-1 is below 0"),
        ({"index": 0, "retry_count": "x"}, MalformedRequest, "retry_count='x' must be a whole number"),
        ({"index": 0, "idempotency_key": ""}, MalformedRequest, "idempotency_key='' must be text"),
        ({"index": 0, "idempotency_key": "x" * 10_000}, MalformedRequest, "must be text of 1 to 1000 characters"),
        ({"index": 0, "by": "\ud800"}, MalformedRequest, "by='\\ud800' must be text"),
        ({"index": 0, "via": 3}, MalformedRequest, "via=3 must be text"),
        ({"index": 0, "request_context": 3}, InvalidPayload, "mapping of names to values (found int)"),
    ],
)
def test_an_answer_nobody_waits_for_is_refused(how: Any, error: type[Exception], told: str) -> None:
    """By a class of its own that lists what is open; the run stays as it is."""
    app = three_asked()
    before = app.run("r-1").result()
    with pytest.raises(error) as refused:
        app.resume("r-1", "late", **how)
    assert told in str(refused.value)
    assert before == app.run("r-1").result()


@pytest.mark.parametrize("key", ["", 3, b"k", "\ud800", "x" * 10_000], ids=lambda key: repr(key)[:10])
def test_the_key_of_a_start_is_text(key: Any) -> None:
    """The run's id is made of it."""
    app = served(lambda w: w.then(same))
    with pytest.raises(MalformedRequest, match="idempotency_key="):
        app.workflow("flow").create_run().start(1, idempotency_key=key)
    assert [] == list(app.list_runs())


@pytest.mark.parametrize(
    ("to", "options", "error", "told"),
    [
        ("nope", {}, UnknownStep, "Known here: 'same', 'ask', 'last'"),
        ("", {}, UnknownStep, "Known here"),
        ("same[0]", {}, UnknownStep, "Known here"),
        ("same.deeper", {}, UnknownStep, "No step 'same.deeper'"),
        ("a/b", {}, UnknownStep, "Known here"),
        ("last", {}, NotRecorded, "'ask' in front of it has no output in this run"),
        (3, {}, MalformedRequest, "3 names no step"),
        ("same", {"input": object()}, InvalidPayload, "(object) cannot be stored"),
        ("same", {"input": CYCLE}, InvalidPayload, "in a circle"),
        ("last", {"context": {"ask": float("nan")}}, InvalidPayload, "ask (float) cannot be stored"),
        ("last", {"context": 3}, InvalidPayload, "mapping of names to values (found int)"),
        ("last", {"context": {3: 1}}, InvalidPayload, "valid string (found int)"),
    ],
)
def test_a_time_nobody_can_travel_to_is_refused(to: Any, options: Any, error: type[Exception], told: str) -> None:
    """So is a fork of it; the run stays as it is, and no other begins."""
    app = served(lambda w: w.then(same).then(a_step("ask", asks)).then(a_step("last")))
    before = app.workflow("flow").create_run("r-1").start(1)
    for travel in (app.run("r-1").time_travel, lambda *a, **k: app.run("r-1").fork(*a, run_id="r-2", **k)):
        with pytest.raises(error) as refused:
            travel(to, **options)
        assert told in str(refused.value)
    assert before == app.run("r-1").result()
    assert ["r-1"] == [run.run_id for run in app.list_runs()]


@pytest.mark.parametrize("onto", ["r-1", "r-2"])
def test_a_fork_onto_a_run_that_exists_is_refused(onto: str) -> None:
    """Itself included; neither is changed."""
    app = served(lambda w: w.then(same))
    before = [app.workflow("flow").create_run(id).start(id) for id in ("r-1", "r-2")]
    with pytest.raises(RunExists, match=f"Run '{onto}' of workflow 'flow' exists"):
        app.run("r-1").fork("same", run_id=onto)
    assert before == [app.run(id).result() for id in ("r-1", "r-2")]


def test_a_backoff_longer_than_a_century_is_refused() -> None:
    """Nobody would see the second try."""
    endless = Backoff(initial=timedelta.max, maximum=timedelta.max, jitter=False)
    with pytest.raises(DefinitionError, match="its times must lie between 0 and a century"):
        create_step(id="x", execute=lambda value: value, retries=1, backoff=endless)
