"""Values of any size: where they lie, what is fetched when, and what becomes of a run whose blob store misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Workflow, migrate, step, workflow
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.dynamodb_attributes import item_size
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import (
    BlobAltered,
    BlobLost,
    BlobMissing,
    BlobsUnavailable,
    PayloadTooLarge,
    RunNotFound,
    SettingsError,
)
from flowcore.keys import RunRef
from flowcore.model import RunStatus
from flowcore.ops import doctor
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.contract import dense
from flowcore.testing.faults import BlobFault, BlobScript, Call, Fault, FaultyBlobs, FaultyStore

KB = 1024
DAY = timedelta(days=1)
REF = RunRef("default", "r-1")


@step
def grow(size: int) -> str:
    """A text of that size."""
    return "g" * size


@step
def ask(text: str, ctx: StepContext[str, str]) -> str:
    """Shows as much as it was given."""
    if ctx.resume_data is None:
        ctx.suspend("s" * len(text))
    assert ctx.suspend_data == "s" * len(text)
    return ctx.resume_data


@step
def count(text: str) -> int:
    """How long it is."""
    return len(text)


@step
def look_back(size: int, ctx: StepContext) -> str:
    """Looks at what an earlier step gave."""
    try:
        return (ctx.get_step_result(grow) or "nothing")[:1]
    except Exception:  # noqa: BLE001  # as a careless author would
        return "swallowed"


def steps(*entries: Any, input: Any = int, output: Any = Any, state: Any = None) -> Workflow[Any, Any]:
    """One workflow of these, one after the other."""
    made = workflow("flow", input=input, output=output, **({} if state is None else {"state": state}))
    for entry in entries:
        made = made.sleep(entry) if isinstance(entry, timedelta) else made.then(entry)
    return made.commit()


asking = steps(grow, ask, count)


@dataclass(eq=False)
class World:
    """An App with blobs that misbehave as ``script`` says, and what lies in both stores."""

    flow: Workflow[Any, Any]
    script: BlobScript | None = None
    options: dict[str, Any] = field(default_factory=dict)
    memory: MemoryBlobs = field(default_factory=MemoryBlobs)
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.blobs = FaultyBlobs(self.memory, self.script)
        self.app = LocalApp(App(self.flow, **self.options), store=self.store, clock=self.clock, blobs=self.blobs)

    def start(self, input: Any, run_id: str = "r-1", **options: Any) -> Any:
        """Start the run."""
        return self.app.workflow("flow").create_run(run_id).start(input, **options)

    def status(self) -> str:
        """Of the run; reads its head alone."""
        found: str = self.app.run("r-1").result(fields=["status"]).status
        return found

    def read_only(self) -> App:
        """An App on the same store that was given no blobs."""
        return App(self.flow, store=self.store, clock=self.clock)

    def items(self) -> list[int]:
        """The sizes of all items."""
        return sorted(item_size(item) for item in self.store.items())

    def verbs(self) -> list[str]:
        """The blob store's calls so far, without what they were about."""
        return [verb for verb, _ in self.blobs.calls]


def only(verb: str, fault: BlobFault, *, times: int = 1_000) -> BlobScript:
    """Strikes the first ``times`` calls of ``verb``."""
    left = [times]

    def script(called: str, key: str) -> BlobFault | None:
        if called != verb or left[0] == 0:
            return None
        left[0] -= 1
        return fault

    return script


# -- where values lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [65 * KB, 401 * KB, 3_000 * KB], ids=["over 64 KB", "over 400 KB", "3 MB"])
def test_output_lies_in_the_blob_store_and_goes_on(size: int) -> None:
    """The item holds where it lies, and the next step gets it as ever."""
    world = World(steps(grow, count))
    done = world.start(size)
    assert ("success", size, "g" * size) == (done.status, done.output, done.steps["grow"].output)
    assert [f'"{"g" * size}"'.encode()] == list(world.memory.kept.values())
    assert max(world.items()) < 1 * KB


def test_small_values_never_meet_the_blob_store() -> None:
    """No request and no byte more than without: what an item can hold well stays there."""
    world, plain = World(asking), World(asking)
    plain.app = LocalApp(App(asking), store=plain.store, clock=plain.clock)
    for one in (world, plain):
        one.start(60 * KB)
        one.app.resume("r-1", "x" * 60 * KB)
    assert ([], "success") == (world.verbs(), world.status())
    assert plain.items() == world.items()


def test_every_value_of_a_run_may_be_large() -> None:
    """Input, output, suspend payload, resume data, result: each lies elsewhere, and each comes back."""
    size, flow = 500 * KB, steps(ask, input=str)
    world = World(flow)
    asked = world.start("i" * size)
    [wait] = asked.waits
    assert ("suspended", "s" * size) == (asked.status, wait.payload)
    done = world.app.resume("r-1", "r" * size)
    assert ("success", "i" * size, "r" * size) == (done.status, done.input, done.output)
    shown = done.steps["ask"]
    assert ("s" * size, "r" * size, "r" * size) == (shown.suspend_payload, shown.resume_data, shown.output)
    assert max(world.items()) < 2 * KB


def test_state_and_request_context_may_be_large() -> None:
    """What a run begins with, and what its steps make of it."""

    @step
    def remember(text: str, ctx: StepContext[None, None, dict[str, str]]) -> int:
        ctx.set_state({"kept": ctx.state["begun"] + text})
        return len(ctx.request_context["who"])

    flow = workflow("flow", input=str, output=int, state=dict[str, str]).then(remember).sleep(DAY).commit()
    world = World(flow)
    begun = {"begun": "b" * 300 * KB}
    world.start("t" * 100 * KB, state=begun, request_context={"who": "w" * 200 * KB})
    world.app.advance(days=2)
    done = world.app.run("r-1").result()
    assert ("success", 200 * KB) == (done.status, done.output)
    assert {**begun, "kept": "b" * 300 * KB + "t" * 100 * KB} == done.state
    assert max(world.items()) < 2 * KB


def test_containers_carry_large_values() -> None:
    """Items of a foreach, arms of a parallel, turns of a loop, a nested workflow: each with its folded output."""

    @step
    def double(text: str) -> str:
        return text + text

    @step
    def split(both: dict[str, str]) -> list[str]:
        return list(both.values())

    inner = workflow("inner", input=str, output=str).then(double).commit()
    flow = (
        workflow("flow", input=int, output=list[str])
        .then(grow)
        .parallel(double, inner)
        .then(split)
        .foreach(double.clone(id="each"), concurrency=2)
        .map(lambda texts: texts[0])
        .dountil(double.clone(id="again"), lambda text: len(text) > 1_000 * KB)
        .map(lambda text: [text[:5]])
        .commit()
    )
    world = World(flow)
    done = world.start(70 * KB)
    assert ("success", ["g" * 5]) == (done.status, done.output)
    assert ["g" * 280 * KB] * 2 == done.steps["each"].output
    assert max(world.items()) < 2 * KB


def test_outcomes_that_are_kept_back_may_be_large() -> None:
    """They are put as they are written, together, where the run is given back."""
    flow = (
        workflow("flow", input=int, output=int, durability="boundary")
        .then(grow)
        .then(_longer("longer"))
        .sleep(DAY)
        .then(count)
        .commit()
    )
    world = World(flow)
    world.start(100 * KB)
    assert 2 == len(world.memory.kept)
    world.blobs.calls.clear()
    world.app.advance(days=2)
    assert 100 * KB + 1 == world.app.run("r-1").result().output
    assert "g" * 100 * KB == world.app.run("r-1").result().steps["grow"].output


def test_event_brings_a_value_that_becomes_large_output() -> None:
    """Its data is the output of the entry that waited for it."""
    flow = workflow("flow", input=str, output=str).wait_for_event("paid", key=lambda text: text).commit()
    world = World(flow)
    world.start("k-1")
    world.app.send_event("paid", "k-1", "d" * 200 * KB)
    assert "d" * 200 * KB == world.app.run("r-1").result().output


def test_large_input_is_not_billed_with_each_write_of_the_head() -> None:
    """A claim or a release rewrites the head: 1 write unit per KB of it, so a large input would be paid each time."""
    sizes = {}
    for size in (60 * KB, 300 * KB):
        world = World(steps(count, DAY, input=str))
        world.start("".join(chr(0x4E00 + n % 20_000) for n in range(size // 3)))
        sizes[size] = max(world.items())
    assert sizes[60 * KB] > 20 * KB
    assert sizes[300 * KB] < 1 * KB


# -- the limit --------------------------------------------------------------------------------------------------------


def test_output_over_the_limit_fails_its_step_before_anything_is_written() -> None:
    """Typed, and with what is too large: in the failure, in words for its author."""
    world = World(steps(grow, count), options={"largest_value": 100 * KB})
    done = world.start(100 * KB)
    assert ("failed", "PayloadTooLarge", "grow") == (done.status, done.error.type, done.error.step)
    assert "output of step 'grow' in run 'r-1' is 102402 bytes as JSON; at most 102400" in done.error.message
    assert ([], {}) == (world.verbs(), world.memory.kept)


def test_suspend_payload_and_result_over_the_limit_fail_as_well() -> None:
    """Wherever a value comes from."""

    @step
    def show(size: int, ctx: StepContext[None, str]) -> str:
        ctx.suspend("s" * size)

    shown = World(steps(show), options={"largest_value": 100 * KB}).start(101 * KB)
    assert ("failed", "PayloadTooLarge") == (shown.status, shown.error.type)

    @step
    def half(size: int) -> str:
        return "h" * size

    both = workflow("flow", input=int, output=dict[str, str]).parallel(half, half.clone(id="other")).commit()
    done = World(both, options={"largest_value": 100 * KB}).start(60 * KB)
    assert ("failed", "PayloadTooLarge") == (done.status, done.error.type)


def test_input_and_answer_over_the_limit_are_refused() -> None:
    """The caller is told, and the run is untouched."""
    world = World(steps(ask, input=str), options={"largest_value": 100 * KB})
    with pytest.raises(PayloadTooLarge, match="input of run 'r-1'"):
        world.start("i" * 101 * KB)
    world.start("i")
    with pytest.raises(PayloadTooLarge, match="answer of step 'ask'"):
        world.app.resume("r-1", "r" * 101 * KB)
    assert ("suspended", {}) == (world.status(), world.memory.kept)
    assert "success" == world.app.resume("r-1", "r").status


def test_without_blobs_the_limit_is_that_of_an_item() -> None:
    """As it ever was."""
    done = App(steps(grow, count)).workflow("flow").create_run().start(400 * KB)
    assert ("failed", "PayloadTooLarge") == (done.status, done.error and done.error.type)


def test_failure_too_large_beside_what_its_run_began_with_is_shortened_there() -> None:
    """The run has failed, of that; the step has all of it."""

    @step
    def misfit(text: str) -> dict[str, int]:
        return {dense(1_500 + number): "x" for number in range(100)}  # type: ignore[misc]  # that is the fact

    app = LocalApp(App(steps(misfit, input=str)))
    result = app.workflow("flow").create_run("r-1").start(dense(340_000))
    kept = result.steps["misfit"].error
    assert result.error is not None
    assert kept is not None
    assert ("failed", "InvalidPayload", "misfit") == (result.status, result.error.type, result.error.step)
    assert len(result.error.message) < 5_000
    assert len(kept.message) > 100_000
    assert kept.message.startswith(result.error.message[:4_000])
    assert ({}, 100) == (result.error.properties, len(kept.properties["errors"]))


def test_output_that_is_not_json_fails_its_step_and_puts_nothing() -> None:
    """However large it is."""

    @step
    def odd(size: int) -> Any:
        return ["g" * size, object()]

    world = World(steps(odd))
    done = world.start(100 * KB)
    assert ("failed", "NotJsonError", []) == (done.status, done.error.type, world.verbs())


def test_limit_below_one_is_refused() -> None:
    """It would let no value pass."""
    with pytest.raises(SettingsError, match="largest_value=0"):
        App(asking, largest_value=0)


# -- a blob that is lost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [(BlobFault.MISSING, BlobMissing), (BlobFault.ALTERED, BlobAltered), (BlobFault.CUT, BlobAltered)],
)
def test_lost_blob_blocks_the_run_until_it_is_restored(fault: BlobFault, error: type[BlobLost]) -> None:
    """Named by run, step and key; nothing else is lost, and no step that is done is done again."""
    called = []

    @step
    def make(size: int) -> str:
        called.append("make")
        return "g" * size

    world = World(steps(make, DAY, count))
    world.start(100 * KB)
    [key] = world.memory.kept
    world.blobs.script = only("get", fault)
    world.app.advance(days=2)
    seen = world.app.run("r-1").result(fields=["status", "blocked"])
    assert "paused" == seen.status
    for told in ("output of step 'make' in run 'r-1'", key):
        assert told in seen.blocked
    with pytest.raises(error, match="'make'") as caught:
        world.app.run("r-1").result()
    assert {"run_id": "r-1", "step": "make", "key": key} == caught.value.details()

    world.blobs.script = lambda *_: None
    done = world.app.run("r-1").unpause()
    assert ("success", 100 * KB, ["make"]) == (done.status, done.output, called)


def test_lost_input_blocks_the_run_and_is_named_without_a_step() -> None:
    """It belongs to the run itself."""
    world = World(steps(count, input=str))
    world.app.advance()
    world.blobs.script = only("get", BlobFault.MISSING)
    queued = App(world.flow, store=world.store, clock=world.clock, blobs=world.blobs, queue=_NoQueue())
    queued.workflow("flow").create_run("r-1").start("i" * 100 * KB)
    world.app.look(REF)
    seen = world.app.run("r-1").result(fields=["status", "blocked"])
    assert ("paused", True) == (seen.status, "The input of run 'r-1' cannot be read" in seen.blocked)


def test_lost_payload_of_a_suspension_does_not_fail_its_step() -> None:
    """The answer is stored; the step begins once what it has shown is there again."""
    world = World(steps(_show, input=int))
    world.start(100 * KB)
    world.blobs.script = only("get", BlobFault.MISSING)
    with pytest.raises(BlobMissing, match="suspend payload of step 'show'"):
        world.app.resume("r-1", "yes")
    assert "paused" == world.status()
    world.blobs.script = lambda *_: None
    assert "yes" == world.app.run("r-1").unpause().output


@step(id="show")
def _show(size: int, ctx: StepContext[str, str]) -> str:
    if ctx.resume_data is None:
        ctx.suspend("s" * size)
    return ctx.resume_data


@step(id="mark")
def _mark(size: int, ctx: StepContext[None, None, dict[str, str]]) -> int:
    ctx.set_state({"kept": "k" * size})
    return size


def test_lost_state_blocks_the_run_as_it_is_taken_up() -> None:
    """Nothing of a run can be told without what its steps made of the shared values."""
    world = World(steps(_mark, DAY, grow))
    world.start(100 * KB)
    world.blobs.script = only("get", BlobFault.MISSING)
    world.app.advance(days=2)
    seen = world.app.run("r-1").result(fields=["status", "blocked"])
    assert "paused" == seen.status
    assert "change of state of step 'mark' in run 'r-1'" in seen.blocked
    world.blobs.script = lambda *_: None
    assert "success" == world.app.run("r-1").unpause().status


def test_lost_value_that_would_be_migrated_blocks_the_run() -> None:
    """A deploy with migrations looks at every stored value as a run is taken up."""

    @step
    def sizes(size: int) -> dict[str, str]:
        return {"text": "g" * size}

    @migrate(sizes, "output")
    def from_v1(old: list[str]) -> dict[str, str]:
        return {"text": old[0]}

    world = World(steps(sizes, DAY, _count_text))
    world.start(100 * KB)
    world.blobs.script = only("get", BlobFault.MISSING)
    world.app.advance(days=2)
    assert "paused" == world.status()
    world.blobs.script = lambda *_: None
    assert 100 * KB == world.app.run("r-1").unpause().output


@step(id="count_text")
def _count_text(value: dict[str, str]) -> int:
    return len(value["text"])


def test_event_for_a_run_that_cannot_be_read_is_kept() -> None:
    """Whoever sends it has done nothing wrong; a worker says what is missing, and once that is there it is taken."""
    flow = workflow("flow", input=int, output=str).then(_mark).wait_for_event("paid", key=lambda _: "k-1").commit()
    world = World(flow)
    world.start(100 * KB)
    world.blobs.script = only("get", BlobFault.MISSING)
    assert "buffered" == world.app.send_event("paid", "k-1", "d").verdict
    world.app.advance(hours=1)
    assert "paused" == world.status()
    world.blobs.script = lambda *_: None
    assert "success" == world.app.run("r-1").unblock().status


class _NoQueue:
    max_delay_s = 900

    def send(self, hint: Any, *, delay_s: int) -> None:
        """Nobody comes."""


@pytest.mark.parametrize("fault", [BlobFault.MISSING, BlobFault.FAILS])
def test_result_of_an_earlier_step_that_cannot_be_read_fails_no_step(fault: BlobFault) -> None:
    """A step that looks back is not blamed, nor can it go on as if there had been nothing."""
    world = World(steps(grow, count, DAY, look_back))
    world.start(100 * KB)
    world.blobs.script = only("get", fault)
    if fault is BlobFault.FAILS:
        with pytest.raises(BlobsUnavailable):
            world.app.advance(days=2)
    else:
        world.app.advance(days=2)
        assert "paused" == world.status()
        world.blobs.script = lambda *_: None
        assert "g" == world.app.run("r-1").unpause().output


def test_outage_leaves_the_run_to_the_next_worker() -> None:
    """It passes by itself, so nothing is blocked: whoever comes after the lease goes on."""
    world = World(steps(grow, DAY, count))
    world.start(100 * KB)
    world.blobs.script = only("get", BlobFault.FAILS, times=1)
    with pytest.raises(BlobsUnavailable):
        world.app.advance(days=2)
    assert "running" == world.status()
    world.app.advance(hours=1)
    assert 100 * KB == world.app.run("r-1").result().output


@pytest.mark.parametrize("fault", [BlobFault.FAILS, BlobFault.REPLY_LOST])
def test_output_that_could_not_be_put_is_not_committed(fault: BlobFault) -> None:
    """The blob comes first: no item ever points to what is not there. The step runs again, as after a crash."""
    world = World(steps(grow, count), only("put", fault, times=1))
    with pytest.raises(BlobsUnavailable):
        world.start(100 * KB)
    assert {} == (world.store.load(REF, everything=True) or pytest.fail("there is a run"))[1]
    world.app.advance(hours=1)
    assert ("success", 100 * KB) == (world.status(), world.app.run("r-1").result().output)


@pytest.mark.parametrize("fault", [BlobFault.FAILS, BlobFault.REPLY_LOST])
def test_input_that_could_not_be_put_begins_no_run(fault: BlobFault) -> None:
    """The caller is told and may start again."""
    world = World(steps(count, input=str), only("put", fault, times=1))
    with pytest.raises(BlobsUnavailable):
        world.start("i" * 100 * KB)
    with pytest.raises(RunNotFound):
        world.app.run("r-1").result()
    assert 100 * KB == world.start("i" * 100 * KB).output


@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER])
def test_worker_that_dies_between_blob_and_item_loses_nothing(fault: Fault) -> None:
    """What it has put is nobody's, and goes with the run."""
    dying = [True]

    def script(call: Call) -> Fault | None:
        return fault if call.verb == "commit" and dying and dying.pop() else None

    world = World(steps(grow, count))
    world.app = LocalApp(App(world.flow), store=FaultyStore(world.store, script), clock=world.clock, blobs=world.blobs)
    assert "running" == world.start(100 * KB).status
    world.app.advance(hours=1)
    assert ("success", 100 * KB) == (world.status(), world.app.run("r-1").result().output)
    world.app.run("r-1").delete()
    assert {} == world.memory.kept


def test_app_without_blobs_says_what_it_lacks() -> None:
    """A deployment that forgot its bucket does not take the run for broken data."""
    world = World(steps(grow, count))
    world.start(100 * KB)
    with pytest.raises(BlobMissing, match=r"output of step 'grow' in run 'r-1'.*'memory'.*given none") as caught:
        world.read_only().run("r-1").result()
    assert list(world.memory.kept) == [caught.value.key]
    assert 100 * KB == world.read_only().run("r-1").result(fields=["output"]).output


def test_run_can_be_canceled_and_deleted_whatever_is_lost() -> None:
    """What is not looked at need not be there."""
    world = World(steps(count, DAY, input=str), options={"retention": DAY})
    world.start("i" * 100 * KB)
    world.memory.kept.clear()
    world.blobs.calls.clear()
    with pytest.raises(BlobMissing):
        world.app.run("r-1").cancel()
    assert "canceled" == world.status()
    world.app.run("r-1").delete()
    with pytest.raises(RunNotFound):
        world.app.run("r-1").result()


def test_inbox_shows_the_others_when_one_suspension_is_lost() -> None:
    """One broken run must not hide what everybody else waits for."""
    world = World(steps(ask, input=str))
    world.start("i" * 100 * KB)
    world.start("small", "r-2")
    world.memory.kept.clear()
    assert ["r-2"] == [wait.run_id for wait in world.app.waits()]


def test_doctor_names_the_run_whose_value_is_lost() -> None:
    """And goes on to the next; a look at a run costs its large values, too."""
    world = World(steps(_show, input=int))
    world.start(100 * KB)
    world.start(100 * KB, "r-2")
    assert [] == list(doctor(world.app))
    world.memory.delete(list(world.memory.keys("t-default/r-r-1/")))
    [found] = doctor(world.app)
    assert ("r-1", "unreadable") == (found.run_id, found.ailment)
    assert "suspend payload of step 'show' in run 'r-1'" in found.detail


def test_run_that_listens_is_canceled_whatever_is_lost() -> None:
    """Who listens in vain is dropped by the next event."""
    flow = workflow("flow", input=int, output=str).then(_mark).wait_for_event("paid", key=lambda _: "k-1").commit()
    world = World(flow)
    world.start(100 * KB)
    world.memory.kept.clear()
    with pytest.raises(BlobMissing):
        world.app.run("r-1").cancel()
    assert "canceled" == world.status()


@pytest.mark.parametrize("fault", [BlobFault.MISSING, BlobFault.FAILS])
def test_hook_is_owed_until_the_values_it_is_shown_are_there(fault: BlobFault) -> None:
    """Calling it without them, or not at all, would lose what its author wants to know."""
    told = []
    flow = (
        workflow("flow", input=int, output=int, on_finish=lambda result: told.append(result.steps["grow"].output))
        .then(grow)
        .then(_longer("longer"))
        .sleep(DAY)
        .then(count)
        .commit()
    )
    world = World(flow)
    world.start(100 * KB)
    gets = [0]

    def script(verb: str, key: str) -> BlobFault | None:
        gets[0] += verb == "get"
        return fault if verb == "get" and 1 < gets[0] < 4 else None

    world.blobs.script = script
    world.app.advance(days=3)
    assert ("success", ["g" * 100 * KB]) == (world.status(), told)


# -- what is fetched --------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_for_a_look_at_the_head() -> None:
    """Status, listing and counts of runs whose values are all large cost no request."""
    world = World(steps(ask, input=str))
    world.start("i" * 100 * KB)
    world.blobs.calls.clear()
    assert "suspended" == world.status()
    assert ["r-1"] == [summary.run_id for summary in world.app.list_runs()]
    assert 1 == world.app.counts()["suspended"]
    assert [] == world.verbs()


def test_run_that_is_further_on_fetches_what_the_next_step_needs() -> None:
    """Of four large outputs the last one; the others have gone into steps that are done."""
    flow = steps(grow, *(_longer(f"longer{n}") for n in range(3)), DAY, count)
    world = World(flow)
    world.start(100 * KB)
    world.blobs.calls.clear()
    world.app.advance(days=2)
    assert ["get"] == world.verbs()
    assert 100 * KB + 3 == world.app.run("r-1").result().output


def _longer(id: str) -> Any:
    @step(id=id)
    def longer(text: str) -> str:
        return f"{text}+"

    return longer


def test_value_is_put_once_however_often_its_record_is_rewritten() -> None:
    """A suspension is rewritten by its answer and by its outcome; its payload stays where it is."""
    world = World(steps(ask, count, input=str))
    world.start("i" * 100 * KB)
    world.app.advance(days=1)
    world.blobs.calls.clear()
    world.app.resume("r-1", "small")
    assert ["get"] * 2 == [verb for verb in world.verbs() if verb != "keys"]


def test_input_is_put_once_however_often_the_run_is_started() -> None:
    """A client that repeats its request finds the run it began."""
    world = World(steps(count, DAY, input=str))
    for _ in range(3):
        world.start("i" * 100 * KB)
    assert ["put"] == [verb for verb in world.verbs() if verb == "put"]


@pytest.mark.parametrize("what", ["state", "request_context"])
def test_what_a_run_begins_with_is_put_once_however_often_its_head_is_written(what: str) -> None:
    """A heartbeat prolongs the lease and puts nothing."""
    clock = VirtualClock()

    @step
    def beating(text: str, ctx: StepContext[None, None]) -> str:
        for _ in range(3):
            clock.forward(seconds=15)
            ctx.heartbeat()
        return text

    world = World(steps(beating, input=str, state=dict[str, str]), clock=clock)
    world.start("small", "r-1", **{what: {"a": "x" * 100 * KB}})
    assert ["put"] == [verb for verb in world.verbs() if verb == "put"]


# -- the end ----------------------------------------------------------------------------------------------------------


def test_deleted_run_leaves_no_blob() -> None:
    """And nothing of another run is touched, even of one whose id begins alike."""
    world = World(asking)
    for run_id in ("r-1", "r-10"):
        world.start(100 * KB, run_id)
    world.app.run("r-1").delete()
    assert {"t-default/r-r-10"} == {key.rpartition("/")[0] for key in world.memory.kept}


def test_expired_run_leaves_no_blob() -> None:
    """Retention removes them with the run."""
    world = World(steps(grow, count), options={"retention": DAY})
    world.start(100 * KB)
    assert world.memory.kept
    world.app.advance(days=2)
    assert ({}, []) == (world.memory.kept, world.store.items())


def test_deletion_that_was_cut_short_is_finished_by_the_next() -> None:
    """The blobs go first: as long as one is left, the run is there to be deleted again."""
    world = World(steps(grow, _longer("longer"), count), options={"retention": DAY})
    world.start(100 * KB)
    world.blobs.script = only("delete", BlobFault.FAILS, times=1)
    with pytest.raises(BlobsUnavailable):
        world.app.run("r-1").delete()
    assert world.memory.kept
    world.app.advance(days=2)
    assert ({}, []) == (world.memory.kept, world.store.items())


@pytest.mark.parametrize("moment", ["before it lists", "before it deletes"])
def test_slow_deletion_does_no_harm_to_a_later_run_of_that_id(moment: str) -> None:
    """A new run of that id, with the same values, has removed what was left of the old one, and begun."""
    world = World(steps(grow, count))
    world.start(100 * KB)
    other = LocalApp(App(world.flow), store=world.store, clock=world.clock, blobs=world.memory)
    seen = {"keys": 0}
    again = {"before it lists": ("keys", 2), "before it deletes": ("delete", 1)}[moment]

    def script(verb: str, key: str) -> BlobFault | None:
        seen[verb] = seen.get(verb, 0) + 1
        if (verb, seen[verb]) == again:
            other.workflow("flow").create_run("r-1").start(100 * KB)
        return None

    world.blobs.script = script
    world.app.run("r-1").delete()
    assert ("g" * 100 * KB, 100 * KB) == (
        (done := other.run("r-1").result()).steps["grow"].output,
        done.output,
    )


def test_fork_outlives_the_run_it_began_as() -> None:
    """It has copies of its own, of the input as well."""
    flow = steps(ask, count, input=str)
    world = World(flow)
    world.start("i" * 100 * KB)
    world.app.resume("r-1", "r" * 200 * KB)
    forked = world.app.run("r-1").fork("count", run_id="r-2")
    world.app.run("r-1").delete()
    seen = world.app.run("r-2").result()
    assert ("success", 200 * KB, "i" * 100 * KB) == (forked.status, seen.output, seen.input)
    assert "r" * 200 * KB == seen.steps["ask"].output
    assert {"t-default/r-r-2"} == {key.rpartition("/")[0] for key in world.memory.kept}


def test_fork_of_a_run_that_has_lost_a_value_is_refused() -> None:
    """It would be as lost in the copy."""
    world = World(steps(grow, count))
    world.start(100 * KB)
    world.memory.kept.clear()
    with pytest.raises(BlobMissing):
        world.app.run("r-1").fork("count", run_id="r-2")


def test_time_travel_keeps_the_values_in_front_of_its_step() -> None:
    """The new life's records point where those of the old one do."""
    world = World(steps(grow, count))
    world.start(100 * KB)
    world.blobs.calls.clear()
    done = world.app.run("r-1").time_travel("count")
    assert ("success", 100 * KB) == (done.status, done.output)
    assert "put" not in world.verbs()


# -- ports ------------------------------------------------------------------------------------------------------------


def test_app_shows_its_blobs_and_hands_its_limit_on() -> None:
    """A deployment puts the author's App onto its bucket."""
    blobs: Callable[[], MemoryBlobs] = MemoryBlobs
    mine, bucket = blobs(), blobs()
    app = App(asking, blobs=mine, largest_value=7)
    there = app.on(store=MemoryStore(), blobs=bucket)
    assert (mine, bucket, 7, None) == (app.blobs, there.blobs, there.largest_value, app.on(store=MemoryStore()).blobs)


def test_store_that_has_blobs_may_be_shared_or_given_others() -> None:
    """Two Apps on one store see the same large values."""
    world = World(steps(grow, count))
    world.start(100 * KB)
    shared = App(world.flow, store=world.app.store, clock=world.clock)
    again = App(world.flow, store=world.app.store, clock=world.clock, blobs=world.memory)
    for app in (shared, again):
        assert 100 * KB == len(app.run("r-1").result().steps["grow"].output)
    assert (world.blobs, world.memory) == (shared.blobs, again.blobs)


def test_run_whose_definition_is_gone_is_blocked_before_anything_is_fetched() -> None:
    """A worker of another deployment needs none of its values to see that it is not its own."""
    world = World(steps(grow, DAY, count))
    world.start(100 * KB)
    world.blobs.calls.clear()
    other = workflow("other", input=int, output=str).then(grow).commit()
    elsewhere = LocalApp(App(other), store=world.store, clock=world.clock, blobs=world.blobs)
    world.clock.wait_until(world.clock.now() + 2 * DAY)
    head = elsewhere.look(REF)
    assert (RunStatus.BLOCKED, []) == (head and head.status, world.verbs())
