"""What a deploy that changes types does to runs that wait: their values are migrated as they are read, or they wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from flowcore import App, DefinitionError, Option, StepContext, create_step, migrate, workflow
from flowcore.errors import DefinitionChanged, InvalidPayload, NotBlocked
from flowcore.keys import RunRef, StepKey
from flowcore.migrations import NoWay, renewed
from flowcore.model import Json, Outcome, StepRecord
from flowcore.ops import check
from flowcore.testing import LocalApp

HOUR = timedelta(hours=1)


class Old(BaseModel):
    """An amount, before the deploy."""

    euros: float


class New(BaseModel):
    """The same, after it."""

    cents: int
    currency: str = "EUR"


def to_cents(old: dict[str, Any]) -> dict[str, Any]:
    """What a migration does."""
    return {"cents": round(old["euros"] * 100)}


def deployed(app: LocalApp, *flows: Any) -> LocalApp:
    """The next version of the code, on the same store at the same time."""
    return LocalApp(App(*flows), store=app.store, clock=app.clock)


def a_price(type_: Any, value: Any) -> Any:
    """A step that gives this value of this type."""
    return create_step(id="price", execute=lambda _: value, output=type_)


def pay_of(type_: Any) -> Any:
    """A step that takes this type, and shows what it was given."""
    return create_step(id="pay", execute=lambda value: value.model_dump(mode="json"), input=type_)


def napping(price: Any, pay: Any) -> Any:
    """A workflow that sleeps between the two."""
    return workflow("flow", input=int).then(price).sleep(HOUR, id="nap").then(pay).commit()


def asleep() -> LocalApp:
    """A run that sleeps on an old output."""
    app = LocalApp(App(napping(a_price(Old, Old(euros=1.5)), pay_of(Old))))
    app.workflow("flow").create_run("r").start(1)
    return app


def stored(app: LocalApp) -> Any:
    """The outputs that the store holds, by place."""
    loaded = app.store.load(RunRef("default", "r"), everything=True)
    return {} if loaded is None else {str(key): record.output for key, record in loaded[1].items()}


def test_output_is_migrated_as_it_is_read() -> None:
    """The steps behind it get the new form; what is committed stays as it was."""
    app = asleep()
    price = a_price(New, None)
    migrate(price, "output")(to_cents)
    new = deployed(app, napping(price, pay_of(New)))
    new.advance(HOUR)

    assert {"cents": 150, "currency": "EUR"} == new.run("r").result().output
    assert {"euros": 1.5} == stored(new)["price"]


def test_input_is_migrated_for_the_step_that_takes_it() -> None:
    """Whoever gave it, and though it was never stored as this step's."""
    app = asleep()
    pay = pay_of(New)
    migrate(pay, "input")(to_cents)
    new = deployed(app, napping(a_price(Old, None), pay))
    new.advance(HOUR)

    assert {"cents": 150, "currency": "EUR"} == new.run("r").result().output


def test_output_type_changed_without_a_migration_blocks_the_run_until_there_is_one() -> None:
    """It does not fail: a deploy has changed the type, and another one can mend it."""
    app = asleep()
    new = deployed(app, napping(a_price(New, None), pay_of(New)))
    new.advance(HOUR)
    blocked = new.run("r").result()
    assert ("paused", True) == (blocked.status, "output of 'price'" in (blocked.blocked or ""))
    assert "cents: Field required" in (blocked.blocked or "")
    assert "declare a migration" in (blocked.blocked or "")
    new.deliver("r")
    assert blocked.version == new.run("r").result().version

    price = a_price(New, None)
    migrate(price, "output")(to_cents)
    mended = deployed(app, napping(price, pay_of(New)))
    assert {"cents": 150, "currency": "EUR"} == mended.run("r").unblock().output


def test_unblocking_under_code_that_still_does_not_fit_says_so_again() -> None:
    """And loses nothing."""
    app = asleep()
    new = deployed(app, napping(a_price(New, None), pay_of(New)))
    new.advance(HOUR)

    again = new.run("r").unblock()
    assert ("paused", True) == (again.status, "'price'" in (again.blocked or ""))
    assert {"euros": 1.5} == deployed(app, napping(a_price(Old, None), pay_of(Old))).run("r").unblock().output


def test_unblock_of_a_run_that_is_not_blocked_is_refused() -> None:
    """One that somebody has paused is unpaused."""
    app = asleep()
    with pytest.raises(NotBlocked, match="waiting"):
        app.run("r").unblock()
    app.run("r").pause()
    with pytest.raises(NotBlocked, match="Unpause"):
        app.run("r").unblock()


def test_a_mistake_of_the_author_still_fails_the_step() -> None:
    """An input that never fitted is no deploy."""
    app = LocalApp(App(napping(a_price(Old, Old(euros=1.5)), pay_of(New))))
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(HOUR)

    assert ("failed", "InvalidPayload") == ((result := run.result()).status, result.error and result.error.type)


# -- a step that is suspended while its types change ------------------------------------------------------------------


class Ask(BaseModel):
    """What the step shows, and how it is answered, before the deploy."""

    euros: float


def asking(
    input: Any = Old, resume: Any = Old, suspend: Any = Old, seen: list[Any] | None = None, **options: Any
) -> Any:
    """A step that shows what it was given and gives all it got."""
    noted: list[Any] = [] if seen is None else seen

    def execute(value: Any, ctx: StepContext[Any, Any]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend(value)
        noted.append((value, ctx.suspend_data, ctx.resume_data))
        return "done"

    return create_step(id="ask", execute=execute, input=input, resume=resume, suspend=suspend, **options)


def suspended(**options: Any) -> LocalApp:
    """A run that waits for an answer, with everything in the old form."""
    app = LocalApp(App(workflow("flow", input=Old).then(asking(**options)).commit()))
    assert "suspended" == app.workflow("flow").create_run("r").start(Old(euros=2)).status
    return app


def test_suspended_step_finds_everything_in_the_new_form() -> None:
    """What it was given, what it showed, and what somebody answered whose page is older than the deploy."""
    app, seen = suspended(), list[Any]()
    ask = asking(New, New, New, seen)
    for door in ("input", "suspend", "resume"):
        migrate(ask, door)(to_cents)
    new = deployed(app, workflow("flow", input=Old).then(ask).commit())

    assert "success" == new.run("r").resume({"euros": 3}).status
    assert [(New(cents=200), New(cents=200), New(cents=300))] == seen


def test_answer_that_fits_neither_form_is_refused_as_ever() -> None:
    """With the errors of today's form."""
    app = suspended()
    ask = asking(resume=New)
    migrate(ask, "resume")(to_cents)
    new = deployed(app, workflow("flow", input=Old).then(ask).commit())

    with pytest.raises(InvalidPayload, match="cents: Field required"):
        new.run("r").resume({"dollars": 3})
    assert "success" == new.run("r").resume({"cents": 3}).status


def test_answer_that_breaks_the_type_of_today_is_refused() -> None:
    """Whatever its validator raises, where an older form is looked for as well."""

    class Picky(BaseModel):
        cents: int

        @model_validator(mode="before")
        @classmethod
        def look(cls, data: Any) -> Any:
            return {"cents": data["cents"]}

    app = suspended()
    ask = asking(resume=Picky)
    migrate(ask, "resume")(to_cents)
    new = deployed(app, workflow("flow", input=Old).then(ask).commit())

    with pytest.raises(InvalidPayload, match="KeyError"):
        new.run("r").resume({"dollars": 3})
    assert "success" == new.run("r").resume({"cents": 3}).status


def test_stored_answer_is_migrated_when_the_step_takes_it() -> None:
    """It came before the deploy, and the run was paused."""
    app, seen = suspended(), list[Any]()
    app.run("r").pause()
    app.run("r").resume({"euros": 4})
    ask = asking(resume=New, seen=seen)
    migrate(ask, "resume")(to_cents)
    deployed(app, workflow("flow", input=Old).then(ask).commit()).run("r").unpause()

    assert New(cents=400) == seen[0][2]


@pytest.mark.parametrize("door", ["input", "resume", "suspend"])
def test_step_whose_stored_values_fit_no_more_is_not_called_and_keeps_its_answer(door: str) -> None:
    """The run stands still with a reason that names the value, and goes on with the answer once it is mended."""
    app, seen = suspended(), list[Any]()
    app.run("r").pause()
    app.run("r").resume({"euros": 4})
    changed = asking(**{door: New}, seen=seen)
    new = deployed(app, workflow("flow", input=Old).then(changed).commit())
    blocked = new.run("r").unpause()
    assert ("paused", []) == (blocked.status, seen)
    assert "cents: Field required" in (blocked.blocked or "")
    assert "'ask'" in (blocked.blocked or "")

    migrate(changed, door)(to_cents)  # type: ignore[call-overload]  # as above
    assert "success" == new.run("r").unblock().status
    assert {"input": (200, 4, 2), "resume": (2, 400, 2), "suspend": (2, 4, 200)}[door] == amounts(seen[0])


def amounts(seen: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Cents where there are some, else euros: of the input, the answer and what was shown."""
    value, shown, answer = (getattr(each, "cents", None) or each.euros for each in seen)
    return value, answer, shown


def test_answer_that_comes_to_a_step_that_cannot_be_called_is_kept() -> None:
    """The answer itself fits; what it waits on does not."""
    app = suspended()
    ask = asking(input=New)
    new = deployed(app, workflow("flow", input=Old).then(ask).commit())
    result = new.run("r").resume({"euros": 3})
    assert ("paused", "applied") == (result.status, result.receipt and result.receipt.verdict)

    migrate(ask, "input")(to_cents)
    assert "success" == new.run("r").unblock().status


def test_arms_beside_the_one_that_cannot_be_called_are_finished_first() -> None:
    """The run stands still once nothing else is left to do."""
    calls: list[Any] = []
    nap = workflow("nap", input=Old).sleep(HOUR, id="z").then(create_step(id="late", execute=calls.append)).commit()
    app = LocalApp(App(workflow("flow", input=Old).parallel(asking(), nap).commit()))
    app.workflow("flow").create_run("r").start(Old(euros=2))
    app.run("r").pause()
    app.run("r").resume({"euros": 4}, step="ask")
    ask = asking(input=New)
    new = deployed(app, workflow("flow", input=Old).parallel(ask, nap).commit())
    new.clock.forward(hours=2)

    assert ("paused", 1) == (new.run("r").unpause().status, len(calls))
    migrate(ask, "input")(to_cents)
    assert ("success", 1) == (new.run("r").unblock().status, len(calls))


def test_step_that_runs_at_most_once_and_cannot_be_called_has_not_run() -> None:
    """It was written down that it begins; once it is mended it is called."""
    app = asleep()
    calls: list[Any] = []
    pay = create_step(id="pay", execute=calls.append, input=New, semantics="at_most_once")
    price = a_price(New, None)
    new = deployed(app, napping(price, pay))
    new.advance(HOUR)
    assert "paused" == new.run("r").result().status

    migrate(price, "output")(to_cents)
    result = new.run("r").unblock()
    assert ("success", 1, 1) == (result.status, result.steps["pay"].attempts, len(calls))


def test_answer_to_one_of_several_options_is_migrated() -> None:
    """The type that was asked for is one arm of what the step may be answered."""

    class Paid(BaseModel):
        cents: int

    def offer(seen: list[Any], *arms: Any) -> Any:
        def execute(_: Any, ctx: StepContext[Any, Any]) -> None:
            if ctx.resume_data is None:
                ctx.suspend_any([Option("boss", 3, resume=arms[0]), Option("bank", resume=arms[1])])
            seen.append((ctx.suspend_data, ctx.resume_data))

        step = create_step(id="offer", execute=execute, resume=arms[0] | arms[1], suspend=int)
        return step, workflow("flow", input=int).then(step).commit()

    class Boss(BaseModel):
        euros: float

    app, seen = LocalApp(App(offer([], Boss, Paid)[1])), list[Any]()
    app.workflow("flow").create_run("r").start(1)
    app.run("r").pause()
    app.run("r").resume({"euros": 2}, label="boss")
    boss_before = Boss

    class Boss(BaseModel):  # type: ignore[no-redef]  # the deploy
        cents: int
        currency: str

    step, flow = offer(seen, Boss, Paid)
    new = deployed(app, flow)
    assert "Invalid answer of 'offer'" in check(new).obstacles[0].detail

    @migrate(step, "resume")
    def to_boss(old: boss_before) -> Any:  # type: ignore[valid-type]  # the one of then
        return {"cents": round(old.euros * 100), "currency": "EUR"}  # type: ignore[attr-defined]  # as above

    assert 0 == check(new).exit_code
    assert "success" == new.run("r").unpause().status
    assert [(3, Boss.model_validate({"cents": 200, "currency": "EUR"}))] == seen


# -- other places where values are kept -------------------------------------------------------------------------------


def test_outputs_inside_containers_are_migrated() -> None:
    """Of items, of turns, of a nested workflow; finished and open ones."""
    give = a_price(Old, Old(euros=1))
    child = workflow("child", input=Any, output=Old).then(give).commit()

    def flow(give: Any, child: Any, show: Any) -> Any:
        return (
            workflow("flow", input=list[int])
            .foreach(give, id="items")
            .parallel(child, give.clone(id="once"), id="both")
            .dountil(give.clone(id="turns"), lambda _: True)
            .sleep(HOUR, id="nap")
            .then(show)
            .commit()
        )

    def shown(_: Any, ctx: StepContext) -> Json:
        results = [ctx.get_step_result(name) for name in ("items", "child", "child.price", "once", "turns")]
        return [repr(result) for result in results]

    app = LocalApp(App(flow(give, child, create_step(id="show", execute=shown))))
    app.workflow("flow").create_run("r").start([1, 2])
    give = a_price(New, None)
    migrate(give, "output")(to_cents)
    child = workflow("child", input=Any, output=New).then(give).commit()
    migrate(child, "output")(to_cents)
    new = deployed(app, flow(give, child, create_step(id="show", execute=shown)))
    new.advance(HOUR)

    one = repr(New(cents=100))
    assert [f"[{one}, {one}]", one, one, one, one] == new.run("r").result().output


def test_open_nested_workflow_finds_its_input_in_the_new_form() -> None:
    """It was stored when the workflow was entered."""

    def flow(child: Any) -> Any:
        return workflow("flow", input=Old).then(child).commit()

    def child(type_: Any) -> Any:
        return workflow("child", input=type_).sleep(HOUR, id="nap").then(pay_of(type_)).commit()

    app = LocalApp(App(flow(child(Old))))
    app.workflow("flow").create_run("r").start(Old(euros=2))
    newer = child(New)
    migrate(newer, "input")(to_cents)
    new = deployed(app, flow(newer))
    new.advance(HOUR)

    assert {"cents": 200, "currency": "EUR"} == new.run("r").result().output


def test_input_of_the_run_is_migrated_for_its_steps() -> None:
    """Also where a step asks for it later; the result shows it as it was given."""

    def flow(type_: Any, init: list[Any]) -> Any:
        show = create_step(id="show", execute=lambda _, ctx: init.append(ctx.init_data))
        return workflow("flow", input=type_).sleep(HOUR, id="nap").then(show).commit()

    app, init = LocalApp(App(flow(Old, []))), list[Any]()
    app.workflow("flow").create_run("r").start(Old(euros=2))
    newer = flow(New, init)
    migrate(newer, "input")(to_cents)
    new = deployed(app, newer)
    new.advance(HOUR)

    assert ([New(cents=200)], {"euros": 2}) == (init, new.run("r").result().input)


class OldState(BaseModel):
    """Shared, before the deploy."""

    euros: float = 0


class NewState(BaseModel):
    """Shared, after it."""

    cents: int


def stateful(state: Any, last: Any) -> Any:
    """A workflow whose first step changes the state, and whose last one looks at it."""
    first = create_step(id="first", execute=lambda value, ctx: ctx.set_state({"euros": value}))
    return workflow("flow", input=int, state=state).then(first).sleep(HOUR, id="nap").then(last).commit()


def test_state_is_migrated_for_the_steps_that_see_it() -> None:
    """By key: what a step sets afterwards stands beside what was there."""

    def last(_: Any, ctx: StepContext[Any, Any, Any]) -> Any:
        before = ctx.state.cents
        ctx.set_state({"cents": before + 1})
        return before

    app = LocalApp(App(stateful(OldState, create_step(id="last", execute=last))))
    app.workflow("flow").create_run("r").start(3)
    newer = stateful(NewState, create_step(id="last", execute=last))
    migrate(newer, "state")(to_cents)
    new = deployed(app, newer)
    new.advance(HOUR)

    result = new.run("r").result()
    assert (300, {"euros": 3, "cents": 301}) == (result.output, result.state)


def test_state_that_no_migration_mends_blocks_the_run() -> None:
    """With the reason; another deploy takes it up."""
    app = LocalApp(App(stateful(OldState, create_step(id="last", execute=lambda _: 1))))
    app.workflow("flow").create_run("r").start(3)

    def wrong(old: dict[str, Any]) -> Any:
        raise KeyError("dollars")

    newer = stateful(NewState, create_step(id="last", execute=lambda _: 1))
    migrate(newer, "state")(wrong)
    new = deployed(app, newer)
    new.advance(HOUR)
    assert "migration 'wrong' failed with KeyError" in (new.run("r").result().blocked or "")

    migrate(newer, "state")(to_cents)
    assert 1 == new.run("r").unblock().output


def test_output_of_a_finished_run_is_read_in_the_new_form_or_plainly() -> None:
    """A run of long ago stays readable."""
    app = LocalApp(App(workflow("flow", input=int, output=Old).then(a_price(Old, Old(euros=1))).commit()))
    app.workflow("flow").create_run("r").start(1)
    newer = workflow("flow", input=int, output=New).then(a_price(New, None)).commit()
    assert {"euros": 1} == deployed(app, newer).run("r").result().output

    migrate(newer, "output")(to_cents)
    assert New(cents=100) == deployed(app, newer).run("r").result().output


# -- chains and mistakes ----------------------------------------------------------------------------------------------


class Oldest(BaseModel):
    """The first form there was."""

    model_config = {"extra": "forbid"}
    text: str


def chained(calls: list[str]) -> Any:
    """A step with two migrations, and what they were asked."""
    price = a_price(New, None)

    @migrate(price, "output")
    def from_v1(old: Oldest) -> dict[str, Any]:
        calls.append("v1")
        return {"euros": float(old.text)}

    @migrate(price, "output")
    def from_v2(old: dict[str, Any]) -> New:
        calls.append("v2")
        return New(cents=round(old["euros"] * 100))

    return price


@pytest.mark.parametrize(
    ("value", "asked"),
    [({"cents": 5}, []), ({"euros": 0.05}, ["v2"]), ({"text": "0.05"}, ["v2", "v1", "v2"])],
)
def test_chain_is_entered_at_the_age_of_the_value(value: Any, asked: list[str]) -> None:
    """A value that fits asks nobody; an older one goes through all that follow."""
    calls: list[str] = []
    found = renewed(chained(calls).output, value)
    assert (5, asked) == (found["cents"], calls)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"dollars": 1}, "migration 'from_v1' does not take it: dollars: Extra inputs"),
        ({"text": "much"}, "migration 'from_v1' failed with ValueError"),
        ([], "migration 'from_v1' does not take it"),
    ],
)
def test_value_of_an_unknown_age_is_told_with_what_the_oldest_migration_says(value: Any, words: str) -> None:
    """It is asked last."""
    with pytest.raises(NoWay, match=words):
        renewed(chained([]).output, value)


@pytest.mark.parametrize(
    ("gives", "words"),
    [({"cent": 1}, "does not fit either: cents: Field required"), ({"cents": float("nan")}, "no JSON")],
)
def test_migration_that_leads_nowhere_is_named(gives: Any, words: str) -> None:
    """What it gave must fit."""
    price = a_price(New, None)
    migrate(price, "output")(lambda _: gives)
    with pytest.raises(NoWay, match=words):
        renewed(price.output, {"euros": 1})


MISTAKES: dict[str, tuple[Any, Any, Any, str]] = {
    "no step": ("price", "output", to_cents, "only values of a step or a workflow"),
    "a workflow in the making": (workflow("w", input=Old), "input", to_cents, "commit the workflow first"),
    "no door": (a_price(Old, 1), "exit", to_cents, "'exit' is no door of it; use one of input, output"),
    "a workflow's answer": (
        workflow("w", input=Old).then(a_price(Old, 1)).commit(),
        "resume",
        to_cents,
        "use one of input, output, state",
    ),
    "an untyped door": (create_step(id="s", execute=len), "suspend", to_cents, "its suspend takes everything"),
    "an undeclared state": (a_price(Old, 1), "state", to_cents, "migrate the workflow's"),
    "no function": (a_price(Old, 1), "output", 3, "3 is no function"),
    "two arguments": (a_price(Old, 1), "output", lambda old, ctx: old, "takes one argument"),
    "only keywords": (a_price(Old, 1), "output", lambda *, old: old, "takes one argument"),
}


@pytest.mark.parametrize(("target", "door", "function", "words"), MISTAKES.values(), ids=MISTAKES)
def test_migration_that_cannot_be_is_refused(target: Any, door: Any, function: Any, words: str) -> None:
    """When it is declared, not when a run waits for it."""
    with pytest.raises(DefinitionError, match=words):
        migrate(target, door)(function)


def test_coroutine_as_a_migration_is_refused() -> None:
    """It only looks at its argument."""

    async def later(old: Any) -> Any:
        return old

    with pytest.raises(DefinitionError, match="plain def"):
        migrate(a_price(Old, 1), "output")(later)


def test_clones_share_the_migrations_of_their_step() -> None:
    """Also those that were made before."""
    price = a_price(New, None)
    clone = price.clone(id="other")
    migrate(price, "output")(to_cents)
    assert {"cents": 100, "currency": "EUR"} == renewed(clone.output, {"euros": 1})


def test_worker_stands_still_when_another_was_faster_with_what_it_cannot_read() -> None:
    """Also while somebody answers, who has moved the run on."""

    def overtaken(value: int) -> int:
        now, run = app.clock.now(), RunRef("default", "r")
        foreign: dict[str, Any] = {"x": 1}
        record = StepRecord(
            key=StepKey("work/price"), outcome=Outcome.OK, output=foreign, seq=9, epoch=1, at=now, started_at=now
        )
        app.store.commit(run, 1, record, None)
        app.resume("r", 1, step="asks")
        return value

    def asks(_: int, ctx: StepContext[int, None]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        return ctx.resume_data

    price = a_price(New, New(cents=1))
    migrate(price, "output")(to_cents)
    ready = create_step(id="ready", execute=lambda value: value, input=int, output=int)  # by then the other one asks
    busy = create_step(id="busy", execute=overtaken, input=int, output=int)
    work = workflow("work", input=int, output=New).then(ready).then(busy).then(price).commit()
    ask = create_step(id="asks", execute=asks, input=int, output=int, resume=int)
    app = LocalApp(App(workflow("flow", input=int, output=dict[str, Any]).parallel(ask, work).commit()))
    result = app.workflow("flow").create_run("r").start(1)
    assert ("paused", True) == (result.status, "'work.price'" in (result.blocked or ""))


def from_pounds(old: dict[str, Any]) -> dict[str, Any]:
    """A migration from another age: it does not take euros."""
    return {"cents": old["pounds"] * 100}


def entering(price: Any, type_: Any, then: Any) -> Any:
    """A workflow that sleeps between an output and a nested workflow that takes it."""
    child = workflow("child", input=type_).then(then).commit()
    return workflow("flow", input=int).then(price).sleep(HOUR, id="nap").then(child).commit()


def has_failed_inside() -> LocalApp:
    """A run that has failed inside a nested workflow, which was entered with an old output."""

    def broken(value: Old) -> None:
        raise ValueError(f"{value} is broken")

    app = LocalApp(App(entering(a_price(Old, Old(euros=1.5)), Old, create_step(id="pay", execute=broken))))
    app.workflow("flow").create_run("r").start(1)
    app.advance(HOUR)
    assert "failed" == app.run("r").result().status
    return app


@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
def test_a_new_life_has_what_was_stored_in_its_new_form(verb: str) -> None:
    """Also the input of a nested workflow whose middle it begins in."""
    price = a_price(New, None)
    migrate(price, "output")(to_cents)
    new = deployed(has_failed_inside(), entering(price, New, pay_of(New)))

    went = getattr(new.run("r"), verb)(*(() if verb == "redrive" else ("child.pay",)))

    assert ("success", {"cents": 150, "currency": "EUR"}) == (went.status, went.output)


@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
def test_a_new_life_with_what_no_migration_takes_is_refused(verb: str) -> None:
    """The run is untouched. A life that leaves it behind can begin."""
    price = a_price(New, New(cents=7))
    migrate(price, "output")(from_pounds)
    new = deployed(has_failed_inside(), entering(price, New, pay_of(New)))
    run = new.run("r")
    before = new.engine.read(run._existing())

    with pytest.raises(DefinitionChanged, match="what 'price' has stored does not fit any more"):
        getattr(run, verb)(*(() if verb == "redrive" else ("child.pay",)))

    assert before == new.engine.read(run._existing())
    if verb != "redrive":
        began = getattr(run, verb)("price").run_id
        new.advance(HOUR)
        assert {"cents": 7, "currency": "EUR"} == new.run(began).result().output
