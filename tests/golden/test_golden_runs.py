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
from tests.golden.runs import BROKEN, HERE, LINKS, LIVES, app_on, blobs_of, items_of, release_of, releases

RELEASES = releases()
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
        yield app_on(client, table, VirtualClock(datetime.fromisoformat(run["at"])), SeededIds(2), blobs_of(run))


@each
def test_run_is_found_as_it_was_left(app: LocalApp, release: str, name: str) -> None:
    """In listings and by its id, with what it waits for."""
    result = app.run(name).result()
    assert LIVES[name].parked == result.status
    assert [name] == [summary.run_id for summary in app.list_runs()]
    assert (result.status == "suspended") is bool(result.waits) or result.status == "paused"


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


@pytest.mark.parametrize(("release", "name"), [("runs-v1", "asked")])
def test_link_to_a_run_opens_the_wait_for_which_it_was_signed(app: LocalApp, release: str, name: str) -> None:
    """Id of the wait, birth of the run and end of the link are what they were."""
    signed = json.loads((HERE / "links-v1.json").read_text("utf-8"))["to a run"]
    grant = LINKS.read(signed, "a", app.clock.now())
    today = app.run(name).result().waits[0].approval_url(actor="ann").rpartition("/")[2]
    assert grant == LINKS.read(today, "a", app.clock.now())
    assert app.resume(grant.run_id, {"ok": True}, wait=grant.wait, by=grant.actor).status == "success"


def test_every_way_to_wait_is_there() -> None:
    """A release that adds one adds a run here."""
    assert {path.stem for path in RELEASES} == {release for release, _ in WRITTEN}
    last, _ = release_of(RELEASES[-1].stem)
    assert sorted(LIVES) == sorted(name for release, name in WRITTEN if release_of(release)[0] == last)


def test_releases_come_in_the_order_of_their_numbers() -> None:
    """The tenth comes after the second, and what was added to one before the next."""
    stems = ["runs-v10", "runs-v2b", "runs-v2", "runs-v1"]
    assert ["runs-v1", "runs-v2", "runs-v2b", "runs-v10"] == sorted(stems, key=release_of)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))
