"""Cursors of listings as callers hold them: one that another listing, filter or tenant gave, or nobody, is refused.

A cursor of the App is a position; here it is bound to who asked for what, and signed with the keys of the deployment's
links. Without such keys it carries a plain checksum: that finds every mix-up, and whoever computes one himself gains
nothing, because a position opens no run that his listing would not show. It is signed, not sealed: who decodes it
reads a position, which may name a run of the listing it came from, and should not build on its form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from hmac import compare_digest
from typing import Any, TypeVar

from aws_lambda_powertools.event_handler.api_gateway import BaseRouter

from flowcore.app import App
from flowcore.errors import MalformedRequest
from flowcore.links import Links
from flowcore.model import Page

T = TypeVar("T")

_NOT_OF_THE_FILTER = ("cursor", "limit")
_CHECKSUM = "-"
"""Stands for the id of a key where there are none; no key can have it, because ours have to be given a name."""


def position(router: BaseRouter, app: App, given: str | None) -> str | None:
    """Where the caller wants to go on, as the App knows it; None: at the beginning. Raises: MalformedRequest."""
    if given is None:
        return None
    shown, _, mark = given.partition(".")
    try:
        plain = base64.urlsafe_b64decode(shown + "=" * (-len(shown) % 4)).decode()
    except (binascii.Error, ValueError):
        plain = ""
    if not plain or not _is_ours(router, app, plain, mark) or _shown(plain) != shown:
        raise MalformedRequest("This cursor was not given by this listing; leave it out to begin anew.")
    return plain


def cursor(router: BaseRouter, app: App, page: Page[Any]) -> str | None:
    """What the caller brings to go on behind a page; None: that was the last."""
    if page.cursor is None:
        return None
    links = app.engine.links
    what = _bound(router, app, page.cursor)
    mark = links.mark(what) if isinstance(links, Links) else _checksum(what)
    return f"{_shown(page.cursor)}.{mark}"


def bound(router: BaseRouter, app: App, page: Page[T]) -> Page[T]:
    """The page with its cursor as the caller is to hold it."""
    return Page(page.items, cursor(router, app, page))


def _is_ours(router: BaseRouter, app: App, plain: str, mark: str) -> bool:
    links, what = app.engine.links, _bound(router, app, plain)
    if isinstance(links, Links):
        return links.is_marked(what, mark)
    return compare_digest(_checksum(what).encode(), mark.encode())


def _checksum(what: str) -> str:
    return f"{_CHECKSUM}.{hashlib.sha256(what.encode()).hexdigest()[:32]}"


def _bound(router: BaseRouter, app: App, plain: str) -> str:
    """The position together with all that it is good for."""
    query = router.current_event.raw_event.get("queryStringParameters") or {}
    asked = {name: value for name, value in query.items() if name not in _NOT_OF_THE_FILTER}
    return json.dumps(["cursor", app.tenant, router.current_event.path, sorted(asked.items()), plain])


def _shown(plain: str) -> str:
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")
