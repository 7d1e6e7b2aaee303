"""Group J: suspensions, and who answers them how."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import RunResult, StepContext, Workflow, otherwise, step, workflow
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    InvalidPayload,
    NotSuspended,
    RunFinished,
    RunNotFound,
    StoreUnavailable,
)
from flowcore.model import RunStatus
from tests.conformance.support import Harness, behaviour, outputs

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@step
def double(number: int) -> int:
    """Twice the number."""
    CALLS.append("double")
    return 2 * number


@step
def increment(number: int) -> int:
    """One more."""
    CALLS.append("increment")
    return number + 1


@step
def ask(number: int, ctx: StepContext[int, dict[str, int]]) -> int:
    """Adds what somebody answers."""
    CALLS.append("ask")
    if ctx.resume_data is None:
        ctx.suspend({"number": number}, label=f"label-{ctx.step_id}")
    return number + ctx.resume_data


ASKING = workflow("asking", input=int, output=int).then(increment).then(ask).then(double).commit()
INNER = workflow("inner", input=int, output=int).then(double).then(ask).then(increment).commit()
OUTER = workflow("outer", input=int, output=int).then(INNER).commit()
NESTING = workflow("nesting", input=int, output=int).then(increment).then(OUTER).then(double).commit()
TWO = workflow("two", input=int).parallel(ask, ask.clone(id="other")).commit()


def asked(harness: Harness, made: Workflow[Any, Any] = ASKING, number: int = 1) -> RunResult[Any]:
    """A run that is suspended."""
    result = harness.serve(made).start(number)
    assert "suspended" == result.status
    return result


@behaviour(139, "a suspended run shows the payload; the steps in front have succeeded")
def test_139_suspend_stores_its_payload(harness: Harness) -> None:
    """In the step's record and in the open wait, for every process."""
    result = asked(harness)
    assert {"increment": 2} == outputs(result)
    assert ("suspended", 2, {"number": 2}) == (
        result.steps["ask"].status,
        result.steps["ask"].input,
        result.steps["ask"].suspend_payload,
    )
    assert [["ask"]] == result.suspended
    assert [("ask", {"number": 2}, "label-ask")] == [(w.path[0], w.payload, w.label) for w in result.waits]
    assert result.waits == harness.another_process().run(harness.run_id).result().waits


@pytest.mark.parametrize("payload", [None, {}, [], "", 0, False])
@behaviour(140, "a payload may be empty, or missing")
def test_140_empty_payload(harness: Harness, payload: Any) -> None:
    """It is an ordinary value, and comes back as it was given."""

    @step
    def suspending(_: Any, ctx: StepContext[bool, Any]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend(payload)
        return [ctx.suspend_data]

    result = asked(harness, workflow("w").then(suspending).commit())
    assert payload == result.waits[0].payload
    assert [payload] == harness.resume(True).output


@behaviour(141, "steps behind a suspension are not called and have no entry")
def test_141_later_steps_wait(harness: Harness) -> None:
    """Until it is answered."""
    assert {"increment", "ask"} == set(asked(harness).steps)
    assert ["increment", "ask"] == CALLS


@behaviour(142, "a step in an arm of a branch may suspend")
def test_142_suspend_in_an_arm(harness: Harness) -> None:
    """The run goes on behind the branch once it is answered."""
    made = (
        workflow("w", input=int)
        .branch((lambda n: n > 0, ask), (otherwise, double))
        .map({"n": {"step": "ask"}})
        .commit()
    )
    assert [["ask"]] == asked(harness, made).suspended
    assert {"n": 11} == harness.resume(10).output


@behaviour(143, "one suspended branch of a parallel suspends the run; the results of the others are kept")
def test_143_one_suspended_branch(harness: Harness) -> None:
    """They are not run again either."""
    result = asked(harness, workflow("w", input=int).parallel(double, ask, increment).commit())
    assert {"double": 2, "increment": 2} == outputs(result)
    assert {"double": 2, "ask": 11, "increment": 2} == harness.resume(10).output
    assert ["ask", "ask", "double", "increment"] == sorted(CALLS)


@behaviour(144, "a suspension inside a nested workflow shows on the step it stands for")
def test_144_nested_suspension(harness: Harness) -> None:
    """On each level, and the path leads there."""
    result = asked(harness, NESTING)
    assert [["outer", "inner", "ask"]] == result.suspended
    assert ["suspended"] * 3 == [result.steps[id].status for id in ("outer", "outer.inner", "outer.inner.ask")]
    assert {"number": 4} == result.steps["outer.inner.ask"].suspend_payload


@behaviour(145, "a suspended step is resumed by its id")
def test_145_resume_by_id(harness: Harness) -> None:
    """As text."""
    asked(harness)
    assert 24 == harness.resume(10, step="ask").output


@behaviour(146, "a suspended step is resumed by the step itself")
def test_146_resume_by_object(harness: Harness) -> None:
    """As it was given to the builder."""
    asked(harness)
    assert 24 == harness.resume(10, step=ask).output


@behaviour(147, "a suspended step is resumed by a list of ids")
def test_147_resume_by_list(harness: Harness) -> None:
    """Its path, from the outside to the inside."""
    asked(harness, NESTING)
    assert 30 == harness.resume(10, step=["outer", "inner", "ask"]).output


@behaviour(148, "a suspended step is resumed by a dotted path")
def test_148_resume_by_dotted_path(harness: Harness) -> None:
    """The same path, as text."""
    asked(harness, NESTING)
    assert 30 == harness.resume(10, step="outer.inner.ask").output


@pytest.mark.parametrize(("made", "output"), [(ASKING, 24), (NESTING, 30)], ids=["flat", "nested"])
@behaviour(149, "a path that a result lists as suspended resumes that step")
def test_149_resume_by_suspended_path(harness: Harness, made: Workflow[Any, Any], output: int) -> None:
    """As it stands there."""
    path = asked(harness, made).suspended[0]
    assert output == harness.resume(10, step=path).output


@behaviour(150, "a suspension is resumed by its label")
def test_150_resume_by_label(harness: Harness) -> None:
    """One of several."""
    asked(harness, TWO)
    assert [["ask"]] == harness.resume(10, label="label-other").suspended
    assert {"ask": 21, "other": 11} == harness.resume(20, label="label-ask").output


@pytest.mark.parametrize(("made", "output"), [(ASKING, 24), (NESTING, 30)], ids=["flat", "nested"])
@behaviour(151, "the only open suspension need not be named")
def test_151_resume_the_only_one(harness: Harness, made: Workflow[Any, Any], output: int) -> None:
    """However deep it is."""
    asked(harness, made)
    assert output == harness.resume(10).output


@behaviour(152, "with several open suspensions one has to be named; the error lists them")
def test_152_several_need_a_name(harness: Harness) -> None:
    """Nothing has happened then; naming one leaves the other."""
    asked(harness, TWO)
    with pytest.raises(AmbiguousWait, match=r"'ask', 'other'|'other', 'ask'") as caught:
        harness.resume(10)
    assert {"ask", "other"} == {wait["path"][0] for wait in caught.value.details()["waits"]}
    result = harness.resume(10, step="other")
    assert ("suspended", [["ask"]]) == (result.status, result.suspended)


@behaviour(153, "two suspended branches of a parallel are resumed one after the other")
def test_153_two_suspended_branches(harness: Harness) -> None:
    """In between one is open; at the end both outputs are there."""
    asked(harness, TWO)
    between = harness.resume(10, step="ask")
    assert ("suspended", 1) == (between.status, len(between.waits))
    result = harness.resume(20, step="other")
    assert ("success", {"ask": 11, "other": 21}) == (result.status, result.output)


@behaviour(154, "two suspended arms of a branch are resumed one after the other")
def test_154_two_suspended_arms(harness: Harness) -> None:
    """Each step shows what it is in between."""
    made = workflow("w", input=int).branch((lambda _: True, ask), (lambda _: True, ask.clone(id="other"))).commit()
    asked(harness, made)
    between = harness.resume(20, step="other")
    assert ("suspended", "success") == (between.steps["ask"].status, between.steps["other"].status)
    result = harness.resume(10)
    assert ("success", {"ask": 11, "other": 21}) == (result.status, result.output)


@behaviour(155, "a run that is not suspended cannot be resumed")
def test_155_not_suspended(harness: Harness) -> None:
    """Neither an ended one nor one that sleeps."""
    harness.serve(workflow("w", input=int).then(double)).start(1)
    with pytest.raises(RunFinished, match="ended with status 'success'"):
        harness.resume(10)
    harness.serve(workflow("nap", input=int).sleep(timedelta(days=1))).start(1)
    with pytest.raises(NotSuspended, match="status 'waiting'"):
        harness.resume(10)


@behaviour(156, "a step that is not suspended cannot be resumed; then the right one can")
def test_156_step_not_suspended(harness: Harness) -> None:
    """The error names the ones that are."""
    asked(harness)
    with pytest.raises(NotSuspended, match=r"Step 'increment'.*Resume one of: 'ask'"):
        harness.resume(10, step="increment")
    assert 24 == harness.resume(10, step="ask").output


@behaviour(157, "an unknown run cannot be resumed")
def test_157_unknown_run(harness: Harness) -> None:
    """Whatever is served."""
    harness.serve(ASKING)
    with pytest.raises(RunNotFound, match="nowhere"):
        harness.resume(10, run_id="nowhere")


@behaviour(158, "a resumed step gets its original input")
def test_158_original_input(harness: Harness) -> None:
    """Also behind a map, and in a process whose workflows were built anew."""
    made = workflow("w", input=int).map(lambda n: n + 40).then(ask).commit()
    asked(harness, made)
    rebuilt = workflow("w", input=int).map(lambda n: n + 40).then(ask.clone(id="ask")).commit()
    assert 51 == harness.serve(rebuilt).resume(10).output


@behaviour(159, "conditions are not evaluated again when a run is resumed")
def test_159_conditions_are_not_asked_again(harness: Harness) -> None:
    """The choice is stored."""
    times: list[int] = []

    def is_first_time(_: int) -> bool:
        times.append(1)
        return len(times) == 1

    asked(harness, workflow("w", input=int).branch((is_first_time, ask), (otherwise, double)).commit())
    assert ({"ask": 11}, [1]) == (harness.resume(10).output, times)


@behaviour(160, "after a nested resume only the steps of the chosen arm run")
def test_160_only_the_chosen_arm(harness: Harness) -> None:
    """Inside a nested workflow."""
    made = workflow("w", input=int).branch((lambda n: n > 0, INNER), (otherwise, OUTER)).then(double_of_arm).commit()
    asked(harness, made)
    CALLS.clear()
    assert 26 == harness.resume(10).output
    assert ["ask", "increment"] == CALLS


@step
def double_of_arm(arms: dict[str, int]) -> int:
    """Twice what the only arm gave."""
    (number,) = arms.values()
    return 2 * number


@behaviour(161, "steps in front of the resumed one are not repeated")
def test_161_earlier_steps_are_not_repeated(harness: Harness) -> None:
    """The step itself starts from its top."""
    asked(harness)
    harness.resume(10)
    assert ["increment", "ask", "ask", "double"] == CALLS


@behaviour(162, "a resumed step sees the payload it has shown")
def test_162_suspend_data(harness: Harness) -> None:
    """The last one."""

    @step
    def twice(_: Any, ctx: StepContext[int, dict[str, Any]]) -> Any:
        if ctx.resume_data != 2:
            ctx.suspend({"answer": ctx.resume_data, "before": ctx.suspend_data})
        return ctx.suspend_data

    asked(harness, workflow("w").then(twice).commit())
    harness.resume(1)
    assert {"answer": 1, "before": {"answer": None, "before": None}} == harness.resume(2).output


@behaviour(163, "two suspending steps in sequence take two answers")
def test_163_two_in_sequence(harness: Harness) -> None:
    """Each its own."""
    asked(harness, workflow("w", input=int).then(ask).then(ask, id="other").commit())
    assert [["other"]] == harness.resume(10).suspended
    assert 111 == harness.resume(100).output


@behaviour(164, "a step may suspend again when an answer is not enough")
def test_164_suspend_again(harness: Harness) -> None:
    """As a wait of its own."""

    @step
    def enough(_: Any, ctx: StepContext[int, str]) -> int:
        if ctx.resume_data is None or ctx.resume_data < 10:
            ctx.suspend(f"not enough: {ctx.resume_data}")
        return ctx.resume_data

    first = asked(harness, workflow("w").then(enough).commit())
    again = harness.resume(3)
    assert ("suspended", "not enough: 3") == (again.status, again.waits[0].payload)
    assert first.waits[0].id != again.waits[0].id
    assert ("success", 12) == ((result := harness.resume(12)).status, result.output)


@pytest.mark.parametrize("nested", [False, True])
@behaviour(165, "the request context from before a suspension is back after it; what the caller brings wins")
def test_165_request_context_after_resume(harness: Harness, nested: bool) -> None:
    """Inside nested workflows too."""

    @step
    def prepare(value: Any, ctx: StepContext) -> Any:
        ctx.request_context["set"] = 1
        return value

    @step
    def suspending(_: Any, ctx: StepContext[bool]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        return dict(ctx.request_context)

    inner = workflow("inner").then(prepare).then(suspending).commit()
    harness.serve(workflow("w").then(inner).commit() if nested else inner)
    harness.start(1, request_context={"given": 1, "changed": 1})
    result = harness.resume(True, request_context={"changed": 2, "new": 2})
    assert {"given": 1, "set": 1, "changed": 2, "new": 2} == result.output


@behaviour(166, "the resource id stays with the run")
def test_166_resource_id_after_resume(harness: Harness) -> None:
    """In the listing too."""
    harness.serve(ASKING).start(1, resource_id="customer-7")
    assert "customer-7" == harness.resume(10).resource_id
    assert [harness.run_id] == [run.run_id for run in harness.app.list_runs(resource_id="customer-7")]


@behaviour(167, "the workflow's input is readable after a resume")
def test_167_init_data_after_resume(harness: Harness) -> None:
    """In the resumed step and behind it."""

    @step
    def suspending(_: Any, ctx: StepContext[int]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        return ctx.init_data

    @step
    def after(seen: Any, ctx: StepContext) -> Any:
        return [seen, ctx.init_data]

    asked(harness, workflow("w").map(lambda n: n + 1).then(suspending).then(after).commit(), 7)
    assert [7, 7] == harness.resume(1).output


@pytest.mark.parametrize("step", [INNER, "inner", "outer", "ask"], ids=["object", "inner", "outer", "ask"])
@behaviour(168, "a nested suspension is resumed by the nested workflow's id alone")
def test_168_resume_by_the_child(harness: Harness, step: Any) -> None:
    """On any level, down to the step's own id."""
    asked(harness, NESTING)
    assert 30 == harness.resume(10, step=step).output


@behaviour(169, "nested workflows in a row may each suspend")
def test_169_consecutive_nested(harness: Harness) -> None:
    """The second begins with what the first gives."""
    asked(harness, workflow("w", input=int).then(INNER).then(INNER.clone(id="next")).commit())
    assert [["next", "ask"]] == harness.resume(10, step="inner").suspended
    result = harness.resume(100, step="next")
    assert ("success", 127) == (result.status, result.output)


@behaviour(170, "a suspension three levels deep is reported with its path and can be resumed")
def test_170_three_levels(harness: Harness) -> None:
    """From a process that only knows the run's id."""
    asked(harness, workflow("w", input=int).then(NESTING).commit())
    elsewhere = harness.another_process().run(harness.run_id)
    path = elsewhere.result().suspended[0]
    assert ["nesting", "outer", "inner", "ask"] == path
    elsewhere.resume(10, step=path)
    harness.advance()
    assert 30 == harness.result().output


@behaviour(171, "a loop over a nested workflow may suspend in each turn")
def test_171_loop_over_a_suspending_workflow(harness: Harness) -> None:
    """Each turn's own input is the nested workflow's input there."""
    seen: list[Any] = []

    @step
    def add(_: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        seen.append(ctx.init_data)
        return int(ctx.init_data) + ctx.resume_data

    child = workflow("child", input=int, output=int).then(double).then(add).commit()
    asked(harness, workflow("w", input=int).dountil(child, lambda n: n >= 60).commit(), 0)
    assert ["suspended", "suspended"] == [harness.resume(answer).status for answer in (10, 20)]
    result = harness.resume(30)
    assert ("success", 60, [0, 10, 30]) == (result.status, result.output, seen)
    assert 3 == CALLS.count("double")


@behaviour(172, "a loop's body may suspend in each turn; its input advances")
def test_172_suspending_body(harness: Harness) -> None:
    """A new turn begins without an answer."""
    seen: list[tuple[int, Any]] = []

    @step
    def body(number: int, ctx: StepContext[str]) -> int:
        seen.append((number, ctx.resume_data))
        if ctx.resume_data is None:
            ctx.suspend()
        return number + 1

    asked(harness, workflow("w", input=int).dountil(body, lambda n: n == 4).commit())
    assert ["suspended", "suspended"] == [harness.resume(answer).status for answer in "ab"]
    assert ("success", 4) == ((result := harness.resume("c")).status, result.output)
    assert [(1, None), (1, "a"), (2, None), (2, "b"), (3, None), (3, "c")] == seen


def fan(concurrency: int, id: str = "fan") -> Workflow[Any, Any]:
    """A foreach whose items each ask, and show which they are."""

    @step
    def item(number: int, ctx: StepContext[int, str]) -> Any:
        CALLS.append(f"item {number} {ctx.resume_data}")
        if ctx.resume_data is None:
            ctx.suspend(f"item {ctx.index}", label=f"label-{ctx.index}")
        return [number + ctx.resume_data, ctx.suspend_data]

    def numbers(items: Any) -> Any:
        return [item[0] for item in items]

    return workflow(id, input=list[int]).foreach(item, concurrency=concurrency).map(numbers, id="numbers").commit()


def open_items(result: RunResult[Any]) -> list[int]:
    """Which items wait for an answer."""
    return sorted(wait.index for wait in result.waits if wait.index is not None)


@behaviour(173, "a foreach that goes item by item takes one answer after the other")
def test_173_sequential_items(harness: Harness) -> None:
    """Each for its own item."""
    assert [0] == open_items(harness.serve(fan(1)).start([1, 2, 3]))
    assert [[1], [2]] == [open_items(harness.resume(answer)) for answer in (10, 20)]
    result = harness.resume(30)
    assert [11, 22, 33] == result.output
    assert 66 == sum(result.output)


@behaviour(174, "one answer without an index goes to all suspended items")
def test_174_all_items_at_once(harness: Harness) -> None:
    """Of a foreach that has them all open."""
    result = harness.serve(fan(3)).start([1, 2, 3])
    assert ([0, 1, 2], [["item"]]) == (open_items(result), result.suspended)
    assert [11, 12, 13] == harness.resume(10).output


@behaviour(175, "items are resumed by their index, in any order")
def test_175_items_by_index(harness: Harness) -> None:
    """The others stay suspended."""
    harness.serve(fan(3)).start([1, 2, 3])
    assert [0, 1] == open_items(harness.resume(30, index=2))
    assert [1] == open_items(harness.resume(10, step="item", index=0))
    assert [11, 22, 33] == harness.resume(20, index=1).output


@behaviour(176, "items are resumed by their label, in any order")
def test_176_items_by_label(harness: Harness) -> None:
    """A label that was answered is no longer open."""
    harness.serve(fan(3)).start([1, 2, 3])
    assert [0, 1] == open_items(harness.resume(30, label="label-2"))
    with pytest.raises(AlreadyResumed):
        harness.resume(31, label="label-2")
    assert [1] == open_items(harness.resume(10, label="label-0"))
    assert [11, 22, 33] == harness.resume(20, label="label-1").output


@behaviour(177, "with partial concurrency an answer without an index goes to the items that are open")
def test_177_partial_concurrency(harness: Harness) -> None:
    """The next ones begin without it."""
    assert [0, 1] == open_items(harness.serve(fan(2)).start([1, 2, 3, 4]))
    assert [2, 3] == open_items(harness.resume(10))
    assert [11, 12, 23, 24] == harness.resume(20).output
    begun = [call for call in CALLS if call.endswith("None")]
    assert [f"item {n} None" for n in (1, 2, 3, 4)] == sorted(begun)


@behaviour(178, "with partial concurrency items are resumed by their index")
def test_178_partial_concurrency_by_index(harness: Harness) -> None:
    """The slot of an answered item goes to the next one."""
    harness.serve(fan(2)).start([1, 2, 3, 4])
    assert [0, 2] == open_items(harness.resume(20, index=1))
    assert [0, 3] == open_items(harness.resume(30, index=2))
    assert [3] == open_items(harness.resume(10, index=0))
    assert [11, 22, 33, 44] == harness.resume(40, index=3).output


@behaviour(179, "each item sees the payload it has shown itself")
def test_179_suspend_data_per_item(harness: Harness) -> None:
    """In whatever order they are answered."""
    harness.serve(fan(3)).start([1, 2, 3])
    harness.resume(0, index=1)
    result = harness.resume(0)
    seen = result.steps["item"].output
    assert [[n + 1, f"item {n}"] for n in range(3)] == seen


@behaviour(180, "a run is resumed from another process by its id alone")
def test_180_resume_from_another_process(harness: Harness) -> None:
    """It shares nothing with the one that started it."""
    asked(harness, NESTING)
    harness.another_process().resume(harness.run_id, 10)
    harness.advance()
    assert ("success", 30) == ((result := harness.result()).status, result.output)


@behaviour(181, "of two answers at the same moment exactly one is taken")
def test_181_racing_resumes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other is told who was faster; what follows runs once."""
    asked(harness)
    write = harness.store.resume

    def slow(*args: Any, **options: Any) -> Any:
        """Between reading and writing somebody else resumes the run."""
        monkeypatch.setattr(harness.store, "resume", write)
        harness.another_process().resume(harness.run_id, 10, by="rival")
        return write(*args, **options)

    monkeypatch.setattr(harness.store, "resume", slow, raising=False)
    with pytest.raises(AlreadyResumed, match="by 'rival'"):
        harness.resume(20)
    harness.advance()
    assert ("success", 24) == ((result := harness.result()).status, result.output)
    assert ["increment", "ask", "ask", "double"] == CALLS


@behaviour(182, "a refused answer leaves the run resumable")
def test_182_refused_answers(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that does not fit, and a store that does not answer before anything is written."""

    def unavailable(*_: Any, **_options: Any) -> Any:
        raise StoreUnavailable("not now")

    before = asked(harness, NESTING)
    with pytest.raises(InvalidPayload, match=r"outer\.inner\.ask"):
        harness.resume("ten")
    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "resume", unavailable, raising=False)
        with pytest.raises(StoreUnavailable):
            harness.resume(10)
    assert before == harness.result()
    assert 30 == harness.resume(10).output


@behaviour(183, "an answer right after the start, while the suspension is still being written, does not fail")
def test_183_resume_while_suspending(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that is about to park the run finds the answer and goes on with it."""
    release = harness.store.release

    def slow(head: Any, **options: Any) -> Any:
        """The suspension is stored, its run not given back yet: somebody answers."""
        if head.status is RunStatus.SUSPENDED:
            monkeypatch.setattr(harness.store, "release", release)
            assert "applied" == getattr(harness.another_process().resume(harness.run_id, 10).receipt, "verdict", None)
        return release(head, **options)

    monkeypatch.setattr(harness.store, "release", slow, raising=False)
    result = harness.serve(ASKING).start(1)
    assert ("success", 24) == (result.status, result.output)
    assert ["increment", "ask", "ask", "double"] == CALLS


@behaviour(184, "a resume step by step runs one step, then the run is paused")
def test_184_resume_per_step(harness: Harness) -> None:
    """Also inside a nested workflow; the rest runs when it is let go on."""
    harness.serve(NESTING).start(1)
    CALLS.clear()
    result = harness.resume(10, per_step=True)
    assert ("paused", ["ask"], "success") == (result.status, CALLS, result.steps["outer.inner.ask"].status)
    harness.run().unpause(per_step=True)
    assert ("paused", ["ask", "increment"]) == (harness.result().status, CALLS)
    harness.run().unpause()
    harness.advance()
    assert ("success", 30, ["ask", "increment", "double"]) == (harness.result().status, harness.result().output, CALLS)
