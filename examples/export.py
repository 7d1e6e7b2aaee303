"""A slow job elsewhere: begun once, then asked about every five minutes, and given up after two hours."""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow


class Job(BaseModel):
    id: str
    done: bool = False


class Warehouse:
    """Stands for the other system: it is done when it has been asked ``slowness`` times."""

    def __init__(self) -> None:
        self.slowness = 3
        self.begun: dict[str, int] = {}

    def begin(self, query: str, key: str) -> str:
        self.begun.setdefault(key, 0)
        return key

    def is_done(self, job: str) -> bool:
        self.begun[job] += 1
        return self.begun[job] >= self.slowness


warehouse = Warehouse()


class ExportTooSlowError(Exception):
    """The job was not done in time."""


@step
def begin(query: str, ctx: StepContext) -> Job:
    return Job(id=warehouse.begin(query, key=ctx.idempotency_key))


@step(retries=5, backoff=timedelta(seconds=10))
def look(job: Job) -> Job:
    return Job(id=job.id, done=warehouse.is_done(job.id))


@step
def link(job: Job) -> str:
    if not job.done:
        raise ExportTooSlowError(job.id)
    return f"https://warehouse.example/{job.id}.csv"


look_later = workflow("look-later", input=Job, output=Job).sleep(timedelta(minutes=5)).then(look).commit()

export = (
    workflow("export", input=str, output=str)
    .then(begin)
    .dountil(look_later, lambda job, ctx: job.done or (ctx.iteration or 0) >= 24)
    .then(link)
    .commit()
)

app = App(export)


def main() -> None:
    from flowcore.testing import LocalApp

    local = LocalApp(app)
    run = local.workflow(export).create_run("sales-2025")
    print(run.start("select * from sales").status)
    local.advance(minutes=15)
    print(run.result().output)


if __name__ == "__main__":
    main()
