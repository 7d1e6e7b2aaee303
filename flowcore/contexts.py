"""What a function of the author's is given of the run around it, and what a step has changed in the shared values.

Values are read through the author's types on the way in, and made plain on the way out. Calls nobody, but what is given
to ``ctx.once``; what has to be stored is handed to a ``View``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

from pydantic import BaseModel

from flowcore.authoring.context import Flag, FunctionContext, RequestContext, StepContext, Surroundings, Vote
from flowcore.authoring.graph import StepNode
from flowcore.codec import NotJsonError, Shape, copied
from flowcore.core.actions import Place
from flowcore.core.alternatives import answered as answered_alone
from flowcore.core.alternatives import chosen, is_replaced
from flowcore.core.evolve import Changes
from flowcore.failures import decoded, encoded, read
from flowcore.keys import dotted, index_of, is_name, turn_number
from flowcore.model import Json, StepRecord
from flowcore.options import answer_shape

LONGEST_ONCE_KEY = 200
"""Characters of a key given to ``ctx.once``; it becomes part of a sort key, which has 1,024 bytes for everything."""

_ANYTHING: Shape[Any] = Shape(Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The run around one action, as plain values, and the two ways back: stored side effects and the cancel flag."""

    run_id: str
    workflow_id: str
    resource_id: str | None
    idempotency_key: str
    state: Mapping[str, Json]
    request_context: Mapping[str, Json]
    result_of: Callable[[str], tuple[Shape[Any], Json] | None]
    once: Callable[[str, Callable[[], Json]], Json]
    emit: Callable[[int, Json], None]
    """Stores progress under its number in this pass of the step."""
    remaining: Callable[[], timedelta]
    cancelled: Flag
    started_by: str | None = None
    heed: Callable[[], None] = lambda: None
    """Raises ``LateSignal`` in a try whose time is over."""
    heartbeat: Callable[[Json], bool] = lambda _: True
    """Says that the step is at work and, unless it is None, how far; whether it should go on."""
    heartbeat_details: Json = None
    """What was last told so."""


def step_context(place: Place, prior: StepRecord | None, attempt: int, view: View) -> StepContext[Any, Any, Any]:
    """What the step at ``place`` is given, with the answer it got; ``prior``: the record it goes on from."""
    node = place.node
    assert isinstance(node, StepNode)
    step = node.step
    prior = None if prior is None or is_replaced(prior) else answered_alone(prior)
    answer = prior.answer if prior else None
    asked = prior is not None and answer is not None
    answered = answer is not None and not answer.timed_out
    state_shape = place.graph.state if step.state.type is Any else step.state
    return StepContext(
        run_id=view.run_id,
        workflow_id=view.workflow_id,
        step_id=node.id,
        resource_id=view.resource_id,
        attempt=attempt,
        idempotency_key=view.idempotency_key,
        resume_data=read(answer_shape(node, prior), answer.data, f"resume data of step {node.id!r}")
        if prior and answer and answered
        else None,
        chosen=None if prior is None else chosen(prior),
        suspend_data=read(step.suspend, prior.payload, f"suspend data of step {node.id!r}")
        if prior and asked and prior.payload is not None
        else None,
        votes=_votes(node, prior),
        timed_out=answer is not None and answer.timed_out,
        iteration=turn_number(place.key),
        index=index_of(place.key),
        request_context=RequestContext(copied(view.request_context)),
        cancelled=view.cancelled,
        surroundings=_surroundings(place, view, state_shape),
    )


def _votes(node: StepNode, prior: StepRecord | None) -> tuple[Vote[Any], ...]:
    subject = f"resume data of step {node.id!r}"
    votes = prior.votes if prior is not None else ()
    return tuple(
        Vote(
            by=vote.by or "",
            at=vote.at,
            data=read(answer_shape(node, prior), vote.data, subject),
            on_behalf_of=vote.on_behalf_of,
        )
        for vote in votes
    )


def function_context(place: Place, view: View, iteration: int | None) -> FunctionContext:
    """What any other function of the author's is given; ``iteration``: which turn a condition is asked about."""
    return FunctionContext(
        run_id=view.run_id,
        workflow_id=view.workflow_id,
        entry_id=place.node.id,
        iteration=iteration if iteration is not None else turn_number(place.key),
        request_context=copied(view.request_context),
        surroundings=_surroundings(place, view, place.graph.state),
    )


def _surroundings(place: Place, view: View, state_shape: Shape[Any]) -> Surroundings:
    numbers = count(1)
    return Surroundings(
        init=place.init,
        init_shape=place.graph.takes,
        state=view.state,
        state_shape=state_shape,
        result_of=view.result_of,
        once=lambda key, function: view.once(_once_key(place, key), lambda: _made_once(key, function)),
        remaining=view.remaining,
        heed=view.heed,
        emit=lambda data: view.emit(next(numbers), _plain(data, "the data of ctx.emit")),
        heartbeat=lambda details: view.heartbeat(_plain(details, "the details of ctx.heartbeat")),
        heartbeat_details=view.heartbeat_details,
    )


def _once_key(place: Place, key: Any) -> str:
    if is_name(key) and len(key) <= LONGEST_ONCE_KEY:
        return str(key)
    raise ValueError(
        f"the key given to ctx.once in {dotted(place.key)!r} must be text of 1 to {LONGEST_ONCE_KEY} characters, "
        f"it is {str(key)[:50]!r} ({type(key).__name__})"
    )


def _made_once(key: str, function: Callable[[], Any]) -> Json:
    if not callable(function):
        raise TypeError(
            f"ctx.once({key!r}, ...) got {type(function).__name__} and needs a function that it can call: give the "
            "function, not what calling it gives"
        )
    value = function()
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"the function of ctx.once({key!r}, ...) must be a plain def; it is an async def")
    return _plain(value, f"the value of ctx.once({key!r})")


def _plain(value: Any, subject: str) -> Json:
    try:
        return _ANYTHING.encode(value)
    except NotJsonError as error:
        raise NotJsonError(f"In {subject}, {error}") from None


def changes_of(context: StepContext[Any, Any, Any]) -> Changes:
    """What the step changed in the shared values; its state must still fit the declared type afterwards."""
    state: dict[str, Json] = {}
    shape = context.surroundings.state_shape
    for new in context.set_values:
        if isinstance(new, BaseModel):
            plain = encoded(_ANYTHING, _set_on(new), "state")
        else:
            plain = encoded(_ANYTHING, new, "state")
        if not isinstance(plain, dict):
            raise TypeError(f"set_state takes a dict or a model, not {type(new).__name__}")
        state |= {shape.key_of(name) or name: value for name, value in plain.items()}
    if state:
        decoded(
            shape,
            {**context.surroundings.state, **state},
            f"state set by step {context.step_id!r}",
        )
    changed = context.request_context.changed
    kept = {name: context.request_context[name] for name in changed if name in context.request_context}
    return Changes(
        state=state,
        context=encoded(_ANYTHING, kept, "request context"),
        removed=frozenset(changed - kept.keys()),
    )


def _set_on(model: BaseModel) -> dict[str, Any]:
    """The fields that were set on a model, as they are written."""
    return model.model_dump(mode="json", by_alias=True, include=set(model.model_fields_set))
