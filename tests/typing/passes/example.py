"""The example of the front page, as a user would type it."""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, StepContext, otherwise, step, workflow


class Refund(BaseModel):
    """What a run starts with."""

    order: str
    amount: int


class Ask(BaseModel):
    """Shown to the person who must decide."""

    reason: str


class Decision(BaseModel):
    """What that person answers."""

    approved: bool
    comment: str = ""


class Ruling(BaseModel):
    """What came of it."""

    order: str
    approved: bool


class Score(BaseModel):
    """How an order looks."""

    refund: Refund
    score: float


class Checks(BaseModel):
    """Both checks, by the ids of their steps."""

    fraud_check: Score
    credit_check: Score


class Outcome(BaseModel):
    """Who ruled, as a branch gives it."""

    manager_approval: Ruling | None = None
    auto_approve: Ruling | None = None


class Receipt(BaseModel):
    """What a run ends with."""

    paid: int


@step
def fraud_check(refund: Refund) -> Score:
    """A check."""
    return Score(refund=refund, score=0.9)


@step
async def credit_check(refund: Refund) -> Score:
    """Another one, as a coroutine."""
    return Score(refund=refund, score=0.1)


@step(retries=2)
def manager_approval(checks: Checks, ctx: StepContext[Decision, Ask]) -> Ruling:
    """A person decides."""
    order = checks.fraud_check.refund.order
    if ctx.timed_out:
        return Ruling(order=order, approved=False)
    if ctx.resume_data is None:
        ctx.suspend(Ask(reason="large refund"), timeout=timedelta(days=3), label="manager")
    return Ruling(order=order, approved=ctx.resume_data.approved)


@step
def auto_approve(checks: Checks) -> Ruling:
    """Nobody has to decide."""
    return Ruling(order=checks.fraud_check.refund.order, approved=True)


@step
def pay(outcome: Outcome) -> Receipt:
    """The end of it."""
    ruling = outcome.manager_approval or outcome.auto_approve
    return Receipt(paid=1 if ruling is not None and ruling.approved else 0)


refund_flow = (
    workflow("refund", input=Refund, output=Receipt)
    .parallel(fraud_check, credit_check, into=Checks)
    .branch((lambda checks: checks.fraud_check.score > 0.8, manager_approval), (otherwise, auto_approve), into=Outcome)
    .sleep(timedelta(hours=1))
    .then(pay)
    .commit()
)

app = App(refund_flow)

result = app.workflow("refund").create_run().start(Refund(order="1", amount=900))
match result.status:
    case "suspended":
        result = app.resume(result.run_id, Decision(approved=True), step=manager_approval)
    case "success":
        print(result.output)
    case _:
        pass
