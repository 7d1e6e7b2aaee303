"""How an invocation can end, one type for each way."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Returned:
    """The handler returned; ``payload`` is its value as JSON."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler raised, or its module could not be loaded; ``payload`` is the runtime's JSON error."""

    payload: bytes
    error_type: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The function's time was over and its process was killed."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended under the invocation; a negative ``exit_code`` is the signal."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Throttled:
    """No sandbox became free in time; the handler has seen nothing."""


Outcome = Returned | Raised | TimedOut | Died | Throttled
