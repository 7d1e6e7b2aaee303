"""The engine as a state machine: what a process does next is a function of what it was told so far.

A process (a worker that looks at a run, somebody who answers, cancels or sends) does nothing but call the store and
think in between. So ``Player`` lets it run against a store that gives the answers of a list and, at the first call
behind the list's end, throws the process away and keeps the call. That is the whole engine, not a model of it: each
call is one atomic step, and between two of them anything may happen, for as long as you like.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel

from flowcore.authoring.workflow import Workflow
from flowcore.codec import digest
from flowcore.core.admit import Resume
from flowcore.crew import Crew, EventLoop
from flowcore.engine import Engine
from flowcore.errors import FlowcoreError
from flowcore.hints import Hints
from flowcore.keys import RunRef
from flowcore.mailbox import send
from flowcore.model import Head, Sent, Topic
from flowcore.pace import Pace
from flowcore.ports import Hint, RecordMoved, Records, Store
from flowcore.session import Session

RUN = RunRef("default", "r")
LEASE = timedelta(seconds=60)
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_SKIPPED = frozenset({"engine", "graph", "self", "deadline", "tracer", "error"})
"""Locals of a frame that are the same in each replay, or of no consequence."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a process wants of the world: one atomic step, or a choice, which is nobody's but its own."""

    verb: str
    text: str
    """Everything about it: two calls of the same text are the same call."""
    happen: Callable[[Store], Any] | None
    """None for a choice."""
    choices: int = 0


@dataclass(frozen=True, slots=True)
class Over:
    """The process has ended; with what."""

    value: str


Next: TypeAlias = Call | Over
Heard: TypeAlias = tuple[Any, datetime, str]
"""An answer, what the clock of the process showed when it came, and the text of the call it is for."""


class Unsteady(ValueError):  # it is named in tests as what it is
    """A process that was told the same did not do the same again: nothing can be said about what it does next."""


class _NoFurtherError(BaseException):
    """The answers are used up. A ``BaseException``: nothing but this module may catch it."""

    def __init__(self, call: Call) -> None:
        super().__init__(call.verb)
        self.call = call


class _OtherwiseError(BaseException):
    """The process asks for what it did not ask for when it was told this before."""

    def __init__(self, before: str, now: str) -> None:
        super().__init__(before, now)
        at = next((i for i, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]), len(before))
        shown = slice(max(0, at - 60), at + 60)
        self.told = f"once it asked for ...{before[shown]!r}, then for ...{now[shown]!r}"


class Script:
    """The world as one replayed process sees it: its store, clock, ids, queue and chance."""

    max_delay_s = 900

    def __init__(self, owner: str, heard: Sequence[Heard]) -> None:
        """The first entry of ``heard`` is no answer, but when the process began."""
        self._heard = heard
        self._position = 0
        self._end: _NoFurtherError | None = None
        self._owner = owner

    def ask(self, verb: str, happen: Callable[[Store], Any], *given: Any) -> Any:
        """The answer to this call, if there is one."""
        return self.answer_to(Call(verb, f"{verb}{given!r}", happen))

    def choose(self, count: int) -> int:
        """One of ``count`` ways to go on."""
        if count == 1:
            return 0
        chosen: int = self.answer_to(Call("choose", f"choose({count})", None, count))
        return chosen

    def answer_to(self, call: Call) -> Any:
        """What was heard next; the process is thrown away where nothing was."""
        if self._position + 1 == len(self._heard):
            self._end = self._end or _NoFurtherError(call)
            raise self._end  # again, where somebody cleans up on the way out
        self._position += 1
        reply, _, text = self._heard[self._position]
        if text != call.text:
            raise _OtherwiseError(text, call.text)
        return reply

    def now(self) -> datetime:
        """See ``Clock.now``: time passes while the world answers, never while the process thinks."""
        return self._heard[self._position][1]

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``; the pace forbids it."""
        raise AssertionError(f"somebody waits until {instant}")

    def fresh(self) -> str:
        """See ``Ids.fresh``."""
        return self._owner

    def draw(self) -> float:
        """See ``Ids.draw``."""
        return 0.5

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``. Nothing is sent: a worker may come at any time, and must be able to do without."""


class ScriptedStore:
    """A ``Store`` that asks the script. Mutants of the protocol override what they break."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        """Any method of the port: one atomic step."""

        def call(*given: Any, **named: Any) -> Any:
            return _fresh(self.script.ask(verb, lambda store: getattr(store, verb)(*given, **named), given, named))

        return call

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``. The head comes first, the records after it: a query is no snapshot."""
        head = head or self.peek(run)
        if head is None:
            return None
        whole: Head = head

        def happen(store: Store) -> Records:
            loaded = store.load(run, whole, everything=everything)
            assert loaded is not None
            return loaded[1]

        return whole, _fresh(self.script.ask("load", happen, whole.incarnation, everything))

    def note(self, *_: Any) -> bool:
        """See ``Store.note``. Told beside the run, and nothing is decided by it: not worth a step."""
        return True

    def weigh(self, *_: Any) -> int:
        """See ``Store.weigh``; asks nobody."""
        return 100


def _fresh(reply: Any) -> Any:
    """The reply, with new objects each time as if they were decoded: a session tells records apart by identity."""
    if isinstance(reply, Mapping):
        return {key: replace(record) for key, record in reply.items()}
    if isinstance(reply, RecordMoved) and reply.record is not None:
        return RecordMoved(replace(reply.record))
    return reply


class _ChoosingCrew(Crew[Any, Any]):
    """What runs side by side comes back in every order."""

    def __init__(self, loop: EventLoop, script: Script) -> None:
        super().__init__(loop)
        self._script = script
        self.open: list[tuple[Any, Callable[[], Any]]] = []

    def start_thread(self, key: Any, work: Callable[[], Any]) -> None:
        self.open.append((key, work))

    def start_coroutine(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        outcome = self._loop.wait_for(coroutine)  # now: one that never begins complains that nobody waits for it
        self.open.append((key, lambda: outcome))

    def next(self, timeout_s: float | None) -> tuple[Any, Any] | None:
        del timeout_s
        key, work = self.open.pop(self._script.choose(len(self.open)))
        return key, work()

    def dismiss(self) -> None:
        self.open.clear()


class Deed(Protocol):
    """What a process is there for; what it comes to, as text."""

    def __call__(self, engine: Engine) -> str:
        """Do it, and say what it came to. Raises: FlowcoreError, which is an end like any other."""
        ...


def looks(engine: Engine) -> str:
    """A worker with a hint."""
    engine.look(RUN)
    return "done"


def answers(data: Any, by: str, *, step: str | None, here: bool) -> Deed:
    """Somebody who answers a suspension, the only one where no ``step`` is named, and may drive on."""

    def deed(engine: Engine) -> str:
        _, receipt = engine.resume(RUN, data, Resume(step=step, digest=digest(data), by=by), here=here)
        return f"{receipt.verdict} {receipt.wait} {receipt.by}"

    return deed


def cancels(engine: Engine) -> str:
    """Somebody who has had enough."""
    return engine.cancel(RUN).status


def sends(sent: Sent, *, here: bool) -> Deed:
    """Another system that tells what has happened."""
    return lambda engine: send(engine, sent, here=here).verdict


@dataclass(frozen=True, slots=True)
class Player:
    """One kind of process over one workflow."""

    name: str
    deed: Deed
    workflow: Workflow[Any, Any]
    store: Callable[[Script], ScriptedStore] = ScriptedStore
    skew: timedelta = timedelta(0)
    """How far its clock is ahead."""
    sends: tuple[Topic, str] | None = None
    """Where it sends an event, and the id of that."""

    def next(self, heard: Sequence[Heard]) -> tuple[Next, str]:
        """What comes after ``heard``, and a text for what the process knows then: equal texts, equal futures.

        Raises: Unsteady.
        """
        script = Script(self.name, [(answer, now + self.skew, text) for answer, now, text in heard])
        engine = self.engine(script)
        _CURRENT.append(script)
        try:
            value = self.deed(engine)
        except _NoFurtherError as end:
            return end.call, f"{self.name} {end.call.text} {_known(end.__traceback__)}"
        except _OtherwiseError as error:
            raise Unsteady(
                f"Workflow {self.workflow.id!r} does not do the same each time: {error.told}. Its steps, conditions "
                "and hooks may depend on their input and context alone: no chance, no time of day, no counting."
            ) from None
        except FlowcoreError as error:
            value = f"{type(error).__name__}: {error}"
        finally:
            _CURRENT.pop()
        return Over(value), f"{self.name} {value}"

    def engine(self, script: Any, store: Store | None = None) -> Engine:
        """The engine whose world is ``script``."""
        over: Any = store or self.store(script)
        return Engine(
            graphs={self.workflow.id: self.workflow.compiled},
            store=over,
            hints=Hints(script, None, script),
            clock=script,
            ids=script,
            loop=_LOOP,
            pace=Pace(lease=LEASE, short_retry=timedelta(0)),
            crew=lambda loop: _ChoosingCrew(loop, script),
        )


_LOOP = EventLoop()
"""One for all; started when the first coroutine appears."""
_CURRENT: list[Any] = []


def chance() -> int:
    """For the steps of a workflow: 0 or 1, whatever the worst of all worlds wants; 0 where nobody asks."""
    chosen: int = _CURRENT[-1].choose(2) if _CURRENT else 0
    return chosen


MARKS = Topic("default", "mark", "k")


def leave_mark() -> None:
    """For the steps of a workflow: one more event at ``MARKS``, so that the world shows how often they ran."""

    def happen(store: Store) -> None:
        count = len(store.mail(MARKS, _EPOCH).events)
        mark = Sent(topic=MARKS, id=f"mark-{count}", data=None, digest="", at=_EPOCH, until=_EPOCH + timedelta(days=7))
        store.keep(mark)

    if _CURRENT:
        _CURRENT[-1].ask("keep", happen, "mark")


# -- what a process knows ----------------------------------------------------------------------------------------------


def _known(trace: TracebackType | None) -> str:
    """Where it stands in the code, and what is in its hands there."""
    frames = []
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code not in _HEARERS:
            frames.append(f"{frame.f_code.co_name}:{trace.tb_lineno} {_locals(frame.f_locals)}")
        trace = trace.tb_next
    return "\n".join(frames)


def _locals(known: Mapping[str, Any]) -> str:
    session = [_session(value) for name, value in known.items() if name == "self" and isinstance(value, Session)]
    named = [(name, _plain(value)) for name, value in known.items() if name not in _SKIPPED]
    return repr((session, named))


def _session(session: Session) -> Any:
    ledger, underway, notices = session.ledger, session.underway, session.notices
    crew: Any = underway.crew
    return (
        _plain(ledger.snapshot.head),
        _plain(dict(ledger.snapshot.records)),
        (ledger.snapshot.last_seq, ledger.last_seq, ledger.looked_at, ledger.is_lost, underway.turns),
        [(key, _plain(try_.prior)) for key, try_ in underway.tries.items()],
        [(try_.action.place.key, _plain(getattr(try_.action, "value", None))) for try_, _ in crew.open],
        (_plain(underway.views.kept), sorted(notices.told)),
        (_plain(notices.again), notices.look_at, sorted(notices.unseen)),
        (_plain(ledger.hold.standing), ledger.hold.has_moved, ledger.hold.is_halted, _plain(ledger.kept_back.batch())),
    )


def _plain(value: Any) -> Any:
    """The value as text, as far as it is data; the name of its type, where it is a thing.

    What comes from outside this library is data as far as it says what it is: two values that look the same here are
    the same to the search.
    """
    if value is None or isinstance(value, (str, int, float, bool, datetime, timedelta, enum.Enum)):
        return repr(value)
    if isinstance(value, Mapping):
        return sorted((repr(key), _plain(one)) for key, one in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    kind = type(value)
    is_ours = kind.__module__.partition(".")[0] == "flowcore"
    is_data = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if is_data and (not is_ours or kind.__module__ in _DATA):
        return (kind.__name__, *(_plain(getattr(value, field.name)) for field in dataclasses.fields(value)))
    if isinstance(value, BaseModel):
        return (kind.__name__, _plain(value.__dict__), _plain(value.__pydantic_extra__))
    shown = kind.__name__ if is_ours else repr(value)
    return kind.__name__ if " at 0x" in shown else shown  # an address says nothing: the next replay has another one


_HEARERS = frozenset({Script.answer_to.__code__, Player.next.__code__})
"""What they have in their hands is all that has been heard: of no consequence once the process has forgotten it."""
_DATA = frozenset(f"flowcore.{module}" for module in ("model", "ports", "keys", "core.evolve", "core.admit"))
