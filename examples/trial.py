"""A trial of a product: mails on fixed days, weeks apart, and an offer that ends with the trial."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel

from flowcore import App, StepContext, step, workflow


class Trial(BaseModel):
    email: str
    begins: AwareDatetime


class Offer(BaseModel):
    price: int
    ends: AwareDatetime


outbox: dict[str, str] = {}
"""Stands for a mail service that takes an idempotency key: a step that runs twice sends one mail."""


@step(retries=3)
def welcome(trial: Trial, ctx: StepContext) -> Trial:
    outbox[ctx.idempotency_key] = f"{trial.email}: welcome"
    return trial


@step(retries=3)
def tips(trial: Trial, ctx: StepContext) -> Trial:
    outbox[ctx.idempotency_key] = f"{trial.email}: three things to try"
    return trial


@step(retries=3)
def offer(trial: Trial, ctx: StepContext[int, Offer]) -> Literal["customer", "gone"]:
    if ctx.timed_out:
        return "gone"
    if ctx.resume_data is None:
        outbox[ctx.idempotency_key] = f"{trial.email}: two days left"
        price = Offer(price=90, ends=trial.begins + timedelta(days=30))
        ctx.suspend(price, label="buy", timeout=timedelta(days=2))
    return "customer"


trial = (
    workflow("trial", input=Trial, output=Literal["customer", "gone"])
    .then(welcome)
    .sleep_until(lambda trial: trial.begins + timedelta(days=7), id="first-week")
    .then(tips)
    .sleep_until(lambda trial: trial.begins + timedelta(days=28), id="four-weeks")
    .then(offer)
    .commit()
)

app = App(trial)


def main() -> None:
    from flowcore.testing import LocalApp, VirtualClock

    local = LocalApp(app, clock=VirtualClock(datetime(2026, 3, 1, 9, tzinfo=UTC)))
    run = local.workflow(trial).create_run("ada", resource_id="customer-7")
    wakes = run.start(Trial(email="ada@example.com", begins=local.clock.now())).steps["first-week"].wake_at
    print("sleeps until", wakes)
    local.advance(days=28)
    print(run.result().status, list(outbox.values()))
    local.advance(days=2)
    print(run.result().output)


if __name__ == "__main__":
    main()
