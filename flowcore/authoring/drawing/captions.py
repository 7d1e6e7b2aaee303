"""What is written on a node: a headline, a line below it, everything else in a tooltip. Plain text, not escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowcore.authoring.drawing.standing import Mark

_UNITS = ((86_400, "day", "days"), (3_600, "h", "h"), (60, "min", "min"), (1, "s", "s"))


def headline(node: Mapping[str, Any]) -> str:
    """The name of a node; a fork that the author did not name says what it does."""
    id: str = node["id"]
    kind = node["kind"]
    if kind == "parallel":
        return "all at once" if id.startswith("parallel-") else f"{id} · all at once"
    if kind == "branch":
        return "whichever is true" if id.startswith("branch-") else f"{id} · whichever is true"
    return id


def detail(node: Mapping[str, Any]) -> str:
    """The line below the headline: what the node does, then what its author said about it."""
    return " · ".join(part for part in (_does(node), node["description"]) if part)


def tooltip(node: Mapping[str, Any], mark: Mark | None) -> str:
    """All that is known about a node in one line."""
    kind = node["kind"].replace("_", " ")
    parts = [f"{kind} {node['path'] or node['id']}", detail(node), mark.text if mark else ""]
    return " · ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """A length of time in its two largest units: ``3 days``, ``1 min 30 s``, ``0.4 s``."""
    if seconds <= 0:
        return "no time"
    if seconds < 60:
        return f"{seconds:g} s"
    parts: list[str] = []
    rest = round(seconds)
    for size, one, many in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
        elif parts:
            break
    return " ".join(parts[:2])


def _does(node: Mapping[str, Any]) -> str:
    match node:
        case {"kind": "step", "step": step, "id": id, "retries": retries}:
            tries = f"{retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
            return " · ".join(part for part in (f"runs {step}" if step != id else "", tries) if part)
        case {"kind": "workflow", "workflow": workflow, "id": id}:
            return f"workflow {workflow}" if workflow != id else "workflow"
        case {"kind": "map", "fields": fields}:
            return f"makes {', '.join(fields)}" if fields else "makes nothing"
        case {"kind": "map", "computed": computed}:
            return f"makes {computed}"
        case {"kind": "dountil", "condition": condition}:
            return f"repeats until {condition}"
        case {"kind": "dowhile", "condition": condition}:
            return f"repeats while {condition}"
        case {"kind": "foreach"}:
            slots = node.get("concurrency") or node.get("computed")
            return "each item, one at a time" if slots == 1 else f"each item, {slots} at a time"
        case {"kind": "sleep" | "sleep_until"}:
            return _sleeps(node)
        case {"kind": "wait_for_event", "event": event}:
            about = f"{event} of {node.get('key') or node['computed']}"
            return f"waits for {about}" + (f", {duration(node['seconds'])} at most" if "seconds" in node else "")
        case _:
            return ""


def _sleeps(node: Mapping[str, Any]) -> str:
    match node:
        case {"seconds": seconds}:
            return f"sleeps {duration(seconds)}"
        case {"at": at}:
            return f"sleeps until {at[:16].replace('T', ' ')} UTC"
        case {"kind": "sleep", "computed": computed}:
            return f"sleeps for {computed}"
        case _:
            return f"sleeps until {node['computed']}"
