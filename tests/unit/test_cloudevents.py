"""What the world is told of a run: one event for each change of its status, and always the same one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.dynamodb_heads import decode_head, encode_head
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.streams import change_of, place_of
from flowcore.cloudevents import MOST_BYTES, RUN_KINDS, CloudEvent, HeadChange, Kind, Telling, told
from flowcore.core.heads import buried, removed
from flowcore.errors import SettingsError
from flowcore.keys import RunRef
from flowcore.model import Head, RunStatus, StepFailure, Trace
from flowcore.testing import LocalApp
from tests.builders import BEFORE, LATER, NOW, a_head

EVERYTHING = Telling()
S = RunStatus


class Log(dict[str, Any]):
    """The heads of a memory store; remembers each write as the table's stream would."""

    def __init__(self) -> None:
        super().__init__()
        self._images: list[tuple[Any, Any]] = []

    def __setitem__(self, key: str, item: Any) -> None:
        self._images.append((self.get(key), item))
        super().__setitem__(key, item)

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self._images.append((self[key], None))
        return super().pop(key, *default)

    @property
    def changes(self) -> list[tuple[Head | None, Head | None]]:
        """The heads before and after each write, in order."""
        heads = {id(image): decode_head(image) for pair in self._images for image in pair if image is not None}
        return [(heads.get(id(before)), heads.get(id(after))) for before, after in self._images]


def told_store() -> tuple[MemoryStore, Log]:
    """A store, and what its stream tells."""
    store, log = MemoryStore(), Log()
    store._heads = log
    return store, log


def kinds(changes: list[tuple[Head | None, Head | None]]) -> list[Kind]:
    """What these changes tell."""
    return [event.kind for before, after in changes for event in told(before, after, EVERYTHING)]


def head(status: RunStatus = S.RUNNING, **changes: Any) -> Head:
    """A head in that status."""
    return a_head(**{"status": status, **changes})


ROWS: dict[str, tuple[Head | None, Head | None, list[Kind]]] = {
    "nothing": (None, None, []),
    "a start with workers": (None, head(S.QUEUED, epoch=0), ["run-started"]),
    "a start in this process": (None, head(), ["run-started"]),
    "the first worker": (head(S.QUEUED, epoch=0), head(), ["run-running"]),
    "a lease renewed": (head(), head(version=3), []),
    "handed on": (head(), head(S.QUEUED), []),
    "taken up again": (head(S.QUEUED), head(), []),
    "asleep": (head(), head(S.WAITING), ["run-waiting"]),
    "joins its items": (head(), head(S.JOINING), ["run-waiting"]),
    "awake": (head(S.WAITING), head(), ["run-resumed"]),
    "suspended": (head(), head(S.SUSPENDED), ["run-suspended"]),
    "answered": (head(S.SUSPENDED), head(S.QUEUED), ["run-resumed"]),
    "paused": (head(S.SUSPENDED), head(S.PAUSED), ["run-paused"]),
    "blocked": (head(), head(S.BLOCKED), ["run-paused"]),
    "paused and then blocked": (head(S.PAUSED), head(S.BLOCKED), []),
    "unpaused": (head(S.PAUSED), head(S.QUEUED), ["run-resumed"]),
    "unpaused before it began": (head(S.PAUSED, epoch=0), head(S.QUEUED, epoch=0), ["run-resumed"]),
    "success": (head(), head(S.SUCCESS), ["run-success"]),
    "its hooks have been called": (head(S.SUCCESS), head(S.SUCCESS, version=3), []),
    "failed": (head(), head(S.FAILED), ["run-failed"]),
    "canceled": (head(S.SUSPENDED), head(S.CANCELED), ["run-canceled"]),
    "redriven": (head(S.FAILED), head(S.QUEUED, incarnation=2), ["run-restarted"]),
    "sent back while it ran": (head(), head(S.QUEUED, incarnation=2), ["run-restarted"]),
    "deleted": (head(S.SUCCESS), None, ["run-deleted"]),
    "is being removed": (head(S.SUCCESS), removed(head(S.SUCCESS), NOW), ["run-deleted"]),
    "has been removed but for its head": (removed(head(S.SUCCESS), NOW), buried(head(S.SUCCESS), NOW), []),
    "is gone for good": (buried(head(S.SUCCESS), NOW), None, []),
    "another run of that id": (head(S.SUCCESS), head(created_at=NOW), ["run-deleted", "run-started"]),
}


@pytest.mark.parametrize(("before", "after", "expected"), ROWS.values(), ids=ROWS)
def test_change_of_a_head_tells_what_users_would_see(before: Head | None, after: Head | None, expected: Any) -> None:
    """A write that no user could notice tells nothing."""
    assert expected == kinds([(before, after)])


def test_every_pair_of_statuses_is_told_if_users_see_a_change() -> None:
    """And is not, if they do not."""
    for before in RunStatus:
        for after in RunStatus:
            one, other = head(before), head(after)
            assert (one.public_status != other.public_status) == bool(kinds([(one, other)])), (before, after)


def test_event_is_a_cloud_event_without_values_of_the_run() -> None:
    """Who, what, when, and what listings know; nothing that a step or a person has said."""
    after = head(
        S.SUSPENDED,
        version=7,
        input={"secret": 1},
        output=2,
        resource_id="order-1",
        trace=Trace(tags=("vip",)),
        deadline=LATER,
    )
    (event,) = told(head(version=6), after, EVERYTHING)
    born = int(BEFORE.timestamp() * 1000)
    assert {
        "specversion": "1.0",
        "id": f"{after.run.id}/{born}/7/run-suspended",
        "source": f"/flowcore/{after.run.tenant}",
        "type": "dev.flowcore.run-suspended",
        "subject": after.run.id,
        "datacontenttype": "application/json",
    }.items() <= event.plain().items()
    assert NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z") == event.plain()["time"]
    assert ("running", "suspended", 7, "order-1", ["vip"]) == tuple(
        event.data[name] for name in ("was", "status", "version", "resource_id", "tags")
    )
    assert not {"input", "output", "error", "state", "blocked"} & set(event.data)


def test_event_has_the_values_where_they_are_asked_for() -> None:
    """As far as they fit; what does not is named."""
    telling = Telling(include_payload=True)
    failed = head(S.FAILED, input=[1], failure=StepFailure(type="ValueError", message="no"))
    (event,) = told(head(), failed, telling)
    assert ([1], "ValueError") == (event.data["input"], event.data["error"]["type"])
    (large,) = told(head(), head(S.SUCCESS, input=1, output="x" * MOST_BYTES), telling)
    assert (1, ["output"]) == (large.data["input"], large.data["omitted"])
    assert "output" not in large.data


def test_only_the_kinds_that_are_wanted_are_told() -> None:
    """An unknown one is refused where it is written."""
    assert [] == told(head(), head(S.SUSPENDED), Telling(kinds=frozenset({"run-success"})))
    with pytest.raises(SettingsError, match="'run-done'"):
        App(workflow("w", input=int, output=int).then(_same).commit(), events=["run-done"])


@step
def _same(value: int) -> int:
    return value


@step
def _ask(value: int, ctx: StepContext[int]) -> int:
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


def test_life_of_a_run_is_told_in_order() -> None:
    """Also of the next run of its id, under other ids."""
    store, log = told_store()
    flow = workflow("w", input=int, output=int).then(_same).sleep(timedelta(days=1)).then(_ask).commit()
    app = LocalApp(App(flow), store=store)
    for _ in range(2):
        run = app.workflow(flow).create_run("r")
        run.start(1)
        app.advance(days=1)
        run.resume(5)
        app.advance(seconds=1)
        run.delete()
    events = [event for change in log.changes for event in told(*change, EVERYTHING)]
    lived = ["run-started", "run-waiting", "run-resumed", "run-suspended", "run-resumed", "run-success", "run-deleted"]
    assert lived * 2 == [event.kind for event in events]
    assert len(events) == len({event.id for event in events})


def test_change_is_read_from_a_record_of_the_stream() -> None:
    """Bytes come as base64 there; what is no head tells nothing."""
    large = "x" * 50_000
    before, after = head(input=large), head(S.SUCCESS, input=large, version=3)
    images = [_as_lambda_shows(encode_head(one, "t")) for one in (before, after)]
    keys = {name: images[0][name] for name in ("pk", "sk")}
    record = {"dynamodb": {"Keys": keys, "OldImage": images[0], "NewImage": images[1], "SequenceNumber": "17"}}
    assert HeadChange(before, after) == change_of(record)
    assert "17" == place_of(record)
    assert HeadChange(None, after) == change_of({"dynamodb": {"Keys": keys, "NewImage": images[1]}})
    assert None is change_of({"dynamodb": {"Keys": {**keys, "sk": {"S": "N#0001"}}}})


def _as_lambda_shows(item: Any) -> Any:
    return {
        name: {kind: base64.b64encode(value).decode() if kind == "B" else value for kind, value in attribute.items()}
        for name, attribute in item.items()
    }


def test_kinds_are_all_reached() -> None:
    """No kind is promised that no change tells."""
    seen = {kind for before, after, _ in ROWS.values() for kind in kinds([(before, after)])}
    assert set(RUN_KINDS) == seen


def missed(changes: list[tuple[Head | None, Head | None]]) -> Iterator[str]:
    """What the events of these changes do not tell of what users could have seen; nothing, if all is well."""
    events = [told(before, after, EVERYTHING) for before, after in changes]
    again = [told(before, after, EVERYTHING) for before, after in changes]
    if events != again:
        yield "told again, it is not the same"
    flat: list[CloudEvent] = [event for some in events for event in some]
    if len(flat) != len({event.id for event in flat}):
        yield "two events of one id"
    for run in {head.run for change in changes for head in change if head is not None}:
        yield from _missed_of(run, changes, flat)


def _missed_of(
    run: RunRef, changes: list[tuple[Head | None, Head | None]], told_of_all: list[CloudEvent]
) -> Iterator[str]:
    """The same for one run; a storm may have several."""
    heads = [
        after for before, after in changes if any(head is not None and head.run == run for head in (before, after))
    ]
    for before, after in pairwise([None, *heads]):
        if after is not None and (before is None or before.public_status != after.public_status):
            shown = [e for e in told_of_all if (e.subject, e.data["version"]) == (run.id, after.version)]
            if [after.public_status] != [event.data["status"] for event in shown]:
                yield f"{run.id}: {after.public_status} at version {after.version} was told {len(shown)} times"
