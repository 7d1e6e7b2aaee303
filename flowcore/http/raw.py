"""The body of a request as the bytes that were sent: what a signature is over, and what a form is read from."""

from __future__ import annotations

import base64

from aws_lambda_powertools.event_handler.api_gateway import BaseRouter


def raw_body(router: BaseRouter) -> bytes:
    """The bytes of the request that is being answered."""
    event = router.current_event.raw_event
    body = event.get("body") or ""
    return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode("utf-8", "surrogatepass")
