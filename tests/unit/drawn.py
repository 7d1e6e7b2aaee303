"""Workflows to be described and drawn: one with every kind of node, hostile texts, random ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from flowcore import create_step, otherwise, workflow
from flowcore.authoring.describe import nodes_of
from flowcore.authoring.workflow import Workflow

# What a careless page would run, show wrongly, or choke on.
HOSTILE = (
    "<script>alert(1)</script>",
    "</title></desc></style></text></svg><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "]]><!--",
    "&lt;&#60;&amp;#x3c;",
    "javascript:alert(1)",
    "{{constructor}} ${7*7} #quot; #60;",
    'end\n  click n1 "javascript:alert(1)"\n%%{init: {"securityLevel": "loose"}}%%',
    "\x00\x0b\x1f\x7f\x85\ufffe\uffff",
    "\u202egnp.exe",
    "half of a pair: \ud800 and \udc00",
    "漢字" * 200,
    "`**bold** [link](javascript:alert(1))`",
    "1. one\n- two",
    "",
)


def a_step(id: str, **options: Any) -> Any:
    """A step that gives back what it gets."""
    return create_step(id=id, execute=lambda value: value, input=Any, output=Any, **options)


def is_small(value: Any) -> bool:
    """A condition with a name."""
    return bool(value)


def wide() -> Workflow[Any, Any]:
    """Every kind of node, nested three deep."""
    inner = (
        workflow("inner")
        .then(a_step("sign"))
        .branch((is_small, a_step("small")), (lambda value: value > 2, a_step("large")), id="size")
        .commit()
    )
    middle = workflow("middle").parallel(inner, a_step("weigh"), id="both").then(inner.clone(id="again")).commit()
    return (
        workflow("wide", description="Every kind of node")
        .then(a_step("first", description="The first of all", retries=2))
        .then(a_step("first"), id="second")
        .then(middle)
        .map({"a": {"value": 1}, "b": {"init_data": ""}}, id="pick")
        .map(lambda value: [value], id="listed")
        .foreach(a_step("one"), id="each")
        .foreach(middle, concurrency=3, id="fan")
        .foreach(a_step("two"), concurrency=lambda values: len(values) + 1, id="computed")
        .branch((is_small, a_step("left")), (otherwise, a_step("right")), id="ways")
        .sleep(timedelta(days=3), id="rest")
        .sleep(lambda value: timedelta(seconds=value), id="nap")
        .sleep_until(datetime(2031, 5, 1, 12, tzinfo=UTC), id="may")
        .sleep_until(is_small, id="dawn")  # type: ignore[arg-type]  # never run
        .wait_for_event("order.paid", key="A-17", timeout=timedelta(hours=2))
        .wait_for_event("order.sent", key=lambda order: order["id"], id="sent")
        .dountil(a_step("poll"), is_small)
        .dowhile(inner, is_small, id="turns")
        .commit()
    )


def hostile(text: str) -> Workflow[Any, Any]:
    """A workflow with ``text`` wherever an author may write freely."""

    def condition(value: Any) -> Any:
        return value

    condition.__name__ = text
    inner = workflow("inner", description=text).then(a_step("sign", description=text)).commit()
    return (
        workflow("hostile", description=text)
        .then(a_step("first", description=text))
        .branch((condition, inner), (otherwise, a_step("other")), id="ways", description=text)
        .map({text: {"value": 1}}, id="pick", description=text)
        .map(condition, id="made")
        .foreach(a_step("one"), concurrency=condition, id="each", description=text)
        .dountil(a_step("poll"), condition, description=text)
        .sleep(condition, id="nap", description=text)
        .wait_for_event("paid", key=condition, id="computed", description=text)
        .wait_for_event("paid", key=text.encode(errors="replace").decode()[:99] or "none", id="fixed")
        .commit()
    )


def walk(node: Any) -> Iterator[Any]:
    """Every described node below one, from the top down."""
    for inner in nodes_of(node):
        yield inner
        yield from walk(inner)
