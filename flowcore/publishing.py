"""Telling the world of changes: in order, each at least once, and how far that has got.

What comes in are heads and records before and after; what goes out are events on a bus and letters to receivers. A
change that could not be told to everybody is told again, with all that came after it, under the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from flowcore.cloudevents import CloudEvent, HeadChange
from flowcore.outgoing import Letter, letter
from flowcore.step_events import StepChange

if TYPE_CHECKING:
    from flowcore.app import App

T = TypeVar("T", contravariant=True)

Change: TypeAlias = tuple[str, HeadChange | StepChange]
"""Its place in the stream, and what it is."""


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
    for number, (place, change) in enumerate(changes):
        places.append(place)
        if bus is not None:
            events += [(number, event) for event in change.told(app.telling)]
        if mail is not None:
            letters += [(number, one) for one in _letters(app, change)]
    failed = [_first_failed(bus, events), _first_failed(mail, letters)]
    return min((places[number] for number in failed if number is not None), key=places.index, default=None)


def _letters(app: App, change: HeadChange | StepChange) -> list[Letter]:
    return [
        letter(receiver, event)
        for receiver in app.outgoing.values()
        if receiver.tenant == change.tenant
        for event in change.told(receiver.telling)
    ]


U = TypeVar("U")


def _first_failed(post: Post[U] | None, things: Sequence[tuple[int, U]]) -> int | None:
    if post is None or not things:
        return None
    through = post.put([thing for _, thing in things])
    return None if through >= len(things) else things[through][0]
