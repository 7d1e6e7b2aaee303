"""An approval that climbs a ladder: each approver has two days, then the question goes to the next one."""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow


class Request(BaseModel):
    what: str
    ladder: list[str]
    """Who may say yes, in the order in which they are asked."""


class Question(BaseModel):
    approver: str
    what: str


class Decision(BaseModel):
    approved: bool


class Standing(BaseModel):
    asked: int = 0
    approved: bool = False
    by: str | None = None


@step
def ask(standing: Standing, ctx: StepContext[Decision, Question]) -> Standing:
    request = ctx.get_init_data(Request)
    approver = request.ladder[standing.asked]
    if ctx.timed_out:
        return Standing(asked=standing.asked + 1)
    if ctx.resume_data is None:
        ctx.suspend(Question(approver=approver, what=request.what), label=approver, timeout=timedelta(days=2))
    return Standing(asked=standing.asked + 1, approved=ctx.resume_data.approved, by=approver)


approval = (
    workflow("approval", input=Request, output=Standing)
    .map(lambda _: Standing())
    .dountil(ask, lambda standing, ctx: standing.by is not None or standing.asked == len(ctx.init_data.ladder))
    .commit()
)

app = App(approval)


def main() -> None:
    from flowcore.testing import LocalApp

    local = LocalApp(app)
    run = local.workflow(approval).create_run("telescope")
    asked = run.start(Request(what="a telescope", ladder=["ada", "grace"]))
    print("asked:", asked.waits[0].label)
    local.advance(days=2)
    print("two days later:", run.result().waits[0].label)
    print(run.resume(Decision(approved=True), label="grace").output)


if __name__ == "__main__":
    main()
