"""What goes wrong during one run, as a value: which blow falls at which write or hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias, get_args

AtWrite: TypeAlias = Literal["dies-before", "dies-after", "fails", "reply-lost", "taken-over"]
AtHint: TypeAlias = Literal["hint-lost", "hint-doubled", "hint-late"]
Blow: TypeAlias = AtWrite | AtHint
AT_WRITE: tuple[AtWrite, ...] = get_args(AtWrite)
AT_HINT: tuple[AtHint, ...] = get_args(AtHint)

_WORDS: Mapping[Blow, str] = {
    "dies-before": "the worker dies before {event}",
    "dies-after": "the worker dies right after {event}",
    "fails": "the store gives no answer to {event}, which did not happen",
    "reply-lost": "the store gives no answer to {event}, which happened all the same",
    "taken-over": "the worker freezes before {event} until its lease is over and another one has gone on",
    "hint-lost": "{event} never arrives",
    "hint-doubled": "{event} arrives twice",
    "hint-late": "{event} arrives five minutes late, behind later ones",
}


@dataclass(frozen=True, slots=True, repr=False)
class Strike:
    """One thing that goes wrong: at the ``at``-th write to the store, or at the ``at``-th hint, counted from 1.

    At a write: ``dies-before``, ``dies-after``, ``fails`` (no answer, nothing happened), ``reply-lost`` (no answer, but
    it happened), ``taken-over`` (the worker freezes, another one goes on, the first thaws and believes it still holds
    the run). At a hint: ``hint-lost``, ``hint-doubled``, ``hint-late``.
    """

    blow: Blow
    at: int

    def __repr__(self) -> str:
        return f'Strike("{self.blow}", {self.at})'

    @property
    def is_at_hint(self) -> bool:
        """Whether ``at`` counts hints."""
        return self.blow in AT_HINT


Schedule: TypeAlias = tuple[Strike, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """What happened in one trial that a blow could have struck, in words."""

    writes: Sequence[str]
    hints: Sequence[str]

    def strikes(self, beyond: Schedule = ()) -> Iterator[Strike]:
        """Every single strike; only those behind the last ones of ``beyond``."""
        written = max((strike.at for strike in beyond if not strike.is_at_hint), default=0)
        hinted = max((strike.at for strike in beyond if strike.is_at_hint), default=0)
        yield from (Strike(blow, at) for at in range(written + 1, len(self.writes) + 1) for blow in AT_WRITE)
        yield from (Strike(blow, at) for at in range(hinted + 1, len(self.hints) + 1) for blow in AT_HINT)

    def told(self, strike: Strike) -> str:
        """One strike, in words."""
        events, name = (self.hints, "hint") if strike.is_at_hint else (self.writes, "write")
        what = f" ({events[strike.at - 1]})" if strike.at <= len(events) else ""
        return _WORDS[strike.blow].format(event=f"{name} {strike.at}{what}")


def smallest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The fewest strikes of a failing schedule that still fail; of several as few the first in their order."""
    for size in range(len(schedule)):
        for fewer in combinations(schedule, size):
            if fails(fewer):
                return fewer
    return schedule
