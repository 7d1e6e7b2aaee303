"""moto, quicker: the same answers with less work, for suites that ask it tens of thousands of questions.

moto tokenizes, parses and checks an expression anew with every request, although a store has a few dozen of them, and
it searches its own classes for the shape of every value it returns. Each remedy here takes the place of one function of
moto and gives what that one gives; ``tests/contract/test_quick_moto.py`` holds the two against each other. What moto
refuses is refused by moto itself: a remedy that sees something wrong leaves the verdict and its words to the original.

``without_wire`` spares the way there and back, which costs more than the answer: a request is signed, made into HTTP,
recognized by its URL and taken apart again. The way is walked where it matters, on the local stack.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from unittest import mock

from moto.core import responses as core
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import method_names_from_class
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.exceptions import MockValidationException
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing.ast_nodes import (  # type: ignore[attr-defined]  # moto leaves this module untyped
    DepthFirstTraverser,
    Node,
)
from moto.dynamodb.parsing.expressions import UpdateExpressionParser  # type: ignore[attr-defined]  # and this one
from moto.dynamodb.parsing.validators import ActionCountValidator, OverlappingPathsValidator
from moto.dynamodb.responses import DynamoHandler, DynamoResult

_MOST_EXPRESSIONS = 1000
"""How many parsed expressions are kept: far more than a store has, and an end to what a test can make up."""
_DATA = frozenset({"PutItem", "GetItem", "UpdateItem", "DeleteItem", "Query", "TransactWriteItems"})
"""Operations whose results moto keeps in the very form in which they travel."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What stands for a while in the place of an attribute of moto."""

    owner: Any
    name: str
    original: Any
    instead: Any


@contextmanager
def quickened() -> Iterator[None]:
    """moto's DynamoDB does less work for the same answers."""
    with _replaced((remedy.owner, remedy.name, remedy.instead) for remedy in REMEDIES):
        yield


@contextmanager
def plain() -> Iterator[None]:
    """moto as it comes, even inside of ``quickened``."""
    with _replaced((remedy.owner, remedy.name, remedy.original) for remedy in REMEDIES):
        yield


@contextmanager
def _replaced(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in attributes:
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield


def without_wire(client: Any) -> Any:
    """The same DynamoDB client, from now on handing its requests to moto as they are before they are signed and sent.

    They are checked and written as JSON by botocore as ever, and answers are read by it; only the way is left out.
    """

    def answer(*, model: Any, params: dict[str, Any], **_: Any) -> tuple[Any, Any]:
        handler = DynamoHandler()
        handler.headers, handler.querystring, handler.response_headers = params["headers"], {}, {}
        handler.region, handler.current_account, handler.uri_match = client.meta.region_name, DEFAULT_ACCOUNT_ID, {}
        handler.parse_parameters(_Sent(params))  # type: ignore[arg-type]  # all that it reads of a request
        status, headers, body = handler.call_action()
        reply = {"status_code": status, "headers": headers, "body": body.encode(), "context": {}}
        return _Arrived(status), _read(client._response_parser, reply, model)  # noqa: SLF001  # botocore's own reader

    client.meta.events.register("before-call.dynamodb", answer)
    return client


def _read(parser: Any, reply: dict[str, Any], model: Any) -> Any:
    """A reply as a client gives it; a refusal with what its kind of error carries besides."""
    parsed = parser.parse(reply, model.output_shape)
    error = parsed.get("Error", {}).get("Code")
    shape = model.service_model.shape_for_error_code(error) if error else None
    if shape is not None:
        parsed.update(parser.parse(reply, shape))
    return parsed


class _Sent:
    """What moto reads of a request."""

    method = "POST"
    path = "/"
    content_type: str

    def __init__(self, params: dict[str, Any]) -> None:
        self.headers = self.values = params["headers"]
        self.content_type = params["headers"]["Content-Type"]
        self.data = params["body"]


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What botocore reads of a reply that it has parsed already."""

    status_code: int


# -- results ----------------------------------------------------------------------------------------------------------


def _as_it_travels(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Items are kept as they travel; what else a result carries, a client does not read."""

    def execute_result(result: Any, context: Any) -> Any:
        if context.operation_model.name not in _DATA:
            return original(result, context)
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(result.result, default=_encoded)

    return execute_result


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


# -- conditions -------------------------------------------------------------------------------------------------------


class _Unknown(dict[str, Any]):
    """Values that nobody has given yet: the tree of a condition is the same whatever they are."""

    def __missing__(self, name: str) -> Any:
        return {"S": name}


class _Skeleton(ConditionExpressionParser):
    """Parses a condition as far as its values do not matter."""

    def _make_op_condition(self, node: Any) -> Any:
        """The tree itself, in place of what is made of it."""
        return node


def _parsed_once(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A condition becomes a tree once for its names; with each request the values of that request are put in."""

    @lru_cache(_MOST_EXPRESSIONS)
    def skeleton(expression: str, names: tuple[tuple[str, str], ...]) -> tuple[Any, list[str], list[str]]:
        parser = _Skeleton(expression, dict(names), _Unknown())
        return original(parser), parser.expr_attr_names_found, parser.expr_attr_values_found

    def parse(parser: Any) -> Any:
        given = parser.expression_attribute_values or {}
        if not parser.condition_expression:
            return original(parser)
        tree, names, values = skeleton(
            parser.condition_expression, tuple((parser.expression_attribute_names or {}).items())
        )
        if not given.keys() >= set(values):
            return original(parser)
        parser.expr_attr_names_found.extend(names)
        parser.expr_attr_values_found.extend(values)
        return parser._make_op_condition(_filled(tree, given))  # noqa: SLF001  # moto's own next step

    return parse


def _filled(node: Any, values: dict[str, Any]) -> Any:
    """The tree with these values in the places of the unknown ones."""
    if node.kind == ConditionExpressionParser.Kind.EXPRESSION_ATTRIBUTE_VALUE:
        return node._replace(value=values[node.text])
    if not node.children:
        return node
    return node._replace(children=[_filled(child, values) for child in node.children])


# -- updates ----------------------------------------------------------------------------------------------------------


def _copied(node: Any, memo: dict[int, Any], parent: Any = None) -> Any:
    """A tree like this one; its leaves are names and numbers, which nobody changes."""
    made = node.__class__.__new__(node.__class__)
    made.type, made.parent, made.children = node.type, parent, None
    if node.children is not None:
        made.children = [
            child if isinstance(child, str | int) else _copied(child, memo, made) for child in node.children
        ]
    return made


def _table_copied(table: Any, memo: dict[int, Any]) -> Any:
    """A table as it stands, to return to: a transaction changes items, and never what the table itself is like."""
    copied = copy(table)
    copied.items = deepcopy(table.items, memo)
    return copied


def _traverse(traverser: Any, root: Any) -> Any:
    """Processes a tree from its leaves up, asking once per kind of node, not once per node, who processes it."""
    processors = tuple(traverser._processing_map().items())  # noqa: SLF001  # what moto's own traversal goes by
    chosen: dict[type, Any] = {}
    before_child = traverser.pre_processing_of_child

    def walk(node: Any, place: int) -> Any:
        kind = type(node)
        if kind not in chosen:
            is_node = issubclass(kind, Node)
            chosen[kind] = is_node, is_node and next((do for what, do in processors if issubclass(kind, what)), None)
        is_node, process = chosen[kind]
        if not is_node:
            return node
        parent = node.parent
        for number, child in enumerate(node.children or ()):
            before_child(node, number)
            walk(child, number)
        if process is None:
            return node
        made = process(node)
        made.parent = parent
        if parent:
            parent.children[place] = made
        return made

    return walk(root, -1)


def _checked_at_the_root(validator: Any, root: Any) -> Any:
    """A check that looks at all below a node has looked everywhere once it has looked at the root.

    moto looks again at every node in between; it still does when the root is not as it should be, to find its words.
    """
    try:
        return validator.process(root)
    except MockValidationException:
        return _traverse(validator, root)


REMEDIES = (
    Remedy(core, "method_names_from_class", method_names_from_class, cache(method_names_from_class)),
    Remedy(DynamoResult, "execute_result", DynamoResult.execute_result, _as_it_travels(DynamoResult.execute_result)),
    Remedy(
        ConditionExpressionParser,
        "parse",
        ConditionExpressionParser.parse,
        _parsed_once(ConditionExpressionParser.parse),
    ),
    Remedy(
        UpdateExpressionParser,
        "make",
        UpdateExpressionParser.make,
        staticmethod(lru_cache(_MOST_EXPRESSIONS)(UpdateExpressionParser.make)),
    ),
    Remedy(Node, "__deepcopy__", None, _copied),
    Remedy(Table, "__deepcopy__", None, _table_copied),
    Remedy(DepthFirstTraverser, "traverse", DepthFirstTraverser.traverse, _traverse),
    Remedy(ActionCountValidator, "traverse", DepthFirstTraverser.traverse, _checked_at_the_root),
    Remedy(OverlappingPathsValidator, "traverse", DepthFirstTraverser.traverse, _checked_at_the_root),
)
"""A parsed update expression can be shared: moto copies it before it puts values in."""
