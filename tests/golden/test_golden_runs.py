"""Runs that waited when a release was made: today's code loads them, ends them, and begins copies of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.testing import LocalApp, SeededIds, VirtualClock
from flowcore.testing.moto import REGION, fresh_table, locked_moto
from flowcore.testing.quick_moto import without_wire
from tests.golden.runs import BROKEN, HERE, LIVES, app_on, items_of

RELEASES = sorted(HERE.glob("runs-v*.json"))
WRITTEN = {(path.stem, name): run for path in RELEASES for name, run in json.loads(path.read_text("utf-8")).items()}
each = pytest.mark.parametrize(("release", "name"), WRITTEN, ids=[f"{r}-{n}" for r, n in WRITTEN])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """One DynamoDB for all of them."""
    with locked_moto():
        yield without_wire(dynamo_client(region=REGION))


@pytest.fixture
def app(client: Any, release: str, name: str) -> Iterator[LocalApp]:
    """An App on a table that holds what the release has left, at the time of day it was left."""
    run = WRITTEN[release, name]
    BROKEN["bank"] = True
    with fresh_table(client) as table:
        for item in items_of(run):
            client.put_item(TableName=table, Item=item)
        yield app_on(client, table, VirtualClock(datetime.fromisoformat(run["at"])), SeededIds(2))


@each
def test_run_is_found_as_it_was_left(app: LocalApp, release: str, name: str) -> None:
    """In listings and by its id, with what it waits for."""
    result = app.run(name).result()
    assert LIVES[name].parked == result.status
    assert [name] == [summary.run_id for summary in app.list_runs()]
    assert (result.status == "suspended") is bool(result.waits)


@each
def test_run_goes_on_to_its_end(app: LocalApp, release: str, name: str) -> None:
    """With the answer, the event, the time or the redrive that it waits for."""
    life = LIVES[name]
    life.after(app, name)
    result = app.run(name).result()
    assert ("success", life.output) == (result.status, _plain(result.output)), result.error


@each
def test_copy_of_the_run_ends_the_same_way(app: LocalApp, release: str, name: str) -> None:
    """And leaves the run as it is."""
    life = LIVES[name]
    if life.fork is None:
        before = app.run(name).result()
        copy = app.run(name).fork(before.waits[0].path, run_id="copy") if before.waits else before
        assert before.status == app.run(name).result().status
        assert copy.status in ("suspended", "waiting")
        return
    app.run(name).fork(life.fork, run_id="copy")
    assert life.parked == app.run(name).result().status
    if app.run("copy").result().status != "success":
        life.after(app, "copy")
    result = app.run("copy").result()
    assert ("success", life.output) == (result.status, _plain(result.output)), result.error


def test_every_way_to_wait_is_there() -> None:
    """A release that adds one adds a run here."""
    assert {path.stem for path in RELEASES} == {release for release, _ in WRITTEN}
    assert set(LIVES) == {name for release, name in WRITTEN if release == RELEASES[-1].stem}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))
