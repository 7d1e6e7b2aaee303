"""How much one request may be, before anybody looks at what it says, and how often one run may be answered.

A gateway in front has limits of its own; these hold wherever the API is served, and behind a gateway that has none.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response

from flowcore.errors import MalformedRequest, TooManyAnswers
from flowcore.http import problems
from flowcore.model import Json

MOST_BYTES = 1_000_000
"""Of one body. Larger values go where they are kept anyway; a run gets a reference."""
LONGEST_TARGET = 8_000
"""Bytes of path and query. Source: RFC 9110, section 4.1, what everybody on the way should at least support."""
MOST_HEADER_BYTES = 10_240
"""Of all headers. Source: API Gateway quotas, "HTTP API quotas": request line and header values together."""
MOST_ANSWER_BYTES = 6_000_000
"""Of the body of one answer, as Lambda hands it on. Source: AWS Lambda quotas, "Invocation payload": 6 MB in all."""
_LARGE = 100_000
"""Bytes from which on a field of a run is left out of an answer that would be too large."""
_EMPTY: Mapping[str, Json] = {
    "waits": [],
    "suspended": [],
    **{name: {} for name in ("steps", "progress", "state", "request_context", "resume_labels")},
}
"""What stands in place of a field that was left out; null for the others."""
MOST_PARAMETERS = 100
"""Of one query, repeated ones each."""
RESUMES_A_MINUTE = 600
"""Of one run in one process, unless told otherwise: a foreach of hundreds of items is answered by a program."""
_MOST_RUNS = 10_000
"""Runs whose pace is remembered; who has not been heard of for longest is forgotten, and has his full measure again."""


def oversized(event: Mapping[str, Any]) -> Response[str] | None:
    """The answer to a request whose address or headers are too long; None for any other."""
    target = len(str(event.get("rawPath", "")).encode("utf-8", "surrogatepass")) + len(
        event.get("rawQueryString") or ""
    )
    if target > LONGEST_TARGET:
        detail = f"The address has {target} bytes; at most {LONGEST_TARGET} are read."
        return problems.problem(HTTPStatus.REQUEST_URI_TOO_LONG, "address-too-long", detail)
    headers = event.get("headers") or {}
    size = sum(len(name) + len(str(value)) for name, value in headers.items())
    size += sum(len(cookie) for cookie in event.get("cookies") or ())
    if size > MOST_HEADER_BYTES:
        detail = f"The headers have {size} bytes; at most {MOST_HEADER_BYTES} are read."
        return problems.problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", detail)
    return None


def refuse_many_parameters(event: Mapping[str, Any]) -> None:
    """Raises: MalformedRequest for a query of more than ``MOST_PARAMETERS``."""
    count = (event.get("rawQueryString") or "").count("&") + 1
    if count > MOST_PARAMETERS:
        raise MalformedRequest(f"The query has {count} parameters; at most {MOST_PARAMETERS} are read.")


def bounded(method: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it can be handed on; else a problem that says how to ask for less.

    What has changed something is done by now, and its caller must not take it for a failure: he is answered with the
    run less what makes it large, and ``left_out`` says what that is.
    """
    text = str(answer.get("body") or "")
    size = _handed_on(text)
    if size <= MOST_ANSWER_BYTES:
        return answer
    run = json.loads(text) if method != "GET" and text.startswith("{") else {}
    if "run_id" in run:
        large = sorted(name for name, value in run.items() if len(json.dumps(value)) > _LARGE)
        return {**answer, "body": json.dumps({**run, **{name: _EMPTY.get(name) for name in large}, "left_out": large})}
    detail = (
        f"The answer has {size} bytes; at most {MOST_ANSWER_BYTES} are handed on. Ask for less: some fields= of a run, "
        "fewer events with after= and limit=, a smaller limit= of a listing."
    )
    refusal = problems.problem(HTTPStatus.UNPROCESSABLE_ENTITY, "answer-too-large", detail)
    return {**answer, "statusCode": refusal.status_code, "headers": _typed(refusal), "body": refusal.body}


def _handed_on(text: str) -> int:
    """Bytes of a text inside the JSON that Lambda makes of an answer; not more than those of a text that is short."""
    return len(text) if len(text) * 4 <= MOST_ANSWER_BYTES else len(json.dumps(text, ensure_ascii=False).encode())


def _typed(response: Response[str]) -> dict[str, Any]:
    return {"Content-Type": response.content_type, **response.headers}


@dataclass(eq=False)
class Pace:
    """A token bucket for each run: as many answers at once as one minute allows, then as fast as they come back.

    It lives in this process and costs neither a read nor a write; N processes allow N times as much. That is enough
    against a loop that went wrong. What a whole deployment takes in is throttled at its gateway.

    Args:
        a_minute: answers to one run in one minute.
    """

    a_minute: int = RESUMES_A_MINUTE
    _spent: OrderedDict[str, datetime] = field(default_factory=OrderedDict, repr=False)
    """Of each run: when its bucket will be full again."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, run: str, now: datetime) -> None:
        """Let one answer through. Raises: TooManyAnswers, with how long to wait."""
        each, whole = timedelta(minutes=1) / self.a_minute, timedelta(minutes=1)
        with self._lock:
            full = max(self._spent.get(run, now), now) + each
            if full - now > whole:
                raise TooManyAnswers(self.a_minute, math.ceil((full - now - whole).total_seconds()))
            self._spent[run] = full
            self._spent.move_to_end(run)
            if len(self._spent) > _MOST_RUNS:
                self._spent.popitem(last=False)
