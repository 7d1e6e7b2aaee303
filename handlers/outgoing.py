"""The outgoing function: one letter to one receiver. It talks to strangers, so it can touch nothing of ours.

A letter that was not taken comes again after a pause that grows, and is set aside after the last.
"""

from __future__ import annotations

from typing import Any, NoReturn

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from flowcore.adapters.egress import Refused, Sender
from flowcore.errors import SettingsError
from flowcore.outgoing import decode_letter, pause_after
from flowcore.settings import Settings
from handlers.bootstrap import mail, served_app
from handlers.secrets import SecretsUnavailable, secrets_at

logger = Logger(service="flowcore-outgoing")
metrics = Metrics(namespace=Settings.read().metrics_namespace, service="flowcore-outgoing")
processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
app = served_app()
letters, sender = mail(), Sender()


class NotTakenError(Exception):
    """A letter could not be signed, or its receiver did not take it; the queue brings it again."""


def send(record: SQSRecord) -> None:
    """Post what one message carries."""
    try:
        _post(record)
    except NotTakenError:
        raise
    except Exception:  # the batch keeps it to itself, and the message comes again until it is set aside
        logger.exception("letter broke down", extra={"message_id": record.message_id})
        metrics.add_metric(name="LettersNotTaken", unit=MetricUnit.Count, value=1)
        raise


def _post(record: SQSRecord) -> None:
    letter = decode_letter(record.body)
    receiver = app.outgoing.get(letter.to)
    if receiver is None:
        logger.warning("letter dropped: nobody is called that any more", extra={"to": letter.to, "letter": letter.id})
        metrics.add_metric(name="LettersDropped", unit=MetricUnit.Count, value=1)
        return
    try:
        headers = letter.headers(app.clock.now(), secrets_at(receiver.secret))
    except (SecretsUnavailable, SettingsError) as error:  # trouble of ours, which may take as long as the receiver's
        _again(record, letter.to, str(error))
    came = sender.post(receiver.target, headers, letter.body.encode())
    if isinstance(came, Refused):
        _again(record, letter.to, came.reason)
    logger.info("letter taken", extra={"to": letter.to, "letter": letter.id})
    metrics.add_metric(name="LettersTaken", unit=MetricUnit.Count, value=1)


def _again(record: SQSRecord, to: str, reason: str) -> NoReturn:
    """Have the letter come again, later each time. Raises: NotTakenError."""
    tries = int(record.attributes.approximate_receive_count)
    logger.warning("letter not taken", extra={"to": to, "reason": reason, "tries": tries})
    metrics.add_metric(name="LettersNotTaken", unit=MetricUnit.Count, value=1)
    if letters is not None:
        letters.later(record.receipt_handle, pause_after(tries, app.ids.draw()))
    raise NotTakenError(reason)


@metrics.log_metrics
@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Handle one batch; letters that were not taken are named."""
    return process_partial_response(event=event, record_handler=send, processor=processor, context=context)
