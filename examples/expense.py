"""An expense report: two checks at once, a person decides about large ones, the bank pays, days later it is booked."""

from datetime import timedelta

from pydantic import BaseModel, Field

from examples import bank
from flowcore import App, StepContext, otherwise, step, workflow


class Expense(BaseModel):
    employee: str
    amount: int = Field(gt=0, description="in cents")
    purpose: str


class Checks(BaseModel):
    within_policy: bool
    budget_left: int


class Question(BaseModel):
    """What the manager is shown."""

    employee: str
    amount: int
    purpose: str
    reason: str


class Decision(BaseModel):
    """What the manager answers."""

    approved: bool
    comment: str = ""


class Ruling(BaseModel):
    approved: bool
    by: str


class Booked(BaseModel):
    status: str
    payment: str | None = None


@step
def within_policy(expense: Expense) -> bool:
    return expense.amount <= 50_000


@step
def budget_left(expense: Expense) -> int:
    return 120_000 - expense.amount


@step
def manager_approval(checks: Checks, ctx: StepContext[Decision, Question]) -> Ruling:
    expense = ctx.get_init_data(Expense)
    if ctx.resume_data is None:
        reason = f"over the limit; {checks.budget_left} cents of the budget would be left"
        ctx.suspend(Question(**expense.model_dump(), reason=reason), label="manager")
    return Ruling(approved=ctx.resume_data.approved, by="manager")


@step
def auto_approval(checks: Checks) -> Ruling:
    return Ruling(approved=True, by="policy")


@step(retries=2)
def pay(rulings: dict[str, Ruling], ctx: StepContext) -> str | None:
    expense = ctx.get_init_data(Expense)
    if not all(ruling.approved for ruling in rulings.values()):
        return None
    return bank.pay(ctx.idempotency_key, expense.employee, expense.amount)


@step
def book(payment: str | None) -> Booked:
    return Booked(status="booked" if payment else "refused", payment=payment)


expense_flow = (
    workflow("expense", input=Expense, output=Booked)
    .parallel(within_policy, budget_left, into=Checks)
    .branch((lambda checks: not checks.within_policy, manager_approval), (otherwise, auto_approval))
    .sleep(timedelta(seconds=3), id="second-thoughts")
    .then(pay)
    .sleep(timedelta(days=3), id="settlement")
    .then(book)
    .commit()
)

app = App(expense_flow)


def main() -> None:
    from flowcore.testing import LocalApp

    local = LocalApp(app)
    run = local.workflow(expense_flow).create_run("expense-1")
    asked = run.start(Expense(employee="ada", amount=60_000, purpose="a telescope"))
    print(asked.status, asked.waits[0].payload["reason"])
    print(run.resume(Decision(approved=True), label="manager").status)
    local.advance(days=4)
    print(run.result().status, run.result().output)


if __name__ == "__main__":
    main()
