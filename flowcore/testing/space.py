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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.core import heads
from flowcore.core.admit import open_waits
from flowcore.core.evolve import fold
from flowcore.model import Head, Mail, RunStatus, Topic
from flowcore.ports import Claimed, Records, Store
from flowcore.testing.clock import VirtualClock
from flowcore.testing.invariants import head_violations, record_violations, run_violations
from flowcore.testing.replay import RUN, Call, Heard, Over, Player, Script, ScriptedStore, looks

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=130)
"""Longer than a lease, its slack and the grace behind it."""
NOBODY, DEAD = 0, -1
"""Instead of a process: one that has not begun, one that has died."""
_CURES = 12

State: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...], int, int]
"""Ticks passed, what the store holds, workers (in no order), others, looks left, deaths left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run, who meets over it, and how much may go wrong."""

    name: str
    workflow: Workflow[Any, Any]
    others: Sequence[Player] = ()
    """Each may begin once, at any time."""
    right: Callable[[Head, Records], bool]
    """Whether a run may have ended like this."""
    answer: Callable[[Any], str] | None = None
    """Does what becomes of a suspension when those who could have answered it have died: somebody else does."""
    topic: Topic | None = None
    most_marks: int | None = None
    """How many events there may be at ``topic``; None: as many as are sent."""
    is_parked: bool = False
    """Whether a worker has been there before it begins."""
    workers: int = 2
    looks: int = 2
    deaths: int = 1
    ticks: int = 1
    skew: timedelta = timedelta(0)
    """How far the clocks of workers are ahead of the others'."""
    store: Callable[[Script], ScriptedStore] = ScriptedStore
    table: Callable[[], MemoryStore] = MemoryStore


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
    def of(cls, store: MemoryStore, topic: Topic | None) -> Disk:
        """What ``store`` holds."""
        loaded = store.load(RUN, everything=True)
        assert loaded is not None
        return cls(loaded[0], loaded[1], Mail() if topic is None else store.mail(topic, BEGIN))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has come to."""

    scenario: str
    states: int
    steps: int
    violation: str | None = None
    way: Sequence[str] = ()
    is_cut: bool = False
    """Whether there are more states than were asked for."""

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
        self.worker = Player("w", looks, scenario.workflow, scenario.store, scenario.skew)
        self.others = [replace(player, store=scenario.store) for player in scenario.others]
        self.disks = _Known()
        self.processes = _Known(None)
        self._after: dict[tuple[str, int], tuple[Any, str, int]] = {}
        self._told: dict[tuple[int, str, int], tuple[int, ...]] = {}
        self._begun: dict[tuple[str, int], tuple[int, ...]] = {}
        self._cured: dict[int, BrokenRuleError | None] = {}

    # -- the search -------------------------------------------------------------------------------------------------

    def search(self, most: int) -> Found:
        """Look at up to ``most`` states, the nearest first."""
        scenario = self.scenario
        workers, others = (NOBODY,) * scenario.workers, (NOBODY,) * len(scenario.others)
        first: State = (0, self._disk(self._started()), workers, others, scenario.looks, scenario.deaths)
        ways: dict[State, State | None] = {first: None}
        todo, steps = deque([first]), 0
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
            lines.append(f"{f'{who} {step.what}':<45} {self._told_of(BEGIN + after[0] * TICK, self.disks[after[1]])}")
        return lines

    def _told_of(self, now: datetime, disk: Disk) -> str:
        head, records = disk.head, disk.records.values()
        due = "" if head.due is None else f" due {head.due:%H:%M:%S}"
        places = " ".join(f"{record.key}={record.outcome}@{record.gen}" for record in records)
        return f"{now:%H:%M:%S} {head.status} v{head.version} e{head.epoch}{due} [{places}]"

    # -- steps ------------------------------------------------------------------------------------------------------

    def _beginning(self, player: Player, ticks: int) -> tuple[int, ...]:
        found = self._begun.get((player.name, ticks))
        if found is None:
            found = self._begun[player.name, ticks] = self._processes(player, ((None, BEGIN + ticks * TICK),))
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
            heard = (*process.heard, (reply, BEGIN + ticks * TICK))
            found = self._told[told] = self._processes(process.player, heard)
        return [(f"{call.verb}: {_short(reply)}", disk_after, after) for after in found]

    def _processes(self, player: Player, heard: tuple[Heard, ...]) -> tuple[int, ...]:
        """Where a process stands that has heard this; in several places where it may choose."""
        try:
            following, known = player.next(heard)
        except Exception as error:  # whatever it is, no process may end like that
            raise BrokenRuleError(f"{player.name} breaks down: {type(error).__name__}: {error}") from error
        if isinstance(following, Call) and following.choices:
            ways = range(following.choices)
            return tuple(n for way in ways for n in self._processes(player, (*heard, (way, heard[-1][1]))))
        return (self.processes.number(_Process(player, heard, following), known),)

    def _happen(self, call: Call, disk: int) -> tuple[Any, str, int]:
        before: Disk = self.disks[disk]
        store = before.filled(self.scenario.table())
        assert call.happen is not None
        reply = call.happen(store)
        after = Disk.of(store, self.scenario.topic)
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
        graph = self.graph
        head = Head(
            run=RUN,
            workflow=graph.id,
            definition=graph.fingerprint,
            input=1,
            input_hash="1",
            status=RunStatus.QUEUED,
            created_at=BEGIN,
            updated_at=BEGIN,
            due=BEGIN + heads.QUEUED_GRACE,
        )
        disk = Disk(head, {}, Mail())
        if self.scenario.is_parked:
            store = disk.filled(self.scenario.table())
            self.worker.engine(_Calm(VirtualClock(BEGIN)), store).look(RUN)
            return Disk.of(store, self.scenario.topic)
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
            yield f"the run has ended {disk.head.status} with {disk.head.output!r} {disk.head.failure}"

    def _judge(self, state: State) -> None:
        """What holds of a state as a whole: what people were told is so, and nothing is stuck."""
        _, disk, _, others, _, _ = state
        records = self.disks[disk].records
        stored = {record.answer.by for record in records.values() if record.answer and not record.answer.timed_out}
        for number in others:
            if number > 0 and isinstance(end := self.processes[number].next, Over):
                verdict, _, by = end.value.partition(" ")
                if verdict in ("applied", "duplicate") and by and by not in stored:
                    raise BrokenRuleError(
                        f"{by} was told {verdict!r}, but stored is the answer of {stored or 'nobody'}"
                    )
        told = any(n > 0 and isinstance(self.processes[n].next, Over) for n in others)
        key = disk * 2 + told
        if key not in self._cured:
            self._cured[key] = self._stuck(self.disks[disk], told=told)
        if (stuck := self._cured[key]) is not None:
            raise stuck

    def _stuck(self, disk: Disk, *, told: bool) -> BrokenRuleError | None:
        """What goes wrong when everybody is dead from here on but for the sweeper and who answers; None if nothing."""
        store = disk.filled(self.scenario.table())
        clock = VirtualClock(disk.head.updated_at)
        engine = self.worker.engine(_Calm(clock), store)
        way = ["everybody else is dead from here on"]
        for _ in range(_CURES):
            now = Disk.of(store, self.scenario.topic)
            if now.head.is_terminal and not now.head.outbox:
                broken = [] if now.head.status is RunStatus.CANCELED else list(self._wrong_end(now))
                return BrokenRuleError("; ".join(broken), *way) if broken else None
            if now.head.due is not None:
                clock.wait_until(now.head.due + timedelta(milliseconds=1))
                engine.look(RUN)
                what = "the sweeper sends a worker"
            elif (mute := self._mute(store, told=told)) is None and self.scenario.answer is not None:
                self.scenario.answer(engine)
                what = "somebody answers"
            else:
                return BrokenRuleError(mute or "nobody would ever look at it", *way)
            way.append(f"{what:<45} {self._told_of(clock.now(), Disk.of(store, self.scenario.topic))}")
        return BrokenRuleError("it goes in circles", *way[:6], "...")

    def _mute(self, store: Store, *, told: bool) -> str | None:
        """Why no answer can come; None when one can."""
        loaded = store.load(RUN)
        if loaded is None or not open_waits(fold(loaded[0], loaded[1].values())):
            return "nobody would ever look at it, and nobody can answer"
        if self.scenario.topic is not None and told:
            return "an event was taken in, and its wait never gets it"
        return None


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
