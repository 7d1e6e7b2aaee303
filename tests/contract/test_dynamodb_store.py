"""DynamoDB, played by moto, keeps the promises of the ports; and what only a store behind a network must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from flowcore.adapters.aws import ClientError, DynamoClient, dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_deliveries import DynamoDeliveries
from flowcore.adapters.dynamodb_heads import encode_head
from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX
from flowcore.adapters.dynamodb_records import encode_record
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.system import SystemIds
from flowcore.errors import InvariantError, PayloadTooLarge, StoreUnavailable, Throttled
from flowcore.keys import RunRef, StepKey
from flowcore.model import Outcome, RunFilter, RunStatus
from flowcore.ports import Claimed, RecordMoved, Store, Written
from flowcore.testing.contract import (
    NOW,
    RUN,
    SECOND,
    StoreContract,
    a_head,
    a_listener,
    a_record,
    a_running_head,
    a_sent,
    a_started,
    a_suspended_head,
    a_suspension,
    claim,
    commit_all,
    keyed,
    noise,
    patient_pages,
    suspend,
)
from flowcore.testing.meter import Metered
from flowcore.testing.moto import REGION, check_placeholders, fresh_table

WRITES = ("put_item", "update_item", "transact_write_items")


class TestDynamoStore(StoreContract):
    """``DynamoStore`` is a store."""

    race_rounds = 20  # 200 take moto about 35 seconds

    @pytest.fixture
    def store(self, client: Any, table: str) -> DynamoStore:
        return a_store(client, table)


class Troubled:
    """A client whose operations run into ``troubles``, one each time, before or after they were performed."""

    def __init__(self, client: Any, troubles: list[Exception], *, after: bool) -> None:
        self._client = client
        self._troubles = troubles
        self._after = after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._troubling(found) if name in (*WRITES, "get_item", "query") else found

    def _troubling(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def perform(**request: Any) -> Any:
            self.calls += 1
            trouble = self._troubles.pop(0) if self._troubles else None
            if trouble is not None and not self._after:
                raise trouble
            try:
                return operation(**request)
            finally:
                if trouble is not None:
                    raise trouble

        return perform


def a_store(client: DynamoClient | Any, table: str, pauses: list[float] | None = None) -> DynamoStore:
    """A store that notes its pauses instead of making them."""
    return DynamoStore(client, table, SystemIds(), pause=(pauses if pauses is not None else []).append)


def refusal(code: str, status: int = 400, **response: Any) -> ClientError:
    """The exception boto3 makes of such a reply."""
    reply = {"Error": {"Code": code, "Message": "as scripted"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError({**reply, **response}, "Operation")


def no_reply() -> Any:
    """The exception boto3 makes of no reply."""
    return ReadTimeoutError(endpoint_url="https://dynamodb.example")


# -- replies that get lost --------------------------------------------------------------------------------------


def _start(store: Store) -> Any:
    return store.start(a_head())


def _bring(store: Store) -> Any:
    return store.bring(1, [(RUN, a_record("a")), (RUN, a_record("b"))], listeners=[a_listener()])


def _claim(store: Store) -> Any:
    return claim(store, NOW)


def _claim_behind(store: Store) -> Any:
    return claim(store, NOW - SECOND)


def _cancel(store: Store) -> Any:
    return store.cancel(RUN, now=NOW)


def _commit(store: Store) -> Any:
    return store.commit(RUN, 1, a_record(), None)


def _rewrite(store: Store) -> Any:
    return store.commit(RUN, 1, a_record("approve", gen=1), a_suspension())


def _release(store: Store) -> Any:
    return store.release(a_suspended_head(version=2), epoch=1, version=1)


def _release_batch(store: Store) -> Any:
    batch = [(a_record("a"), None), (a_record("b"), None)]
    return store.release(a_suspended_head(version=2), epoch=1, version=1, batch=batch)


def _resume(store: Store) -> Any:
    head = a_head(version=4, epoch=1)
    return store.resume(head, a_record("approve", Outcome.RESU, gen=1), version=3, prior=a_suspension())


@pytest.mark.parametrize(
    ("prepare", "write"),
    [
        (lambda store: None, _start),
        (_start, _claim),
        (_start, _claim_behind),
        (_start, _cancel),
        (lambda store: None, _commit),
        (suspend, _rewrite),
        (lambda store: store.start(a_running_head()), _release),
        (lambda store: store.start(a_running_head()), _release_batch),
        (lambda store: store.start(a_head()), _bring),
        (suspend, _resume),
    ],
    ids=[
        *("start", "claim", "claim behind", "cancel", "commit", "rewrite", "release", "release with a batch"),
        *("bring", "resume"),
    ],
)
def test_a_write_whose_reply_was_lost_is_known_again(
    client: Any, table: str, prepare: Callable[[Store], Any], write: Callable[[Store], Any]
) -> None:
    """The retry meets its own write: it reports the same success, and the write has happened once."""
    calm = MemoryStore()
    prepare(calm)
    expected = write(calm)
    prepare(a_store(client, table))
    troubled = Troubled(client, [no_reply()], after=True)
    assert expected == write(a_store(troubled, table))
    assert calm.peek(RUN) == a_store(client, table).peek(RUN)
    assert calm.load(RUN, a_head()) == a_store(client, table).load(RUN, a_head())


def test_a_resume_overtaken_on_the_head_is_known_by_its_record(client: Any, table: str) -> None:
    """Reply lost, then a worker claims the run: the record still carries the token, so the answer counts."""
    store = a_store(client, table)
    suspend(store)

    class Overtaken(Troubled):
        def _troubling(self, operation: Callable[..., Any]) -> Callable[..., Any]:
            lost = super()._troubling(operation)

            def perform(**request: Any) -> Any:
                try:
                    return lost(**request)
                except ReadTimeoutError:
                    assert isinstance(claim(store, NOW), Claimed)
                    raise

            return perform

    assert Written() == _resume(a_store(Overtaken(client, [no_reply()], after=True), table))


def test_anothers_write_is_not_taken_for_ones_own(client: Any, table: str) -> None:
    """Lost before it was performed, and somebody else came first: the retry is refused."""
    store = a_store(client, table)
    other = a_record(output="other")
    store.commit(RUN, 1, other, None)
    troubled = Troubled(client, [no_reply()], after=False)
    assert RecordMoved(other) == a_store(troubled, table).commit(RUN, 1, a_record(output="mine"), None)


# -- a table that does not answer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        no_reply(),
        EndpointConnectionError(endpoint_url="https://dynamodb.example"),
        refusal("InternalServerError", 500),
        refusal("ServiceUnavailable", 503),
        refusal("BadGateway", 502),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_silence_ends_as_store_unavailable(client: Any, table: str, trouble: Exception) -> None:
    """After four tries, with the endpoint's name."""
    troubled = Troubled(client, [trouble] * 9, after=False)
    with pytest.raises(StoreUnavailable, match=r"dynamodb\.eu-central-1\.amazonaws\.com"):
        a_store(troubled, table).peek(RUN)
    assert 4 == troubled.calls


@pytest.mark.parametrize(
    ("status", "code", "requests", "error"),
    [(400, "ThrottlingException", 8, Throttled), (500, "InternalServerError", 4, StoreUnavailable)],
)
def test_tries_are_ours_alone(aws: None, status: int, code: str, requests: int, error: type[Exception]) -> None:
    """The client adds none, whose pauses nobody reckons with: a caller at the HTTP API has 29 seconds in all."""
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        response = AWSResponse(request.url, status, {}, None)
        response._content = f'{{"__type":"com.amazonaws#{code}","message":"no"}}'.encode()
        return response

    real, pauses = dynamo_client(region=REGION), [0.0]
    real.meta.events.register_first("before-send.dynamodb.*", answer)
    for ask in (
        lambda: a_store(real, "t", pauses).peek(RUN),
        lambda: DynamoDeliveries(real, "t", SystemIds(), pause=pauses.append).delivery("acme", "shop", "d-1"),
    ):
        sent.clear()
        pauses.clear()
        with pytest.raises(error):
            ask()
        assert (requests, requests - 1) == (len(sent), len(pauses))
        assert sum(pauses) < 4


@pytest.mark.parametrize(
    "trouble",
    [
        refusal("ThrottlingException"),
        refusal("ProvisionedThroughputExceededException"),
        refusal("RequestLimitExceeded"),
        refusal("TransactionConflictException"),
        refusal("TransactionInProgressException"),
        refusal(
            "TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": "TransactionConflict"}]
        ),
        refusal(
            "TransactionCanceledException",
            CancellationReasons=[{"Code": "ConditionalCheckFailed"}, {"Code": "TransactionConflict"}],
        ),
    ],
    ids=lambda trouble: str(trouble.response["Error"]["Code"]),
)
def test_a_crowd_is_waited_out(client: Any, table: str, trouble: Exception) -> None:
    """Throttling and conflicts are tried again, with growing pauses by chance, and at last given up as throttled."""
    suspend(a_store(client, table))
    pauses: list[float] = []
    assert Written() == _resume(a_store(Troubled(client, [trouble] * 7, after=False), table, pauses))
    assert 7 == len(pauses)
    assert all(0 <= pause < min(0.8, 0.025 * 2**tried) for tried, pause in enumerate(pauses, 1))
    troubled = Troubled(client, [trouble] * 99, after=False)
    with pytest.raises(Throttled, match=table):
        _resume(a_store(troubled, table))
    assert 8 == troubled.calls


def test_a_missing_table_is_named(client: Any) -> None:
    """The deployer reads which table at which endpoint, at once and without retries."""
    troubled = Troubled(client, [], after=False)
    with pytest.raises(StoreUnavailable, match=r"no table 'nowhere'.* at https://dynamodb"):
        a_store(troubled, "nowhere").peek(RUN)
    assert 1 == troubled.calls


def test_a_missing_list_index_is_the_deployers(client: Any) -> None:
    """Runs work without the list index; listing them says what is missing."""
    with fresh_table(client, indexes=(DUE_INDEX,)) as table:
        store = a_store(client, table)
        store.start(a_head())
        with pytest.raises(StoreUnavailable, match="list-index"):
            store.list_runs("acme")
        on_aws = ClientError(
            {
                "Error": {
                    "Code": "ValidationException",
                    "Message": "The table does not have the specified index: list-index",
                }
            },
            "Query",
        )
        with pytest.raises(StoreUnavailable, match="list-index"):
            a_store(Troubled(client, [on_aws], after=False), table).list_runs("acme")


def test_a_request_dynamodb_does_not_understand_is_ours(client: Any, table: str) -> None:
    """That is a broken promise of the library, not an outage."""
    with pytest.raises(InvariantError, match="does not understand"):
        a_store(Troubled(client, [refusal("ValidationException")], after=False), table).peek(RUN)


# -- what is asked ------------------------------------------------------------------------------------------------


def test_too_large_is_refused_before_any_call(client: Any, table: str) -> None:
    """Nothing leaves the process."""
    troubled = Troubled(client, [], after=False)
    store = a_store(troubled, table)
    huge = noise(400_000)
    with pytest.raises(PayloadTooLarge):
        store.start(a_head(input=huge))
    with pytest.raises(PayloadTooLarge):
        store.commit(RUN, 1, a_record(output=huge), None)
    with pytest.raises(PayloadTooLarge):
        store.release(a_head(output=huge), epoch=1, version=1)
    with pytest.raises(PayloadTooLarge):
        store.resume(a_head(), a_record(payload=huge), version=1, prior=a_record())
    assert 0 == troubled.calls


def test_an_empty_span_of_time_is_not_asked_for(client: Any, table: str) -> None:
    """DynamoDB would refuse a range that ends before it begins."""
    troubled = Troubled(client, [], after=False)
    assert [] == a_store(troubled, table).list_runs("acme", RunFilter(since=NOW + SECOND, until=NOW)).items
    assert 0 == troubled.calls


def test_a_listing_asks_the_index_alone(client: Any, table: str) -> None:
    """Queries of the list index, one for each shard where nothing matches; never a scan, never a head."""
    metered = Metered(client, [LIST_INDEX])
    store = a_store(metered, table)
    for number in range(20):
        store.start(a_head(RunRef("acme", f"r-{number:02}"), input=noise(3_000)))
    metered.take_bill()
    assert [] == store.list_runs("acme", RunFilter(tags=("rare",))).items
    bill = metered.take_bill()
    assert ({"Query": 8}, 4) == (bill.requests, bill.read_units)
    assert {"pending": 20} == store.count_runs("acme")
    bill = metered.take_bill()
    assert ({"Query": 8}, 4) == (bill.requests, bill.read_units)


def test_a_listing_gives_up_for_a_page_not_for_good(client: Any, table: str) -> None:
    """Where few match, a page ends early; all that match are found by its cursor, in order, each once."""
    pages = patient_pages(DynamoStore(client, table, SystemIds(), most_looked_at=8))
    assert ["r-41", "r-27", "r-04"] == [run.run_id for page in pages for run in page]
    assert 3 < len(pages) <= 50


@pytest.mark.parametrize("frozen_after", range(1, 8))
def test_a_slow_remover_takes_nothing_from_a_new_run(client: Any, table: str, frozen_after: int) -> None:
    """Whenever it freezes, another one may remove the run and somebody start it anew, with the same steps."""
    store = a_store(client, table)
    store.start(a_head())
    store.commit(RUN, 1, a_record("a", output="old"), None)
    store.commit(RUN, 1, a_record("b", output="old"), None)
    fresh = keyed(a_record("a", output="new"), a_record("b", output="new"))

    def meanwhile() -> None:
        store.delete(RUN)
        store.start(a_head(version=2))
        commit_all(store, fresh)

    a_store(Freezing(client, frozen_after, meanwhile), table).delete(RUN, last=a_head(version=2))
    assert (a_head(version=2), fresh) == store.load(RUN)


class Freezing:
    """A client that stands still after so many of its requests, while ``meanwhile`` happens."""

    def __init__(self, client: Any, after: int, meanwhile: Callable[[], None]) -> None:
        self._client = client
        self._left = after
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in ("delete_item", "get_item", "query", "update_item"):
            return found

        def perform(**request: Any) -> Any:
            try:
                return found(**request)
            finally:
                self._left -= 1
                if self._left == 0:
                    self._meanwhile()

        return perform


def test_load_asks_once_for_each_open_scope(client: Any, table: str) -> None:
    """One query for head and top scope together, one more for each container at work; never a get."""
    metered = Metered(client, [])
    store = a_store(metered, table)
    store.start(a_head())
    for record in (a_started("child", "child"), a_started("child/fan", "child/fan"), a_record("a")):
        store.commit(RUN, 1, record, None)
    metered.take_bill()
    store.load(RUN)
    assert {"Query": 3} == metered.take_bill().requests
    store.load(RUN, a_head())
    assert {"Query": 3} == metered.take_bill().requests
    store.load(RUN, everything=True)
    assert {"Query": 1} == metered.take_bill().requests
    store.load(RUN, a_head(incarnation=2))
    assert {"Query": 1} == metered.take_bill().requests


# -- a later flowcore ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen_after", [1, 2])
@pytest.mark.parametrize("incarnation", [1, 2])
def test_load_reads_the_head_before_the_records(client: Any, table: str, incarnation: int, frozen_after: int) -> None:
    """With a new head and old records an answer that came in between would be overseen, and its wake lost."""
    calm = a_store(client, table)
    calm.start(a_suspended_head(incarnation=incarnation))
    calm.commit(RUN, incarnation, a_suspension(), None)

    def answered() -> None:
        head = a_head(version=4, epoch=1, incarnation=incarnation)
        calm.resume(head, a_record("approve", Outcome.RESU, gen=1), version=3, prior=a_suspension())

    loaded = a_store(Freezing(client, frozen_after, answered), table).load(RUN)

    assert loaded is not None
    head, records = loaded
    assert head.version == 3 or records[StepKey("approve")].outcome is Outcome.RESU


def test_a_later_schema_is_refused_and_left_alone(client: Any, table: str) -> None:
    """Found and known versions are named; neither claim nor cancel touches such a head."""
    store = a_store(client, table)
    item = encode_head(a_head(), "t-1") | {"v": {"N": "7"}}
    client.put_item(TableName=table, Item=item)
    for use in (_claim, _claim_behind, _cancel, _start, lambda store: store.peek(RUN), lambda store: store.load(RUN)):
        with pytest.raises(InvariantError, match=r"'#HEAD' of run 'r-1' has schema version 7.*up to 1"):
            use(store)
    assert item == client.get_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})["Item"]


def test_a_record_of_a_later_schema_is_refused(client: Any, table: str) -> None:
    """A run is never decided upon half understood."""
    store = a_store(client, table)
    store.start(a_head())
    client.put_item(TableName=table, Item=encode_record(RUN, 1, a_record(), "t-1") | {"v": {"N": "2"}})
    with pytest.raises(InvariantError, match="version 2"):
        store.load(RUN)


# -- the fake is the same -----------------------------------------------------------------------------------------


def _life(store: Store) -> None:
    """One of everything, refusals included."""
    store.start(a_head(input=noise(9_000), resource_id="x", state={"a": 1}))
    store.start(a_head(input="other"))
    claim(store, NOW + SECOND)
    claim(store, NOW + SECOND)
    store.commit(RUN, 1, a_record("a", output=noise(5_000)), None)
    store.commit(RUN, 1, a_record("a"), None)
    store.commit(RUN, 1, a_suspension(), None)
    waiting = a_suspended_head(version=3, input=noise(9_000), resource_id="x", state={"a": 2})
    store.release(waiting, epoch=1, version=2)
    store.release(waiting, epoch=1, version=2)
    _resume(store)
    _resume(store)
    claim(store, NOW)
    store.cancel(RUN, now=NOW)
    store.cancel(RUN, now=NOW)
    store.start(replace(a_head(), run=replace(RUN, id="r-2"), status=RunStatus.WAITING, wake=NOW))


def test_memory_holds_the_same_items(client: Any, table: str) -> None:
    """After the same calls, every attribute but the write tokens is the same in both stores."""
    memory = MemoryStore()
    _life(memory)
    _life(a_store(client, table))

    def told(items: Any) -> list[Any]:
        return sorted(([*sorted((k, repr(v)) for k, v in item.items() if k != "lc")] for item in items), key=repr)

    assert told(client.scan(TableName=table)["Items"]) == told(memory.items())


def test_memory_loads_what_was_kept_for_a_known_head() -> None:
    """With a head given, memory answers from its records alone."""
    store = MemoryStore()
    store.commit(RUN, 1, a_record(), None)
    assert (a_head(), keyed(a_record())) == store.load(RUN, a_head())


# -- what moto would let pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "passes"),
    [("#a = :b", True), ("#a = :c", False), ("#a = :b AND #c = :b", False), ("#a = #a", False)],
)
def test_placeholders_must_match(expression: str, passes: bool) -> None:
    """As on AWS: all that are used are given, all that are given are used."""
    request = {"ConditionExpression": expression, "ExpressionAttributeNames": {"#a": "a"}}
    checked = {**request, "ExpressionAttributeValues": {":b": {"S": "b"}}}
    if passes:
        check_placeholders(checked)
    else:
        with pytest.raises(ValueError, match="Placeholders"):
            check_placeholders(checked)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("event_id", ["e-1", None])
def test_who_listened_before_an_event_was_kept_is_told_beside_it(
    client: Any, table: str, event_id: str | None, number: int
) -> None:
    """Wherever between the requests of one reader both happen: he need not look again who listens."""
    other = a_store(client, table)

    def meanwhile() -> None:
        other.listen(a_listener())
        other.keep(a_sent("e-1"))

    mail = a_store(Interrupted(client, meanwhile, number), table).mail(a_listener().topic, NOW, event_id=event_id)
    assert (a_listener(),) == mail.listeners
    assert number == 2 or (a_sent("e-1"),) == mail.events


class Interrupted:
    """A client before whose request of that number, from 1, somebody else is let do something."""

    def __init__(self, client: Any, act: Callable[[], None], number: int) -> None:
        self._client = client
        self._act = act
        self._left = number

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._asked, found) if name in ("get_item", "query") else found

    def _asked(self, operation: Callable[..., Any], **request: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self._act()
        return operation(**request)
