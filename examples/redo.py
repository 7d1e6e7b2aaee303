"""A run that failed on bad input: another one goes on from the step that failed, with the input put right."""

from pydantic import BaseModel

from flowcore import App, step, workflow


class Invoice(BaseModel):
    number: str
    net: int
    country: str


class Total(BaseModel):
    number: str
    gross: int


VAT = {"AT": 20, "DE": 19, "FR": 20}

fetched: list[str] = []


class UnknownCountryError(Exception):
    """No tax rate is known."""


@step
def fetch(number: str) -> Invoice:
    fetched.append(number)
    return Invoice(number=number, net=1_000, country="Austria")


@step
def tax(invoice: Invoice) -> Total:
    if invoice.country not in VAT:
        raise UnknownCountryError(invoice.country)
    return Total(number=invoice.number, gross=invoice.net * (100 + VAT[invoice.country]) // 100)


@step
def file(total: Total) -> str:
    return f"{total.number}: {total.gross}"


invoicing = workflow("invoicing", input=str, output=str).then(fetch).then(tax).then(file).commit()

app = App(invoicing)


def main() -> None:
    from flowcore.testing import LocalApp

    local = LocalApp(app)
    run = local.workflow(invoicing).create_run("i-7")
    failed = run.start("2026-7")
    assert failed.error is not None
    print(failed.error.step, "failed:", failed.error.type, failed.error.message)
    corrected = {**run.state().step_payload("tax"), "country": "AT"}
    print(run.fork("tax", run_id="i-7-again", input=corrected).output)
    print("the first run is still", run.result().status)
    print(run.time_travel("tax", input=corrected).output)
    print("fetched", len(fetched), "time")


if __name__ == "__main__":
    main()
