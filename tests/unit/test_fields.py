"""Some fields of a run: exactly those, and no more read than they need."""

from __future__ import annotations

from dataclasses import fields as names_of

import pytest

from flowcore import App, RunResult, StepContext, step, workflow
from flowcore.errors import RunNotFound, UnknownField
from flowcore.fields import FIELDS
from flowcore.testing import LocalApp
from flowcore.testing.faults import Call, FaultyStore


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers, and says so in the state."""
    if ctx.resume_data is None:
        ctx.set_state({"asked": True})
        ctx.suspend(label="boss")
    return number + ctx.resume_data


INNER = workflow("inner", input=int, output=int).then(ask).commit()
ASKING = workflow("asking", input=int, output=int).then(INNER).commit()


@pytest.fixture
def calls() -> list[str]:
    """Every verb the store was asked for."""
    return []


@pytest.fixture
def app(calls: list[str]) -> LocalApp:
    """One suspended run, ``r``."""
    local = LocalApp(App(ASKING))

    def noting(call: Call) -> None:
        calls.append(call.verb)

    local.engine.store = FaultyStore(local.engine.store, noting)
    local.workflow("asking").create_run("r").start(1)
    calls.clear()
    return local


def test_every_field_of_a_result_can_be_asked_for() -> None:
    """But what is about the call rather than the run."""
    of_the_call = {"receipt", "replayed", "left_out"}
    assert {field.name for field in names_of(RunResult)} - of_the_call == FIELDS.keys() - {"resume_labels"}


def test_each_field_is_what_the_result_says(app: LocalApp) -> None:
    """Suspended, and ended."""
    for _ in range(2):
        whole = app.run("r").result()
        some = app.run("r").result(fields=FIELDS)
        assert {name: getattr(whole, name) for name in FIELDS} == dict(some)
        if whole.status == "suspended":
            app.resume("r", 2)


@pytest.mark.parametrize("name", ["status", "output", "input", "error", "tags", "version"])
def test_what_the_head_tells_needs_no_records(app: LocalApp, calls: list[str], name: str) -> None:
    """One small read."""
    app.run("r").result(fields=[name])
    assert ["peek"] == calls


def test_fields_are_attributes_as_well(app: LocalApp) -> None:
    """One that was not asked for says so."""
    some = app.run("r").result(fields=["status"])
    assert "suspended" == some.status
    assert 1 == len(some)
    assert "RunFields({'status': 'suspended'})" == repr(some)
    with pytest.raises(AttributeError, match="'output' was not asked for; fields= named status"):
        _ = some.output


def test_an_unknown_field_is_refused_before_anything_is_read(app: LocalApp, calls: list[str]) -> None:
    """The error names the known ones."""
    with pytest.raises(UnknownField, match=r"'result'.*'output'") as refused:
        app.run("r").result(fields=["status", "result"])
    assert "unknown-field" == refused.value.code
    assert list(FIELDS) == refused.value.details()["known"]
    assert [] == calls


def test_fields_of_no_run_are_an_error(app: LocalApp) -> None:
    """Of an unknown id, whatever is asked for."""
    for name in ("status", "waits", "steps"):
        with pytest.raises(RunNotFound):
            app.run("nobody").result(fields=[name])


def test_steps_without_those_of_nested_workflows(app: LocalApp) -> None:
    """Both ways to ask for less work together."""
    assert ["inner"] == list(app.run("r").result(fields=["steps"], with_nested_workflows=False).steps)


def test_labels_are_on_the_result(app: LocalApp) -> None:
    """With the path each leads to."""
    assert {"boss": ["inner", "ask"]} == app.run("r").result().resume_labels
