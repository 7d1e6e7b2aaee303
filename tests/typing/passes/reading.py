"""Reading runs: the whole result keeps its type, some fields are a mapping."""

from __future__ import annotations

from typing import assert_type

from flowcore import App, RunResult, Start, step, workflow
from flowcore.fields import RunFields
from flowcore.model import EventReceipt, Receipt
from flowcore.ports import Span
from flowcore.tracing import Tracing


@step
def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


class Keeping:
    """A tracer is whatever takes spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        """Keep it."""
        self.spans.append(span)


flow = workflow("twice", input=int, output=int).then(double).commit()
app = App(flow, tracer=Keeping())
run = app.workflow(flow).create_run("r-1", tags=["eu"])
tracing: Tracing = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "tags": ["eu"]}
assert_type(run.start(21, tracing=tracing), RunResult[int])
assert_type(run.result(), RunResult[int])
assert_type(run.result(fields=["status", "output"]), RunFields)
app.send_event("doubled", "a", start_if_absent=Start(flow, 21, run_id="r-2", tags=["eu"]))
app.send_event("doubled", "a", start_if_absent=Start("twice", 21))
assert_type(run.receipts(), list[Receipt])
assert_type(run.delegate(by="ada", to="dave", step=double), RunResult[int])
assert_type(app.event("doubled", "a", "e-1"), EventReceipt)
app.list_runs(status=["success", "failed"], tag="eu")
