"""What goes wrong during one run, as a value: which blow falls at which write or hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias, get_args

AtWrite: TypeAlias = Literal[
    "dies-before",
    "dies-after",
    "fails",
    "reply-lost",
    "throttled",
    "conflict",
    "taken-over",
    "answered",
    "clock-back",
    "index-late",
]
AtRead: TypeAlias = Literal["read-dies", "read-fails", "read-taken-over", "read-answered"]
AtHint: TypeAlias = Literal["hint-lost", "hint-doubled", "hint-late", "hint-early"]
Blow: TypeAlias = AtWrite | AtRead | AtHint
AT_WRITE: tuple[AtWrite, ...] = get_args(AtWrite)
AT_READ: tuple[AtRead, ...] = get_args(AtRead)
AT_HINT: tuple[AtHint, ...] = get_args(AtHint)
EVERY_BLOW: tuple[Blow, ...] = (*AT_WRITE, *AT_READ, *AT_HINT)

_WORDS: Mapping[Blow, str] = {
    "dies-before": "the worker dies before {event}",
    "dies-after": "the worker dies right after {event}",
    "fails": "the store gives no answer to {event}, which did not happen",
    "reply-lost": "the store gives no answer to {event}, which happened all the same",
    "throttled": "the store is too busy for {event}, which did not happen",
    "conflict": "another write of the run's head comes just before {event}",
    "taken-over": "the worker freezes before {event} until its lease is over and another one has gone on",
    "answered": "an open suspension is answered just before {event}",
    "clock-back": "the clock goes back by ten minutes before {event}",
    "index-late": "from {event} on the indexes are five minutes late",
    "read-dies": "the worker dies at {event}",
    "read-fails": "the store gives no answer to {event}",
    "read-taken-over": "the worker freezes before {event} until its lease is over and another one has gone on",
    "read-answered": "an open suspension is answered just before {event}",
    "hint-lost": "{event} never arrives",
    "hint-doubled": "{event} arrives twice",
    "hint-late": "{event} arrives five minutes late, behind later ones",
    "hint-early": "{event} arrives at once",
}


@dataclass(frozen=True, slots=True, repr=False)
class Strike:
    """One thing that goes wrong: at the ``at``-th write to the store, read from it, or hint, each counted from 1.

    At a write: ``dies-before``, ``dies-after``, ``fails`` (no answer, nothing happened), ``reply-lost`` (no answer, but
    it happened), ``throttled`` (too busy, nothing happened), ``conflict`` (another write of the head comes just
    before), ``taken-over`` (the worker freezes, another one goes on, the first thaws and believes it still holds the
    run), ``answered`` (an open suspension is answered just before), ``clock-back`` (by ten minutes), ``index-late``
    (what is due, and listed, is known five minutes late from here on). At a read: ``read-dies``, ``read-fails``,
    ``read-taken-over``, ``read-answered``. At a hint: ``hint-lost``, ``hint-doubled``, ``hint-late``, ``hint-early``.
    """

    blow: Blow
    at: int

    def __repr__(self) -> str:
        return f'Strike("{self.blow}", {self.at})'

    @property
    def counts(self) -> Literal["write", "read", "hint"]:
        """What ``at`` counts."""
        if self.blow in AT_HINT:
            return "hint"
        return "read" if self.blow in AT_READ else "write"


Schedule: TypeAlias = tuple[Strike, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """What happened in one trial that a blow could have struck, in words."""

    writes: Sequence[str]
    reads: Sequence[str]
    hints: Sequence[str]
    open: frozenset[int]
    """Numbers of the writes at which somebody could have answered."""
    open_reads: frozenset[int] = frozenset()
    """The same of reads."""

    def strikes(self, blows: Sequence[Blow], beyond: Schedule = ()) -> Iterator[Strike]:
        """Every single strike of these blows; only those behind the last ones of ``beyond``."""
        for kind, known in ((AT_WRITE, self.writes), (AT_READ, self.reads), (AT_HINT, self.hints)):
            last = max((strike.at for strike in beyond if strike.blow in kind), default=0)
            for at in range(last + 1, len(known) + 1):
                yield from (Strike(blow, at) for blow in kind if blow in blows and self._matters(blow, at))

    def _matters(self, blow: Blow, at: int) -> bool:
        return at in {"answered": self.open, "read-answered": self.open_reads}.get(blow, {at})

    def told(self, strike: Strike) -> str:
        """One strike, in words."""
        events = {"write": self.writes, "read": self.reads, "hint": self.hints}[strike.counts]
        what = f" ({events[strike.at - 1]})" if strike.at <= len(events) else ""
        return _WORDS[strike.blow].format(event=f"{strike.counts} {strike.at}{what}")


def smallest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The fewest strikes of a failing schedule that still fail; of several as few the first in their order."""
    for size in range(len(schedule)):
        for fewer in combinations(schedule, size):
            if fails(fewer):
                return fewer
    return schedule
