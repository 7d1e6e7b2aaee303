"""Every state that a run, its workers and those who answer can get into: an exhaustive search over the real engine.

One state is what the store holds, how far each process has come, and what may still go wrong. From each, every process
may take its next step (one call to the store), stop for good, or a worker may come without being asked: early, late,
twice, or while another one still believes it holds the run. Time moves in steps longer than any lease. In every state
reached, every rule of ``flowcore.testing.invariants`` holds, nobody is told what is not so, and if everybody dropped
dead in it, the sweeper and those who answer would bring the run to its right end.

When a rule is broken, the shortest way there is told. ``flowcore.testing.search`` aims this at a workflow of yours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.core import heads
from flowcore.core.admit import open_waits
from flowcore.core.alternatives import each
from flowcore.core.evolve import fold
from flowcore.engine import Engine
from flowcore.keys import dotted
from flowcore.model import (
    Head,
    Mail,
    Outcome,
    RunStatus,
    StepRecord,
    Topic,
    Trace,
    wait_id,
    wait_place,
    wait_whole,
)
from flowcore.ports import Claimed, Records, Store
from flowcore.run import new_head
from flowcore.testing.clock import VirtualClock
from flowcore.testing.invariants import head_violations, record_violations, run_violations
from flowcore.testing.replay import (
    MARKS,
    RUN,
    Call,
    Heard,
    Over,
    Player,
    Script,
    ScriptedStore,
    Unsteady,
    looks,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=130)
"""Longer than a lease, its slack and the grace behind it."""
NOBODY, DEAD = 0, -1
"""Instead of a process: one that has not begun, one that has died."""
_CURES = 1_000
"""Looks and answers before a run is held to go in circles."""
_TAKEN_IN = ("applied", "buffered", "duplicate")
"""What the sender of an event is told: it has settled a wait or will settle the next."""

State: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...], int, int]
"""Ticks passed, what the store holds, workers (in no order), others, looks left, deaths left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run, who meets over it, and how much may go wrong."""

    name: str
    workflow: Workflow[Any, Any]
    input: Any = None
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] | None = None
    others: Sequence[Player] = ()
    """Each may begin once, at any time."""
    right: Callable[[Head, Records], bool]
    """Whether a run may have succeeded or failed like this."""
    answer: Callable[[Engine], object] | None = None
    """Does what becomes of a suspension when those who could have answered it have died: somebody else does. Gives
    nothing where nobody can."""
    most_marks: int | None = None
    """How often ``leave_mark`` may be called; None: it is not."""
    is_parked: bool = False
    """Whether a worker has been there before it begins."""
    workers: int = 2
    looks: int = 2
    deaths: int = 1
    ticks: int = 1
    tick: timedelta = TICK
    skew: timedelta = timedelta(0)
    """How far the clocks of workers are ahead of the others'."""
    store: Callable[[Script], ScriptedStore] = ScriptedStore
    table: Callable[[], MemoryStore] = MemoryStore

    @property
    def topics(self) -> Sequence[Topic]:
        """Where events are sent."""
        sent = dict.fromkeys(player.sends[0] for player in self.others if player.sends is not None)
        return [*sent, *([] if self.most_marks is None else [MARKS])]


@dataclass(frozen=True, slots=True)
class Disk:
    """What the store holds."""

    head: Head
    records: Records
    mail: Mail

    def filled(self, store: MemoryStore) -> MemoryStore:
        """The same in an empty store."""
        store.start(self.head)
        for record in self.records.values():
            store.commit(RUN, self.head.incarnation, record, None)
        for listener in self.mail.listeners:
            store.listen(listener)
        for sent in self.mail.events:
            store.keep(sent)
        return store

    @classmethod
    def of(cls, store: MemoryStore, topics: Sequence[Topic]) -> Disk:
        """What ``store`` holds of the run, and at these topics."""
        loaded = store.load(RUN, everything=True)
        assert loaded is not None
        mails = [store.mail(topic, BEGIN) for topic in topics]
        listeners = tuple(one for mail in mails for one in mail.listeners)
        return cls(*loaded, Mail(listeners=listeners, events=tuple(one for mail in mails for one in mail.events)))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has come to."""

    scenario: str
    """The name of what was searched."""
    states: int
    """How many were looked at."""
    steps: int
    """How many lead from one of them to another, or to the same."""
    violation: str | None = None
    """What is wrong in the nearest state that must not be; None: there is none."""
    way: Sequence[str] = ()
    """How it comes to that: who does what, when it is, and what the store holds then; a line for each step."""
    is_cut: bool = False
    """Whether there may be more states than were asked for."""

    def __str__(self) -> str:
        counted = f"{self.scenario}: {self.states:,} states, {self.steps:,} steps{' and more' if self.is_cut else ''}"
        if self.violation is None:
            return counted
        return "\n".join([f"{counted}; broken: {self.violation}", *(f"  {line}" for line in self.way)])


class BrokenRuleError(Exception):
    """A state that must not be; ``way``: the last lines of the story."""

    def __init__(self, message: str, *way: str) -> None:
        super().__init__(message)
        self.way = way


@dataclass(frozen=True, slots=True)
class _Step:
    """Who does what; workers have no names, but places."""

    who: str
    place: int | None
    number: int
    what: str


class _Known(list[Any]):
    """Things by number, each once."""

    def __init__(self, *first: Any) -> None:
        super().__init__(first)
        self._numbers: dict[str, int] = {}

    def number(self, thing: Any, text: str) -> int:
        """The number of what this text stands for."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self)
            self.append(thing)
        return found


@dataclass(frozen=True, slots=True)
class _Process:
    """A process that has heard this much."""

    player: Player
    heard: tuple[Heard, ...]
    next: Call | Over


class Space:
    """The states of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.graph = scenario.workflow.compiled
        self.topics = scenario.topics
        self.worker = Player("(worker)", looks, scenario.workflow, scenario.store, scenario.skew)
        self.others = [replace(player, store=scenario.store) for player in scenario.others]
        self.disks = _Known()
        self.processes = _Known(None)
        self._after: dict[tuple[str, int], tuple[Any, str, int]] = {}
        self._told: dict[tuple[int, str, int], tuple[int, ...]] = {}
        self._begun: dict[tuple[str, int], tuple[int, ...]] = {}
        self._cured: dict[tuple[int, tuple[tuple[Topic, str], ...]], BrokenRuleError | None] = {}

    # -- the search -------------------------------------------------------------------------------------------------

    def search(self, most: int) -> Found:
        """Look at up to ``most`` states, the nearest first."""
        scenario = self.scenario
        workers, others = (NOBODY,) * scenario.workers, (NOBODY,) * len(scenario.others)
        first: State = (0, self._disk(self._started()), workers, others, scenario.looks, scenario.deaths)
        ways: dict[State, State | None] = {first: None}
        todo: deque[State] = deque([first])
        steps = 0
        while todo:
            state = todo.popleft()
            try:
                self._judge(state)
                for _, following in self._following(state):
                    steps += 1
                    if following not in ways and len(ways) < most:
                        ways[following] = state
                        todo.append(following)
            except BrokenRuleError as broken:
                way = [*self._way(ways, state), *broken.way]
                return Found(scenario.name, len(ways), steps, str(broken), way)
        return Found(scenario.name, len(ways), steps, is_cut=len(ways) >= most)

    def _following(self, state: State) -> Iterator[tuple[_Step, State]]:
        ticks, disk, workers, others, looks, deaths = state
        if ticks < self.scenario.ticks:
            yield _Step("time", None, NOBODY, "passes"), (ticks + 1, disk, workers, others, looks, deaths)
        for place, number in enumerate(workers):
            if place and number == workers[place - 1]:
                continue  # the other one is the same
            for label, disk_after, after in self._moves(self.worker, number, disk, ticks, looks):
                asks = looks - (number == NOBODY)
                new = NOBODY if self._is_over(after) else after
                yield (
                    _Step("worker", place, new, label),
                    (ticks, disk_after, _with(workers, place, new), others, asks, deaths),
                )
            if deaths and number != NOBODY:
                rest = _with(workers, place, NOBODY)
                yield _Step("worker", place, NOBODY, "dies"), (ticks, disk, rest, others, looks, deaths - 1)
        for place, number in enumerate(others):
            player = self.others[place]
            for label, disk_after, after in self._moves(player, number, disk, ticks, 1):
                rest = _put(others, place, after)
                yield _Step(player.name, None, after, label), (ticks, disk_after, workers, rest, looks, deaths)
            if deaths and number > 0 and not self._is_over(number):
                rest = _put(others, place, DEAD)
                yield _Step(player.name, None, DEAD, "dies"), (ticks, disk, workers, rest, looks, deaths - 1)

    def _moves(self, player: Player, number: int, disk: int, ticks: int, looks: int) -> Iterator[tuple[str, int, int]]:
        """What a process may do next: a label, the store and the process afterwards."""
        if number == NOBODY and looks:
            for after in self._beginning(player, ticks):
                yield "begins", disk, after
        elif number > 0 and not self._is_over(number):
            yield from self._steps(number, disk, ticks)

    def _is_over(self, number: int) -> bool:
        return number > 0 and isinstance(self.processes[number].next, Over)

    # -- the way there ----------------------------------------------------------------------------------------------

    def _way(self, ways: dict[State, State | None], state: State) -> list[str]:
        states = [state]
        while (before := ways[states[-1]]) is not None:
            states.append(before)
        states.reverse()
        lines, names = list[str](), list(enumerate(states[0][2]))
        for before, after in pairwise(states):
            step = next(step for step, following in self._following(before) if following == after)
            who = step.who
            if step.place is not None:
                name, _ = names.pop(step.place)
                names = sorted([*names, (name, step.number)], key=lambda one: one[1])
                who = f"worker {name + 1}"
            lines.append(f"{f'{who} {step.what}':<45} {self._told_of(self._at(after[0]), self.disks[after[1]])}")
        return lines

    def _told_of(self, now: datetime, disk: Disk) -> str:
        head, records = disk.head, disk.records.values()
        due = "" if head.due is None else f" due {head.due:%H:%M:%S}"
        places = " ".join(f"{record.key}={record.outcome}@{record.gen}" for record in records)
        return f"{now:%H:%M:%S} {head.status} v{head.version} e{head.epoch}{due} [{places}]"

    def _at(self, ticks: int) -> datetime:
        return BEGIN + ticks * self.scenario.tick

    # -- steps ------------------------------------------------------------------------------------------------------

    def _beginning(self, player: Player, ticks: int) -> tuple[int, ...]:
        found = self._begun.get((player.name, ticks))
        if found is None:
            found = self._begun[player.name, ticks] = self._processes(player, ((None, self._at(ticks), ""),))
        return found

    def _steps(self, number: int, disk: int, ticks: int) -> list[tuple[str, int, int]]:
        """What can come of the next call of a process: a label, the store and the process afterwards."""
        process: _Process = self.processes[number]
        call = process.next
        assert isinstance(call, Call)
        asked = (call.text, disk)
        happened = self._after.get(asked)
        if happened is None:
            happened = self._after[asked] = self._happen(call, disk)
        reply, text, disk_after = happened
        told = (number, text, ticks)
        found = self._told.get(told)
        if found is None:
            heard = (*process.heard, (reply, self._at(ticks), call.text))
            found = self._told[told] = self._processes(process.player, heard)
        return [(f"{call.verb}: {_short(reply)}", disk_after, after) for after in found]

    def _processes(self, player: Player, heard: tuple[Heard, ...]) -> tuple[int, ...]:
        """Where a process stands that has heard this; in several places where it may choose."""
        try:
            following, known = player.next(heard)
        except Unsteady:
            raise
        except Exception as error:  # whatever it is, no process may end like that
            raise BrokenRuleError(f"{player.name} breaks down: {type(error).__name__}: {error}") from error
        if isinstance(following, Call) and following.choices:
            ways, at, text = range(following.choices), heard[-1][1], following.text
            return tuple(n for way in ways for n in self._processes(player, (*heard, (way, at, text))))
        return (self.processes.number(_Process(player, heard, following), known),)

    def _happen(self, call: Call, disk: int) -> tuple[Any, str, int]:
        before: Disk = self.disks[disk]
        store = before.filled(self.scenario.table())
        assert call.happen is not None
        reply = call.happen(store)
        after = Disk.of(store, self.topics)
        broken = list(self._violations(call, before, after))
        if broken:
            last = f"{f'... {call.verb}: {_short(reply)}':<45} {self._told_of(after.head.updated_at, after)}"
            raise BrokenRuleError("; ".join(broken), last)
        return reply, repr(reply), self._disk(after)

    def _disk(self, disk: Disk) -> int:
        records = sorted(map(repr, disk.records.values()))
        return self.disks.number(disk, f"{disk.head} {records} {disk.mail}")

    def _started(self) -> Disk:
        """The run as it begins."""
        scenario = self.scenario
        head = new_head(
            RUN,
            scenario.workflow,
            scenario.input,
            now=BEGIN,
            resource_id=None,
            state=scenario.state,
            request_context=scenario.request_context,
            trace=Trace(),
        )
        head = replace(head, due=BEGIN + heads.QUEUED_GRACE)
        disk = Disk(head, {}, Mail())
        if scenario.is_parked:
            store = disk.filled(scenario.table())
            self.worker.engine(_Calm(VirtualClock(BEGIN)), store).look(RUN)
            return Disk.of(store, self.topics)
        return disk

    # -- rules ------------------------------------------------------------------------------------------------------

    def _violations(self, call: Call, before: Disk, after: Disk) -> Iterator[str]:
        if after.head != before.head:
            yield from head_violations(before.head, after.head)
            if call.verb == "claim" and after.head.epoch <= before.head.epoch:
                yield "claimed without a new epoch: nobody is fenced off"
        if before.head.is_terminal and _end(after.head) != _end(before.head):
            yield f"I8 a run that has ended {_end(before.head)} ends {_end(after.head)}"
        for key, record in after.records.items():
            if (prior := before.records.get(key)) != record:
                yield from record_violations(prior, record)
        yield from run_violations(self.graph, after.head, self._open(after))
        if self.scenario.most_marks is not None and len(after.mail.events) > self.scenario.most_marks:
            yield f"a step that may run {self.scenario.most_marks} times ran {len(after.mail.events)} times"
        if after.head.status in (RunStatus.SUCCESS, RunStatus.FAILED) and not before.head.is_terminal:
            yield from self._wrong_end(after)

    def _open(self, disk: Disk) -> Records:
        loaded = disk.filled(MemoryStore()).load(RUN)
        return loaded[1] if loaded else {}

    def _wrong_end(self, disk: Disk) -> Iterator[str]:
        if not self.scenario.right(disk.head, disk.records):
            failure = disk.head.failure
            with_what = repr(disk.head.output) if failure is None else f"{failure.type}: {failure.message}"
            yield f"the run has ended {disk.head.status} with {with_what}"

    def _judge(self, state: State) -> None:
        """What holds of a state as a whole: what people were told is so, and nothing is stuck."""
        _, disk, _, others, _, _ = state
        told = list[tuple[Topic, str]]()
        for place, number in enumerate(others):
            if number > 0 and isinstance(end := self.processes[number].next, Over):
                if (stored := _other_than(end.value, self.disks[disk])) is not None:
                    raise BrokenRuleError(
                        f"I12 {self.others[place].name} was told {end.value!r}, but stored is {stored}"
                    )
                if (sends := self.others[place].sends) is not None and end.value in _TAKEN_IN:
                    told.append(sends)
        key = disk, tuple(told)
        if key not in self._cured:
            self._cured[key] = self._stuck(*key)
        if (stuck := self._cured[key]) is not None:
            raise stuck

    def _stuck(self, number: int, told: Collection[tuple[Topic, str]]) -> BrokenRuleError | None:
        """What goes wrong when everybody is dead from here on but for the sweeper and who answers; None if nothing.

        Args:
            number: of what the store holds.
            told: the events whose senders know that they were taken in.
        """
        disk: Disk = self.disks[number]
        store = disk.filled(self.scenario.table())
        clock = VirtualClock(disk.head.updated_at)
        engine = self.worker.engine(_Calm(clock), store)
        way = ["everybody else is dead from here on"]
        for _ in range(_CURES):
            now = Disk.of(store, self.topics)
            if now.head.is_terminal and not now.head.outbox:
                broken = [] if now.head.status is RunStatus.CANCELED else list(self._wrong_end(now))
                return BrokenRuleError("; ".join(broken), *way) if broken else None
            if now.head.due is not None:
                clock.wait_until(now.head.due + timedelta(milliseconds=1))
                engine.look(RUN)
                what = "the sweeper sends a worker"
            elif (mute := self._mute(store, told)) is not None:
                return BrokenRuleError(mute, *way)
            elif self.scenario.answer is not None and self.scenario.answer(engine):
                what = "somebody answers"
            else:
                asked = ", ".join(repr(dotted(wait.key)) for wait in self._waits(store))
                return BrokenRuleError(f"nobody answers {asked}", *way)
            way.append(f"{what:<45} {self._told_of(clock.now(), Disk.of(store, self.topics))}")
        return BrokenRuleError("it goes in circles", *way[:6], "...")

    def _mute(self, store: MemoryStore, told: Collection[tuple[Topic, str]]) -> str | None:
        """Why no answer can come; None when one can."""
        waits = self._waits(store)
        if not waits:
            return "nobody would ever look at it, and nobody can answer"
        waiting = {Topic(RUN.tenant, *one.topic) for wait in waits for one in each(wait) if one.topic is not None}
        open_ = {wait_id(wait, 1) for wait in waits}  # a run has one life here
        kept = {(event.topic, event.id): event.taker for event in Disk.of(store, self.topics).mail.events}
        for topic, id in told:
            taker = kept.get((topic, id))
            if topic in waiting and (taker is None or wait_whole(taker[1]) in open_):
                return f"event {id!r} was taken in, and its wait never gets it"
        return None

    def _waits(self, store: Store) -> Sequence[StepRecord]:
        loaded = store.load(RUN)
        return [] if loaded is None else open_waits(fold(loaded[0], loaded[1].values()))


class _Calm(Script):
    """A world in which nothing goes wrong any more."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__("sweeper", ())
        self._clock = clock

    def choose(self, count: int) -> int:
        del count
        return 0

    def now(self) -> datetime:
        return self._clock.now()


def _other_than(told: str, disk: Disk) -> str | None:
    """Whose answer is stored, where somebody was told that it is his and it is not; None while that is so.

    A step that has asked anew since has forgotten who answered before.
    """
    verdict, _, rest = told.partition(" ")
    wait, _, by = rest.partition(" ")
    if verdict not in ("applied", "counted", "duplicate") or not by:
        return None
    record = disk.records.get(wait_place(wait)[0])
    if record is None:
        return "nobody's"
    answers = [answer for answer in (record.answer, *record.votes) if answer is not None and not answer.timed_out]
    if any(answer.by == by for answer in answers):
        return None
    asked = {wait_id(record, disk.head.incarnation)} if record.outcome is Outcome.SUSP else set()
    asked |= {answer.wait for answer in answers}
    if asked and wait_whole(wait) not in {wait_whole(one) for one in asked}:
        return None
    return " and ".join(repr(answer.by) for answer in answers) or "nobody's"


def _end(head: Head) -> tuple[RunStatus, Any, Any]:
    return head.status, head.output, head.failure


def _with(workers: tuple[int, ...], place: int, number: int) -> tuple[int, ...]:
    return tuple(sorted(_put(workers, place, number)))


def _put(row: tuple[int, ...], place: int, number: int) -> tuple[int, ...]:
    return (*row[:place], number, *row[place + 1 :])


def _short(reply: Any) -> str:
    if isinstance(reply, Claimed):
        return f"holds epoch {reply.head.epoch}"
    if isinstance(reply, Head):
        return f"{reply.status} v{reply.version} e{reply.epoch}"
    return type(reply).__name__
