"""Somebody asks for leave and somebody decides, both over HTTP: a program that knows the API and none of this code.

Run it: ``python -m examples.leave``
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow
from flowcore.errors import AlreadyResumed

if TYPE_CHECKING:  # the deployed app needs no client
    from flowcore.client import Client


class Leave(BaseModel):
    who: str
    first: date
    days: int


class Decision(BaseModel):
    granted: bool
    why: str = ""


@step
def decide(leave: Leave, ctx: StepContext[Decision, Leave]) -> Decision:
    if ctx.resume_data is None:
        late = Decision(granted=True, why="nobody objected")
        ctx.suspend(leave, label="lead", timeout=timedelta(days=5), on_timeout=late)
    return ctx.resume_data


leaves = workflow("leave", input=Leave, output=Decision).then(decide).commit()

app = App(leaves)


def ask(client: "Client", who: str, first: str, days: int) -> str:
    """As the form on the intranet does; sent twice it is one request."""
    leave = {"who": who, "first": first, "days": days}
    return client.start("leave", leave, resource_id=who, idempotency_key=f"{who}/{first}").run_id


def answer_all(client: "Client", most_days: int) -> None:
    """As a lead's script does: short leaves are granted, others are left to him."""
    for one in client.waits(workflow="leave"):
        if one.wait.payload["days"] <= most_days:
            granted = client.answer(one.id, {"granted": True, "why": "short"}, idempotency_key=one.id)
            print(one.wait.payload["who"], granted.output)


def main() -> None:
    from flowcore.client import Client
    from flowcore.testing.served import in_process  # for a deployed app: Client(its address, a token)

    with Client("https://api.example.com", transport=in_process(app)) as client:
        ada, _, bob = [ask(client, *asked) for asked in (("ada", "2026-07-01", 2),) * 2 + (("bob", "2026-08-01", 30),)]
        answer_all(client, most_days=3)  # ada {'granted': True, 'why': 'short'}
        try:
            client.resume(ada, {"granted": False}, label="lead")
        except AlreadyResumed as error:
            print(error.code, error.winner["via"])  # already-resumed http
        client.resume(bob, {"granted": False, "why": "too long"}, label="lead")
        print([event.type for event in client.follow(bob)][-2:])  # ['step-finished', 'run-finished']
        print(client.counts()["success"], [run.resource_id for run in client.list_runs(resource_id="bob")])


if __name__ == "__main__":
    main()
