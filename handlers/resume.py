"""The resume function: answers and events from the resume queue, in batches with partial failures.

What was done, or refused with a receipt, is acknowledged. Everything else comes again a few times, because a run may
be about to start and a table may be busy, and is set aside for a person then.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.errors import FlowcoreError
from flowcore.intake import receive
from flowcore.settings import Settings
from handlers.bootstrap import hints_lost, served_app

logger = Logger(service="flowcore-resume")
metrics = Metrics(namespace=Settings.read().metrics_namespace, service="flowcore-resume")
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
app = served_app()


def take(record: SQSRecord) -> None:
    """Take one message in."""
    try:
        taken = receive(app, record.body, record.message_id)
    except FlowcoreError as error:
        logger.warning("message not taken", extra={"message_id": record.message_id, "code": error.code})
        metrics.add_metric(name="MessagesNotTaken", unit=MetricUnit.Count, value=1)
        raise
    except Exception:  # the batch keeps it to itself, and the message comes again until it is set aside
        logger.exception("message broke down", extra={"message_id": record.message_id})
        raise
    verdicts = [one.verdict for one in (taken if isinstance(taken, list) else [taken]) if one is not None]
    logger.info("message taken", extra={"message_id": record.message_id, "verdicts": verdicts})
    metrics.add_metric(name="MessagesTaken", unit=MetricUnit.Count, value=1)


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle one batch; messages that failed are named, so that only they come again."""
    failed = process_partial_response(event=event, record_handler=take, processor=processor, context=context)
    metrics.add_metric(name="HintsLost", unit=MetricUnit.Count, value=hints_lost())
    return failed
