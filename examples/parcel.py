"""Wait for what other systems tell: a payment, then a delivery. An event may come before anybody waits for it.

Run it: ``python -m examples.parcel``
"""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow


class Order(BaseModel):
    number: str
    article: str


class Payment(BaseModel):
    cents: int


class Delivery(BaseModel):
    signed_by: str


@step
def ship(payment: Payment, ctx: StepContext) -> str:
    order = ctx.get_init_data(Order)
    return ctx.once("label", lambda: f"parcel-{order.number}")  # one label, however often this step runs


@step
def close(delivery: Delivery, ctx: StepContext) -> str:
    return f"{ctx.get_step_result(ship)} was taken by {delivery.signed_by}"


orders = (
    workflow("order", input=Order, output=str)
    .wait_for_event("order.paid", key=lambda order: order.number, model=Payment, timeout=timedelta(days=14))
    .then(ship)
    .wait_for_event("parcel.delivered", key=lambda parcel: parcel, model=Delivery)
    .then(close)
    .commit()
)

app = App(orders)


def main() -> None:
    app.send_event("order.paid", "A-17", Payment(cents=990))  # the payment is faster than the order
    run = app.workflow(orders).create_run("r-1")
    result = run.start(Order(number="A-17", article="kettle"))
    print(result.status, result.waits[0].payload)  # suspended {'event': 'parcel.delivered', 'key': 'parcel-A-17'}

    for _ in range(2):  # carriers tell things twice
        receipt = app.send_event("parcel.delivered", "parcel-A-17", Delivery(signed_by="ada"), event_id="scan-1")
        print(receipt.verdict, run.result().output)  # applied, then duplicate: parcel-A-17 was taken by ada


if __name__ == "__main__":
    main()
