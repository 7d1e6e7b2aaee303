"""moto with our remedies answers every request as moto does without them: right ones, refused ones and nonsense."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX
from flowcore.adapters.table import table_request
from flowcore.testing.moto import REGION
from flowcore.testing.quick_moto import plain, quickened, without_wire

pytestmark = pytest.mark.xdist_group("quick-moto")

NAMES = {"#pk": "pk", "#sk": "sk", "#a": "a", "#b": "b", "#c": "c", "#n": "n", "#u": "u"}
VALUES: dict[str, Any] = {
    ":one": {"N": "1"},
    ":two": {"N": "2"},
    ":p": {"S": "p"},
    ":q": {"S": "q"},
    ":x": {"S": "x"},
    ":y": {"S": "y"},
    ":empty": {"S": ""},
    ":list": {"L": [{"N": "1"}, {"M": {"deep": {"B": b"\x00\xff"}}}]},
    ":set": {"SS": ["e", "f"]},
    ":type": {"S": "S"},
}


def _key(sort: str = "x") -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sort}}


def _asked(**request: Any) -> dict[str, Any]:
    """A request with the names and values that its expressions use, as far as there are such."""
    text = " ".join(value for name, value in request.items() if name.endswith("Expression"))
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ").replace("[", " ").split())
    names = {name: NAMES[name] for name in NAMES if name in words}
    values = {name: VALUES[name] for name in VALUES if name in words}
    given = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    return {"TableName": "runs", **{name: value for name, value in given.items() if value}, **request}


def _put(sort: str = "x", condition: str | None = None, **attributes: Any) -> tuple[str, dict[str, Any]]:
    guarded = {} if condition is None else {"ConditionExpression": condition}
    return "put_item", _asked(
        Item={**_key(sort), **attributes}, ReturnValuesOnConditionCheckFailure="ALL_OLD", **guarded
    )


def _update(expression: str, condition: str | None = None, sort: str = "x", **more: Any) -> tuple[str, dict[str, Any]]:
    guarded = {} if condition is None else {"ConditionExpression": condition}
    request = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD", "ReturnValues": "ALL_NEW", **guarded, **more}
    return "update_item", _asked(Key=_key(sort), UpdateExpression=expression, **request)


def _query(condition: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "query", _asked(KeyConditionExpression=condition, **more)


def _together(*parts: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    items = []
    for operation, request in parts:
        kind = {"put_item": "Put", "update_item": "Update", "delete_item": "Delete"}[operation]
        items.append({kind: {name: value for name, value in request.items() if name != "ReturnValues"}})
    return "transact_write_items", {"TransactItems": items}


EVERYTHING: dict[str, Any] = {
    "a": {"S": "x"},
    "b": {"L": [{"N": "1"}, {"M": {"deep": {"B": b"\x00\xff"}, "none": {"NULL": True}, "no": {"BOOL": False}}}]},
    "c": {"SS": ["d", "e"]},
    "n": {"N": "1.50"},
    "u": {"B": b"\x01\x02"},
    "empty": {"M": {}},
    "none": {"L": []},
    "text": {"S": ""},
    "numbers": {"NS": ["1", "2"]},
    "bytes": {"BS": [b"\x03", b"\x04"]},
}

CONVERSATION: list[tuple[str, dict[str, Any]]] = [
    _put("x", "attribute_not_exists(#pk)", **EVERYTHING),
    _put("x", "attribute_not_exists(#pk)"),
    ("get_item", _asked(Key=_key(), ConsistentRead=True)),
    ("get_item", _asked(Key=_key("gone"))),
    ("get_item", _asked(Key=_key(), ProjectionExpression="#a, #b")),
    *[
        _put("x", condition, **EVERYTHING)
        for condition in (
            "#a = :x AND #n < :two",
            "#a = :y OR NOT #n >= :two",
            "(#a = :x OR #a = :y) AND #n <> :one",
            "#a IN (:x, :y) AND attribute_type(#a, :type)",
            "#n BETWEEN :one AND :two AND contains(#c, :x)",
            "begins_with(#a, :x) AND size(#a) = :one",
            "#b[0] = :one",
            "#b[1].deep = :one",
            "((#a = :x))",
            "#a = ",
            "#a == :x",
            "attribute_exists(:x)",
            "#a = :nobody",
            "#nobody = :x",
            "a = :x AND status = :x",
        )
    ],
    ("put_item", {**_put("x", "#a = :x")[1], "ExpressionAttributeNames": {"#a": "a", "#unused": "b"}}),
    ("put_item", {**_put("x", "#a = :y")[1], "ExpressionAttributeValues": {":y": {"S": "x"}}}),
    _put("", a={"S": "no sort key"}),
    _put("big", a={"S": "x" * 420_000}),
    _update("SET #a = :y, #n = if_not_exists(#n, :one) + :one, #u = :list REMOVE #c"),
    _update("SET #a = :x, #n = #n - :one", "#a = :y"),
    _update("SET #a = :x", "#a = :y"),
    _update("SET #n = :two REMOVE #b[0], #b[1]"),
    _update("SET #u[1].deep = :one, #u[0] = :two"),
    _update("SET #u = list_append(#u, :list)"),
    _update("SET #c = :set"),
    _update("ADD #c :set, #n :two"),
    _update("DELETE #c :set"),
    _update("SET #a = :x", sort="new"),
    _update("SET #n = if_not_exists(#n, :one) + :one", "attribute_not_exists(#pk)", "newer"),
    _update("SET #a = :x", "attribute_exists(#pk)", "gone"),
    *[
        _update(expression)
        for expression in (
            "SET #a = :x, #a = :y",
            "SET #b.deep = :x, #b.deep = :y",
            "SET a.deep = :x, a = :y",
            "SET #a = :x SET #b = :y",
            "REMOVE #a REMOVE #b",
            "SET #pk = :x",
            "SET #a = :nobody",
            "SET #nobody = :x",
            "SET status = :x",
            "SET #a = #c",
            "SET #a = #b + :one",
            "SET #a.b.c = :x",
            "SET #a = ",
            "SETT #a = :x",
            "SET #a = nothing(#a, :x)",
            "SET dsh = :empty",
            "SET due = :list",
            "ADD #a :one",
            " ",
        )
    ],
    _update("SET #a = :x", ExpressionAttributeNames={"#a": "a", "#unused": "b"}),
    _update("SET #a = :x", ExpressionAttributeValues={":x": {"S": "1"}, ":unused": {"S": "b"}}),
    *[_update("SET #a = :x", ReturnValues=answer) for answer in ("NONE", "ALL_OLD", "UPDATED_OLD", "UPDATED_NEW")],
    *[_put(f"s-{number}", n={"N": str(number)}, lsh={"S": "l"}, lsk={"S": str(number)}) for number in range(5)],
    _query("#pk = :p"),
    _query("#pk = :p AND begins_with(#sk, :x)", ConsistentRead=True),
    _query("#pk = :p AND #sk BETWEEN :x AND :y", ScanIndexForward=False),
    _query("#pk = :p", Limit=2),
    _query("#pk = :p", Limit=2, ExclusiveStartKey=_key("s-1")),
    _query("#pk = :p", FilterExpression="#n < :two", Select="ALL_ATTRIBUTES"),
    _query("#pk = :p", ProjectionExpression="#sk"),
    _query("#pk = :p", Select="COUNT"),
    _query("lsh = :l", IndexName=LIST_INDEX.name, ExpressionAttributeValues={":l": {"S": "l"}}, Limit=3),
    _query("#pk = :p", IndexName="nobody"),
    _query("#a = :p"),
    _together(_put("t-1", "attribute_not_exists(#pk)"), _update("SET #a = :x", "#a = :x")),
    _together(_put("t-2"), _update("SET #a = :y", "#a = :q")),
    _together(_put("t-2"), _put("t-2")),
    _together(_put("t-2"), _update("SET #a = :x, #a = :y", sort="t-3")),
    _together(_update("SET #n = :one", sort="t-4"), ("delete_item", _asked(Key=_key("t-1")))),
    ("delete_item", _asked(Key=_key("s-4"), ReturnValues="ALL_OLD")),
    ("delete_item", _asked(Key=_key("s-4"), ReturnValues="ALL_OLD")),
    ("delete_item", _asked(Key=_key("s-3"), ConditionExpression="#n = :one")),
    ("get_item", {"TableName": "nobody", "Key": _key()}),
    ("put_item", {"TableName": "nobody", "Item": _key()}),
    _query("#pk = :p"),
    ("describe_table", {"TableName": "runs"}),
]


def _answers(client: Any) -> list[Any]:
    """What is answered in turn about a table that is new; times and ids are of no interest."""
    client.create_table(**table_request("runs", (DUE_INDEX, LIST_INDEX)))
    try:
        return [_answer(client, operation, request) for operation, request in CONVERSATION]
    finally:
        client.delete_table(TableName="runs")


def _answer(client: Any, operation: str, request: dict[str, Any]) -> Any:
    try:
        reply = getattr(client, operation)(**request)
    except ClientError as error:
        reply = dict(error.response)
    except Exception as error:  # noqa: BLE001  # moto stumbles over some nonsense; then it stumbles alike
        return type(error), str(error)
    status = reply.pop("ResponseMetadata")["HTTPStatusCode"]
    reply.get("Table", {}).pop("CreationDateTime", None)
    reply.get("Table", {}).pop("TableId", None)
    return status, reply


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    """What moto says as it comes."""
    with mock_aws(), plain():
        return _answers(boto3.client("dynamodb", region_name=REGION))


@pytest.fixture(scope="module", params=[lambda client: client, without_wire], ids=["wire", "no wire"])
def given(request: pytest.FixtureRequest) -> list[Any]:
    """What moto says with the remedies."""
    with mock_aws(), quickened():
        return _answers(request.param(boto3.client("dynamodb", region_name=REGION)))


@pytest.mark.parametrize("turn", range(len(CONVERSATION)), ids=lambda turn: f"{turn:03}-{CONVERSATION[turn][0]}")
def test_quick_answer_is_the_plain_one(expected: list[Any], given: list[Any], turn: int) -> None:
    """Whatever was said before, the same is said now, refusals word for word."""
    assert expected[turn] == given[turn]


def test_the_conversation_covers_both(expected: list[Any]) -> None:
    """A conversation in which everything went well, or nothing, would prove little."""
    statuses = [status for status, _ in expected]
    assert statuses.count(200) > 25
    assert statuses.count(400) > 25
