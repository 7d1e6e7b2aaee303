"""Many people answer at once: one is taken, and the others are told who it was."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from threading import Barrier, Lock
from typing import Any

import pytest

from flowcore import App, RunResult, StepContext, step, workflow
from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import AlreadyResumed
from flowcore.keys import RunRef
from flowcore.model import Head
from flowcore.ports import Store, Written
from flowcore.testing import SeededIds
from flowcore.testing.contract import racing
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from tests.property.rows import told
from tests.property.threads import restless

RACERS = 32


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for somebody's number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


@step
def pass_on(value: int) -> int:
    """Something to do after the answer."""
    return value


WAITING = workflow("w", input=int, output=int).then(ask).then(pass_on).commit()


class MeetingStore:
    """A store at which the first two answers to a run arrive together; counts those that it refuses."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.refused = 0
        self._lock = Lock()
        self._arrived: Counter[RunRef] = Counter()
        self._meeting: defaultdict[RunRef, Barrier] = defaultdict(lambda: Barrier(2))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def resume(self, head: Head, *given: Any, **named: Any) -> Any:
        """See ``Store.resume``."""
        with self._lock:
            self._arrived[head.run] += 1
            is_first, meeting = self._arrived[head.run] <= 2, self._meeting[head.run]
        if is_first:
            meeting.wait(timeout=10)
        written = self.inner.resume(head, *given, **named)
        with self._lock:
            self.refused += not isinstance(written, Written)
        return written


def bad_rounds(rounds: int, store: Store) -> list[str]:
    """What went wrong in so many races; in each of them the store has to refuse somebody."""
    meeting: Any = MeetingStore(store)
    app = App(WAITING, store=meeting)
    with racing(RACERS) as race, restless():
        bad = [wrong for turn in range(rounds) for wrong in one_race(app, f"r-{turn}", race)]
    return bad if meeting.refused >= rounds else [*bad, f"only {meeting.refused} came too late at the store itself"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounds", [20, pytest.param(200, marks=pytest.mark.gate), pytest.param(5_000, marks=pytest.mark.proof)]
)
def test_one_of_32_racing_resumes_wins(rounds: int) -> None:
    """Each time: one result, 31 times AlreadyResumed with the winner that the run really took."""
    began = time.monotonic()
    bad = bad_rounds(rounds, MemoryStore())
    told("resumes", rounds, len(bad), time.monotonic() - began)
    assert [] == bad


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.proof)])
def test_one_of_32_racing_resumes_wins_on_dynamodb(rounds: int) -> None:
    """The same over boto3 and the real adapter; a fresh table every few races, because moto copies it each time."""
    began, bad = time.monotonic(), list[str]()
    with locked_moto(), ExitStack() as tables:
        client = StrictClient(dynamo_client(region=REGION))
        for _ in range(0, rounds, 5):
            tables.close()
            table = tables.enter_context(fresh_table(client))
            bad += bad_rounds(5, DynamoStore(client, table, SeededIds(), pause=lambda _: None))
    told("resumes-moto", rounds, len(bad), time.monotonic() - began)
    assert [] == bad


def one_race(app: App, run_id: str, race: Any) -> list[str]:
    """What went wrong in one race."""
    run = app.workflow("w").create_run(run_id)
    run.start(0)

    def answer(number: int) -> RunResult[Any] | AlreadyResumed:
        try:
            return app.resume(run_id, number, by=f"person-{number}")
        except AlreadyResumed as error:
            return error

    answers = race([lambda n=n: answer(n) for n in range(RACERS)])
    winners = [number for number, came in enumerate(answers) if isinstance(came, RunResult)]
    if len(winners) != 1:
        return [f"{winners} were told that they won"]
    (winner,) = winners
    told = {str(came.winner) for came in answers if isinstance(came, AlreadyResumed)}
    wrong = [] if len(told) == 1 and f"'person-{winner}'" in next(iter(told)) else [f"losers were told of {told}"]
    result = run.result()
    if (result.status, result.output) != ("success", winner):
        wrong.append(f"{result.status} with {result.output}, though person-{winner} was told to have won")
    return wrong
