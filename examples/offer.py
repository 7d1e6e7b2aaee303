"""Wait for the first of several things: the customer answers, or simply pays, or a colleague withdraws the offer.

Run it: ``python -m examples.offer``
"""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, Option, StepContext, step, workflow


class Offer(BaseModel):
    number: str
    cents: int


class Answer(BaseModel):
    accepted: bool


class Payment(BaseModel):
    cents: int


@step
def decide(offer: Offer, ctx: StepContext[Answer | Payment, str]) -> str:
    if ctx.timed_out:
        return "expired"
    if ctx.resume_data is None:
        ctx.suspend_any(
            [
                Option("customer", f"{offer.cents} cents?", resume=Answer),
                Option("paid", key=offer.number, event="offer.paid", resume=Payment),
                Option("withdraw", "Take it back?", resume=Answer, approvers=["ada", "eve"]),
            ],
            timeout=timedelta(days=30),
        )
    if isinstance(ctx.resume_data, Payment):
        return f"paid {ctx.resume_data.cents}"
    return f"{ctx.chosen}: {'yes' if ctx.resume_data.accepted else 'no'}"


offers = workflow("offer", input=Offer, output=str).then(decide).commit()

app = App(offers)


def main() -> None:
    run = app.workflow(offers).create_run("o-1")
    result = run.start(Offer(number="O-1", cents=990))
    print([wait.label for wait in result.waits])  # ['customer', 'paid', 'withdraw']

    print(app.send_event("offer.paid", "O-1", Payment(cents=990)).wait)  # decide@0:paid
    print(run.result().output)  # paid 990

    other = app.workflow(offers).create_run("o-2")
    other.start(Offer(number="O-2", cents=500))
    print(other.resume(Answer(accepted=True), label="customer").output)  # customer: yes


if __name__ == "__main__":
    main()
