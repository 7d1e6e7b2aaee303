"""What the soak compares with, what it asks and tells; on a stack in this process, whose workers nobody kills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.app import App as AnyApp
from flowcore.links import Links
from flowcore.model import Head, RunStatus, StepRecord, Wait
from flowcore.results import RunResult
from flowcore.testing import LocalApp, VirtualClock
from infra.local.logs import Line
from infra.local.pool import FunctionPool
from infra.local.soak import Report, Seen, Soak, changes, entered, main, undisturbed
from infra.local.soak_flows import FLOWS
from infra.local.soak_plan import Plan, UnsaidError, found
from tests.builders import a_head, a_record


@pytest.mark.parametrize("flow", [flow.id for flow in FLOWS])
def test_a_flow_ends_well_when_nobody_disturbs_it(flow: str) -> None:
    """And has effects to count."""
    usual = undisturbed(flow)
    assert "success" == usual.status
    assert usual.keys


def test_an_effect_is_counted_once_per_key(tmp_path: Path) -> None:
    """Whichever process entered it, and however often."""
    book = tmp_path / "book"
    assert {} == entered(book)
    book.write_text("s-1/pay 7\ns-1/pay 8\ns-1/nap/ship 8\ns-2/pay 9\n", "utf-8")
    assert {"s-1": {"pay", "nap/ship"}, "s-2": {"pay"}} == entered(book)


PAID, SHIPPED = a_record("pay"), a_record("ship")
ENDED = a_head(status=RunStatus.SUCCESS, owner=None, lease_until=None, due=None)
CANCELED = replace(ENDED, status=RunStatus.CANCELED)


def seen(head: Head = ENDED, *records: StepRecord, keys: str = "pay") -> Seen:
    """A run that is over, with these records."""
    return Seen("nap", head, {record.key: record for record in records}, frozenset(keys.split()))


LATE: dict[str, tuple[Seen, Seen, list[str]]] = {
    "nothing": (seen(ENDED, PAID), seen(ENDED, PAID), []),
    "its head": (seen(), seen(replace(ENDED, version=9)), ["SUCCESS at version 2 became SUCCESS at 9"]),
    "a record": (seen(ENDED, PAID), seen(ENDED, replace(PAID, output=9)), ["the record of 'pay' became another one"]),
    "a record too many": (seen(), seen(ENDED, PAID), ["the record of 'pay' became another one"]),
    "a step it does not have": (
        seen(),
        seen(keys="pay nap/pay"),
        ["effect nap/pay happened, which is none of this run"],
    ),
    "canceled, a step under way": (seen(CANCELED, PAID), seen(CANCELED, PAID, SHIPPED, keys="pay ship"), []),
    "canceled, and done again": (
        seen(CANCELED, PAID),
        seen(CANCELED, replace(PAID, output=9)),
        ["the record of 'pay' became another one"],
    ),
}


@pytest.mark.parametrize(("before", "after", "expected"), LATE.values(), ids=LATE)
def test_what_a_worker_that_thaws_late_does_to_a_run_that_is_over_is_told(
    before: Seen, after: Seen, expected: list[str]
) -> None:
    """Its head, its records and its effects stay as they are."""
    assert expected == list(changes(before, after, frozenset({"pay", "ship"})))


def test_who_froze_and_lost_nothing_counts_as_nobody_struck() -> None:
    """Only others that have gone on in his place make it a blow."""
    assert 5 == Report(7, killed=3, frozen=4, taken_over=2).blows


def test_a_report_tells_what_is_stuck_or_wrong() -> None:
    """Each on a line of its own, and how many in the second."""
    report = Report(7, started=2, wrong=["s-1 (wide) is stuck in RUNNING: overdue"])
    told = str(report).splitlines()
    assert "runs: 2 started; none ended; 1 stuck or wrong" == told[1]
    assert "s-1 (wide) is stuck in RUNNING: overdue" == told[-1]


class StackInProcess:
    """A stack without processes: workers come when time passes, and nobody sweeps. Some runs they never hear of."""

    def __init__(self, app: AnyApp, deaf_to: str | None) -> None:
        clock = VirtualClock()
        linked = app.on(
            store=MemoryStore(), links=Links("https://shop.example", {"1": "of 32 characters, or of more so."})
        )
        self.app = LocalApp(linked, store=MemoryStore(), clock=clock, queue=MemoryQueue(clock))
        self.pools = {"WorkerFunction": FunctionPool(no_sandbox, limit=1)}
        self.idle = True
        self.deaf_to = deaf_to

    def forward(self, step: timedelta) -> None:
        """See ``LocalStack.forward``."""
        self.app.clock.forward(step)
        for helper in (self.app.queue, self.app.scheduler):
            assert isinstance(helper, MemoryQueue | MemoryScheduler)
            for hint in helper.pop_due(self.app.clock.now()):
                if hint.run.id != self.deaf_to:
                    self.app.look(hint.run)

    def logs(self, function: str) -> list[Line]:
        """See ``LocalStack.logs``."""
        return []


class Watch:
    """Time that passes whenever somebody looks at his watch, and whenever he sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """See ``time.monotonic``."""
        self.seconds += 0.05
        return self.seconds

    def sleep(self, seconds: float, /) -> None:
        """See ``time.sleep``."""
        self.seconds += seconds


def no_sandbox() -> Any:
    """Nobody is at work when the soak looks."""
    raise AssertionError("no process is started here")


@contextmanager
def in_process(seed: int, name: str, *, app: AnyApp, plan: Plan, deaf_to: str | None = None) -> Iterator[Soak]:
    """As ``soaking`` gives it."""
    stack = StackInProcess(app, deaf_to)
    yield Soak(stack, stack.app, seed, plan=plan, watch=Watch())


def soaked(capsys: pytest.CaptureFixture[str], app: AnyApp, plan: Plan | None = None, **more: Any) -> tuple[int, str]:
    """Exit code and report of some runs."""
    code = main(["--minutes=0.03", "--seed=1"], partial(in_process, app=app, plan=plan or Plan(), **more))
    return code, capsys.readouterr().out


@step
def double(number: int) -> int:
    """A step that just works."""
    return 2 * number


TWICE = workflow("twice", input=int, output=int).then(double).commit()


def test_a_run_that_nobody_comes_for_is_told_to_be_stuck(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, with what the doctor says of it; all others are well, and the exit code is 1."""
    code, told = soaked(capsys, App(TWICE), deaf_to="s-1")
    assert 1 == code
    assert "; 1 stuck or wrong" in told
    assert "s-1 (twice) is stuck in QUEUED: overdue: " in told.splitlines()[-1]


def test_a_run_that_everybody_comes_for_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 0."""
    code, told = soaked(capsys, App(TWICE))
    assert 0 == code, told
    assert "; 0 stuck or wrong" in told


APPS = [
    *(f"examples.{name}:app" for name in ("leave", "offer", "parcel", "review")),
    "tests.e2e.own_flows:app",
]


@pytest.mark.parametrize("name", APPS)
def test_any_app_is_soaked_whatever_is_said_about_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With approvers, deadlines, events, items on many workers: what nobody says is drawn from its type."""
    app, plan = found(name)
    code, told = soaked(capsys, app, plan)
    assert 0 == code, told


class Decision(BaseModel):
    """What a clerk answers."""

    approved: bool


@step
def ask(order: str, ctx: StepContext[Decision]) -> bool:
    """Waits for somebody, not for ever."""
    if ctx.timed_out:
        return False
    if ctx.resume_data is None:
        ctx.suspend(label="clerk", timeout=timedelta(days=2))
    return ctx.resume_data.approved


ORDERS = (
    workflow("orders", input=str, output=str)
    .then(ask)
    .map(lambda approved, ctx: f"{ctx.init_data} {approved}")
    .wait_for_event("paid", id="paid", key=lambda told: told, model=str)
    .commit()
)


def told_of(plan: Plan, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is reported as wrong of two workflows, every third of which says what has become of it."""
    code, told = soaked(capsys, App(TWICE, ORDERS), plan)
    lines = told.split(" s of real time\n")[1].splitlines()
    assert code == bool(lines)
    return lines


def ends(workflow: str, result: RunResult[Any]) -> list[str]:
    """Everything is wrong."""
    return [f"{workflow} gave {result.output!r}"]


def test_a_plan_says_what_is_run_and_answered_and_hears_of_each_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs by workflow, the others are not run; answers by label and by id; what is wrong with an end is reported."""
    plan = Plan(
        inputs={"orders": lambda chance: f"A-{chance.randint(1, 1)}"},
        answers={"clerk": {"approved": True}, "paid": "by card"},
        ends=ends,
    )
    assert {"(orders): orders gave 'by card'"} == {line.split(" ", 1)[1] for line in told_of(plan, capsys)}


def test_what_a_plan_does_not_answer_is_left_to_its_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    """And where there is none, any answer that fits is given; what happens outside once a run has begun is said too."""
    begun, asked = list[str](), set[str]()

    def nothing(wait: Wait[Any]) -> Any:
        asked.add(wait.label or wait.payload["key"].partition(" ")[2])
        raise KeyError(wait.id)

    plan = Plan(
        inputs={"orders": lambda chance: f"A-{chance.random()}"},
        answers=nothing,
        begun=lambda app, run_id, chance: begun.append(run_id),
    )
    assert [] == told_of(plan, capsys)
    assert ["s-0", "s-1"] == begun[:2]
    assert {"clerk", "False"} == asked


def test_an_answer_that_does_not_fit_is_told_with_the_run_that_is_stuck_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else nobody would know what is missing in the plan."""
    plan = Plan(inputs={"orders": lambda _: "A-1"}, answers={"clerk": {"approved": True}, "paid": 7})
    (first, *_) = told_of(plan, capsys)
    assert "s-0 (orders) is stuck in SUSPENDED" in first
    assert "Its answer was refused: " in first


def test_an_input_that_cannot_be_drawn_has_to_be_said() -> None:
    """What is missing is told with the name of the workflow."""
    numbered = Annotated[str, Field(pattern="^A-[0-9]{9}$")]
    flow = workflow("numbered", input=numbered, output=str).map(lambda order: order).commit()
    with (
        in_process(1, "", app=App(flow), plan=Plan()) as soak,
        pytest.raises(UnsaidError, match=r"inputs=\{'numbered'"),
    ):
        soak.go(blows=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.module:app", "No module named 'no'"),
        ("", "Empty module name"),
        ("infra.local.soak_flows", "is no App"),
        ("infra.local.soak_flows:PACE", "is no App"),
    ],
)
def test_an_app_that_is_not_there_is_refused_in_words(name: str, said: str) -> None:
    """Before anything is started."""
    with pytest.raises(UnsaidError, match=said):
        found(name)
