"""Steps: a function with an id and a type at each of its doors.

Owns reading a function's signature. Refuses functions of more than two arguments. Calls nothing: only the runner does.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import FrameType
from typing import Any, Generic, Literal, Protocol, TypeAlias, get_args, overload

from typing_extensions import TypeVar

from flowcore.authoring.context import StepContext
from flowcore.authoring.graph import CENTURY, Backoff
from flowcore.codec import Shape
from flowcore.errors import DefinitionError, Mistake
from flowcore.keys import is_entry_id

In = TypeVar("In", contravariant=True, default=Any)
Out = TypeVar("Out", covariant=True, default=Any)
Resume = TypeVar("Resume", default=Any)
Suspend = TypeVar("Suspend", default=Any)

_I = TypeVar("_I")
_O = TypeVar("_O")
_R = TypeVar("_R")
_S = TypeVar("_S")
_T = TypeVar("_T")

FAIL: Literal["fail"] = "fail"
Semantics: TypeAlias = Literal["at_least_once", "at_most_once"]
UNDECLARED: Any = Any
"""The type of a door about which the author said nothing: everything is accepted there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step(Generic[In, Out, Resume, Suspend]):
    """A unit of work that runs at least once and whose outcome is committed exactly once. Made by ``step``.

    Example:
        >>> from flowcore import step
        >>> @step(retries=2)
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> double.id, double(21)
        ('double', 42)
    """

    id: str
    execute: Callable[..., Any] = field(repr=False)
    takes_context: bool = False
    input: Shape[Any] = field(repr=False)
    output: Shape[Any] = field(repr=False)
    resume: Shape[Any] = field(repr=False)
    suspend: Shape[Any] = field(repr=False)
    state: Shape[Any] = field(repr=False)
    request_context: Shape[Any] = field(repr=False)
    retries: int | None = None
    """Further tries after the first; None: what the workflow says."""
    backoff: Backoff | None = None
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    no_retry_on: tuple[type[BaseException], ...] = ()
    timeout: timedelta | None = None
    """How long one try may take; None: as long as the worker lives."""
    on_timeout: Any = FAIL
    """The output when the last try has timed out; ``"fail"``: the step fails then."""
    heartbeat: timedelta | None = None
    """How often the step promises to call ``ctx.heartbeat`` at least."""
    semantics: Semantics = "at_least_once"
    """What becomes of a step whose worker dies in it: it runs again, or it fails with ``MayHaveRun``."""
    stand_ins: tuple[Step[Any, Any, Any, Any], ...] = ()
    """Steps that ``ctx.suspend(on_timeout=...)`` may name: they run in this one's place when nobody has answered."""
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def fails_late(self) -> bool:
        """Whether the step fails when its last try has timed out; otherwise it has ``on_timeout`` for its output."""
        return isinstance(self.on_timeout, str) and self.on_timeout == FAIL

    def __call__(self, *args: Any) -> Any:
        """Call the plain function, for instance in a unit test."""
        return self.execute(*args)

    def clone(self, *, id: str) -> Step[In, Out, Resume, Suspend]:
        """The same step under another id."""
        return replace(self, id=_checked_id(id))


class _Decorator(Protocol):
    @overload
    def __call__(
        self, fn: Callable[[_I, StepContext[_R, _S, _T]], Coroutine[Any, Any, _O]], /
    ) -> Step[_I, _O, _R, _S]: ...
    @overload
    def __call__(self, fn: Callable[[_I], Coroutine[Any, Any, _O]], /) -> Step[_I, _O, None, None]: ...
    @overload
    def __call__(self, fn: Callable[[_I, StepContext[_R, _S, _T]], _O], /) -> Step[_I, _O, _R, _S]: ...
    @overload
    def __call__(self, fn: Callable[[_I], _O], /) -> Step[_I, _O, None, None]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[Any, Any, Any, Any]: ...


@overload
def step(fn: Callable[[_I, StepContext[_R, _S, _T]], Coroutine[Any, Any, _O]], /) -> Step[_I, _O, _R, _S]: ...
@overload
def step(fn: Callable[[_I], Coroutine[Any, Any, _O]], /) -> Step[_I, _O, None, None]: ...
@overload
def step(fn: Callable[[_I, StepContext[_R, _S, _T]], _O], /) -> Step[_I, _O, _R, _S]: ...
@overload
def step(fn: Callable[[_I], _O], /) -> Step[_I, _O, None, None]: ...
@overload
def step(
    *,
    id: str | None = None,
    description: str = "",
    input: Any = None,
    output: Any = None,
    resume: Any = None,
    suspend: Any = None,
    state: Any = None,
    request_context: Any = None,
    retries: int | None = None,
    backoff: Backoff | timedelta | None = None,
    retry_on: Sequence[type[BaseException]] = (Exception,),
    no_retry_on: Sequence[type[BaseException]] = (),
    timeout: timedelta | None = None,
    on_timeout: Any = FAIL,
    heartbeat: timedelta | None = None,
    semantics: Semantics = "at_least_once",
    stand_ins: Sequence[Step[Any, Any, Any, Any]] = (),
    metadata: Mapping[str, Any] | None = None,
) -> _Decorator: ...


def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a step of a function of one or two arguments: ``(input)`` or ``(input, ctx)``.

    The id is the function's name; the types come from its annotations: the input from the first argument, the output
    from the return annotation, resume, suspend and state from ``StepContext[Resume, Suspend, State]``. Keywords
    override each. A type that is not declared accepts everything.

    Args:
        options: ``id, description, input, output, resume, suspend, state, request_context, retries, backoff, retry_on,
            no_retry_on, timeout, on_timeout, heartbeat, semantics, stand_ins, metadata``. ``request_context`` is a type
            that the request context must fit when the step begins; ``retries`` counts further tries after the first;
            ``backoff`` is the pause before the second try (a ``timedelta``) or a whole ``Backoff``; ``timeout`` is how
            long one try may take, and ``on_timeout`` the step's output when no try is left after one that took longer
            (``"fail"``, the default: the step fails).

    A try that reaches its ``timeout`` has failed with ``StepTimeout``, and is tried again as ``retries``, ``retry_on``
    and ``no_retry_on`` say. A coroutine is cancelled then. A thread cannot be: what the function still returns is
    dropped, ``ctx.cancelled`` is set, and ``ctx.once``, ``ctx.emit`` and ``ctx.set_state`` stop it for good; what a
    ``ctx.once`` begun in time has done is kept, so that the next try does not do it again.

    A step with ``heartbeat=`` promises to call ``ctx.heartbeat()`` that often at least. While only such steps are at
    work, the run is held no longer than that, and 10 seconds: when the worker dies, another one goes on after about two
    minutes at most instead of at the end of its lease, which in a Lambda may be 15 minutes away. Beginning and ending
    to hold a run so briefly is a write each.

    With ``semantics="at_most_once"`` it is written down before each call that the step begins. When its worker dies in
    it, the step is not called again but fails with ``MayHaveRun``; so it does when it was about to begin. An exception
    is a known outcome: it is retried as the step's own ``retries=`` say, not those of the workflow. A try that has
    timed out is never retried, for it may still be at work. An answer to a suspension begins the step again.

    ``stand_ins`` are steps that ``ctx.suspend(timeout=..., on_timeout=...)`` may name: nobody has answered, so that one
    runs instead. It takes what this step takes, and gives what this step gives. Its idempotency key, and what it does
    ``once``, are its own.

    Raises: DefinitionError for an id or a signature that cannot be used.

    Example:
        >>> from flowcore import StepContext, step
        >>> @step
        ... def approve(amount: int, ctx: StepContext[bool]) -> str:
        ...     if ctx.resume_data is None:
        ...         ctx.suspend(label="boss")
        ...     return "yes" if ctx.resume_data else "no"
        >>> approve.takes_context
        True
    """
    caller = sys._getframe(1)
    _refuse_unknown("step", options)

    def made(function: Callable[..., Any]) -> Step[Any, Any, Any, Any]:
        return _step_of(function, caller, **options)

    return made if fn is None else made(fn)


def create_step(*, id: str, execute: Callable[..., Any], **options: Any) -> Step[Any, Any, Any, Any]:
    """The long form of ``step``, for people who come from Mastra; takes the same keywords.

    Example:
        >>> from flowcore import create_step
        >>> create_step(id="double", execute=lambda n: 2 * n, input=int, output=int).id
        'double'
    """
    _refuse_unknown("create_step", options)
    return _step_of(execute, sys._getframe(1), id=id, **options)


def _refuse_unknown(what: str, options: Mapping[str, Any]) -> None:
    """A misspelt keyword is told under the name that the author called."""
    if unknown := sorted(options.keys() - _OPTIONS):
        raise TypeError(f"{what}() has no keyword {unknown[0]!r}; it takes {', '.join(sorted(_OPTIONS))}")


def _step_of(
    function: Callable[..., Any],
    caller: FrameType,
    *,
    id: str | None = None,
    description: str = "",
    input: Any = None,
    output: Any = None,
    resume: Any = None,
    suspend: Any = None,
    state: Any = None,
    request_context: Any = None,
    retries: int | None = None,
    backoff: Backoff | timedelta | None = None,
    retry_on: Sequence[type[BaseException]] = (Exception,),
    no_retry_on: Sequence[type[BaseException]] = (),
    timeout: timedelta | None = None,
    on_timeout: Any = FAIL,
    heartbeat: timedelta | None = None,
    semantics: Semantics = "at_least_once",
    stand_ins: Sequence[Step[Any, Any, Any, Any]] = (),
    metadata: Mapping[str, Any] | None = None,
) -> Step[Any, Any, Any, Any]:
    name = _checked_id(str(getattr(function, "__name__", type(function).__name__)) if id is None else id)
    hints = annotations_of(function, caller, name)
    parameters = _positional(function, name)
    first = hints.get(parameters[0]) if parameters else None
    context = hints.get(parameters[1]) if len(parameters) > 1 else None
    declared = _doors(context)
    mistakes = list(_misused(name, retries, backoff, retry_on, no_retry_on, timeout, on_timeout))
    mistakes += _no_stand_ins(name, stand_ins)
    if not _is_pause(heartbeat):
        mistakes.append(
            Mistake(name, f"heartbeat={heartbeat!r} is no pause; give a timedelta from 1 second to a century")
        )
    if semantics not in get_args(Semantics):
        mistakes.append(Mistake(name, f"semantics={semantics!r} is none of {', '.join(get_args(Semantics))}"))
    if mistakes:
        raise DefinitionError(name, mistakes, is_step=True)
    return Step(
        id=name,
        execute=function,
        takes_context=len(parameters) > 1,
        input=Shape(_first(input, first)),
        output=Shape(_first(output, hints.get("return"))),
        resume=Shape(_first(resume, declared[0])),
        suspend=Shape(_first(suspend, declared[1])),
        state=Shape(_first(state, declared[2])),
        request_context=Shape(_first(request_context, UNDECLARED)),
        retries=retries,
        backoff=None if backoff is None else Backoff.of(backoff),
        retry_on=tuple(retry_on),
        no_retry_on=tuple(no_retry_on),
        timeout=timeout,
        on_timeout=on_timeout,
        heartbeat=heartbeat,
        semantics=semantics,
        stand_ins=tuple(stand_ins),
        description=description or inspect.cleandoc(function.__doc__ or "").split("\n", 1)[0],
        metadata=dict(metadata or {}),
    )


_OPTIONS = frozenset(inspect.signature(_step_of).parameters) - {"function", "caller"}


def _misused(
    name: str, retries: Any, backoff: Any, retry_on: Any, no_retry_on: Any, timeout: Any, on_timeout: Any
) -> Iterator[Mistake]:
    """What is wrong with the options that say how often and how long a step is tried."""
    yield from (Mistake(name, what) for what in misused_retries(retries, backoff))
    for option, classes in (("retry_on", retry_on), ("no_retry_on", no_retry_on)):
        given = classes if isinstance(classes, (list, tuple, set, frozenset)) else None
        if given is None or not all(isinstance(one, type) and issubclass(one, BaseException) for one in given):
            yield Mistake(name, f"{option}={classes!r} is no sequence of exception classes, such as (ValueError,)")
    if timeout is None:
        if not (isinstance(on_timeout, str) and on_timeout == FAIL):
            yield Mistake(name, "on_timeout= is of no use without timeout=; say how long a try may take")
    elif not isinstance(timeout, timedelta) or not timedelta(0) < timeout <= CENTURY:
        what = "is no time to work in; give a timedelta above 0, at most a century, or leave it out"
        yield Mistake(name, f"timeout={timeout!r} {what}")


def _no_stand_ins(name: str, stand_ins: Any) -> Iterator[Mistake]:
    """What is wrong with the steps that may run in a step's place."""
    given = stand_ins if isinstance(stand_ins, (list, tuple)) else None
    if given is None or not all(type(one) is Step for one in given):
        yield Mistake(name, f"stand_ins={stand_ins!r} is no list of steps; give what @step made, not workflows")
    elif len({one.id for one in given}) < len(given):
        yield Mistake(name, "stand_ins has two steps of the same id; give one of them another: step.clone(id=...)")


def _is_pause(heartbeat: Any) -> bool:
    """Whether a step can promise to be heard from so often; None: it promises nothing."""
    return heartbeat is None or (isinstance(heartbeat, timedelta) and timedelta(seconds=1) <= heartbeat <= CENTURY)


def misused_retries(retries: Any, backoff: Any) -> Iterator[str]:
    """What is wrong with ``retries=`` and ``backoff=``, of a step or of a workflow; None there: not given."""
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int)):
        yield f"retries={retries!r} is no number of tries; give an int from 0"
    elif retries is not None and retries < 0:
        yield f"retries={retries} is below 0; say how many tries follow the first"
    if backoff is None:
        return
    if not isinstance(backoff, (Backoff, timedelta)):
        yield f"backoff={backoff!r} is no pause; give a timedelta or a Backoff"
    elif not Backoff.of(backoff).is_usable:
        yield (
            f"backoff={backoff!r} cannot be waited for; its times must lie between 0 and a century, and its factor be "
            "a number from 0"
        )


def _doors(context: Any) -> tuple[Any, Any, Any]:
    """Resume, suspend and state type of ``StepContext[...]``; the latter two are undeclared where they are None.

    From Python 3.13 on their default, None, cannot be told from one that was written.
    """
    contexts = [arm for arm in (context, *typing.get_args(context)) if typing.get_origin(arm) is StepContext]
    declared = typing.get_args(contexts[0]) if contexts else ()
    resume, *others = (*declared, *[UNDECLARED] * 3)[:3]
    suspend, state = (UNDECLARED if other is type(None) else other for other in others)
    return resume, suspend, state


def takes_context(function: Callable[..., Any], where: str) -> bool:
    """Whether a function the author gave takes the value and the context, or the value alone.

    Raises: DefinitionError when it takes neither one nor two arguments.
    """
    return len(_positional(function, where)) > 1


def return_type(function: Callable[..., Any]) -> Any:
    """The declared return type of a function, ``UNDECLARED`` when it has none or it cannot be resolved."""
    try:
        return typing.get_type_hints(function).get("return", UNDECLARED)
    except (NameError, TypeError):
        return UNDECLARED


def _positional(function: Callable[..., Any], where: str) -> list[str]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ["value"]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in signature.parameters.values() if p.kind in kinds]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    keyword_only = [
        p.name
        for p in signature.parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is inspect.Parameter.empty
    ]
    if keyword_only or len(required) > 2 or not (positional or _is_variadic(signature)):
        raise DefinitionError(
            where,
            [
                Mistake(
                    where, f"{_named(function)}{signature} must take (value) or (value, ctx); bind the rest beforehand"
                )
            ],
            is_step=True,
        )
    if len(required) == 2 or (len(positional) >= 2 and positional[1].name == "ctx"):
        return [p.name for p in positional[:2]]
    return [p.name for p in positional[:1]] or ["value"]


def _is_variadic(signature: inspect.Signature) -> bool:
    return any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in signature.parameters.values())


def annotations_of(function: Callable[..., Any], caller: FrameType, where: str) -> Mapping[str, Any]:
    """The function's type hints; names of the calling function's locals are known, as pydantic does it."""
    target = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004  # it is callable; its hints are wanted
    try:
        return typing.get_type_hints(target, localns=_names_around(target, caller), include_extras=True)
    except NameError as error:
        mistake = Mistake(where, f"an annotation cannot be resolved: {error}")
        raise DefinitionError(where, [mistake], is_step=True) from None
    except TypeError:
        return {}


def _names_around(function: Callable[..., Any], caller: FrameType) -> dict[str, Any]:
    """What the names in annotations may mean; in a function of another module, that module's names come first."""
    own: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    around = {**caller.f_globals, **caller.f_locals}
    return around if own is caller.f_globals else {**around, **own}


def _named(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _checked_id(id: str) -> str:
    if not is_entry_id(id):
        what = f"{id!r} cannot be an id; use 1-64 ASCII letters, digits, '_' or '-' (no '/', '.', '#', '[', '!')"
        advice = ", and name it with id=" if str(id).startswith("<") else ""
        raise DefinitionError(str(id), [Mistake(str(id), f"{what}{advice}")], is_step=True)
    return id


def _first(override: Any, declared: Any) -> Any:
    if override is not None:
        return override
    return UNDECLARED if declared is None else declared
