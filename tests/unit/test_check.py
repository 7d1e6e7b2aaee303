"""Which runs a deploy would stop, said before it, and which go on after the next: check, doctor, unblock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, StepContext, create_step, migrate, workflow
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.memory import MemoryQueue
from flowcore.errors import MalformedRequest, NotBlocked
from flowcore.fanout.share import touch
from flowcore.keys import RunRef
from flowcore.ops import CheckReport, Obstacle, UnblockReport, check, doctor, doctor_page, unblock
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import BlobFault, FaultyBlobs
from tests.builders import a_step, a_workflow

HOUR = timedelta(hours=1)


class Old(BaseModel):
    """A value, before the deploy."""

    euros: float = 1


class New(BaseModel):
    """The same, after it."""

    cents: int


def to_cents(old: dict[str, Any]) -> dict[str, Any]:
    """What a migration does."""
    return {"cents": round(old["euros"] * 100)}


def ask_(value: Any, ctx: StepContext[Any, Any]) -> Any:
    """Shows what it was given, and waits."""
    if ctx.resume_data is None:
        ctx.suspend(value)
    return ctx.resume_data


def asking(id: str = "ask", **types: Any) -> Any:
    """A step that waits for a person; its doors take the old form unless told otherwise."""
    return create_step(id=id, execute=ask_, **{"input": Old, "output": Old, "suspend": Old, "resume": Old, **types})


def serve(*flows: Any, like: LocalApp | None = None) -> LocalApp:
    """An App; ``like``: the next version of another one's code."""
    return LocalApp(App(*flows)) if like is None else LocalApp(App(*flows), store=like.store, clock=like.clock)


def flow(build: Callable[[Any], Any], id: str = "flow", **options: Any) -> Any:
    """A workflow that takes the old form."""
    return a_workflow(build, id, **{"input": Old, **options})


def waiting(build: Callable[[Any], Any], number: int = 1, **options: Any) -> LocalApp:
    """Runs that wait."""
    app = serve(flow(build, **options))
    for each in range(number):
        app.workflow("flow").create_run(f"r-{each}").start({})
    return app


def test_code_that_fits_is_told_so() -> None:
    """Ended runs are not counted."""
    app = waiting(lambda w: w.then(asking()), 3)
    app.run("r-0").cancel()

    report = check(serve(flow(lambda w: w.then(asking()).then(a_step("more"))), like=app))

    assert CheckReport(2) == report
    assert (0, 0, "2 open runs, all of them fit") == (report.exit_code, report.stopped, str(report))


REMOVED = "step 'ask' has been reached by this run (susp)"
DEPLOYS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], str, str]] = {
    "a step is gone": (lambda w: w.then(a_step("x")), {}, "definition-changed", REMOVED),
    "a step is another": (lambda w: w.sleep(HOUR, id="ask"), {}, "definition-changed", "of another kind"),
    "another input of the step": (lambda w: w.then(asking(input=New)), {}, "unreadable", "Invalid input of 'ask'"),
    "another payload": (lambda w: w.then(asking(suspend=New)), {}, "unreadable", "Invalid suspend payload of 'ask'"),
    "another input of the run": (
        lambda w: w.then(asking(input=Any)),
        {"input": New},
        "unreadable",
        "Invalid input of 'flow'",
    ),
    "another state": (lambda w: w.then(asking()), {"state": New}, "unreadable", "Invalid state of 'flow'"),
}


@pytest.mark.parametrize(("build", "options", "kind", "words"), DEPLOYS.values(), ids=DEPLOYS)
def test_deploy_that_would_stop_runs_is_found_before_it(
    build: Callable[[Any], Any], options: dict[str, Any], kind: str, words: str
) -> None:
    """With the run, the kind of the reason, and what to do; nothing is changed."""
    app = waiting(lambda w: w.then(asking()))
    before = app.run("r-0").result()
    new = serve(flow(build, **options), like=app)

    report = check(new)

    assert (1, 1, 1) == (report.exit_code, report.looked_at, report.stopped)
    assert [("r-0", "flow", kind)] == [(each.run_id, each.workflow_id, each.kind) for each in report.obstacles]
    assert words in report.obstacles[0].detail
    assert [kind] == [finding.ailment for finding in doctor(new)]
    assert before == app.run("r-0").result()


def test_answer_that_was_given_and_not_used_yet_is_looked_at() -> None:
    """The run was paused meanwhile; so are answers that were only counted."""
    app = waiting(lambda w: w.then(asking()))
    app.run("r-0").pause()
    app.run("r-0").resume({"euros": 2})

    report = check(serve(flow(lambda w: w.then(asking(resume=New))), like=app))
    assert ["Invalid answer of 'ask'"] == [each.detail.split(",")[0] for each in report.obstacles]

    def vote(value: Any, ctx: StepContext[Any, Any]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend(quorum=2)

    voting = waiting(lambda w: w.then(create_step(id="ask", execute=vote, resume=Old)))
    voting.run("r-0").resume({"euros": 2}, by="ada")
    report = check(serve(flow(lambda w: w.then(create_step(id="ask", execute=vote, resume=New))), like=voting))
    assert ["unreadable"] == [each.kind for each in report.obstacles]


def test_output_that_lies_ahead_of_a_sleeper_is_looked_at() -> None:
    """Also inside containers."""
    price = create_step(id="price", execute=lambda _: Old(), output=Old)
    newer = create_step(id="price", execute=lambda _: New(cents=1), output=New)
    app = waiting(lambda w: w.parallel(price, price.clone(id="b")).sleep(HOUR, id="nap"))
    new = serve(flow(lambda w: w.parallel(newer, price.clone(id="b")).sleep(HOUR, id="nap")), like=app)
    assert ["'price'"] == [each.detail.split()[3].strip(",") for each in check(new).obstacles]

    migrate(newer, "output")(to_cents)
    assert 0 == check(new).exit_code


def test_migrations_and_renames_are_taken_into_account() -> None:
    """As they would be by a worker."""
    app = waiting(lambda w: w.then(asking()))
    ask = asking("approve", input=New, suspend=New)
    new = serve(flow(lambda w: w.then(ask).renamed("ask", to="approve")), like=app)
    assert ["unreadable", "unreadable"] == [each.kind for each in check(new).obstacles]
    for door in ("input", "suspend"):
        migrate(ask, door)(to_cents)

    assert (0, []) == (check(new).exit_code, list(doctor(new)))


def test_workflow_that_is_not_served_is_an_obstacle() -> None:
    """Unless only others were asked about."""
    app = waiting(lambda w: w.then(asking()))
    new = serve(flow(lambda w: w.then(asking()), "other"), like=app)

    assert ["not-served"] == [each.kind for each in check(new).obstacles]
    assert CheckReport(0) == check(new, workflow="other")


def test_report_in_words_tells_each_reason_once() -> None:
    """With the first ten runs of it."""
    app = waiting(lambda w: w.then(asking()), 12)
    told = str(check(serve(flow(lambda w: w.then(a_step("x"))), like=app)))

    assert told.startswith("12 open runs, 12 of them would stand still:\n- flow, definition-changed: step 'ask'")
    assert 1 == told.count("step 'ask'")
    assert told.endswith("and 2 more")


def test_value_that_is_lost_is_an_obstacle() -> None:
    """Neither check nor doctor stops at such a run; restored, it is well again."""
    blobs = FaultyBlobs(MemoryBlobs())
    served = App(flow(lambda w: w.then(a_step("make", lambda _: "x" * 200_000)).sleep(HOUR, id="nap")))
    app = LocalApp(served, blobs=blobs)
    for id in ("r-1", "r-2"):
        app.workflow("flow").create_run(id).start({})
    assert CheckReport(2) == check(app)
    blobs.script = lambda call, *_: BlobFault.MISSING if call == "get" else None

    report = check(app)
    assert ({"unreadable"}, {"r-1", "r-2"}) == (
        {each.kind for each in report.obstacles},
        {each.run_id for each in report.obstacles},
    )
    assert "output of step 'make'" in report.obstacles[0].detail
    assert {"unreadable"} == {finding.ailment for finding in doctor(app)}


# -- the children of a distributed foreach ---------------------------------------------------------------------------


def fanned(step: str, *, gives: Any = Any, like: LocalApp | None = None) -> LocalApp:
    """Each item is a workflow that asks, in a step of this id, after another has given something."""
    inner = workflow("inner", input=Any).then(a_step("give", lambda _: {"amount": 1}, output=gives))
    items = workflow("fanned", input=list[int]).foreach(inner.then(asking(step)).commit(), id="fan", distributed=True)
    return with_workers(items.commit(), like=like)


def with_workers(served: Any, *, like: LocalApp | None) -> LocalApp:
    """An App with a queue."""
    clock = VirtualClock()
    world: dict[str, Any] = {"clock": clock, "queue": MemoryQueue(clock)}
    if like is not None:
        world = {"clock": like.clock, "queue": like.queue, "store": like.store}
    return LocalApp(App(served), **world)


def asked_by_children() -> LocalApp:
    """A run both children of which wait for an answer."""
    app = fanned("ask")
    app.workflow("fanned").create_run("r").start([1, 2])
    app.run_until_idle()
    return app


@pytest.mark.parametrize(
    ("deploy", "kind", "words"),
    [
        ({"step": "renamed"}, "definition-changed", "step 'fan[0].ask' has been reached"),
        ({"step": "ask", "gives": New}, "unreadable", "output of 'fan[0].give'"),
    ],
    ids=["a step is gone", "another type"],
)
def test_deploy_that_would_stop_children_is_found_before_it(deploy: dict[str, Any], kind: str, words: str) -> None:
    """What only they have met, and stored, is looked at as well."""
    app = asked_by_children()
    new = fanned(**deploy, like=app)
    assert (0, 1) == (check(app).exit_code, check(new).looked_at)
    assert {("r", kind)} == {(each.run_id, each.kind) for each in check(new).obstacles}
    assert words in check(new).obstacles[0].detail
    assert ([], {kind}) == (list(doctor(app)), {finding.ailment for finding in doctor(new)})


@pytest.mark.parametrize("verb", ["unblock all", "unblock the run"])
@pytest.mark.parametrize("stands", ["child", "run and child"])
def test_unblock_reaches_children(verb: str, stands: str) -> None:
    """They stand still without their run; or it does, too."""
    app = asked_by_children()
    app.resume("r", {"amount": 1}, step="fan", index=0)
    broken = fanned("renamed", like=app)
    broken.run_until_idle()
    if stands == "run and child":
        gone = with_workers(flow(lambda w: w.then(a_step("x"))), like=app)
        touch(gone.engine, RunRef("default", "r"))
        gone.run_until_idle()
    assert "blocked" in {finding.ailment for finding in doctor(app)}
    if verb == "unblock all":
        assert ((), "r") == (unblock(broken).unblocked, unblock(broken).obstacles[0].run_id)
        assert ("r",) == unblock(app).unblocked
    else:
        app.run("r").unblock()
    app.run_until_idle()
    result = app.run("r").result()
    assert ("suspended", [1], []) == (result.status, [wait.index for wait in result.waits], list(doctor(app)))
    with pytest.raises(NotBlocked):
        app.run("r").unblock()


def test_unblock_drives_children_where_there_are_no_workers() -> None:
    """To the end of the run."""
    inner = workflow("inner", input=int).then(a_step("a")).sleep(HOUR, id="nap").commit()
    items = workflow("fanned", input=list[int]).foreach(inner, id="fan", distributed=True).commit()
    app = LocalApp(App(items))
    app.workflow("fanned").create_run("r").start([1])
    other = workflow("inner", input=int).then(a_step("b")).sleep(HOUR, id="nap").commit()
    gone = workflow("fanned", input=list[int]).foreach(other, id="fan", distributed=True).commit()
    broken = LocalApp(App(gone), store=app.store, clock=app.clock)
    broken.advance(HOUR)
    assert "blocked" in {finding.ailment for finding in doctor(app)}
    assert "success" == app.run("r").unblock().status


# -- unblock ----------------------------------------------------------------------------------------------------------


def blocked(*ids: str) -> LocalApp:
    """Runs that stand still, for a deploy has taken the step away that they had met."""
    app = serve(flow(lambda w: w.then(a_step("a", lambda _: 1)).sleep(HOUR, id="nap")))
    for id in ids:
        app.workflow("flow").create_run(id).start({})
    broken = serve(flow(lambda w: w.then(a_step("b")).sleep(HOUR, id="nap")), like=app)
    broken.advance(HOUR)
    return broken


def mended(like: LocalApp) -> LocalApp:
    """Code that has the step again."""
    return serve(flow(lambda w: w.then(a_step("a", lambda _: 1)).sleep(HOUR, id="nap")), like=like)


def test_unblock_takes_up_every_run_that_would_go_on() -> None:
    """One that somebody has paused is left alone."""
    broken = blocked("r-1", "r-2")
    app = mended(broken)
    app.workflow("flow").create_run("r-3").start({})
    app.run("r-3").pause()
    assert ["blocked", "blocked"] == [finding.ailment for finding in doctor(app)]

    report = unblock(app)

    assert (["r-1", "r-2"], (), 0) == (sorted(report.unblocked), report.obstacles, report.exit_code)
    assert ["success", "success", "paused"] == [app.run(f"r-{number}").result().status for number in (1, 2, 3)]
    assert UnblockReport() == unblock(app)


def test_unblock_leaves_runs_that_would_stand_still_again() -> None:
    """It tells why, and writes nothing."""
    broken = blocked("r-1")
    before = broken.run("r-1").result()

    report = unblock(broken)

    assert ((), 1, 1) == (report.unblocked, len(report.obstacles), report.exit_code)
    assert "step 'a'" in report.obstacles[0].detail
    assert before == broken.run("r-1").result()


def test_unblock_says_nothing_of_runs_that_were_paused() -> None:
    """Though the code does not fit them, either."""
    app = waiting(lambda w: w.then(asking()))
    app.run("r-0").pause()
    assert UnblockReport() == unblock(serve(flow(lambda w: w.then(a_step("x"))), like=app))


def test_unblock_asks_workers_where_there_are_some() -> None:
    """The runs are pending until one comes."""
    broken = blocked("r-1")
    clock = broken.clock
    served = App(flow(lambda w: w.then(a_step("a", lambda _: 1)).sleep(HOUR, id="nap")))
    app = LocalApp(served, store=broken.store, clock=clock, queue=MemoryQueue(clock))

    assert ("r-1",) == unblock(app).unblocked
    assert "running" == app.run("r-1").result().status
    app.run_until_idle()
    assert "success" == app.run("r-1").result().status


def test_a_hint_does_not_unblock() -> None:
    """Somebody has to say that it was mended."""
    broken = blocked("r-1")
    app = mended(broken)
    app.deliver("r-1", twice=True)
    app.advance(days=1)
    assert "paused" == app.run("r-1").result().status


# -- doctor, page by page ---------------------------------------------------------------------------------------------


def test_doctor_goes_page_by_page() -> None:
    """A page looks at so many runs and no more, whatever it finds."""
    app = waiting(lambda w: w.then(asking()), 5)
    new = serve(flow(lambda w: w.then(a_step("x"))), like=app)
    found, cursor, pages = set[str](), None, 0
    while pages == 0 or cursor is not None:
        page = doctor_page(new, limit=2, cursor=cursor)
        assert len(page.items) <= 2
        found |= {finding.run_id for finding in page}
        cursor, pages = page.cursor, pages + 1

    assert ({f"r-{number}" for number in range(5)}, 3) == (found, pages)
    assert [] == doctor_page(new, workflow="other").items
    with pytest.raises(MalformedRequest):
        doctor_page(new, cursor="zzz")


def test_obstacles_are_plain_values() -> None:
    """They can be compared, and counted."""
    assert Obstacle("r", "w", "not-served", "d") == Obstacle("r", "w", "not-served", "d")
    assert 2 == CheckReport(3, (Obstacle("a", "w", "unreadable", "d"), Obstacle("b", "w", "unreadable", "d"))).stopped


def test_overdue_counts_what_the_sweeper_does_not_help() -> None:
    """From five minutes on, unless told otherwise, and up to a limit; a worker that comes ends it."""
    clock = VirtualClock()
    app = LocalApp(App(flow(lambda w: w.sleep(HOUR, id="nap"))), clock=clock)
    for number in range(3):
        app.workflow("flow").create_run(f"r-{number}").start({})
    clock.forward(minutes=66)
    assert (0, 3, 2) == (app.overdue(), app.overdue(timedelta(minutes=1)), app.overdue(timedelta(0), limit=2))
    clock.forward(minutes=1)
    assert 3 == app.overdue()
    app.run_until_idle()
    assert 0 == app.overdue(timedelta(0))


def test_clock_of_the_app_judges_what_is_overdue() -> None:
    """Time is the App's."""
    clock = VirtualClock()
    app = LocalApp(App(flow(lambda w: w.sleep(HOUR, id="nap"))), clock=clock)
    app.workflow("flow").create_run("r").start({})
    clock.forward(hours=3)
    assert ["overdue"] == [finding.ailment for finding in doctor_page(app)]


def test_run_stands_still_where_a_deploy_has_changed_what_its_event_brought() -> None:
    """It has taken the event; nobody would send it again."""

    def taking(model: Any) -> Any:
        begun: Any = workflow("flow", input=str).wait_for_event("paid", key="k", model=model).sleep(HOUR)
        return begun.then(create_step(id="book", execute=lambda value: value.model_dump(), input=model)).commit()

    today = serve(taking(Old))
    run: Any = today.workflow("flow").create_run("r")
    run.start("A")
    today.send_event("paid", "k", {"euros": 9.9})
    tomorrow = serve(taking(New), like=today)
    (obstacle,) = check(tomorrow).obstacles
    assert ("unreadable", True) == (obstacle.kind, "output of 'wait-for-paid'" in obstacle.detail)
    tomorrow.advance(hours=2)
    result = tomorrow.run("r").result()
    assert ("paused", True) == (result.status, "cents" in str(result.blocked))
    back = serve(taking(Old | New), like=today)
    assert ("success", {"euros": 9.9}) == ((done := back.run("r").unblock()).status, done.output)
