"""The composition root: settings, clients and adapters become the App that this deployment serves.

Runs once per cold start, at import of a handler, so that a wrong environment stops the function at once with an error
that names what is missing.
"""

from __future__ import annotations

import importlib
from functools import cache, partial

from flowcore.adapters.aws import dynamo_client, events_client, mail_client, scheduler_client, sqs_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_deliveries import DynamoDeliveries
from flowcore.adapters.eventbridge import EventBridge
from flowcore.adapters.mail import SqsMail
from flowcore.adapters.s3 import S3Blobs
from flowcore.adapters.scheduler import EventBridgeScheduler
from flowcore.adapters.sqs import SqsDeadLetters, SqsQueue, queue_arn
from flowcore.adapters.system import SystemClock, SystemIds
from flowcore.app import App
from flowcore.errors import SettingsError
from flowcore.links import Links
from flowcore.settings import Settings
from handlers.secrets import link_secrets


@cache
def served_app() -> App:
    """The author's App (``FLOWCORE_APP``) on DynamoDB, S3, SQS and EventBridge Scheduler. Raises: SettingsError."""
    settings = Settings.read()
    clock, ids = SystemClock(settings.clock_offset), SystemIds()
    arn = queue_arn(settings.queue_url, region=settings.region, role_arn=settings.schedule_role_arn)
    client = dynamo_client(region=settings.region)
    return load_app(settings.app).on(
        store=DynamoStore(client, settings.table, ids),
        queue=SqsQueue(sqs_client(region=settings.region), settings.queue_url),
        scheduler=EventBridgeScheduler(
            scheduler_client(region=settings.region),
            settings.schedule_group,
            settings.schedule_role_arn,
            arn,
            clock=clock,
        ),
        blobs=None if settings.bucket is None else S3Blobs(settings.bucket, region=settings.region),
        clock=clock,
        ids=ids,
        retention=settings.retention,
        links=links(),
        deliveries=DynamoDeliveries(client, settings.table, ids),
    )


def hints_lost() -> int:
    """How many hints neither queue nor scheduler took from this process since it was asked last."""
    return served_app().engine.hints.lost.take()


def hints_stale() -> int:
    """How many hints found nothing to do in this process since it was asked last."""
    return served_app().engine.hints.stale.take()


@cache
def links() -> Links | None:
    """Signs and reads the links of this deployment; None where it makes none. Raises: SettingsError."""
    settings = Settings.read()
    if settings.public_url is None or settings.link_secrets is None:
        return None
    return Links(settings.public_url, partial(link_secrets, settings.link_secrets))


def event_bus() -> EventBridge | None:
    """The bus of this deployment; None where it has none. Raises: SettingsError."""
    settings = Settings.read()
    if settings.event_bus is None:
        return None
    return EventBridge(events_client(region=settings.region), settings.event_bus)


def mail() -> SqsMail | None:
    """The letters of this deployment; None where it sends none. Raises: SettingsError."""
    settings = Settings.read()
    if settings.outgoing_queue_url is None:
        return None
    return SqsMail(mail_client(region=settings.region), settings.outgoing_queue_url)


def dead_letters() -> SqsDeadLetters:
    """What this deployment has set aside, for ``flowcore.ops.redrive_dead_letters``. Raises: SettingsError."""
    settings = Settings.read()
    return SqsDeadLetters.of(sqs_client(region=settings.region), settings.queue_url)


def load_app(name: str) -> App:
    """The App that ``module:attribute`` names. Raises: SettingsError."""
    module, _, attribute = name.partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"FLOWCORE_APP is {name!r}, but there is no module {error.name!r} in this package."
        ) from error
    except AttributeError as error:
        raise SettingsError(f"FLOWCORE_APP is {name!r}, but module {module!r} has no {attribute!r}.") from error
    if not isinstance(app, App):
        raise SettingsError(f"FLOWCORE_APP is {name!r}, which is a {type(app).__name__} and not an App.")
    return app
