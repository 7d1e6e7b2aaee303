"""What a step asks for when it suspends, judged before it is stored: who answers, how many, what if nobody does.

A function to be called later is stored as its name and found again in the step's own module: nothing is ever imported
because something stored says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flowcore.authoring.context import Asked, SuspendSignal
from flowcore.authoring.graph import StepNode
from flowcore.authoring.step import FAIL, Step
from flowcore.codec import Shape
from flowcore.failures import encoded
from flowcore.keys import event_mistake, key_mistake
from flowcore.model import Lapse, Terms

MOST_REMINDERS = 20
LONGEST_REMINDER = timedelta(days=36_500)
"""A century: the calendar ends, and nobody waits so long."""
MOST_APPROVERS = 100
"""People that one suspension can name: each stands in its record."""


def agreed(node: StepNode, signal: SuspendSignal, started_by: str | None) -> Terms | None:
    """The terms of a suspension; None when it has none. Raises: ValueError, TypeError for what cannot be meant."""
    where = f"step {node.id!r} suspends with"
    if signal.asked.on_timeout is not None and signal.timeout is None:
        raise ValueError(f"{where} on_timeout= and without timeout=; say when it is to happen")
    found = terms_of(node, signal.asked, node.step.resume, signal.label or node.id, where, started_by)
    terms = replace(found, lapse=_lapse(node, signal.asked.on_timeout))
    return None if terms == Terms() else terms


def terms_of(node: StepNode, asked: Asked, answer: Shape[Any], event: str, where: str, started_by: str | None) -> Terms:
    """What is asked of those who may answer.

    Args:
        answer: what they may answer.
        event: the name under which an event answers, if ``asked`` has a key.
        where: how an error begins.
        started_by: who started the run, and may not answer without ``allow_self``.
    Raises: ValueError, TypeError for what cannot be meant.
    """
    approvers = _approvers(asked.approvers, where)
    reminders = _reminders(asked.remind, where, is_told=asked.notify is not None)
    escalate = _escalation(asked.escalate, approvers, len(reminders), where)
    named = {*approvers, *(name for _, names in escalate for name in names)}
    quorum = asked.quorum
    if type(quorum) is not int or not 1 <= quorum <= MOST_APPROVERS:
        raise ValueError(f"{where} quorum={quorum!r}; give a number from 1 to {MOST_APPROVERS}")
    if approvers and quorum > len(named):
        raise ValueError(f"{where} quorum={quorum}, but names only {len(named)} approvers")
    if not isinstance(asked.allow_self, bool):
        raise TypeError(f"{where} allow_self={asked.allow_self!r}; give True or False")
    if approvers and not asked.allow_self and quorum > len(named - {started_by}):
        raise ValueError(
            f"{where} quorum={quorum} and allow_self=False, but names only {len(named)} approvers, of whom "
            f"{started_by!r} started the run; name somebody else as well"
        )
    if asked.key is not None and (approvers or quorum > 1 or not asked.allow_self):
        raise ValueError(
            f"{where} key= together with approvers=, quorum= or allow_self=; an event has no name: choose one"
        )
    return Terms(
        approvers=approvers,
        quorum=quorum,
        veto=None if asked.veto is None else _veto(asked.veto, answer, where),
        allow_self=asked.allow_self,
        listens=None if asked.key is None else _listens(event, asked.key, where),
        notify=None if asked.notify is None else _name_of(node, asked.notify, where),
        remind=reminders,
        escalate=escalate,
    )


def notifier(node: StepNode, name: str) -> Callable[..., Any]:
    """The function of that name in the step's module. Raises: LookupError when a deploy has removed it."""
    found = _module_of(node).get(name)
    if found is None:
        raise LookupError(f"step {node.id!r} wants {name!r} to be called, which its module no longer has")
    call: Callable[..., Any] = found
    return call


def _veto(veto: Any, answer: Shape[Any], where: str) -> str:
    """The key of the field in an answer as it is stored."""
    if not isinstance(veto, str):
        raise TypeError(f"{where} veto={veto!r}; give the name of a field of the answer")
    key = answer.key_of(veto)
    if key is None:
        type_ = getattr(answer.type, "__name__", answer.type)
        raise ValueError(f"{where} veto={veto!r}; an answer to it ({type_}) has no such field, give one that it has")
    return key


def _approvers(approvers: Any, where: str) -> tuple[str, ...]:
    if isinstance(approvers, str) or not isinstance(approvers, Sequence):
        raise TypeError(f"{where} approvers={approvers!r}; give a list of names")
    names = tuple(dict.fromkeys(approvers))
    if len(names) > MOST_APPROVERS or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{where} approvers that are not 1 to {MOST_APPROVERS} names")
    return names


def _escalation(
    escalate: Any, approvers: tuple[str, ...], reminders: int, where: str
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    if not isinstance(escalate, Mapping):
        raise TypeError(f"{where} escalate={escalate!r}; give a dict from the number of a reminder to names")
    if not escalate:
        return ()
    if not approvers:
        raise ValueError(f"{where} escalate= and without approvers=; everybody may answer already")
    for rung in escalate:
        if type(rung) is not int or not 1 <= rung <= reminders:
            raise ValueError(f"{where} escalate= at reminder {rung!r}; remind= has {reminders}, counted from 1")
    return tuple((rung, _approvers(escalate[rung], where)) for rung in sorted(escalate))


def _reminders(remind: Any, where: str, *, is_told: bool) -> tuple[timedelta, ...]:
    if not isinstance(remind, Sequence) or not all(isinstance(pause, timedelta) for pause in remind):
        raise TypeError(f"{where} remind={remind!r}; give a list of timedeltas")
    pauses = tuple(remind)
    in_order = list(pauses) == sorted(set(pauses)) and all(timedelta(0) < pause <= LONGEST_REMINDER for pause in pauses)
    if len(pauses) > MOST_REMINDERS or not in_order:
        raise ValueError(
            f"{where} remind={remind!r}; give up to {MOST_REMINDERS} pauses above 0, each longer than before, and none "
            f"above {LONGEST_REMINDER.days:,} days"
        )
    if pauses and not is_told:
        raise ValueError(f"{where} remind= and without notify=; say what is to be called")
    return pauses


def _lapse(node: StepNode, on_timeout: Any) -> Lapse | None:
    if on_timeout is None:
        return None
    if isinstance(on_timeout, str) and on_timeout == FAIL:
        return Lapse(None)
    if isinstance(on_timeout, Step):
        return Lapse(None, step=_stand_in(node, on_timeout))
    return Lapse((encoded(node.step.output, on_timeout, f"on_timeout of step {node.id!r}"),))


def _listens(name: str, key: str, where: str) -> tuple[str, str]:
    mistake = event_mistake(name) or key_mistake(key)
    if mistake is not None:
        raise ValueError(f"{where} key={key!r}: {mistake}")
    return name, key


def _stand_in(node: StepNode, step: Step[Any, Any, Any, Any]) -> str:
    if step.id not in node.stand_ins:
        raise ValueError(
            f"step {node.id!r} suspends with on_timeout={step.id!r}, a step that it does not declare: "
            f"write @step(stand_ins=[{step.id.replace('-', '_')}])"
        )
    return step.id


def _name_of(node: StepNode, function: Any, where: str) -> str:
    name = getattr(function, "__name__", "")
    if _module_of(node).get(name) is not function:
        raise ValueError(
            f"{where} notify={name or function!r}, which another process could not find again; "
            "give a function that stands in the step's own module, or is imported there"
        )
    return str(name)


def _module_of(node: StepNode) -> dict[str, Any]:
    function = inspect.unwrap(node.step.execute)
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found
