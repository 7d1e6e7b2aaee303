"""JSON as a stranger sends it: read exactly, or refused with a reason. Nothing is guessed and nothing is repaired.

Python's own reader takes ``NaN``, makes infinity of ``1e400`` and keeps the last of two equal keys; another reader in
front of us may keep the first. What two readers could understand differently is refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from flowcore.errors import MalformedRequest
from flowcore.model import Json

MOST_DEPTH = 100
"""Lists and objects inside each other."""
MOST_NODES = 100_000
"""Values in one body, lists and objects included."""
_MANY = f"The body has more than {MOST_NODES} values."
LONGEST_STRING = 1_000_000
"""Characters of one string: as much as a whole body may have."""
_LONGEST_NUMBER = 400
"""Digits of one number: more than a double has, fewer than make reading it slow."""


def parsed(raw: bytes | str) -> Json:
    """The value of a body. Raises: MalformedRequest, which says where the fault is and never what stands there."""
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        _refuse_many(text)
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"The body is not UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise MalformedRequest(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise MalformedRequest(f"The body is nested deeper than {MOST_DEPTH} levels.") from None
    _measure(value)
    return value


_STRING = re.compile(r'"(?:[^"\\]+|\\.)*+\\?"?', re.DOTALL)
"""A string, or what would be one to the end of the text if it ended: nothing is looked at from two beginnings."""


def _refuse_many(text: str) -> None:
    """Refuse what is surely too much before anything is made of it: behind each comma and each bracket is a value."""
    for marks in ((",",), ("[", "{")):
        if sum(map(text.count, marks)) > MOST_NODES and sum(map(_STRING.sub("", text).count, marks)) > MOST_NODES:
            raise MalformedRequest(_MANY)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name, count in times.items() if count > 1)
        raise MalformedRequest(f"The body has the key {twice[:50]!r} twice in one object.")
    return found


def _constant(name: str) -> NoReturn:
    raise MalformedRequest(f"The body has {name}, which is no JSON number.")


def _number(text: str) -> float:
    found = float(text)
    if found - found != 0:
        raise MalformedRequest("The body has a number that is too large for a double.")
    return found


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise MalformedRequest(f"The body has a number of more than {_LONGEST_NUMBER} digits.")
    return int(text)


def _measure(value: Json) -> None:
    """Refuse what is too deep, too much, or cannot be text. Without recursion: it is about depth."""
    left, depth, level = MOST_NODES, 0, [value]
    while level:
        left -= len(level)
        if left < 0:
            raise MalformedRequest(_MANY)
        if depth >= MOST_DEPTH and any(isinstance(one, (dict, list)) for one in level):
            raise MalformedRequest(f"The body is nested deeper than {MOST_DEPTH} levels.")
        level, depth = _inside(level), depth + 1


def _inside(level: list[Any]) -> list[Any]:
    """The values in the lists and objects of one level; every text on the way is looked at."""
    found: list[Any] = []
    for one in level:
        kind = type(one)  # of what the reader makes itself, so there are no others
        if kind is str:
            _refuse_no_text(one)
        elif kind is list:
            found.extend(one)
        elif kind is dict:
            for name in one:
                _refuse_no_text(name)
            found.extend(one.values())
    return found


def _refuse_no_text(text: str) -> None:
    if len(text) > LONGEST_STRING:
        raise MalformedRequest(f"The body has a string of more than {LONGEST_STRING} characters.")
    if "\0" in text:
        raise MalformedRequest("The body has a string with a NUL in it.")
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise MalformedRequest("The body has a string with half a surrogate pair in it.") from None
