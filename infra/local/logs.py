"""What the functions printed: the last lines in memory, all of them in a file if one was named."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

_KEPT = 10_000
"""Lines in memory; a long session must not grow without end."""


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line, with the stack's time and the function's logical id."""

    at: datetime
    function: str
    text: str


class Logs:
    """Collects lines from many threads."""

    def __init__(
        self, now: Callable[[], datetime], file: Path | None = None, echo: Callable[[Line], None] | None = None
    ) -> None:
        self._now = now
        self._echo = echo
        self._lines: deque[Line] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()
        self._file: TextIO | None = file.open("a", encoding="utf-8") if file else None

    def add(self, function: str, text: str) -> None:
        """Keep one line."""
        line = Line(self._now(), function, text)
        with self._lock:
            self._lines.append(line)
            if self._file is not None:
                self._file.write(f"{line.at:%Y-%m-%dT%H:%M:%S.%fZ} {function} {text}\n")
                self._file.flush()
        if self._echo is not None:
            self._echo(line)

    def lines(self, function: str | None = None) -> list[Line]:
        """The lines kept, oldest first; of one function, or of all."""
        with self._lock:
            return [line for line in self._lines if function in (None, line.function)]

    def close(self) -> None:
        """Close the file; lines are still taken, into memory only."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
