"""The sweep function, once a minute: a hint for every run that somebody should have looked at by now."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.settings import Settings
from handlers.bootstrap import hints_lost, served_app

logger = Logger(service="flowcore-sweep")
metrics = Metrics(namespace=Settings.read().metrics_namespace, service="flowcore-sweep")
app = served_app()


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001  # Lambda's signature
    """Sweep once; how many hints were sent. An alarm waits for ``OverdueRuns``, which only a whole sweep tells."""
    try:
        sent = app.sweep()
    finally:  # also where not all could be hinted at: how many are late by much
        late = app.overdue()
        metrics.add_metric(name="LongOverdueRuns", unit=MetricUnit.Count, value=late)
    logger.info("swept", extra={"sent": sent, "long_overdue": late})
    metrics.add_metric(name="OverdueRuns", unit=MetricUnit.Count, value=sent)
    metrics.add_metric(name="HintsLost", unit=MetricUnit.Count, value=hints_lost())
    return {"sent": sent}
