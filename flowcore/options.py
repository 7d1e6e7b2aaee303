"""What a step waits for when one of several things is enough: judged before it is stored, found again when one comes.

The type of an answer is stored as the name of one arm of the step's own resume type and found again there: nothing is
ever imported because something stored says so.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any

from flowcore.authoring.context import Asked, SuspendSignal
from flowcore.authoring.graph import StepNode
from flowcore.authoring.option import Option
from flowcore.codec import Shape, Unchecked
from flowcore.failures import encoded
from flowcore.keys import is_entry_id
from flowcore.migrations import narrowed
from flowcore.model import Alternative, Json, StepRecord
from flowcore.terms import terms_of

MOST_OPTIONS = 20
"""Alternatives of one suspension: they stand in one record, and those that listen end in one transaction."""


def alternatives_of(node: StepNode, signal: SuspendSignal, started_by: str | None) -> tuple[Alternative, ...]:
    """What a step waits for; empty when there is no choice. Raises: ValueError, TypeError for what cannot be meant."""
    if signal.options is None:
        return ()
    options = _listed(node, signal.options)
    found = tuple(_alternative(node, option, started_by) for option in options)
    for what, names in (("name", [one.name for one in found]), ("event", [one.terms.listens for one in found])):
        twice = [name for name, count in Counter(names).items() if name is not None and count > 1]
        if twice:
            raise ValueError(f"step {node.id!r} suspends with two options of the same {what} {twice[0]!r}")
    return found


def answer_shape(node: StepNode, record: StepRecord | None) -> Shape[Any]:
    """What an answer to a suspension must fit: the step's resume type, or the one arm of it that was asked for."""
    chosen = record.alternatives if record is not None else ()
    return _narrowed(node, chosen[0].resume if len(chosen) == 1 else None)


def _narrowed(node: StepNode, name: str | None) -> Shape[Any]:
    """The arm of that name of a step's resume type; all of it without one, or where a deploy has removed it."""
    shape = node.step.resume
    arm = None if name is None else _arms(shape.type).get(name)
    if arm is None:
        return shape
    return _unchecked(arm) if isinstance(shape, Unchecked) else narrowed(shape, _checked(arm))


def _listed(node: StepNode, options: Any) -> Sequence[Option[Any]]:
    where = f"step {node.id!r} suspends with"
    if not isinstance(options, Sequence) or not all(isinstance(option, Option) for option in options):
        raise TypeError(f"{where} options that are no list of Option(...)")
    if not 1 <= len(options) <= MOST_OPTIONS:
        raise ValueError(f"{where} {len(options)} options; give 1 to {MOST_OPTIONS}")
    return options


def _alternative(node: StepNode, option: Option[Any], started_by: str | None) -> Alternative:
    if not is_entry_id(option.name):
        raise ValueError(
            f"step {node.id!r} suspends with option {option.name!r}, which can be no name; use 1-64 ASCII letters, "
            "digits, '_' or '-'"
        )
    where = f"step {node.id!r} suspends with option {option.name!r} and"
    if option.event is not None and option.key is None:
        raise ValueError(f"{where} event= without key=; say what the event is about")
    asked = Asked(
        key=option.key,
        notify=option.notify,
        remind=option.remind,
        approvers=option.approvers,
        quorum=option.quorum,
        veto=option.veto,
        allow_self=option.allow_self,
        escalate={} if option.escalate is None else option.escalate,
    )
    arm = _arm(node, option.resume, where)
    return Alternative(
        name=option.name,
        payload=_payload(node, option),
        resume=arm,
        terms=terms_of(node, asked, _narrowed(node, arm), option.event or option.name, where, started_by),
    )


def _payload(node: StepNode, option: Option[Any]) -> Json:
    if option.payload is None:
        return None
    return encoded(node.step.suspend, option.payload, f"suspend payload of option {option.name!r} of step {node.id!r}")


def _arm(node: StepNode, resume: Any, where: str) -> str | None:
    if resume is None:
        return None
    arms = _arms(node.step.resume.type)
    found = [name for name, arm in arms.items() if arm is resume]
    if not found:
        raise ValueError(
            f"{where} resume={getattr(resume, '__name__', resume)!r}, which is not among what its answers may be: "
            f"{sorted(arms)}. Declare StepContext[A | B], and give one of them"
        )
    return found[0]


def _arms(declared: Any) -> dict[str, Any]:
    """The types that a declared one is a union of, by name; the type itself when it is no union."""
    is_union = typing.get_origin(declared) in (typing.Union, UnionType)
    arms = typing.get_args(declared) if is_union else (declared,)
    return {getattr(arm, "__name__", repr(arm)): arm for arm in arms}


_checked: Callable[[Any], Shape[Any]] = lru_cache(maxsize=256)(Shape)
_unchecked: Callable[[Any], Shape[Any]] = lru_cache(maxsize=256)(Unchecked)
"""One for each type: making it is what takes long."""
