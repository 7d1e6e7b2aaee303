"""The HTTP API function: API Gateway HTTP API events (payload 2.0) to the routes and back."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.errors import FlowcoreError
from flowcore.http import problems
from flowcore.http.routes import routes
from handlers.bootstrap import served_app

logger = Logger(service="flowcore-api")
metrics = Metrics(namespace="flowcore", service="flowcore-api")
resolver = APIGatewayHttpResolver(enable_validation=True)
resolver.include_router(routes(served_app()))


@resolver.exception_handler(FlowcoreError)  # type: ignore[untyped-decorator]  # Powertools types the method, not what it returns
def refused(error: FlowcoreError) -> Response[str]:
    """An error of ours as its problem; what is not the caller's doing is logged."""
    response = problems.of_error(error)
    if response.status_code >= 500:
        logger.error("request failed", exc_info=error)
    return response


@resolver.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]  # as above
def misfit(error: RequestValidationError) -> Response[str]:
    """A request that does not fit its route."""
    return problems.of_validation(error)


@resolver.exception_handler(Exception)  # type: ignore[untyped-decorator]  # as above
def broken(error: Exception) -> Response[str]:
    """Whatever else happens; the caller learns nothing of it."""
    logger.error("request broke down", exc_info=error)
    return problems.unexpected()


@resolver.not_found
def nowhere(_: NotFoundError) -> Response[str]:
    """A path without a route."""
    request = resolver.current_event
    return problems.unknown_route(request.http_method, request.path)


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path="requestContext.requestId")
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request."""
    response = resolver.resolve(event, context)
    metrics.add_metric(name=f"Http{response['statusCode'] // 100}xx", unit=MetricUnit.Count, value=1)
    return response
