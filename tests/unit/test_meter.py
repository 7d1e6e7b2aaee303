"""The meter bills as DynamoDB would, and shows the adapter what it would see without."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flowcore.adapters.aws import ClientError, DynamoClient
from flowcore.adapters.dynamodb_attributes import item_size
from flowcore.adapters.dynamodb_keys import Index
from flowcore.testing.meter import Bill, Metered

INDEXES = (Index("by-a", "a", "b"), Index("by-c", "c", "b", ("w",)))
KEY = {"pk": {"S": "p"}, "sk": {"S": "s"}}


class Shelf:
    """A table of items with the four calls the meter makes; ``update_item`` is told the new item outright."""

    meta = "the shelf's own"

    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.trouble: Exception | None = None
        self.lost: Exception | None = None

    def put_item(self, *, Item: Any, **_: Any) -> dict[str, Any]:
        return self._keep(Item)

    def update_item(self, *, Key: Any, Item: Any, **_: Any) -> dict[str, Any]:
        return self._keep(Item)

    def transact_write_items(self, *, TransactItems: Any) -> dict[str, Any]:
        for member in TransactItems:
            for part in member.values():
                self._keep(part["Item"])
        return {}

    def get_item(self, *, Key: Any, **_: Any) -> dict[str, Any]:
        found = self.items.get(Key["sk"]["S"])
        return {"Item": found} if found else {}

    def query(self, **request: Any) -> dict[str, Any]:
        assert "FilterExpression" not in request or "#f" in request["ExpressionAttributeNames"]
        items = list(self.items.values())
        return {"Items": items[:1] if "FilterExpression" in request else items}

    def _keep(self, item: Any) -> dict[str, Any]:
        if self.trouble:
            raise self.trouble
        self.items[item["sk"]["S"]] = item
        if self.lost:
            raise self.lost
        return {"kept": True}


@pytest.fixture
def shelf() -> Shelf:
    """An empty table."""
    return Shelf()


@pytest.fixture
def metered(shelf: Shelf) -> Metered:
    """A meter on it, two indexes beside it."""
    return Metered(cast("DynamoClient", shelf), INDEXES)


def sized(size: int, sk: str = "s", **attributes: Any) -> dict[str, Any]:
    """An item of exactly ``size`` bytes."""
    item = {**KEY, "sk": {"S": sk}, **attributes, "x": {"S": ""}}
    item["x"] = {"S": "x" * (size - item_size(item))}
    assert size == item_size(item)
    return item


@pytest.mark.parametrize(
    ("attribute", "size"),
    [
        ({"S": ""}, 0),
        ({"S": "ü🧾"}, 6),
        ({"B": b"123"}, 3),
        ({"N": "0"}, 1),
        ({"N": "7"}, 2),
        ({"N": "12"}, 2),
        ({"N": "123"}, 3),
        ({"N": "1200"}, 2),
        ({"N": "-12"}, 3),
        ({"N": "1772366400123"}, 8),
    ],
)
def test_sizes_are_counted_as_aws_counts(attribute: Any, size: int) -> None:
    """Names and values in UTF-8; two digits a byte and one more, outer zeros for nothing, a sign for one."""
    assert 4 + size == item_size({"näm": attribute})


def test_other_types_have_no_size_here() -> None:
    """None is ever stored, so one would be a mistake."""
    with pytest.raises(ValueError, match="'M'"):
        item_size({"m": {"M": {}}})


@pytest.mark.parametrize(("size", "units"), [(20, 1), (1024, 1), (1025, 2), (2049, 3)])
def test_a_put_is_billed_by_the_kilobyte_begun(metered: Metered, size: int, units: int) -> None:
    """And its bytes counted."""
    assert {"kept": True} == metered.put_item(TableName="t", Item=sized(size))
    assert Bill(requests=_calls("PutItem"), write_units=units, bytes_written=size) == metered.take_bill()
    assert Bill() == metered.take_bill()


@pytest.mark.parametrize(("before", "after", "units"), [(20, 3000, 3), (3000, 20, 3), (20, 20, 1)])
def test_a_rewrite_is_billed_for_the_larger_item(metered: Metered, before: int, after: int, units: int) -> None:
    """Shrinking an item is not cheap."""
    metered.put_item(TableName="t", Item=sized(before))
    metered.take_bill()
    metered.update_item(TableName="t", Key=KEY, Item=sized(after))
    assert units == metered.take_bill().write_units


def test_a_transaction_is_billed_twice_and_indexes_once(metered: Metered) -> None:
    """Two items of 1 and 2 units: 6, and an index entry for one of them: 7."""
    entered = sized(2000, "s2", a={"S": "a"}, b={"N": "1"})
    parts: list[Any] = [{"Put": {"TableName": "t", "Item": item}} for item in (sized(1000), entered)]
    metered.transact_write_items(TransactItems=parts)
    expected = Bill(requests=_calls("TransactWriteItems"), write_units=7, bytes_written=3000)
    assert expected == metered.take_bill()


A, B, C = {"a": {"S": "1"}}, {"b": {"N": "1"}}, {"c": {"S": "1"}}


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        ({}, {}, 0),
        (A, A, 0),
        ({}, A | B, 1),
        (A | B, {}, 1),
        (A | B, A | B, 0),
        (A | B, A | {"b": {"N": "2"}}, 2),
        (A | B, A | B | {"w": {"S": "not copied"}}, 0),
        (C | B, C | B | {"w": {"S": "copied"}}, 1),
        (C | B, C | B | {"y": {"S": "not copied"}}, 0),
        ({}, A | B | C, 2),
        (A | B | C, A | C | {"b": {"N": "2"}}, 4),
        (C | B, C | B | {"w": {"S": "x" * 1500}}, 2),
        (C | B | {"w": {"S": "x" * 1500}}, C | {"b": {"N": "2"}, "w": {"S": "x" * 1500}}, 4),
    ],
)
def test_index_entries_are_billed(shelf: Shelf, before: Any, after: Any, units: int) -> None:
    """One write to enter, leave or change, two to move, none when what is copied stays; by size as ever."""
    bills = []
    for indexes in ((), INDEXES):
        metered = Metered(cast("DynamoClient", shelf), indexes)
        metered.put_item(TableName="t", Item={**KEY, **before})
        metered.take_bill()
        metered.put_item(TableName="t", Item={**KEY, **after})
        bills.append(metered.take_bill().write_units)
    assert units == bills[1] - bills[0]


@pytest.mark.parametrize(
    ("code", "units"),
    [("ConditionalCheckFailedException", 3), ("TransactionCanceledException", 3), ("ValidationException", 0)],
)
def test_a_refused_write_is_billed_as_if_written(shelf: Shelf, metered: Metered, code: str, units: int) -> None:
    """For the larger of the item there and the new one; a request not understood is free."""
    shelf.items["s"] = sized(10)
    shelf.trouble = ClientError({"Error": {"Code": code}}, "PutItem")
    with pytest.raises(ClientError) as seen:
        metered.put_item(TableName="t", Item=sized(3000))
    assert seen.value is shelf.trouble
    assert Bill(requests=_calls("PutItem"), write_units=units) == metered.take_bill()


def test_a_write_whose_reply_was_lost_is_billed(shelf: Shelf, metered: Metered) -> None:
    """It was done."""
    shelf.lost = ClientError({"Error": {"Code": "InternalServerError"}}, "PutItem")
    with pytest.raises(ClientError):
        metered.put_item(TableName="t", Item=sized(100))
    assert (1, 100) == (metered.take_bill().write_units, item_size(shelf.items["s"]))


@pytest.mark.parametrize(
    ("size", "consistent", "units"), [(0, True, 1), (4096, True, 1), (4097, True, 2), (9, False, 0.5)]
)
def test_a_get_is_billed_by_four_kilobytes(
    shelf: Shelf, metered: Metered, size: int, consistent: bool, units: float
) -> None:
    """Half if eventually consistent; nothing found is not free."""
    if size:
        shelf.items["s"] = sized(size)
    metered.get_item(TableName="t", Key=KEY, ConsistentRead=consistent)
    found = {"items_read": 1, "bytes_read": size} if size else {}
    assert Bill(requests=_calls("GetItem"), read_units=units, **found) == metered.take_bill()


def test_a_query_is_billed_for_the_sum_of_what_it_read(shelf: Shelf, metered: Metered) -> None:
    """Five items of 1,000 bytes are 2 units, and a filter that hides four of them changes nothing."""
    shelf.items = {str(number): sized(1000, str(number)) for number in range(5)}
    request: dict[str, Any] = {
        "KeyConditionExpression": "#pk = :pk",
        "ExpressionAttributeNames": {"#pk": "pk", "#f": "f"},
        "ExpressionAttributeValues": {":pk": {"S": "p"}, ":f": {"S": "f"}},
        "ConsistentRead": True,
    }
    assert 5 == len(metered.query(**request)["Items"])
    assert 2 == metered.take_bill().read_units
    assert 1 == len(metered.query(**request, FilterExpression="#f = :f")["Items"])
    assert Bill(requests=_calls("Query"), read_units=2, items_read=5, bytes_read=5000) == metered.take_bill()


def test_a_query_of_an_index_is_billed_for_its_entries(shelf: Shelf, metered: Metered) -> None:
    """Not for the items behind them, and eventually consistent."""
    shelf.items = {str(number): sized(3000, str(number), **A, **B) for number in range(5)}
    metered.query(IndexName="by-a", KeyConditionExpression="#a = :a")
    assert 0.5 == metered.take_bill().read_units


def test_the_client_shows_through(metered: Metered) -> None:
    """Its endpoint is in messages of errors."""
    assert "the shelf's own" == metered.meta
    assert 1 == Bill(requests=_calls("Query")).calls


def _calls(operation: str) -> Any:
    return Bill().requests + type(Bill().requests)([operation])
