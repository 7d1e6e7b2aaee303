"""Many people answer at once: one is taken, and the others are told who it was."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import App, RunResult, StepContext, step, workflow
from flowcore.errors import AlreadyResumed
from flowcore.testing.contract import racing

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


@pytest.mark.slow
def test_one_of_32_racing_resumes_wins() -> None:
    """200 times: one result, 31 times AlreadyResumed with the winner that the run really took."""
    app = App(workflow("w", input=int, output=int).then(ask).then(pass_on).commit())
    with racing(RACERS) as race:
        for turn in range(200):
            assert [] == one_race(app, f"r-{turn}", race)


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
