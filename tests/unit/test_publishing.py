"""Telling the world of changes: who is told what, and how far that has got when something does not take it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from flowcore import App, step, workflow
from flowcore.adapters.eventbridge import EventBridge
from flowcore.adapters.mail import SqsMail
from flowcore.cloudevents import CloudEvent, HeadChange
from flowcore.errors import SettingsError
from flowcore.keys import RunRef
from flowcore.model import RunStatus
from flowcore.outgoing import Letter, Outgoing
from flowcore.publishing import Change, publish
from flowcore.testing import LocalApp
from tests.builders import a_head

T = TypeVar("T")


@step
def same(value: int) -> int:
    """Nothing."""
    return value


FLOW = workflow("w", input=int, output=int).then(same).commit()
LEDGER = Outgoing(name="ledger", url="https://l.example.com/", secret="env:L", events=["run-success"])
AUDIT = Outgoing(name="audit", url="https://a.example.com/", secret="env:A", include_payload=True)
OTHERS = Outgoing(name="others", url="https://o.example.com/", secret="env:O", tenant="acme")


@dataclass
class Box(Generic[T]):
    """Takes so many things, and no more."""

    room: int = 1_000
    got: list[T] = field(default_factory=list)

    def put(self, things: Sequence[T]) -> int:
        taken = things[: self.room]
        self.got += taken
        return len(taken)


def app(**options: Any) -> App:
    """An App that tells."""
    return App(FLOW, **options)


def lives(*ids: str) -> list[Change]:
    """Each run starts and ends; the places are 1, 2, ..."""
    heads: list[tuple[Any, Any]] = []
    for id in ids:
        begun = a_head(run=RunRef("default", id), version=1)
        ended = a_head(run=RunRef("default", id), version=2, status=RunStatus.SUCCESS, output=7)
        heads += [(None, begun), (begun, ended)]
    return [(str(number), HeadChange(*pair)) for number, pair in enumerate(heads, 1)]


def test_everybody_is_told_what_he_wants() -> None:
    """The bus all of it, a receiver the kinds and the values he has asked for, nobody another tenant's."""
    bus, mail = Box[CloudEvent](), Box[Letter]()
    assert None is publish(app(outgoing=[LEDGER, AUDIT, OTHERS]), lives("r"), bus, mail)
    assert ["run-started", "run-success"] == [event.kind for event in bus.got]
    assert ["audit", "ledger", "audit"] == [letter.to for letter in mail.got]
    assert [False, True] == ['"output":7' in letter.body for letter in mail.got[1:]]


def test_app_says_what_the_bus_is_told() -> None:
    """Also where it was put onto other ports."""
    bus = Box[CloudEvent]()
    quiet = LocalApp(app(events=["run-success"], include_payload=True))
    publish(quiet.on(store=quiet.store), lives("r"), bus, None)
    assert [("run-success", 7)] == [(event.kind, event.data["output"]) for event in bus.got]


@pytest.mark.parametrize(("events", "letters", "stopped"), [(9, 9, None), (0, 9, "1"), (3, 9, "4"), (9, 1, "2")])
def test_first_change_that_was_not_told_to_everybody_is_named(events: int, letters: int, stopped: str | None) -> None:
    """It comes again with all behind it."""
    receiver = Outgoing(name="all", url="https://a.example.com/", secret="env:A")
    bus, mail = Box[CloudEvent](events), Box[Letter](letters)
    assert stopped == publish(app(outgoing=[receiver]), lives("r", "s"), bus, mail)


def test_change_that_is_told_again_is_known_again() -> None:
    """The same ids on the bus, and the same in the letters."""
    bus, mail = Box[CloudEvent](), Box[Letter]()
    for _ in range(2):
        publish(app(outgoing=[AUDIT]), lives("r"), bus, mail)
    assert [event.id for event in bus.got[:2]] == [event.id for event in bus.got[2:]]
    assert [letter.id for letter in mail.got[:2]] == [letter.id for letter in mail.got[2:]]
    assert 2 == len({letter.id for letter in mail.got})


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fails_everybody_is_told_everything_in_order(seed: int) -> None:
    """As Lambda does it: from the change that is named on, again and again; copies are known by their ids."""
    chance = random.Random(seed)
    left = lives("r", "s", "t", "u")
    wanted_bus, wanted_mail = Box[CloudEvent](), Box[Letter]()
    receivers = [LEDGER, AUDIT]
    publish(app(outgoing=receivers), left, wanted_bus, wanted_mail)
    heard: list[CloudEvent] = []
    read: list[Letter] = []
    while left:
        bus, mail = Box[CloudEvent](chance.randrange(9)), Box[Letter](chance.randrange(12))
        stopped = publish(app(outgoing=receivers), left, bus, mail)
        heard += bus.got
        read += mail.got
        left = [] if stopped is None else left[[place for place, _ in left].index(stopped) :]
    assert [event.id for event in wanted_bus.got] == list(dict.fromkeys(event.id for event in heard))
    assert [one.id for one in wanted_mail.got if one.to == "audit"] == list(
        dict.fromkeys(one.id for one in read if one.to == "audit")
    )
    assert {(one.to, one.id) for one in wanted_mail.got} == {(one.to, one.id) for one in read}


class Bus:
    """An EventBridge that does not take what the test says."""

    def __init__(self, *refused: int) -> None:
        self.refused, self.requests, self.seen = refused, [], 0  # type: ignore[var-annotated]  # a list of requests

    def put_events(self, **request: Any) -> dict[str, Any]:
        entries = []
        for _ in request["Entries"]:
            entries.append({"ErrorCode": "ThrottlingException"} if self.seen in self.refused else {"EventId": "e"})
            self.seen += 1
        self.requests.append(request["Entries"])
        return {"Entries": entries, "FailedEntryCount": 1}


def events(count: int, size: int = 1) -> list[CloudEvent]:
    """So many events of that size."""
    told = Box[CloudEvent]()
    publish(app(), lives(*(f"r-{number}" for number in range(count))), told, None)
    return [CloudEvent(**{**_fields(event), "data": {"x": "x" * size}}) for event in told.got[:count]]


def _fields(event: CloudEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("id", "source", "kind", "subject", "time")}


def test_bus_is_given_ten_at_a_time_and_not_too_much() -> None:
    """As many as one request takes, by number and by size."""
    bus = Bus()
    assert 25 == EventBridge(bus, "b").put(events(25))
    assert [10, 10, 5] == [len(entries) for entries in bus.requests]
    large = Bus()
    assert 4 == EventBridge(large, "b").put(events(4, 120_000))
    assert [2, 2] == [len(entries) for entries in large.requests]


@pytest.mark.parametrize(("refused", "through"), [((0,), 0), ((12,), 12), ((3, 1), 1)])
def test_event_that_the_bus_refuses_holds_up_those_behind_it(refused: Any, through: int) -> None:
    """So that a run's events stay in order; nothing is put after the request in which one was refused."""
    bus = Bus(*refused)
    assert through == EventBridge(bus, "b").put(events(25))
    assert through // 10 + 1 == len(bus.requests)


def test_service_that_does_not_answer_has_taken_nothing() -> None:
    """Neither the bus nor the queue of letters."""

    class Down:
        def put_events(self, **_: Any) -> Any:
            raise EndpointConnectionError(endpoint_url="x")

        send_message = change_message_visibility = put_events

    assert 0 == EventBridge(Down(), "b").put(events(1))
    mail = SqsMail(Down(), "q")
    assert 0 == mail.put([Letter(to="x", id="1", body="{}")])


@pytest.mark.parametrize("code", ["InvalidMessageContents", "InvalidParameterValue"])
def test_letter_that_no_queue_will_ever_take_holds_up_nothing(code: str) -> None:
    """It is counted and left out: told again and again, it would stop all that comes behind it."""

    class Strict:
        got: list[str] = []  # noqa: RUF012  # of this test's own class

        def send_message(self, **request: Any) -> Any:
            if "bad" in request["MessageBody"]:
                raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "SendMessage")
            self.got.append(request["MessageBody"])

        def change_message_visibility(self, **_: Any) -> Any: ...

    mail = SqsMail(Strict(), "q")
    assert 3 == mail.put([Letter(to="x", id=id, body="{}") for id in ("1", "bad", "3")])
    assert (2, 1, 0) == (len(Strict.got), mail.refused.take(), mail.refused.take())


def test_two_receivers_of_one_name_are_refused() -> None:
    """A letter names one of them."""
    with pytest.raises(SettingsError, match="Two receivers"):
        app(outgoing=[LEDGER, Outgoing(name="ledger", url="https://x.example.com/", secret="env:L")])
