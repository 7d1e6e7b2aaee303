"""Entity tags: what a caller has already is not sent again.

A tag is strong, a hash of what is sent. That of a run, or of some of its fields, names its version as well, which
``If-Match`` hands back.
Source: RFC 9110, sections 8.8.3 and 13.1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

_JSON = "application/json"
_TAGGED = (_JSON, "image/svg+xml", "text/vnd.mermaid")
"""Pages are left out: they are for one person, once."""
_LENGTH = 32
"""Hex digits of a hash in a tag."""


def tagged(event: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The answer to a GET with its tag; without a body where the caller has named that tag."""
    headers = answer.get("headers") or {}
    kind = next((str(value) for name, value in headers.items() if name.lower() == "content-type"), "")
    if answer["statusCode"] != HTTPStatus.OK or not kind.startswith(_TAGGED):
        return answer
    tag = str(headers.get("ETag") or _tag(str(answer.get("body") or ""), kind))
    told = {**headers, "ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in _named(event):
        return {**answer, "statusCode": HTTPStatus.NOT_MODIFIED.value, "headers": told, "body": ""}
    return {**answer, "headers": told}


def tag_of(body: str, version: object) -> str:
    """The tag of what is sent, of a run at that version; of something else where that is no number."""
    mark = hashlib.sha256(body.encode()).hexdigest()[:_LENGTH]
    return f'"v{version}-{mark}"' if isinstance(version, int) else f'"{mark}"'


def versions_in(tags: str) -> list[int]:
    """The versions of runs that are named in ``If-Match``; a weak tag is not good enough there."""
    found = (re.fullmatch(r'"v(\d{1,18})-[0-9a-f]+"', tag.strip()) for tag in tags.split(","))
    return [int(match[1]) for match in found if match is not None]


def _tag(body: str, kind: str) -> str:
    shown = json.loads(body) if kind.startswith(_JSON) else None
    return tag_of(body, shown.get("version") if isinstance(shown, dict) else None)


def _named(event: Mapping[str, Any]) -> set[str]:
    """The tags in ``If-None-Match``; a weak one counts as the strong one it stands for."""
    sent = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    return set(re.findall(r'"[^"]*"', str(sent.get("if-none-match", ""))))
