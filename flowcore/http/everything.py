"""All routes behind the gateway's lock, as one list: what the API function serves."""

from __future__ import annotations

from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore.app import App
from flowcore.http.hooks import delivery_log
from flowcore.http.inbox import inbox
from flowcore.http.operators import operators
from flowcore.http.routes import routes


def served_with_docs(app: App) -> list[Router]:
    """The same, and the page on which they can be tried."""
    from flowcore.http.swagger import swagger  # noqa: PLC0415  # only where a deployment asks for it

    return [*served(app), swagger(app)]


def served(app: App) -> list[Router]:
    """The routers of one tenant's App."""
    return [routes(app), inbox(app), operators(app), delivery_log(app)]
