"""Chains that fit: the type of the value at each point is known to the checkers."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from flowcore import App, RunResult, Step, StepContext, Workflow, create_step, otherwise, step, workflow


class Both(BaseModel):
    """What two steps come to."""

    double: int
    shout: str


@step
def double(number: int) -> int:
    """One argument."""
    return 2 * number


@step
def shout(number: int) -> str:
    """Another output."""
    return f"{number}!"


@step
async def later(number: int) -> str:
    """A coroutine's output is what it awaits to."""
    return str(number)


@step(retries=1)
async def later_with_context(number: int, ctx: StepContext[bool]) -> str:
    """The decorator with arguments sees through a coroutine, too."""
    return f"{number}{ctx.resume_data}"


@step(timeout=timedelta(minutes=2), on_timeout="too late")
def impatient(number: int) -> str:
    """A value stands for its output when it takes too long."""
    return str(number)


assert_type(impatient, Step[int, str, None, None])


@step
def length(text: str) -> int:
    """Back to a number."""
    return len(text)


@step
def wide(number: float) -> int:
    """Takes more than it is given."""
    return int(number)


@step
def show(both: Both) -> str:
    """Takes a model."""
    return both.shout


@step(id="renamed", description="with options", retries=3, backoff=timedelta(seconds=1))
def with_options(number: int) -> str:
    """Options do not change the types."""
    return str(number)


assert_type(double, Step[int, int, None, None])
assert_type(later, Step[int, str, None, None])
assert_type(later_with_context, Step[int, str, bool, None])
assert_type(with_options, Step[int, str, None, None])
assert_type(double.clone(id="again"), Step[int, int, None, None])
assert_type(create_step(id="long-form", execute=lambda number: number), Step[Any, Any, Any, Any])

chain = workflow("chain", input=int, output=str).then(double).then(later).then(length).then(wide).then(shout).commit()
assert_type(chain, Workflow[int, str])

by_step = workflow("by-step", input=int, output=int).wait_for_event(
    "paid", key=str, model=str, timeout=timedelta(days=1), on_timeout=shout
)
assert_type(by_step.then(length).commit(), Workflow[int, int])
by_value = workflow("by-value", input=int, output=int).wait_for_event(
    "paid", key=str, model=str, timeout=timedelta(days=1), on_timeout="nothing"
)
assert_type(by_value.then(length).commit(), Workflow[int, int])
by_none = workflow("by-none", input=int, output=int).wait_for_event(
    "paid", key=str, model=str, timeout=timedelta(days=1), on_timeout=None
)


@step
def maybe(text: str | None) -> int:
    """Takes what may have come."""
    return len(text or "")


assert_type(by_none.then(maybe).commit(), Workflow[int, int])
told = workflow("told", input=int, output=int).wait_for_event("paid", key=str, model=str).then(length)
assert_type(told.commit(), Workflow[int, int])
assert_type(chain.clone(id="other"), Workflow[int, str])

nested = workflow("nested", input=int, output=int).then(chain).then(length).commit()
many = workflow("many", input=list[int], output=list[str]).foreach(shout, concurrency=4).commit()
some = workflow("some", input=list[int], output=list[str | None]).foreach(shout, tolerated_failures=2).commit()
assert_type(some, Workflow[list[int], list[str | None]])
many_nested = workflow("many-nested", input=list[int], output=list[str]).foreach(chain).commit()
spread = workflow("spread", input=list[int], output=list[str]).foreach(
    shout, distributed=True, shard=20, concurrency=500
)
assert_type(spread.commit(), Workflow[list[int], list[str]])
enough = workflow("enough", input=list[int], output=list[str | None]).foreach(
    chain, distributed=True, min_successful=0.9
)
assert_type(enough.commit(), Workflow[list[int], list[str | None]])
both_bounds = workflow("both-bounds", input=list[int], output=list[str | None]).foreach(
    shout, concurrency=len, tolerated_failures=2, min_successful=5, id="shouted"
)
assert_type(both_bounds.commit(), Workflow[list[int], list[str | None]])
counted = (
    workflow("counted", input=list[int], output=list[int])
    .foreach(shout, concurrency=lambda items: len(items))  # noqa: PLW0108  # the checkers must infer its argument
    .foreach(length, concurrency=lambda items, ctx: ctx.iteration or len(items), id="lengths")
    .commit()
)
joined = workflow("joined", input=int, output=str).parallel(double, shout, into=Both).then(show).commit()
either = (
    workflow("either", input=int, output=dict[str, Any])
    .branch((lambda number: number > 1, double), (lambda number, ctx: ctx.run_id == str(number), shout))
    .commit()
)
chosen = (
    workflow("chosen", input=int, output=str)
    .branch((lambda number: number > 1, double), (otherwise, shout), into=Both)
    .then(show)
    .commit()
)
looped = (
    workflow("looped", input=int, output=int)
    .dowhile(double, lambda number: number < 10)
    .dountil(wide, lambda number, ctx: number > (ctx.iteration or 0))
    .commit()
)
mapped = (
    workflow("mapped", input=int, output=str)
    .map(lambda number: number * 2)
    .map(lambda number, ctx: f"{number}{ctx.run_id}")
    .map(lambda text: len(text))  # noqa: PLW0108  # the checkers must infer its argument
    .then(shout)
    .commit()
)
asleep = (
    workflow("asleep", input=int, output=int)
    .sleep(timedelta(days=1))
    .sleep(lambda number: timedelta(seconds=number))
    .sleep_until(datetime(2030, 1, 1, tzinfo=UTC))
    .sleep_until(lambda number, ctx: datetime(2030, 1, number, tzinfo=UTC))
    .then(double)
    .commit()
)
picked = workflow("picked", input=int, output=str).map({"a": {"value": 1}}).commit()


async def is_small(number: int) -> bool:
    """Conditions may be coroutines."""
    return number < 3


awaited = workflow("awaited", input=int, output=int).dowhile(double, is_small).commit()

app = App(chain, nested)
run = app.workflow(chain).create_run()
started = run.start(1)
assert_type(started, RunResult[str])
assert_type(started.output, str | None)
assert_type(run.result().output, str | None)
assert_type(run.wait().output, str | None)
assert_type(run.resume(True), RunResult[str])
assert_type(app.workflow("chain").create_run().start({"any": "thing"}), RunResult[Any])


async def on_a_loop() -> None:
    """The twins for callers on an event loop keep the types."""
    assert_type(await run.start_async(1), RunResult[str])
