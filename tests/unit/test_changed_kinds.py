"""A deploy that makes another kind of entry of an id, whatever the run is in the middle of there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from flowcore import App, RunResult, StepContext, Workflow, create_step, otherwise, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.graph import Backoff
from flowcore.errors import DefinitionChanged
from flowcore.ops import check
from flowcore.testing import LocalApp, VirtualClock

HOUR = timedelta(hours=1)
ANSWER = 7
LATER = Backoff(initial=HOUR, jitter=False)
"""A pause drawn at random may be so short that it is over at once."""
CALLS: list[str] = []


class _Died(BaseException):
    """The worker dies here."""


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def paid(value: Any) -> Any:
    """Done once in the life of a run."""
    CALLS.append("pay")
    return value


def asks(value: Any, ctx: StepContext[Any]) -> Any:
    """Waits for an answer."""
    return ctx.suspend() if ctx.resume_data is None else ctx.resume_data


def fails_once(value: Any) -> Any:
    """Is tried again an hour later."""
    CALLS.append("try")
    if CALLS.count("try") == 1:
        raise ValueError("not yet")
    return ANSWER


def dies(value: Any) -> Any:
    """Kills its first worker."""
    CALLS.append("die")
    if CALLS.count("die") == 1:
        raise _Died
    return ANSWER


def inner(state: str, id: str) -> Any:
    """The step that is in the middle of something."""
    match state:
        case "sleeps":
            return create_step(id=id, execute=truth, input=Any, output=Any)
        case "asks":
            return create_step(id=id, execute=asks, input=Any, output=Any)
        case "fails":
            return create_step(id=id, execute=fails_once, input=Any, output=Any, retries=3, backoff=LATER)
        case "dies":
            return create_step(id=id, execute=dies, input=Any, output=Any)
        case _:
            return create_step(id=id, execute=dies, input=Any, output=Any, semantics="at_most_once")


def truth(value: Any) -> bool:
    """A condition."""
    return True


def nested(state: str) -> Workflow[Any, Any]:
    """A workflow that has paid when it comes to what it is in the middle of; or in which a worker died at once."""
    builder = workflow("x", input=Any, output=Any)
    if not state.startswith("dies"):
        builder = builder.then(pay())
    return (builder.sleep(HOUR, id="b") if state == "sleeps" else builder.then(inner(state, "b"))).commit()


def pay() -> Any:
    """The step beside, or in front of, the one that is in the middle of something."""
    return create_step(id="p", execute=paid, input=Any, output=Any)


def arm(state: str) -> Any:
    """The same as a step of a workflow around it."""
    return (
        workflow("b", input=Any, output=Any).sleep(HOUR, id="nap").commit() if state == "sleeps" else inner(state, "b")
    )


KINDS: dict[str, Callable[[Any, str], Any]] = {
    "step": lambda w, s: w.then(inner(s, "x")),
    "nested": lambda w, s: w.then(nested(s)),
    "loop of step": lambda w, s: w.dountil(inner(s, "x"), truth),
    "loop of nested": lambda w, s: w.dountil(nested(s), truth),
    "foreach of step": lambda w, s: w.foreach(inner(s, "x")),
    "foreach of nested": lambda w, s: w.foreach(nested(s)),
    "distributed foreach of step": lambda w, s: w.foreach(inner(s, "x"), distributed=True),
    "distributed foreach of nested": lambda w, s: w.foreach(nested(s), distributed=True),
    "parallel": lambda w, s: w.parallel(pay(), arm(s), id="x"),
    "branch": lambda w, s: w.branch((truth, arm(s)), (otherwise, pay()), id="x"),
    "branch to the other arm": lambda w, s: w.branch((truth, pay()), (otherwise, arm(s)), id="x"),
    "sequence": lambda w, s: w.then(pay()).then(arm(s)),
    "sleep": lambda w, s: w.sleep(HOUR, id="x"),
    "event": lambda w, s: w.wait_for_event("e", key="k", id="x", timeout=HOUR, on_timeout=ANSWER),
    "map": lambda w, s: w.map(truth, id="x"),
}
STATES = ("asks", "fails", "dies", "dies at most once", "sleeps")
OVER_AT_ONCE = ("branch to the other arm", "map")
"""Kinds of which a run is never in the middle."""
AWAKE = ("step", "loop of step", "foreach of step", "distributed foreach of step")
"""Kinds in which nothing can sleep."""
ALIKE = ("sleep", "event")
"""Kinds that wait, whatever the state is called."""
ROWS = [
    (before, after, state)
    for before in KINDS
    for after in KINDS
    for state in (("sleeps",) if before in ALIKE else STATES)
    if before not in OVER_AT_ONCE
    and not (before in AWAKE and state == "sleeps")
    # Arms that were chosen stay chosen. If the branch has left nothing but its choice, that may be any list.
    and not (before == "branch" and (after == "branch to the other arm" or state == "dies"))
]


def an_app(kind: str, state: str, store: MemoryStore, clock: VirtualClock) -> LocalApp:
    """An App with today's, or tomorrow's, definition of the same workflow."""
    flow = KINDS[kind](workflow("w", input=Any, output=Any), state).commit()
    return LocalApp(App(flow), store=store, clock=clock)


def begun(app: LocalApp) -> None:
    """Have the run come to where it stands when the deploy is made."""
    with suppress(_Died):
        app.workflow("w").create_run("r").start([1])


def gone_on(app: LocalApp) -> RunResult[Any]:
    """Answer what is asked, and let everything happen that happens by itself."""
    for _ in range(3):
        if app.run("r").result().waits:
            with suppress(DefinitionChanged):
                app.run("r").resume(ANSWER)
        with suppress(_Died):
            app.advance(hours=3)
    return app.run("r").result()


@cache
def from_the_beginning(kind: str, state: str) -> tuple[str, Any]:
    """How a run ends that has never known another definition."""
    CALLS.clear()
    app = an_app(kind, state, MemoryStore(), VirtualClock())
    begun(app)
    result = gone_on(app)
    CALLS.clear()
    return result.status, result.output


@pytest.mark.parametrize(("before", "after", "state"), ROWS)
def test_a_run_goes_on_under_another_kind_or_stands_still_with_a_reason(before: str, after: str, state: str) -> None:
    """It comes to the end that it would have under the new definition, or is blocked; nothing is done twice."""
    expected = from_the_beginning(after, state)
    store, clock = MemoryStore(), VirtualClock()
    begun(an_app(before, state, store, clock))
    deployed = an_app(after, state, store, clock)
    told = check(deployed).obstacles
    result = gone_on(deployed)
    if told:
        assert {"definition-changed"} == {obstacle.kind for obstacle in told}
        assert result.status in ("paused", "suspended", "waiting")
    else:
        assert expected == (result.status, result.output)
    assert CALLS.count("pay") <= 1
    assert CALLS.count("die") <= (1 if state == "dies at most once" else 2)
