"""Two of three people must agree, anybody of them may stop it, and nobody answering is an answer, too.

Run it: ``python -m examples.review``
"""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, StepContext, Wait, step, workflow

REVIEWERS = ["ada", "grace", "alan"]
outbox: list[str] = []  # a mail server, for the example


class Change(BaseModel):
    title: str


class Verdict(BaseModel):
    agreed: bool


class Ruling(BaseModel):
    title: str
    merged: bool
    by: list[str] = []


def mail_reviewers(wait: Wait[Change]) -> None:  # called once the wait is stored; again where it failed
    outbox.extend(f"to {name}: please look at {wait.payload.title!r} ({wait.id})" for name in wait.approvers)


@step
def review(change: Change, ctx: StepContext[Verdict, Change]) -> Ruling:
    if ctx.resume_data is None:
        ctx.suspend(
            change,
            approvers=REVIEWERS,
            quorum=2,
            veto="agreed",
            notify=mail_reviewers,
            timeout=timedelta(days=7),
            on_timeout=Ruling(title=change.title, merged=False),
        )
    return Ruling(title=change.title, merged=ctx.resume_data.agreed, by=[vote.by for vote in ctx.votes])


reviews = workflow("review", input=Change, output=Ruling).then(review).commit()

app = App(reviews)


def main() -> None:
    run = app.workflow(reviews).create_run("c-1")
    print(run.start(Change(title="faster sums")).status, len(outbox))  # suspended 3
    for name in ("ada", "ada", "grace"):  # people click twice
        receipt = run.resume(Verdict(agreed=True), by=name).receipt
        print(name, receipt and receipt.verdict)  # counted, duplicate, applied
    print(run.result().output)  # title='faster sums' merged=True by=['ada', 'grace']


if __name__ == "__main__":
    main()
