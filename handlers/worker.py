"""The worker function: hints from the queue, in batches with partial failures; each makes it look at one run.

A message that is no hint is acknowledged and logged: redelivering it would change nothing. A hint about a run that is
gone, asleep or ended is acknowledged too.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.adapters.sqs import decode_hint
from flowcore.errors import MalformedRequest
from flowcore.settings import Settings
from handlers.bootstrap import hints_lost, hints_stale, served_app

logger = Logger(service="flowcore-worker")
metrics = Metrics(namespace=Settings.read().metrics_namespace, service="flowcore-worker")
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
app = served_app()


def look(record: SQSRecord, lambda_context: LambdaContext, *, first: str) -> None:
    """Drive the run that one message hints at, for as long as this invocation lives.

    Args:
        first: id of the batch's first message: only its run has the whole of this life before it.
    """
    try:
        hint = decode_hint(record.body)
    except MalformedRequest as error:
        logger.warning("message dropped", extra={"reason": str(error), "message_id": record.message_id})
        metrics.add_metric(name="MessagesDropped", unit=MetricUnit.Count, value=1)
        return
    logger.set_correlation_id(hint.run.id)
    now = app.clock.now()
    late = max(now - hint.at, timedelta(0)) / timedelta(milliseconds=1)
    metrics.add_metric(name="HintLateness", unit=MetricUnit.Milliseconds, value=late)
    deadline = now + timedelta(milliseconds=lambda_context.get_remaining_time_in_millis())
    try:
        head = app.look(hint.run, deadline=deadline, is_fresh=record.message_id == first)
    except Exception:  # the batch keeps it to itself, and the message comes again
        logger.exception("look failed", extra={"run_id": hint.run.id})
        raise
    logger.info("looked", extra={"run_id": hint.run.id, "status": head.public_status if head else "gone"})
    metrics.add_metric(name="HintsHandled" if head else "HintsForNobody", unit=MetricUnit.Count, value=1)


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle one batch; messages that failed are named, so that only they come again."""
    metrics.add_metric(name="HintsReceived", unit=MetricUnit.Count, value=len(event["Records"]))
    handle = partial(look, first=event["Records"][0]["messageId"])
    failed = process_partial_response(event=event, record_handler=handle, processor=processor, context=context)
    metrics.add_metric(name="HintsStale", unit=MetricUnit.Count, value=hints_stale())
    metrics.add_metric(name="HintsLost", unit=MetricUnit.Count, value=hints_lost())
    return failed
