"""A refund by mail: one person decides on the page behind a signed link, then the bank says that the money is there."""

from datetime import timedelta

from pydantic import BaseModel, Field

from flowcore import App, StepContext, Wait, step, workflow
from flowcore.deliveries import Webhook
from flowcore.webhooks import StandardWebhooks

APPROVER = "grace@shop.example"


class Refund(BaseModel):
    order: str
    cents: int = Field(gt=0)
    reason: str


class Decision(BaseModel):
    approved: bool = Field(title="Give the money back?")
    comment: str = Field(default="", max_length=500, title="Comment", description="The customer reads this.")


def mail(wait: Wait[Refund]) -> None:  # called once the wait is stored; again where it failed
    link = wait.approval_url(actor=APPROVER)  # whoever holds it answers as this person: no log is a place for it
    print(f"To: {APPROVER}. A refund for you to decide: {link}", flush=True)  # plays a mail server


@step
def approve_refund(refund: Refund, ctx: StepContext[Decision, Refund]) -> str:
    if ctx.timed_out:
        ctx.bail("nobody has decided")
    if ctx.resume_data is None:
        ctx.suspend(refund, approvers=[APPROVER], notify=mail, timeout=timedelta(days=3))
    if not ctx.resume_data.approved:
        ctx.bail("refused")
    return refund.order


@step
def close(cents: int) -> str:
    return f"{cents} cents are back"


refunds = (
    workflow("refund", input=Refund, output=str)
    .then(approve_refund)
    .wait_for_event("refund.paid", key=lambda order: order, model=int)
    .then(close)
    .commit()
)

bank = Webhook(
    name="bank",  # POST /hooks/bank
    scheme=StandardWebhooks(),
    secret="env:REFUND_BANK_SECRET",  # where it is kept
    event="refund.paid",
    key="order",
    data="amount",
)

app = App(refunds, webhooks=[bank])


def main() -> None:
    from flowcore.links import Links
    from flowcore.testing import LocalApp

    local = LocalApp(App(refunds, links=Links("https://shop.example", {"1": "of 32 characters, or of more so."})))
    run = local.workflow(refunds).create_run("r-1")
    print(run.start(Refund(order="A-17", cents=990, reason="the kettle leaks")).status)  # the mail, then: suspended
    run.resume(Decision(approved=True), by=APPROVER)  # or over the link
    local.send_event("refund.paid", "A-17", 990)  # or as a webhook
    print(run.result().output)  # 990 cents are back


if __name__ == "__main__":
    main()
