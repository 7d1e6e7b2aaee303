"""Hints that were delivered again and again in vain, and set aside: who is still needed is hinted at once more."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from flowcore.app import App
from flowcore.model import Head
from flowcore.ports import DeadLetters, Letter

_LOGGER = logging.getLogger("flowcore.ops")
_AT_ONCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterReport:
    """What became of the messages that had been set aside.

    Example:
        >>> from flowcore.ops import DeadLetterReport
        >>> DeadLetterReport(resent=2, dropped=1).is_clean
        True
    """

    resent: int = 0
    """Their runs still need somebody; a worker was asked to look."""
    dropped: int = 0
    """Their runs have moved on, have ended or are gone; nothing is lost with them. Or they were no hints, and
    ``drop_foreign`` was given."""
    foreign: int = 0
    """They were no hints; they are still there, and logged."""
    kept: int = 0
    """Nobody could be asked to look; they are still there."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to do: no message that was looked at is still there."""
        return self.kept == 0 and self.foreign == 0


def redrive_dead_letters(
    app: App, letters: DeadLetters, *, limit: int = 1_000, drop_foreign: bool = False
) -> DeadLetterReport:
    """Empty the dead letters of the work queue, once what had kept the workers from them is mended.

    A hint carries no truth, so none is sent on as it is: the run is read, and a worker is asked to look if somebody has
    to. Of several hints at one run the first is sent again. May be called again, also after a crash: a message is
    removed after its hint was sent. What is no hint is left where it is: it may be somebody's answer, and this may be
    the wrong queue.

    Args:
        app: with the queue of the workers; runs of every tenant are looked up.
        limit: messages to look at, at most.
        drop_foreign: remove messages that are no hints, too.
    Raises: QueueUnavailable, StoreUnavailable, Throttled.
    """
    counts = {"resent": 0, "dropped": 0, "foreign": 0, "kept": 0}
    asked: set[str] = set()
    left = limit
    while left > 0 and (taken := letters.take(min(left, _AT_ONCE))):
        left -= len(taken)
        for letter in taken:
            verdict = _verdict(app, letter, asked)
            if verdict == "foreign" and drop_foreign:
                verdict = "dropped"
            counts[verdict] += 1
            if verdict not in ("kept", "foreign"):
                letters.discard(letter)
    return DeadLetterReport(**counts)


def _verdict(app: App, letter: Letter, asked: set[str]) -> str:
    if letter.hint is None:
        _LOGGER.warning("a dead letter is no hint", extra={"message_id": letter.id})
        return "foreign"
    run = letter.hint.run
    head = app.store.peek(run)
    name, now = f"{run.tenant}/{run.id}", app.clock.now()
    if head is None or not _needs_somebody(head, now) or name in asked:
        return "dropped"
    if not app.engine.hints.send(run, at=head.wake or now, version=head.version):
        return "kept"
    asked.add(name)
    return "resent"


def _needs_somebody(head: Head, now: datetime) -> bool:
    """Whether the sweeper would look at it some day, too; that an ended run is to be removed then needs nobody yet."""
    return head.due is not None and (not head.is_terminal or bool(head.outbox) or head.due <= now)
