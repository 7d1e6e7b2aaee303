"""How runs and places inside a run are named: the grammar, building and taking apart.

A step key is made of ids, never of positions, so that a step inserted in front of others moves nobody::

    charge            a step of the run
    child/approve     a step inside the nested workflow ``child``
    fan[7]            item 7 of a foreach        fan[7]/approve   a step inside that item
    poll#3            turn 3 of a loop           poll#3/approve   a step inside that turn
    charge!receipt    what ``ctx.once("receipt", ...)`` of ``charge`` stored
    charge!beat@      what its last ``ctx.heartbeat(...)`` told
    charge!@1.3f9c    what its first ``ctx.emit(...)`` stored, with a digest of the data

Keys are grouped by *scope*: the run itself (``""``), an open nested workflow (``child``), an open foreach (``fan``),
one item of it (``fan[7]``) or one turn of a loop (``poll#3``). A finished scope is never loaded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

StepKey = NewType("StepKey", str)
Scope = NewType("Scope", str)

ROOT = Scope("")
LONGEST_NAME = 1_000
"""Characters of a label, an idempotency key and the like: names are kept with every copy of what they name."""

_ID = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ -]{0,62}[A-Za-z0-9_-])?")
_RUN_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,127})")
_EVENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._:@/-]{0,127})")
LONGEST_KEY = 512
"""Bytes of an event's key; with the tenant and the name it stays far below a partition key's 2,048."""
_LAST = re.compile(r"(?P<head>[^!]*/)?(?P<name>[^/\[#!]+)(?P<item>\[\d+\])?(?P<turn>#\d+)?(?P<once>!.*)?")


@dataclass(frozen=True, slots=True)
class RunRef:
    """One run of one tenant; the partition everything about it lives in."""

    tenant: str
    id: str

    def __str__(self) -> str:
        return self.id


def is_entry_id(text: object) -> bool:
    """Whether ``text`` can name a step, a workflow or an entry: 1-64 of letters, digits, ``_``, ``-``, inner blanks."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def is_run_id(text: object) -> bool:
    """Whether ``text`` can name a run or a tenant: 1-128 of letters, digits and ``._:@-``."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None


def is_name(text: object) -> bool:
    """Whether ``text`` can be stored as a name people choose: a label, a key, who did it; not empty, not endless."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_NAME:
        return False
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def event_mistake(name: object) -> str | None:
    """Why ``name`` cannot name an event (``order.paid``); None when it can."""
    if isinstance(name, str) and _EVENT.fullmatch(name):
        return None
    return f"{name!r} cannot name an event; use 1-128 letters, digits and ._:@/-"


def key_mistake(key: object) -> str | None:
    """Why ``key`` cannot say what an event is about; None when it can."""
    if isinstance(key, str) and 1 <= len(key.encode("utf-8", "replace")) <= LONGEST_KEY and _is_unicode(key):
        return None
    if not isinstance(key, str):
        found = f"a {type(key).__name__}"
    else:
        found = repr(key) if len(key) <= 80 else f"a text of {len(key.encode('utf-8', 'replace'))} bytes"
    return f"{found} cannot be the key of an event; use text of 1-{LONGEST_KEY} bytes, for instance str(order.id)"


def inside(scope: Scope, entry: str) -> StepKey:
    """The key of an entry that stands directly in ``scope``."""
    return StepKey(f"{scope}/{entry}" if scope else entry)


def item_of(key: StepKey, index: int) -> StepKey:
    """The key of one item of the foreach at ``key``; ``index`` from 0."""
    return StepKey(f"{key}[{index}]")


def turn_of(key: StepKey, turn: int) -> StepKey:
    """The key of one turn of the loop at ``key``; ``turn`` from 1."""
    return StepKey(f"{key}#{turn}")


def once_of(key: StepKey, name: str) -> StepKey:
    """The key of a stored side effect of the step at ``key``."""
    return StepKey(f"{key}!{name}")


def emit_of(key: StepKey, number: int, digest: str) -> StepKey:
    """The key of progress that the step at ``key`` told: its ``number``th in one pass, with such data."""
    return StepKey(f"{key}!@{number}.{digest}")


def told_of(key: StepKey, occurrence: str) -> StepKey:
    """The key that says that somebody was told of the suspension at ``key``; no name given to ``once`` has ``@``."""
    return StepKey(f"{key}!told@{occurrence}")


def beat_of(key: StepKey, behind: str = "") -> StepKey:
    """The key of what a step last told with its heartbeat; ``behind``: which stand-in is at work there, and a ``:``."""
    return StepKey(f"{key}!{behind}beat@")


def is_beat(key: StepKey) -> bool:
    """Whether ``key`` holds what a step told with its heartbeat; no name given to ``once`` has ``@``."""
    return key.endswith("beat@")


def early_key(key: StepKey, name: str) -> StepKey:
    """The key of an answer that came before the step at ``key`` asked: beside the entry of the run it stands in."""
    return StepKey(f"{key.split('/', 1)[0]}!early@{name}")


def is_early(key: StepKey) -> bool:
    """Whether ``key`` holds an answer that came before its question; no name given to ``once`` has ``@``."""
    return "!early@" in key


def scope_of(key: StepKey) -> Scope:
    """The scope whose records are loaded together with this key's."""
    head, name, item, turn, _ = _taken_apart(key)
    if item:
        return Scope(f"{head}{name}")
    if turn:
        return Scope(f"{head}{name}{turn}")
    return Scope(head.rstrip("/"))


def scopes_of(key: StepKey) -> tuple[Scope, ...]:
    """Every scope around ``key``, from the run's own to the innermost."""
    found = [ROOT]
    path = ""
    *outer, last = key.split("!", 1)[0].split("/")
    for segment in outer:
        path = f"{path}/{segment}" if path else segment
        if "[" in segment:
            found.append(Scope(path[: path.rindex("[")]))
        found.append(Scope(path))
    if "[" in last or "#" in last:
        found.append(scope_of(key))
    return tuple(found)


def parent_of(key: StepKey) -> StepKey:
    """The container's key: of an item its foreach, of a turn its loop, of a child its workflow; else the key itself."""
    head, name, item, turn, once = _taken_apart(key)
    if once:
        return StepKey(key[: -len(once)])
    if item or turn:
        return StepKey(f"{head}{name}")
    return StepKey(head.rstrip("/")) if head else key


def items_around(key: StepKey) -> Iterator[tuple[StepKey, int]]:
    """Every foreach that ``key`` stands in, with the number of the item, from the outermost."""
    for found in re.finditer(r"\[(\d+)\]", key.split("!", 1)[0]):
        yield StepKey(key[: found.start()]), int(found[1])


def parents_of(key: StepKey) -> Iterator[StepKey]:
    """Every container around ``key``, from the innermost."""
    while (parent := parent_of(key)) != key:
        yield parent
        key = parent


def index_of(key: StepKey) -> int | None:
    """The innermost foreach index in ``key``, or ``None`` outside any foreach."""
    found = re.findall(r"\[(\d+)\]", key.split("!", 1)[0])
    return int(found[-1]) if found else None


def item_number(key: StepKey) -> int | None:
    """The number of the item that ``key`` itself is; None when it is none."""
    _, _, item, _, once = _taken_apart(key)
    return int(item[1:-1]) if item and not once else None


def turn_of_pass(key: StepKey) -> int | None:
    """The number of the turn that ``key`` itself is, from 1; None when it is none."""
    _, _, _, turn, _ = _taken_apart(key)
    return int(turn[1:]) if turn else None


def turns_of(key: StepKey) -> list[int]:
    """The turns (from 1) of the loops around ``key``, from the outermost one on."""
    return [int(turn) for turn in re.findall(r"#(\d+)", key.split("!", 1)[0])]


def turn_number(key: StepKey) -> int | None:
    """The innermost loop turn in ``key`` (from 1), or ``None`` outside any loop."""
    turns = turns_of(key)
    return turns[-1] if turns else None


def is_once(key: StepKey) -> bool:
    """Whether ``key`` holds a stored side effect and not a step."""
    return "!" in key


def is_emit(key: StepKey) -> bool:
    """Whether ``key`` holds progress told by a step; a name given to ``once`` never begins with ``@``."""
    return "!@" in key


def step_of(key: StepKey) -> StepKey:
    """The step that ``key`` belongs to: itself, or the one that stored a side effect or told progress."""
    return StepKey(key.split("!", 1)[0])


def is_pass(key: StepKey) -> bool:
    """Whether ``key`` is one item of a foreach or one turn of a loop, and not what stands inside it."""
    _, _, item, turn, _ = _taken_apart(key)
    return bool(item or turn)


def dotted(key: StepKey) -> str:
    """The id as people write it: ``child.approve``, ``fan[7].pay``; a loop's turn number is left out."""
    return re.sub(r"#\d+", "", key).replace("/", ".")


def path_of(key: StepKey) -> list[str]:
    """The id as a list: ``["child", "approve"]``."""
    return dotted(key).split(".")


def _is_unicode(text: str) -> bool:
    """Whether every encoding takes ``text``: half of a surrogate pair is not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=4096)
def _taken_apart(key: StepKey) -> tuple[str, str, str, str, str]:
    """The parts of a key; while a run is driven, each of its keys is asked for them many times."""
    match = _LAST.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not a step key")
    head, name, item, turn, once = match.group("head", "name", "item", "turn", "once")
    return head or "", name, item or "", turn or "", once or ""
