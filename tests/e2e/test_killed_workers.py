"""Real worker processes are killed, and frozen until others have gone on in their place: nothing is lost or stuck."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowcore.app import App
from flowcore.keys import RunRef, StepKey
from flowcore.model import RunStatus
from infra.local.soak import Soak, main, served, soaking
from infra.local.soak_flows import BOOK
from infra.local.stack import LocalStack
from tests.e2e import slow_flows
from tests.property.rows import told

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("killed-workers")]
PATIENCE_S = 60.0


@pytest.mark.gate
def test_nothing_is_lost_when_workers_are_killed_and_frozen() -> None:
    """20 of them, with the seed that the report tells."""
    hold_out(seed=1, blows=20)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(100, 110))
def test_nothing_is_lost_however_many_are_killed_and_frozen(seed: int) -> None:
    """500 of them, on ten stacks."""
    hold_out(seed=seed, blows=50)


def hold_out(seed: int, blows: int) -> None:
    """Every run becomes what it becomes undisturbed, though so many workers are struck."""
    with soaking(seed) as soak:
        report = soak.go(blows=blows)
    told("killed", report.blows, len(report.wrong), report.seconds, seed=str(seed))
    print(report)
    assert [] == report.wrong
    assert report.started == report.ended.total()
    assert report.killed
    assert report.taken_over


@pytest.mark.gate
def test_workflows_of_ones_own_are_soaked(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of any App, with a plan that stands beside it: approvers, deadlines, events, items on many workers."""
    code = main(["--app", "tests.e2e.own_flows:app", "--minutes", "0.3", "--seed", "1"])
    print(told := capsys.readouterr().out)
    assert 0 == code, told


@pytest.mark.gate
def test_a_worker_frozen_between_load_and_commit_changes_nothing_when_it_thaws() -> None:
    """Another one has done its step again and gone on; its outcome is dropped, its effect is told by the same key."""
    with soaking(seed=1, pace_s=0.5) as soak:
        soak.app.workflow("sleepy").create_run("z").start(1)
        [zombie] = until(lambda: pids(soak.book, "z/pay"))
        os.kill(zombie, signal.SIGSTOP)
        soak.stack.forward(timedelta(minutes=5))
        until(lambda: head(soak).status is RunStatus.WAITING)
        before = records(soak)
        os.kill(zombie, signal.SIGCONT)
        until(lambda: soak.stack.idle)
        assert before == records(soak)
        assert (2, [2, 2]) == (head(soak).epoch, [record.epoch for record in before.values()])
        first, second = pids(soak.book, "z/pay")
        assert first == zombie != second
        soak.stack.forward(timedelta(days=3, seconds=1))
        until(lambda: head(soak).status is RunStatus.SUCCESS)
        assert {"z": {"pay", "ship"}} == soak.entries()


@pytest.mark.gate
def test_a_step_too_slow_for_its_worker_is_tried_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    """Lambda ends the process in the middle of it, and another one goes on; after five of them the step has failed."""
    book = tmp_path / "book"
    parameters = {"AppModule": "tests.e2e.slow_flows:app", "WorkerTimeout": "2", "WorkerBatchSize": "1"}
    with LocalStack(parameters=parameters, environment={BOOK: str(book)}, max_sandboxes=2) as stack:
        app = served(stack, slow_flows.app)
        app.workflow("crawl").create_run("once").start(1, wait=None)
        app.workflow("crawl").create_run("always").start(99, wait=None)
        for tries in range(1, 6):
            until(partial(has_begun, book, "always/crawl", tries))
            until(lambda: stack.idle)
            assert not {*pids(book, "always/crawl"), pids(book, "once/crawl")[0]} & set(stack.pids())
            stack.forward(timedelta(minutes=5))
        once, always = (until(partial(ended, app, run)) for run in ("once", "always"))
    assert ("success", 2) == (once.status, once.output)
    assert "5 workers in a row took up 'crawl'" in always.error.message
    assert 5 == len(set(pids(book, "always/crawl")))


def has_begun(book: Path, key: str, tries: int) -> bool:
    """Whether a step has begun so often."""
    return len(pids(book, key)) == tries


def ended(app: App, run: str) -> Any:
    """What has become of a run, once something has."""
    result = app.run(run).result()
    return result if result.status in ("success", "failed") else None


def head(soak: Soak) -> Any:
    """The run's head, as it stands."""
    return soak.app.store.peek(RunRef("default", "z"))


def records(soak: Soak) -> dict[StepKey, Any]:
    """Everything that is committed about the run."""
    loaded = soak.app.store.load(RunRef("default", "z"), everything=True)
    assert loaded is not None
    return dict(loaded[1])


def pids(book: Path | None, key: str) -> list[int]:
    """Processes that entered an effect under this key, in order."""
    assert book is not None
    with suppress(FileNotFoundError):
        lines = book.read_text("utf-8").splitlines()
        return [int(line.split(" ")[1]) for line in lines if line.startswith(f"{key} ")]
    return []


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` answers once it is true."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := look()):
        assert time.monotonic() < end, f"still {answer!r}"
        time.sleep(0.01)
    return answer
