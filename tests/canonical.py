"""Small workflows, one shape each: what every proof about faults is shown on.

Their steps leave a mark in ``WORLD`` under their idempotency key, as a payment provider would: an effect that may be
asked for twice and happens once. So the marks, too, must be the same whatever goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flowcore import Option, StepContext, otherwise, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.graph import Backoff
from flowcore.authoring.workflow import Workflow
from flowcore.results import RunResult
from flowcore.testing import explore
from flowcore.testing.explore import Exploration
from flowcore.testing.schedule import Course
from flowcore.testing.trial import Asked, Trial

HOUR = timedelta(hours=1)
WORLD: dict[str, Any] = {}
"""What the steps have done outside, by idempotency key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canonical:
    """One workflow, what goes in, and who answers what."""

    workflow: Workflow[Any, Any]
    input: Any
    answers: Mapping[str, Any] = field(default_factory=dict)
    outcome: Callable[[RunResult[Any]], Any] | None = None

    def explored(self, **options: Any) -> Exploration:
        """See ``explore``."""
        asked: dict[str, Any] = {"answers": self.answers, "before": WORLD.clear, "outcome": self.outcome, **options}
        return explore(self.workflow, self.input, effects=WORLD.copy, **asked)

    def undisturbed(self) -> Course:
        """All that a blow could have struck."""
        asked = Asked(self.workflow, self.input, {}, self.answers, WORLD.clear, None, self.outcome, 0, MemoryStore)
        return Trial(asked, ()).ending().course


def mark(ctx: StepContext[Any, Any, Any], value: Any) -> None:
    """One effect outside, named by its key."""
    WORLD[ctx.idempotency_key] = value


@step
def add_one(number: int, ctx: StepContext) -> int:
    """Add one, and leave a mark."""
    mark(ctx, number)
    return number + 1


@step
def double(number: int, ctx: StepContext) -> int:
    """Double, and leave a mark."""
    mark(ctx, number)
    return 2 * number


@step
async def note(number: int, ctx: StepContext) -> int:
    """The same number, later; leaves a mark."""
    mark(ctx, number)
    return number


@step
def approve(number: int, ctx: StepContext[int, dict[str, int]]) -> int:
    """Wait for somebody's number."""
    if ctx.resume_data is None:
        ctx.suspend({"asks": number}, label="boss")
    mark(ctx, ctx.resume_data)
    return number + ctx.resume_data


@step
def ask_twice(number: int, ctx: StepContext[int, int]) -> int:
    """Wait for a number, and then for another one."""
    if ctx.resume_data is None:
        ctx.suspend(1)
    if ctx.suspend_data == 1:
        ctx.suspend(2)
    return number + ctx.resume_data


@step(retries=2, backoff=Backoff(initial=timedelta(minutes=1), jitter=False))
def flaky(number: int, ctx: StepContext) -> int:
    """Fail twice."""
    if ctx.attempt < 3:
        raise RuntimeError(f"try {ctx.attempt}")
    mark(ctx, ctx.attempt)
    return number + ctx.attempt


@step
def fail_odd(number: int, ctx: StepContext) -> int:
    """Fail for odd numbers."""
    mark(ctx, number)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@step
def agree(number: int, ctx: StepContext[bool]) -> list[str]:
    """Wait until two of three people have agreed."""
    if ctx.resume_data is None:
        ctx.suspend(approvers=["ada", "grace", "alan"], quorum=2, timeout=30 * HOUR)
    return sorted(vote.by for vote in ctx.votes)


@step
def nobody_cares(votes: list[str], ctx: StepContext[bool]) -> str:
    """Wait for a day, and then do without an answer."""
    if not ctx.timed_out:
        ctx.suspend(timeout=24 * HOUR)
    mark(ctx, votes)
    return "+".join(votes)


@step
def whichever(number: int, ctx: StepContext[int]) -> str:
    """Wait for the boss or for a payment, whatever comes first."""
    if ctx.chosen is None:
        ctx.suspend_any([Option("boss"), Option("paid", key=f"order-{number}")], timeout=48 * HOUR)
    mark(ctx, ctx.resume_data)
    return f"{ctx.chosen}: {ctx.resume_data}"


@step(state=dict[str, int])
def count(number: int, ctx: StepContext[None, None, dict[str, int]]) -> int:
    """Count in the state, keep a secret once, and tell of progress."""
    ctx.set_state({"seen": ctx.state.get("seen", 0) + 1, ctx.step_id: number})
    ctx.request_context["last"] = ctx.step_id
    ctx.emit({"counted": number})
    kept: int = ctx.once("kept", lambda: number * 10)
    mark(ctx, kept)
    return kept


def told(result: RunResult[Any]) -> None:
    """A hook: it may be called again, and says the same."""
    WORLD[f"{result.run_id} is {result.status}"] = result.output


def _nested() -> Workflow[int, int]:
    child = workflow("child", input=int, output=int).then(add_one).then(approve).commit()
    grown = workflow("grown", input=int, output=int).then(child).sleep(HOUR).then(double).commit()
    return workflow("nested", input=int, output=int).then(grown).then(add_one, id="last").commit()


def _parallel() -> Workflow[int, Any]:
    slow = workflow("slow", input=int, output=int).sleep(HOUR).then(double).commit()
    joined = workflow("parallel", input=int).parallel(approve, slow, note)
    return joined.map(lambda out: sum(out.values())).then(add_one).commit()


CANONICAL: Mapping[str, Canonical] = {
    "chain": Canonical(
        workflow=workflow("chain", input=int).then(add_one).map(lambda n: n * 3).then(double).then(note).commit(),
        input=1,
    ),
    "branch": Canonical(
        workflow=workflow("branch", input=int)
        .branch((lambda n: n > 1, add_one), (lambda n: n > 2, double), (otherwise, note))
        .map(lambda out: sum(out.values()))
        .branch((lambda n: n > 100, add_one.clone(id="many")), (otherwise, double.clone(id="few")))
        .commit(),
        input=3,
    ),
    "parallel with one suspended": Canonical(workflow=_parallel(), input=2, answers={"approve": 5}),
    "loop": Canonical(
        workflow=workflow("loop", input=int)
        .dowhile(add_one, lambda n: n < 3)
        .dountil(workflow("turn", input=int, output=int).then(double).sleep(HOUR).commit(), lambda n: n > 9)
        .commit(),
        input=0,
    ),
    "foreach with failures": Canonical(
        workflow=workflow("foreach", input=list[int])
        .foreach(fail_odd, concurrency=2, tolerated_failures=2)
        .map(lambda out: [n or 0 for n in out])
        .foreach(approve, concurrency=2)
        .commit(),
        input=[2, 3, 4],
        answers={"approve": 1},
    ),
    "distributed foreach": Canonical(
        workflow=workflow("fanned", input=list[int])
        .foreach(double, distributed=True, concurrency=2)
        .map(sum)
        .then(add_one)
        .commit(),
        input=[1, 2, 3],
    ),
    "nested": Canonical(workflow=_nested(), input=1, answers={"approve": 10}),
    "sleeps": Canonical(
        workflow=workflow("sleeps", input=int)
        .sleep(timedelta(seconds=20))
        .then(add_one)
        .sleep(lambda n: n * HOUR)
        .then(double)
        .sleep(timedelta(days=40))
        .commit(),
        input=1,
    ),
    "suspend and resume": Canonical(
        workflow=workflow("suspend", input=int).then(add_one).then(approve).then(ask_twice).then(double).commit(),
        input=1,
        answers={"approve": 4, "ask_twice": 7},
    ),
    "wait for an event": Canonical(
        workflow=workflow("event", input=int)
        .then(add_one)
        .wait_for_event("paid", key=lambda n: f"order-{n}", model=int, id="payment")
        .then(double)
        .commit(),
        input=1,
        answers={"payment": 30},
    ),
    "retries": Canonical(
        workflow=workflow("retries", input=int).then(flaky).parallel(flaky.clone(id="again"), note).commit(), input=1
    ),
    "approvals with quorum and timeout": Canonical(
        workflow=workflow("approvals", input=int).then(agree).then(nobody_cares).commit(),
        input=1,
        answers={"agree": True},
    ),
    "first of several": Canonical(
        workflow=workflow("several", input=int).then(add_one).then(whichever).commit(), input=1, answers={"paid": 30}
    ),
    "state and hooks": Canonical(
        workflow=workflow("state", input=int, state=dict[str, int], on_finish=told, on_error=told)
        .then(count)
        .then(approve)
        .then(count, id="count_again")
        .commit(),
        input=1,
        answers={"approve": 2},
    ),
}
