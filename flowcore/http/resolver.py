"""Powertools' resolver for several requests at once: what it knows of a request belongs to the thread that answers it.

Its own keeps the request in one place for the whole process, as a function on Lambda only ever has one. In a server
with threads a route would read the headers, and the caller, of whoever came last.
"""

from __future__ import annotations

import threading
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2


class Resolver(APIGatewayHttpResolver):
    """Routes of one API; its routers ask it for their request, too."""

    def __init__(self) -> None:
        self._here = threading.local()
        super().__init__(enable_validation=True)

    @property
    def current_event(self) -> APIGatewayProxyEventV2:  # type: ignore[override]  # there it is a mere attribute
        """The request that this thread answers."""
        found: APIGatewayProxyEventV2 = self._here.event
        return found

    @property
    def context(self) -> dict[str, Any]:
        """What the routes and what stands around them tell each other of it."""
        try:
            found: dict[str, Any] = self._here.context
        except AttributeError:
            found = self._here.context = {}
        return found

    @context.setter
    def context(self, value: dict[str, Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
        self._here.context = value

    def _to_proxy_event(self, event: dict[str, Any]) -> APIGatewayProxyEventV2:
        self._here.event = APIGatewayProxyEventV2(event)
        return self.current_event

    def made_ready(self) -> None:
        """Build what would otherwise be built at the first request, by every thread that has one."""
        for route in [*self._static_routes, *self._dynamic_routes]:
            if not route._middleware_stack_built:  # noqa: SLF001  # nothing public does
                route._build_middleware_stack(router_middlewares=self._router_middlewares, app=self)  # noqa: SLF001

    def methods_at(self, path: str) -> list[str]:
        """The methods that a path takes, sorted; none where there is no such path."""
        routes = [*self._static_routes, *self._dynamic_routes]
        return sorted({route.method for route in routes if route.rule.match(path)})

    def parameters_at(self, method: str, path: str) -> list[str] | None:
        """The parameters of a query that a route takes, sorted; None where there is no such route."""
        for route in [*self._static_routes, *self._dynamic_routes]:
            if route.method == method and route.rule.match(path):
                return sorted(one.alias for one in route.dependant.query_params)
        return None
