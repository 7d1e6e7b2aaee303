"""Telling the world of changes: in order, each at least once, and how far that has got.

What comes in are heads before and after; what goes out are events on a bus and letters to receivers. A change that
could not be told to everybody is told again, with all that came after it, under the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from flowcore.cloudevents import CloudEvent, told
from flowcore.model import Head
from flowcore.outgoing import Letter, letter

if TYPE_CHECKING:
    from flowcore.app import App

T = TypeVar("T", contravariant=True)

Change: TypeAlias = tuple[str, Head | None, Head | None]
"""Its place in the stream, the head before and after it."""


class Post(Protocol[T]):
    """Takes things to be sent on."""

    def put(self, things: Sequence[T]) -> int:
        """Hand them on in order; how many of the first ones got through: those behind may have, too."""
        ...


def publish(app: App, changes: Iterable[Change], bus: Post[CloudEvent] | None, mail: Post[Letter] | None) -> str | None:
    """Tell these changes; the place of the first one that could not be told to everybody, None when all were."""
    events: list[tuple[int, CloudEvent]] = []
    letters: list[tuple[int, Letter]] = []
    places: list[str] = []
    for number, (place, before, after) in enumerate(changes):
        places.append(place)
        if bus is not None:
            events += [(number, event) for event in told(before, after, app.telling)]
        if mail is not None:
            letters += [(number, one) for one in _letters(app, before, after)]
    failed = [_first_failed(bus, events), _first_failed(mail, letters)]
    return min((places[number] for number in failed if number is not None), key=places.index, default=None)


def _letters(app: App, before: Head | None, after: Head | None) -> list[Letter]:
    head = after or before
    return [
        letter(receiver, event)
        for receiver in app.outgoing.values()
        if head is not None and head.run.tenant == receiver.tenant
        for event in told(before, after, receiver.telling)
    ]


U = TypeVar("U")


def _first_failed(post: Post[U] | None, things: Sequence[tuple[int, U]]) -> int | None:
    if post is None or not things:
        return None
    through = post.put([thing for _, thing in things])
    return None if through >= len(things) else things[through][0]
