"""Many payments at once: four at a time, a person is asked about large ones, and a few may fail."""

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow


class Payout(BaseModel):
    to: str
    amount: int


class Report(BaseModel):
    paid: list[str]
    failed: int


class Question(BaseModel):
    to: str
    amount: int


class RefusedError(Exception):
    """This payment is not made."""


@step
def pay(payout: Payout, ctx: StepContext[bool, Question]) -> str:
    if payout.to == "nobody":
        raise RefusedError("there is no such account")
    if payout.amount > 10_000:
        if ctx.resume_data is None:
            ctx.suspend(Question(to=payout.to, amount=payout.amount), label=f"{payout.to} gets {payout.amount}")
        if not ctx.resume_data:
            raise RefusedError("said no")
    return f"{payout.amount} to {payout.to}, key {ctx.idempotency_key}"


@step
def report(receipts: list[str | None]) -> Report:
    return Report(paid=[receipt for receipt in receipts if receipt], failed=receipts.count(None))


payouts = (
    workflow("payouts", input=list[Payout], output=Report)
    .foreach(pay, concurrency=4, tolerated_failures=0.5)
    .then(report)
    .commit()
)

app = App(payouts)


def main() -> None:
    from flowcore.testing import LocalApp

    run = LocalApp(app).workflow(payouts).create_run("june")
    people = {"ada": 900, "grace": 20_000, "nobody": 5, "alan": 700}
    asked = run.start([Payout(to=to, amount=amount) for to, amount in people.items()])
    print(asked.status, "at", asked.waits[0].label)
    done = run.resume(data=True, label="grace gets 20000").output
    assert done is not None
    print(done.failed, "failed,", len(done.paid), "paid;", done.paid[1])


if __name__ == "__main__":
    main()
