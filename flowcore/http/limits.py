"""How much one request may be, before anybody looks at what it says, and how often one run may be answered.

A gateway in front has limits of its own; these hold wherever the API is served, and behind a gateway that has none.
"""

from __future__ import annotations

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

MOST_BYTES = 1_000_000
"""Of one body. Larger values go where they are kept anyway; a run gets a reference."""
LONGEST_TARGET = 8_000
"""Bytes of path and query. Source: RFC 9110, section 4.1, what everybody on the way should at least support."""
MOST_HEADER_BYTES = 10_240
"""Of all headers. Source: API Gateway quotas, "HTTP API quotas": request line and header values together."""
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
