"""Letters to receivers of outgoing webhooks, in a queue of their own until each was taken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from flowcore.adapters.aws import AwsError, OutgoingClient, code_of
from flowcore.hints import Tally
from flowcore.outgoing import Letter, encode_letter

_LOGGER = logging.getLogger("flowcore.adapters.mail")
_NEVER_TAKEN = frozenset({"InvalidMessageContents", "InvalidParameterValue"})
"""A character or a length that SQS does not take. Sent again and again, such a letter would hold up all behind it.

Source: Amazon SQS API Reference, "SendMessage", Errors; "Common Errors".
"""


class SqsMail:
    """``flowcore.publishing.Post`` for letters, on one queue."""

    def __init__(self, client: OutgoingClient, queue_url: str) -> None:
        """Put them into the queue at ``queue_url``."""
        self._client = client
        self._url = queue_url
        self.refused = Tally()
        """Letters that the queue would never have taken, and that were left out."""

    def put(self, things: Sequence[Letter]) -> int:
        """See ``Post.put``; one by one, because a letter may be as large as a message can be."""
        for number, letter in enumerate(things):
            try:
                self._client.send_message(QueueUrl=self._url, MessageBody=encode_letter(letter))
            except AwsError as error:
                seen = {"to": letter.to, "letter": letter.id, "error": str(error)}
                if code_of(error) not in _NEVER_TAKEN:
                    _LOGGER.warning("a letter was not taken", extra=seen)
                    return number
                self.refused.add()
                _LOGGER.error("a letter is dropped: no queue takes it", extra=seen)  # noqa: TRY400  # the reply says it
        return len(things)

    def later(self, handle: str, pause: timedelta) -> None:
        """Have a message that was received come again after ``pause``; if that fails, it comes when it would have."""
        seconds = int(pause / timedelta(seconds=1))
        try:
            self._client.change_message_visibility(QueueUrl=self._url, ReceiptHandle=handle, VisibilityTimeout=seconds)
        except AwsError as error:
            _LOGGER.warning("a letter comes again at another time", extra={"error": str(error)})
