"""What DynamoDB has made of a write: done, or refused because of an item that stood in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowcore.adapters.aws import ClientError, code_of
from flowcore.adapters.dynamodb_attributes import Item, text
from flowcore.adapters.dynamodb_batch import decode_all
from flowcore.adapters.dynamodb_effects import refused
from flowcore.adapters.dynamodb_heads import decode_head
from flowcore.adapters.dynamodb_mail import decode_sent
from flowcore.adapters.dynamodb_records import decode_record
from flowcore.model import Head, Sent, StepRecord
from flowcore.ports import EffectMoved, EventTaken, HeadMoved, RecordMoved, Written

CROWDED = frozenset(
    {
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""What comes of others who write the same items, or of too many requests: worth several tries."""
REFUSED = "ConditionalCheckFailed"
"""A condition was judged, and did not hold."""


@dataclass(frozen=True, slots=True)
class Done:
    """The write happened; ``item`` as it stands, if the operation tells."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written; ``item`` stood in the way, None when there is none."""

    item: Item | None


def is_mine(item: Item | None, token: str) -> bool:
    """The own-write rule: whether the item was written with this very token."""
    return item is not None and item["lc"] == text(token)


def is_refusal(error: Exception) -> bool:
    """Whether a condition was judged and did not hold; not so when the judging itself met a conflict."""
    reasons = reasons_of(error)
    return code_of(error) == f"{REFUSED}Exception" or (REFUSED in reasons and not CROWDED & set(reasons))


def reasons_of(error: Exception) -> list[str]:
    """The code of each write of a canceled transaction; ``None``, as a word, for one that nothing stood against."""
    return [reason.get("Code", "None") for reason in cancellations(error)]


def cancellations(error: BaseException | None) -> list[dict[str, Any]]:
    """What AWS says of each write of a canceled transaction; nothing of any other error."""
    return list(error.response.get("CancellationReasons", ())) if isinstance(error, ClientError) else []


def start_refused(error: Exception, token: str, sent: Sent) -> Head | Sent | None:
    """What a canceled transaction means: the event stands there, or the run does, or it was us."""
    run, event = (reason.get("Item") for reason in cancellations(error))
    if is_mine(run, token) or is_mine(event, token):
        return None
    if event is not None:
        return decode_sent(sent.topic, event)
    return None if run is None else decode_head(run)


def resume_refused(error: Exception, token: str, taken: Sent | None) -> Written | HeadMoved | RecordMoved | EventTaken:
    """What a canceled transaction means. The record is looked at first: if it moved, it carries the winner."""
    head, record, *others = cancellations(error)
    if is_mine(head.get("Item"), token) or is_mine(record.get("Item"), token):
        return Written()
    if record["Code"] == REFUSED:
        return RecordMoved(record_in(record.get("Item")))
    if taken is not None and others[0]["Code"] == REFUSED:
        return EventTaken(decode_sent(taken.topic, others[0]["Item"]))
    return HeadMoved(decode_head(head["Item"]) if "Item" in head else None)


def effects_refused(error: Exception, token: str, count: int) -> Written | HeadMoved | RecordMoved | EffectMoved:
    """What a canceled commit means. The record is looked at first: it is there if an earlier try was ours.

    Args:
        count: of the effects; behind them the head, if it was looked at.
    """
    record, *others = cancellations(error)
    if is_mine(record.get("Item"), token):
        return Written()
    for head in others[count:]:
        if head["Code"] == REFUSED:
            return HeadMoved(decode_head(head["Item"]) if "Item" in head else None)
    moved = refused(error, others[:count])
    if record["Code"] == REFUSED or moved is None:
        return RecordMoved(record_in(record.get("Item")))
    return moved


def batch_refused(error: Exception, token: str) -> Written | HeadMoved | RecordMoved:
    """What a canceled release means. The head is looked at first: whoever has lost it has nothing to write."""
    reasons = cancellations(error)
    if any(is_mine(reason.get("Item"), token) for reason in reasons):
        return Written()
    head, *records = reasons
    if head["Code"] == REFUSED:
        return HeadMoved(decode_head(head["Item"]) if "Item" in head else None)
    item = next(reason.get("Item") for reason in records if reason["Code"] == REFUSED)
    return RecordMoved(None if item is None else next(decode_all([item])))


def head_in(verdict: Done | Refused) -> Head | None:
    """The head as it stands, or that stood in the way."""
    return None if verdict.item is None else decode_head(verdict.item)


def record_in(item: Item | None) -> StepRecord | None:
    """The record that stood in the way."""
    return None if item is None else decode_record(item)
