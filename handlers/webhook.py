"""The function of the open doors: signed links and signed webhooks. It has no more rights than those need."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.app import App
from flowcore.http.api import Api
from flowcore.http.doors import doors
from flowcore.http.hooks import hooks
from flowcore.http.limits import Pace
from flowcore.settings import Settings
from handlers.bootstrap import hints_lost, links, served_app
from handlers.secrets import secrets_at

logger = Logger(service="flowcore-webhook")
settings = Settings.read()
metrics = Metrics(namespace=settings.metrics_namespace, service="flowcore-webhook")
signed = links()


def open_doors(app: App) -> list[Router]:
    """What lets in here is a signature; without keys for links there are webhooks only."""
    return [hooks(app, secrets_at), *([] if signed is None else [doors(app, signed)])]


pace = settings.resumes_a_minute
api = Api(served_app(), open_doors, logger, pace=None if pace is None else Pace(pace))


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path="requestContext.requestId")
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request."""
    response = api(event, context)
    metrics.add_metric(name=f"Http{response['statusCode'] // 100}xx", unit=MetricUnit.Count, value=1)
    metrics.add_metric(name="HintsLost", unit=MetricUnit.Count, value=hints_lost())
    return response
