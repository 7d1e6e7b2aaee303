"""Tracing at the door: what a caller may say about where a run belongs, checked, as a ``Trace``.

Tags are checked here too, as they are what listings filter by. Loads no tracing library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict
from typing_extensions import TypedDict

from flowcore.codec import Shape
from flowcore.errors import InvalidPayload
from flowcore.model import NO_TRACE, Trace

MOST_TAGS = 10
LONGEST_TAG = 64
"""Characters. Tags are copied into the list index, where each kilobyte of an entry costs a write unit per change."""
MOST_KEYS = 20
LONGEST_METADATA = 4096
"""Bytes of JSON: it lies in the head, which is rewritten."""


def _hex(digits: int) -> Callable[[str], str]:
    def checked(value: str) -> str:
        if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value) or not value.strip("0"):
            raise ValueError(f"must be {digits} hexadecimal digits, not all 0, as in W3C Trace Context")
        return value

    return checked


def _tags(given: Sequence[str]) -> Sequence[str]:
    if len(given) > MOST_TAGS:
        raise ValueError(f"holds {len(given)} tags; at most {MOST_TAGS} are kept")
    for tag in given:
        if not 1 <= len(tag) <= LONGEST_TAG or not tag.isprintable() or "," in tag:
            raise ValueError(f"holds {tag!r}; a tag is 1-{LONGEST_TAG} printable characters other than a comma")
    return given


def _keys(given: Sequence[str]) -> Sequence[str]:
    if len(given) > MOST_KEYS:
        raise ValueError(f"holds {len(given)} keys; at most {MOST_KEYS} are shown")
    return given


def _metadata(given: Mapping[str, Any]) -> Mapping[str, Any]:
    size = len(json.dumps(given, default=str).encode())
    if size > LONGEST_METADATA:
        raise ValueError(f"is {size} bytes as JSON; at most {LONGEST_METADATA} are kept")
    return given


class Tracing(TypedDict, total=False):
    """Where a run, or what goes on after a resume, belongs in a caller's tracing. Every key may be left out.

    Example:
        >>> from flowcore.tracing import Tracing
        >>> tracing: Tracing = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "tags": ["checkout"]}
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic's way to configure a TypedDict

    trace_id: Annotated[str, AfterValidator(_hex(32))]
    """32 hex digits; the run's ``RunResult.trace_id`` is then this one."""
    parent_span_id: Annotated[str, AfterValidator(_hex(16))]
    """16 hex digits: the caller's span, in the trace of that id."""
    tags: Annotated[Sequence[str], AfterValidator(_tags)]
    """Up to 10 of up to 64 characters: shown on spans; of a start, also what ``list_runs(tag=...)`` finds."""
    metadata: Annotated[Mapping[str, Any], AfterValidator(_metadata)]
    """Shown on spans; up to 4 KB of JSON."""
    request_context_keys: Annotated[Sequence[str], AfterValidator(_keys)]
    """Keys of the request context whose values spans show; none are shown otherwise."""


_TRACING: Shape[Tracing] = Shape(Tracing)
_TAGS: Shape[Sequence[str]] = Shape(Annotated[Sequence[str], AfterValidator(_tags)])


def accepted(tracing: Tracing | Mapping[str, Any] | None) -> Trace | None:
    """What a caller said, checked; None when nothing was said. Raises: InvalidPayload."""
    if tracing is None:
        return None
    found = _TRACING.accept("tracing", dict(tracing))
    if "parent_span_id" in found and "trace_id" not in found:
        missing = {"path": "trace_id", "message": "is needed with parent_span_id: in which trace is the parent?"}
        raise InvalidPayload("tracing", [missing])
    return Trace(
        trace_id=found.get("trace_id"),
        parent_span_id=found.get("parent_span_id"),
        tags=_distinct(found.get("tags", ())),
        metadata=found.get("metadata", {}),
        context_keys=tuple(found.get("request_context_keys", ())),
    )


def accepted_tags(*given: Iterable[str]) -> tuple[str, ...]:
    """Tags from several places as one set, in the order they came. Raises: InvalidPayload."""
    loose = [tags for tags in given if isinstance(tags, str)]
    if loose:
        message = f"is the text {loose[0]!r}; give a list of tags"
        raise InvalidPayload("tags", [{"path": "", "message": message, "type": "list"}])
    return _distinct(_TAGS.accept("tags", list(_distinct(tag for tags in given for tag in tags))))


def begun(tracing: Tracing | Mapping[str, Any] | None, tags: Iterable[str]) -> Trace:
    """The trace a run is started with: what the caller said, with the tags of ``create_run`` in front of its own.

    Raises: InvalidPayload.
    """
    said = accepted(tracing) or NO_TRACE
    return Trace(
        trace_id=said.trace_id,
        parent_span_id=said.parent_span_id,
        tags=accepted_tags(tags, said.tags),
        metadata=said.metadata,
        context_keys=said.context_keys,
    )


def from_traceparent(header: str | None) -> Tracing | None:
    """Trace and parent of a W3C ``traceparent`` header; None when there is none, or none that can be read.

    A malformed one is ignored, as the specification asks. Source: W3C Trace Context, section 3.2.
    """
    match = re.fullmatch(r"\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?\s*", header or "")
    if match is None:
        return None
    version, trace_id, parent, rest = match.groups()
    is_readable = version != "ff" and (version != "00" or rest is None)
    if not is_readable or not trace_id.strip("0") or not parent.strip("0"):
        return None
    return {"trace_id": trace_id, "parent_span_id": parent}


def _distinct(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))
