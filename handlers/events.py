"""The events function: changes of runs, from the table's stream, to the event bus and to whoever is told over HTTPS.

Order is the stream's. What could not be told is named, so that the stream goes on from there. A change that this code
cannot read fails the batch: a later flowcore wrote it, whose function will read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.adapters.streams import change_of, place_of
from flowcore.publishing import Change, publish
from flowcore.settings import Settings
from handlers.bootstrap import event_bus, mail, served_app

logger = Logger(service="flowcore-events")
metrics = Metrics(namespace=Settings.read().metrics_namespace, service="flowcore-events")
app = served_app()
bus, letters = event_bus(), mail()


def changes(records: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """The changes of runs among these records."""
    for record in records:
        change = change_of(record)
        if change is not None:
            yield place_of(record), change


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  # Lambda's signature
    """Tell one batch; the first change that could not be told is named, and it and all behind it come again."""
    found = list(changes(event["Records"]))
    stopped = publish(app, found, bus, letters)
    metrics.add_metric(name="ChangesRead", unit=MetricUnit.Count, value=len(found))
    metrics.add_metric(name="BatchesUntold", unit=MetricUnit.Count, value=int(stopped is not None))
    metrics.add_metric(
        name="LettersDropped", unit=MetricUnit.Count, value=0 if letters is None else letters.refused.take()
    )
    return {"batchItemFailures": [] if stopped is None else [{"itemIdentifier": stopped}]}
