"""Steps that a deploy renames or removes while runs wait in them: said so, the runs go on; unsaid, they stand still."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, create_step, otherwise, workflow
from flowcore.core.compat import conflict
from flowcore.core.evolve import fold
from flowcore.core.rename import as_met
from flowcore.errors import BlobLost, DefinitionChanged, NotSuspended, UnknownStep
from flowcore.inbox import asked
from flowcore.parcels import Parcel, lazily
from flowcore.testing import LocalApp
from tests.builders import a_graph, a_head, a_record, a_run, a_workflow

HOUR = timedelta(hours=1)
KEYS: list[str] = []


@pytest.fixture(autouse=True)
def _no_keys_yet() -> None:
    KEYS.clear()


def ask_(value: Any, ctx: StepContext[Any, Any]) -> Any:
    """Notes its idempotency key, and waits for a number to add."""
    KEYS.append(ctx.idempotency_key)
    ctx.once("mail", lambda: KEYS.append("mail"))
    if ctx.resume_data is None:
        ctx.suspend({"value": value}, label="boss")
    return value + ctx.resume_data


def ask(id: str) -> Any:
    """The asking step under a name."""
    return create_step(id=id, execute=ask_)


def plus(id: str, number: int = 1) -> Any:
    """A step that adds."""
    return create_step(id=id, execute=lambda value: value + number)


def serve(build: Any, like: LocalApp | None = None, id: str = "flow") -> LocalApp:
    """An App of one workflow; ``like``: the next version of another one's code, on the same store."""
    app = App(a_workflow(build, id))
    return LocalApp(app) if like is None else LocalApp(app, store=like.store, clock=like.clock)


def waiting(build: Any, value: Any = 1) -> tuple[LocalApp, str]:
    """A run that waits, and the id of its wait."""
    app = serve(build)
    result = app.workflow("flow").create_run("r").start(value)
    assert "suspended" == result.status
    return app, result.waits[0].id


OLD, NEW = ask("ask"), ask("approve")


@pytest.mark.parametrize("name", ["ask", "approve", "link", "label", "object"])
def test_suspended_step_that_was_renamed_is_answered(name: str) -> None:
    """Under its old name, its new one, by a link that was sent before the deploy, or the label."""
    old, link = waiting(lambda w: w.then(plus("first")).then(OLD))
    new = serve(lambda w: w.then(plus("first")).then(NEW).then(plus("last")).renamed("ask", to="approve"), old)
    which: dict[str, Any] = {"link": {"wait": link}, "label": {"label": "boss"}, "object": {"step": NEW}}

    result = new.run("r").resume(10, **which.get(name, {"step": name}))

    assert ("success", 13) == (result.status, result.output)
    assert ["r/ask", "mail", "r/ask"] == KEYS
    assert ["ask", "first", "last"] == sorted(result.steps)


@pytest.mark.parametrize("name", ["ask", "approve"])
@pytest.mark.parametrize("travels", [False, True])
def test_copy_of_an_answer_to_a_step_that_was_renamed_is_one(name: str, travels: bool) -> None:
    """Whichever name it has; also in a life that began before the deploy."""
    old, _ = waiting(lambda w: w.then(OLD).then(ask("hold")))
    old.run("r").resume(2, step="ask", idempotency_key="k")
    if travels:
        old.run("r").time_travel("ask")
    new = serve(lambda w: w.then(NEW).then(ask("hold")).renamed("ask", to="approve"), old)

    copy: Any = new.run("r").resume(2, step=name, idempotency_key="k").receipt
    assert "duplicate" == copy.verdict


def test_a_new_run_knows_the_new_name_only() -> None:
    """But an answer may still come under the old one."""
    new = serve(lambda w: w.then(NEW).renamed("ask", to="approve"))
    run = new.workflow("flow").create_run("r")
    assert [["approve"]] == run.start(1).suspended
    assert (3, ["approve"]) == ((result := run.resume(2, step="ask")).output, list(result.steps))


def test_renamed_twice_is_found_under_either_name() -> None:
    """Runs of both ages go on."""
    first, _ = waiting(lambda w: w.then(ask("a")))
    third = serve(lambda w: w.then(ask("c")).renamed("a", to="b").renamed("b", to="c"), first)
    assert 3 == third.run("r").resume(2, step="c").output
    second, _ = waiting(lambda w: w.then(ask("b")))
    assert (
        3
        == serve(lambda w: w.then(ask("c")).renamed("a", to="b").renamed("b", to="c"), second).run("r").resume(2).output
    )


def test_renamed_step_is_found_by_the_steps_behind_it() -> None:
    """By the name that their code knows."""

    def look(_: Any, ctx: StepContext) -> Any:
        return [ctx.get_step_result("approve"), ctx.get_step_result("ask")]

    old, _ = waiting(lambda w: w.then(OLD).sleep(HOUR, id="nap"))
    old.run("r").resume(10)
    new = serve(
        lambda w: (
            w.then(NEW).sleep(HOUR, id="nap").then(create_step(id="look", execute=look)).renamed("ask", to="approve")
        ),
        old,
    )
    new.advance(HOUR)
    assert [11, 11] == new.run("r").result().output


def test_arms_that_were_renamed_give_their_outputs_under_the_new_names() -> None:
    """The code behind them expects those."""
    old, _ = waiting(lambda w: w.parallel(OLD, plus("one")))
    new = serve(
        lambda w: (
            w.parallel(NEW, plus("uno"))
            .map(lambda both: both, id="both")
            .renamed("ask", to="approve")
            .renamed("one", to="uno")
        ),
        old,
    )
    assert {"approve": 11, "uno": 2} == new.run("r").resume(10).output


def test_arm_of_a_branch_that_was_renamed_is_the_one_that_was_chosen() -> None:
    """Also if it has not left a record when the deploy comes."""

    def build(first: Any, other: Any) -> Any:
        return lambda w: w.branch((lambda value: value > 0, first), (otherwise, other), id="which")

    old = serve(build(OLD, plus("one")))
    old.crash_after("which")
    old.workflow("flow").create_run("r").start(1)
    new = serve(lambda w: build(NEW, plus("uno"))(w).renamed("ask", to="approve").renamed("one", to="uno"), old)
    new.advance(HOUR)
    assert {"approve": 11} == new.run("r").resume(10, step="approve").output


@pytest.mark.parametrize("kind", ["then", "foreach", "dountil"])
def test_containers_and_what_is_in_them_can_be_renamed(kind: str) -> None:
    """Their names are part of every place inside."""

    def build(child: Any) -> Any:
        if kind == "foreach":
            return lambda w: w.foreach(child, concurrency=2)
        return (lambda w: w.dountil(child, lambda _: True)) if kind == "dountil" else (lambda w: w.then(child))

    def child(id: str, step: Any, **renamed: str) -> Any:
        builder: Any = workflow(id).then(plus("first")).then(step)
        for old, new in renamed.items():
            builder = builder.renamed(old, to=new)
        return builder.commit()

    old, link = waiting(build(child("kid", OLD)), [1] if kind == "foreach" else 1)
    new = serve(lambda w: build(child("child", NEW, ask="approve"))(w).renamed("kid", to="child"), old)
    place = "child[0].approve" if kind == "foreach" else "child.approve"
    assert link == new.run("r").result().waits[0].id

    result = new.run("r").resume(10, step=place)
    assert ("success", [12] if kind == "foreach" else 12) == (result.status, result.output)
    assert {"r/" + link.rsplit("@", 1)[0]} == set(KEYS) - {"mail"}


def test_what_once_stored_is_known_under_the_new_name() -> None:
    """Also if its worker died before the step had an outcome."""
    old = serve(lambda w: w.then(OLD))
    old.crash_before("ask")
    old.workflow("flow").create_run("r").start(1)
    new = serve(lambda w: w.then(NEW).renamed("ask", to="approve"), old)
    new.advance(HOUR)

    assert 3 == new.run("r").resume(2).output
    assert 1 == KEYS.count("mail")
    assert {"r/ask"} == set(KEYS) - {"mail"}


def test_renamed_step_can_be_travelled_to_and_redriven() -> None:
    """Under either name; in a new life it has the new one, a redrive is no other life for what it does outside."""
    old, _ = waiting(lambda w: w.then(plus("first")).then(OLD).then(plus("last")))
    old.run("r").resume(10)
    new = serve(lambda w: w.then(plus("first")).then(NEW).then(plus("last")).renamed("ask", to="approve"), old)
    for name in ("ask", NEW):
        assert [["approve"]] == new.run("r").time_travel(name).suspended
    assert 101 == new.run("r").time_travel("last", context={"approve": 100}).output
    with pytest.raises(UnknownStep):
        new.run("r").time_travel("asked")


def test_renamed_step_is_redriven_under_the_key_it_had() -> None:
    """What it has done outside is known under that."""
    broken = ["yes"]

    def pay(value: Any, ctx: StepContext) -> Any:
        KEYS.append(ctx.idempotency_key)
        return 1 / (len(broken) - 1) if broken else value

    old = serve(lambda w: w.then(create_step(id="ask", execute=pay)))
    assert "failed" == old.workflow("flow").create_run("r").start(1).status
    broken.clear()
    new = serve(lambda w: w.then(create_step(id="pay", execute=pay)).renamed("ask", to="pay"), old)

    assert (1, ["r/ask", "r/ask"]) == (new.redrive("r").output, KEYS)


def test_renamed_without_a_word_blocks_the_run_until_it_is_said() -> None:
    """Nothing is lost meanwhile."""
    old, link = waiting(lambda w: w.then(OLD))
    with pytest.raises(DefinitionChanged, match="step 'ask' has been reached by this run"):
        serve(lambda w: w.then(NEW), old).run("r").resume(1)

    assert 3 == serve(lambda w: w.then(NEW).renamed("ask", to="approve"), old).run("r").resume(2, wait=link).output


def test_sleeper_whose_step_was_renamed_is_blocked_and_unblocked_once_it_is_said() -> None:
    """A deploy that says so is enough, and somebody who asks for it."""
    old, _ = waiting(lambda w: w.then(OLD).sleep(HOUR, id="nap"))
    old.run("r").resume(2)
    silent = serve(lambda w: w.then(NEW).sleep(HOUR, id="nap"), old)
    silent.advance(HOUR)
    assert "no longer has it" in (silent.run("r").result().blocked or "")
    said = serve(lambda w: w.then(NEW).sleep(HOUR, id="nap").renamed("ask", to="approve"), silent)

    assert ("success", 3) == ((result := said.run("r").unblock()).status, result.output)


def test_steps_that_change_places_while_suspended_are_as_they_were() -> None:
    """Records are found by name, never by position."""
    old, _ = waiting(lambda w: w.then(plus("a")).then(OLD).then(plus("b")))
    new = serve(lambda w: w.then(OLD).then(plus("b")).then(plus("a")), old)
    assert "success" == new.run("r").resume(5).status


def test_unknown_workflow_blocks_the_run_until_it_is_served_again() -> None:
    """The reason names it."""
    old = serve(lambda w: w.sleep(HOUR, id="nap").then(plus("a")))
    old.workflow("flow").create_run("r").start(1)
    other = serve(lambda w: w.then(plus("a")), old, "other")
    other.advance(HOUR)
    assert "no workflow 'flow' is served here" in (other.run("r").result().blocked or "")
    assert "paused" == other.run("r").unblock().status
    again = serve(lambda w: w.sleep(HOUR, id="nap").then(plus("a")), old)

    assert 2 == again.run("r").unblock().output


@pytest.mark.parametrize("kind", ["foreach", "dountil"])
def test_repeated_step_can_be_renamed(kind: str) -> None:
    """An item or a turn that waits is found."""

    def build(step: Any) -> Any:
        if kind == "foreach":
            return lambda w: w.foreach(step)
        return lambda w: w.dountil(step, lambda _: True)

    old, link = waiting(build(OLD), [1] if kind == "foreach" else 1)
    new = serve(lambda w: build(NEW)(w).renamed("ask", to="approve"), old)

    assert ([3] if kind == "foreach" else 3) == new.run("r").resume(2, wait=link).output


REPEATED: dict[str, tuple[Any, Any, str]] = {
    "loop": (lambda body: lambda w: w.dountil(body, lambda x: x > 3), 1, "kid"),
    "foreach": (lambda body: lambda w: w.foreach(body, concurrency=1), [1, 2], "kid[1]"),
    "distributed": (lambda body: lambda w: w.foreach(body, concurrency=1, distributed=True), [1, 2], "kid[1]"),
}


@pytest.mark.parametrize(
    "answer", [{"idempotency_key": "k-1"}, {"step": "kid.ask"}, {"step": "kid.approve"}, {}], ids=str
)
@pytest.mark.parametrize(("build", "value", "place"), REPEATED.values(), ids=REPEATED)
def test_next_turn_or_item_knows_the_new_name_and_the_last_one_the_old(
    build: Any, value: Any, place: str, answer: dict[str, Any]
) -> None:
    """Whoever reads the whole run meets both, and finds the run as fit as who reads what is open."""
    first = workflow("kid", input=int).sleep(HOUR, id="nap").then(OLD).commit()
    old = serve(build(first))
    old.workflow("flow").create_run("r").start(value)
    old.advance(hours=1)
    old.run("r").resume(1)
    second = workflow("kid", input=int).sleep(HOUR, id="nap").then(NEW).renamed("ask", to="approve").commit()
    new = serve(build(second), old)
    new.advance(hours=1)
    (wait,) = new.run("r").result().waits
    assert f"{place}.approve" == ".".join(wait.path)
    assert wait.id == asked(new, "r", wait.id).wait.id
    result = new.run("r").resume(2, **answer)
    assert ("success", 4 if place == "kid" else [2, 4]) == (result.status, result.output)
    assert ({"kid.approve"} if place == "kid" else {"kid[0].ask", "kid[1].approve"}) <= set(result.steps)


@pytest.mark.parametrize("kept", ["before the deploy", "after the deploy"])
@pytest.mark.parametrize("where", ["nested", "at the top"])
def test_answer_that_comes_before_a_renamed_step_asks_is_taken(where: str, kept: str) -> None:
    """Under its old name, from before the deploy or after it."""

    def build(step: Any, **renamed: str) -> Any:
        flow = (workflow("kid", input=int) if where == "nested" else workflow("flow", input=int)).sleep(HOUR, id="nap")
        flow = flow.then(step)
        for old_name, new_name in renamed.items():
            flow = flow.renamed(old_name, to=new_name)
        return flow.commit() if where == "at the top" else workflow("flow", input=int).then(flow.commit()).commit()

    def answer(app: LocalApp) -> str:
        name = "kid.ask" if where == "nested" else "ask"
        return app.run("r").resume(2, step=name, keep=9 * HOUR).receipt.verdict  # type: ignore[union-attr]

    old = LocalApp(App(build(OLD)))
    old.workflow("flow").create_run("r").start(1)
    if kept == "before the deploy":
        assert "buffered" == answer(old)
    new = LocalApp(App(build(NEW, ask="approve")), store=old.store, clock=old.clock)
    if kept == "after the deploy":
        assert "buffered" == answer(new)
    new.advance(hours=1)
    assert ("success", 3) == (new.run("r").result().status, new.run("r").result().output)


def test_answer_that_came_early_and_is_lost_names_no_step() -> None:
    """Whoever goes to take it learns that it is lost; whoever only looks at the run need not."""

    def fetch(_: str, parcel: Parcel) -> Any:
        raise BlobLost("output", run_id="r", step="kid", key=parcel.key, why="It is not there.")

    lost = lazily(a_record("kid!early@1"), {"output": Parcel("s", "k", "0", 1)}, fetch)
    graph = a_graph(lambda w: w.then(a_workflow(lambda k: k.then(NEW).renamed("ask", to="approve"), "kid")))
    assert graph is as_met(graph, fold(a_head(), [lost]))[0]


def test_items_at_work_keep_the_old_name_together() -> None:
    """As long as one of them has it."""
    kid = workflow("kid", input=int).then(OLD).commit()
    old, _ = waiting(lambda w: w.foreach(kid, concurrency=2), [1, 2, 3])
    old.run("r").resume(1, index=0)
    late = workflow("kid", input=int).then(NEW).renamed("ask", to="approve").commit()
    new = serve(lambda w: w.foreach(late, concurrency=2), old)
    assert [["kid", "ask"]] == new.run("r").result().suspended
    assert [["kid", "ask"]] == new.run("r").resume(2, step="kid.approve", index=1).suspended
    assert [2, 4, 6] == new.run("r").resume(3).output


def test_what_stands_inside_what_is_a_step_now_is_still_a_conflict() -> None:
    """However many names were changed beside it."""
    graph = a_graph(lambda w: w.then(plus("a")).then(NEW).renamed("ask", to="approve").removed("gone"))
    found, run = as_met(graph, a_run(a_record("a/b/c"), a_record("ask"), a_record("gone/x")))
    assert ["a", "ask"] == [node.id for node in found.nodes]
    assert ["a/b/c", "ask"] == sorted(run.records)
    assert "step 'a.b.c'" in (conflict(found, run) or "")


def test_run_that_has_met_nothing_that_was_renamed_is_left_as_it_is() -> None:
    """So is its workflow."""
    graph, run = a_graph(lambda w: w.then(NEW).renamed("ask", to="approve")), a_run(a_record("approve"))
    assert (graph, run) == as_met(graph, run)


# -- removed ----------------------------------------------------------------------------------------------------------


def test_suspended_step_that_was_removed_is_passed_over() -> None:
    """Its suspension is gone from the inbox and takes no answer; the run goes on without it, once somebody looks."""
    old, link = waiting(lambda w: w.then(plus("first")).then(OLD).then(plus("last")))
    new = serve(lambda w: w.then(plus("first")).then(plus("last")).removed("ask"), old)
    assert [] == new.run("r").result().waits
    assert [] == list(new.waits())
    with pytest.raises(NotSuspended):
        new.run("r").resume(1, wait=link)
    new.run("r").pause()

    result = new.run("r").unpause()
    assert ("success", 3, ["first", "last"]) == (result.status, result.output, sorted(result.steps))


def test_finished_step_that_was_removed_is_passed_over() -> None:
    """What it gave goes no further: the step behind it takes what stood in front of it."""
    old, _ = waiting(lambda w: w.then(plus("first", 100)).then(OLD))
    new = serve(lambda w: w.then(OLD).removed("first"), old)
    assert 3 == new.run("r").resume(2).output


def test_step_removed_from_a_nested_workflow_is_passed_over() -> None:
    """Containers and all they hold as well."""
    kid = workflow("kid").then(plus("first")).then(OLD).commit()
    old, _ = waiting(lambda w: w.parallel(kid, ask("other")))
    slim = workflow("kid").then(plus("first")).removed("ask").commit()
    new = serve(lambda w: w.parallel(slim, ask("other")), old)
    assert {"kid": 2, "other": 6} == new.run("r").resume(5).output

    old, _ = waiting(lambda w: w.parallel(kid, ask("other")))
    new = serve(lambda w: w.parallel(plus("one"), ask("other"), id="both").removed("kid"), old)
    assert {"one": 2, "other": 6} == new.run("r").resume(5).output


# -- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Any, str]] = {
    "to nothing": (lambda w: w.renamed("ask", to="aprove"), "is said to be renamed to 'aprove', which is no entry"),
    "an entry": (lambda w: w.renamed("one", to="two"), "is an entry; a run could not tell them apart"),
    "removed and there": (lambda w: w.removed("one"), "is an entry"),
    "said twice": (lambda w: w.renamed("ask", to="one").renamed("ask", to="two"), "is said 2 times"),
    "renamed and removed": (lambda w: w.renamed("ask", to="one").removed("ask"), "is said 2 times"),
    "no id": (lambda w: w.removed("kid.ask"), "'kid.ask' was never an id"),
    "in a circle": (lambda w: w.renamed("a", to="b").renamed("b", to="a"), "which is no entry"),
}


@pytest.mark.parametrize(("build", "words"), MISTAKES.values(), ids=MISTAKES)
def test_history_that_cannot_be_is_a_mistake(build: Any, words: str) -> None:
    """Told with all others at ``commit()``."""
    with pytest.raises(DefinitionError, match=words):
        build(workflow("flow").then(plus("one")).then(plus("two"))).commit()
