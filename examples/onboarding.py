"""A first day at work: a workflow inside another, a state that both share, and a mail that is sent once."""

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow


class Person(BaseModel):
    name: str
    remote: bool = False


class Desk(BaseModel):
    """What the steps know together; each sets what it has found out."""

    mailbox: str | None = None
    badge: int | None = None


class Choice(BaseModel):
    laptop: str


outbox: list[str] = []


def send(mail: str) -> int:
    """Stands for a mail server: gives the number of the mail."""
    outbox.append(mail)
    return len(outbox)


@step
def mailbox(person: Person, ctx: StepContext[None, None, Desk]) -> Person:
    ctx.set_state({"mailbox": f"{person.name}@example.com"})
    return person


@step
def badge(person: Person, ctx: StepContext[None, None, Desk]) -> Person:
    ctx.set_state({"badge": 4711})
    return person


@step
def laptop(person: Person, ctx: StepContext[Choice, str, Desk]) -> str:
    to = ctx.state.mailbox
    mail = ctx.once("mail", lambda: send(f"to {to}: which laptop?"))
    if ctx.resume_data is None:
        ctx.suspend(f"mail {mail} asked {to}", label="laptop")
    return ctx.resume_data.laptop


@step
def welcome(laptop: str, ctx: StepContext[None, None, Desk]) -> str:
    return f"{ctx.state.mailbox}, badge {ctx.state.badge}, {laptop}"


accounts = workflow("accounts", input=Person, output=Person, state=Desk).then(mailbox).then(badge).commit()
onboarding = (
    workflow("onboarding", input=Person, output=str, state=Desk).then(accounts).then(laptop).then(welcome).commit()
)

app = App(onboarding)


def main() -> None:
    from flowcore.testing import LocalApp

    run = LocalApp(app).workflow(onboarding).create_run("ada")
    asked = run.start(Person(name="ada"))
    print(asked.waits[0].payload)
    print(run.resume(Choice(laptop="a small one"), label="laptop").output)
    print(list(asked.steps))


if __name__ == "__main__":
    main()
