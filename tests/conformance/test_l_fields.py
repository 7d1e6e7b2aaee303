"""Storage, listing, streaming, delivery: reading only some fields of a run."""

from __future__ import annotations

from flowcore import StepContext, step, workflow
from tests.conformance.support import Harness, behaviour


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    if ctx.resume_data is None:
        ctx.suspend(label="boss")
    return number + ctx.resume_data


@behaviour(224, "fields filter returns only those")
def test_224_fields_give_exactly_what_was_asked_for(harness: Harness) -> None:
    """And of a suspended run as of an ended one what the whole result says."""
    harness.serve(workflow("asking", input=int, output=int).then(ask).commit()).start(1)
    some = harness.run().result(fields=["status", "waits", "resume_labels"])
    assert ["status", "waits", "resume_labels"] == list(some)
    assert ("suspended", harness.result().waits, {"boss": ["ask"]}) == tuple(some.values())

    harness.resume(2)
    assert {"status": "success", "output": 3} == dict(harness.run().result(fields=["status", "output"]))
    assert harness.result().steps == harness.run().result(fields=["steps"]).steps
