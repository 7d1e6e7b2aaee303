"""The HTTP API function: API Gateway HTTP API events (payload 2.0) to the routes and back."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.http.access import Policy
from flowcore.http.api import Api
from flowcore.http.everything import served, served_with_docs
from flowcore.http.limits import Pace
from flowcore.settings import Settings
from handlers.bootstrap import hints_lost, served_app

logger = Logger(service="flowcore-api")
settings = Settings.read()
metrics = Metrics(namespace=settings.metrics_namespace, service="flowcore-api")


def policy() -> Policy:
    """What this deployment asks of callers."""
    return Policy(
        mode=settings.auth,
        tenant_claim=settings.tenant_claim,
        owner_claim=settings.owner_claim,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )


api = Api(
    served_app(),
    served_with_docs if settings.swagger else served,
    logger,
    policy(),
    pace=None if settings.resumes_a_minute is None else Pace(settings.resumes_a_minute),
)


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path="requestContext.requestId")
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request."""
    response = api(event, context)
    metrics.add_metric(name=f"Http{response['statusCode'] // 100}xx", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="HintsLost", unit=MetricUnit.Count, value=hints_lost())
    return response
