"""A page on which the API can be read and tried: Swagger UI over our own OpenAPI document, where a deployment wants it.

One page with everything in it, nothing from elsewhere. It may run the two scripts that it was sent with, by their
hashes, and talk to the API it came from. Off unless asked for: it is a megabyte and a half, and made for developers.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from http import HTTPStatus
from importlib.resources import files

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore.app import App

_START = """
SwaggerUIBundle({
  url: new URL("openapi.json", window.location.href).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  filter: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


def swagger(app: App) -> Router:
    """The route of the page."""
    del app  # the page says nothing of its own
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

    @router.get("/v1/docs", include_in_schema=False)
    def read_docs() -> Response[str]:
        page, policy = _page()
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "private, no-cache",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Robots-Tag": "noindex, nofollow, noarchive",
        }
        return Response(
            status_code=HTTPStatus.OK.value, content_type="text/html; charset=utf-8", body=page, headers=headers
        )

    return router


@cache
def _page() -> tuple[str, str]:
    """The page and what it may do. Style attributes are the one thing that its script cannot do without."""
    bundle = files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
    script = bundle.joinpath("swagger-ui-bundle.min.js").read_text("utf-8")
    style = bundle.joinpath("swagger-ui.min.css").read_text("utf-8")
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>API</title>'
        f'<style>{style}</style></head><body><div id="swagger-ui">This page needs JavaScript.</div>'
        f"<script>{script}</script><script>{_START}</script></body></html>"
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)} {_hash(_START)}; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
