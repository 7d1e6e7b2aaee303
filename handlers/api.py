"""The HTTP API function: API Gateway HTTP API events (payload 2.0) to the routes and back."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.http.api import Api
from flowcore.http.everything import served
from handlers.bootstrap import policy, served_app

logger = Logger(service="flowcore-api")
metrics = Metrics(namespace="flowcore", service="flowcore-api")
api = Api(served_app(), served, logger, policy())


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path="requestContext.requestId")
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request."""
    response = api(event, context)
    metrics.add_metric(name=f"Http{response['statusCode'] // 100}xx", unit=MetricUnit.Count, value=1)
    return response
