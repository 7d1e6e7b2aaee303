"""What the soak is told of the workflows it runs: all of it may be left out, and stands beside the App it is about.

``python -m infra.local soak --app shop.soaked:app`` looks for a ``Plan`` under the name ``soak`` in the same module.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowcore.app import App
from flowcore.results import RunResult

if TYPE_CHECKING:
    from flowcore.testing.trial import Answers  # a worker that serves the App loads none of it


class UnsaidError(Exception):
    """What the soak has to be told is missing, or is not what it should be: an App, a Plan, an input."""


def _nothing_more(app: App, run_id: str, chance: random.Random) -> None:
    """What happens outside once a run is started, unless somebody says more."""


def _all_is_well(workflow: str, result: RunResult[Any]) -> Iterable[str]:  # noqa: ARG001  # as ``ends`` is called
    """What is wrong with an end, unless somebody says what it must be."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How runs begin, who answers what, and how they must end.

    Attributes:
        inputs: by workflow id, draws the input of one run. With any, only these workflows are run. Left out: all of the
            App, with any input that fits the type.
        answers: to the suspensions, and the data of events, as ``flowcore.testing.explore`` takes them: by id (dotted,
            or the last one) or label, or a function of the open ``Wait``. What has no answer (no such key,
            ``KeyError``) is left to its deadline; without a deadline, any answer that fits the type is given. Left
            out: any answer that fits, and half of those with a deadline are left to it.
        begun: called once each run is started; what happens outside then, such as an event that comes early.
        ends: what is wrong with a run that has ended and that nobody has canceled, one sentence each; called with its
            workflow's id and its result. Left out: any end is well, as long as it is one.

    Example:
        >>> from infra.local.soak_plan import Plan
        >>> soak = Plan(
        ...     inputs={"refund": lambda chance: {"order": f"A-{chance.randrange(10**6)}", "cents": 990}},
        ...     answers={"clerk": {"approved": True}, "paid": 990},
        ...     ends=lambda workflow, result: [] if result.status == "success" else [f"{workflow} is {result.status}"],
        ... )
    """

    inputs: Mapping[str, Callable[[random.Random], Any]] = field(default_factory=dict)
    answers: Answers | None = None
    begun: Callable[[App, str, random.Random], object] = _nothing_more
    ends: Callable[[str, RunResult[Any]], Iterable[str]] = _all_is_well


def found(name: str) -> tuple[App, Plan]:
    """The App that ``module:attribute`` names, and the Plan ``soak`` beside it, if any. Raises: UnsaidError."""
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UnsaidError(
            f"No App {name!r}: {error}. Say module:attribute, of a module that can be imported."
        ) from error
    app, plan = getattr(module, attribute, None), getattr(module, "soak", Plan())
    if not isinstance(app, App):
        raise UnsaidError(f"{name!r} is no App but {app!r}. Say module:attribute.")
    if not isinstance(plan, Plan):
        raise UnsaidError(f"{module_name}.soak is no infra.local.soak_plan.Plan but {plan!r}.")
    return app, plan
