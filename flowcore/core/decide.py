"""What comes next in a run: a walk over the tree that derives the position from the records.

``decide(graph, snapshot, now)`` is a pure function. It is the only place that knows what a node kind means; it never
calls what the author wrote, but asks for it with an action, and finds the answer as a record on the next walk.

The walk would pass every finished node again at each call. ``Passed`` remembers finished prefixes, so that the price of
the next step does not grow with the steps done. It is a memo, not truth: records only ever gain outcomes, so a finished
prefix stays finished; with an empty ``Passed`` the decision is the same, as long as nothing is under way that has left
no record yet (a property test holds this).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, assert_never

from flowcore.authoring.graph import (
    Body,
    BranchNode,
    EventNode,
    ForeachNode,
    Graph,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
    StepNode,
    stand_in,
)
from flowcore.core.actions import (
    HELD,
    LIVE,
    Action,
    Advance,
    Broken,
    Decision,
    Done,
    Doubt,
    Ended,
    Enter,
    Evaluate,
    Finish,
    Gather,
    GiveUp,
    Held,
    Leave,
    Live,
    Park,
    Place,
    Result,
    Run,
    RunStep,
    TimeOut,
)
from flowcore.core.fan import decider, is_held, missing, shard_of, tolerated
from flowcore.errors import InvariantError
from flowcore.keys import ROOT, Scope, StepKey, inside, is_beat, item_of, items_around, turn_of
from flowcore.model import Fan, Json, Lapse, Outcome, Part, RunStatus, Snapshot, StepRecord, wait_id
from flowcore.pmap import PMap

MOST_CLAIMS = 5
"""Claims in a row without a clean release and without any progress, before a step is held to kill its workers."""

MOST_AT_ONCE = 1_000
"""Items of one foreach with something to do at the same time, however many may be open: one worker has enough in it."""


@dataclass(frozen=True, slots=True)
class _Rest:
    """An item in which there is nothing to do before ``until``, unless one of its records changes."""

    result: Live | Held
    until: datetime | None


@dataclass(slots=True)
class _Items:
    """How far a foreach has come: the next fresh item, the open ones, the outputs of the finished ones.

    An open item is visited again only if something about it may have changed, so that a step's price does not grow
    with the items that wait beside it.
    """

    next: int = 0
    awake: set[int] = field(default_factory=set)
    """To be visited: time alone changes them, or one of their records has changed."""
    busy: dict[int, tuple[Action, ...]] = field(default_factory=dict)
    """Those that ask for the same actions until one of their records changes."""
    resting: dict[int, _Rest] = field(default_factory=dict)
    alarms: list[tuple[datetime, int]] = field(default_factory=list)
    """A heap of when resting items are to be visited; may hold some that no longer rest."""
    live: int = 0
    """Resting items that will move by themselves."""
    outputs: dict[int, Json] = field(default_factory=dict)
    stops: dict[int, Ended | Broken] = field(default_factory=dict)

    @property
    def moving(self) -> int:
        """Items with something to do."""
        return len(self.awake) + len(self.busy)

    @property
    def open(self) -> int:
        """Items that take a slot."""
        return self.moving + len(self.resting)

    def keep(
        self,
        index: int,
        result: Live | Held,
        asked: tuple[Action, ...],
        until: datetime | None,
        retry: datetime | None,
    ) -> None:
        """Remember what a visit has found: when, and after which change, another one is worth while."""
        if retry is not None or (asked and until is not None):
            self.awake.add(index)
        elif asked:
            self.busy[index] = asked
        else:
            self.resting[index] = _Rest(result, until)
            self.live += isinstance(result, Live)
            if until is not None:
                heapq.heappush(self.alarms, (until, index))

    def rouse(self, index: int) -> None:
        """Visit this item again, if it is open."""
        rest = self.resting.pop(index, None)
        if rest is not None:
            self.live -= isinstance(rest.result, Live)
        if rest is not None or self.busy.pop(index, None) is not None:
            self.awake.add(index)

    def rouse_all(self) -> None:
        """Visit every open item again."""
        for index in (*self.busy, *self.resting):
            self.rouse(index)

    def alarm(self, now: datetime) -> datetime | None:
        """When the next resting item has to be visited; those whose time has come are roused."""
        while self.alarms:
            until, index = self.alarms[0]
            rest = self.resting.get(index)
            if rest is not None and rest.until == until:
                if until > now:
                    return until
                self.rouse(index)
            heapq.heappop(self.alarms)
        return None

    def is_stopped(self, tolerated: float) -> bool:
        """Whether no other item is begun: one has bailed, or more have failed than are tolerated."""
        return len(self.stops) > tolerated or any(isinstance(stop, Ended) for stop in self.stops.values())

    def told(self, tolerated: float) -> Ended | Broken:
        """How the foreach ends, once it is stopped: as it would have, item by item.

        Items are begun in order, so whatever ran side by side, every item up to the one that decides is among them:
        the first that bailed, unless one too many has failed in front of it. A failure is told as the first one.
        """
        stops = [self.stops[index] for index in sorted(self.stops)]
        failed = next((count for count, stop in enumerate(stops) if isinstance(stop, Ended)), len(stops))
        return stops[0] if failed > tolerated else stops[failed]


class Passed:
    """Finished prefixes of one run's walk, kept between calls of ``decide`` on later snapshots of the same run."""

    __slots__ = ("fans", "items", "prefixes", "seen")

    def __init__(self) -> None:
        self.prefixes: dict[Scope, tuple[int, Json]] = {}
        self.items: dict[StepKey, _Items] = {}
        self.seen: PMap[StepKey, StepRecord] | None = None
        self.fans: Mapping[StepKey, Fan] = {}

    def catch_up(self, records: PMap[StepKey, StepRecord], fans: Mapping[StepKey, Fan]) -> None:
        """Have every foreach item visited in which something is not as in the walk before."""
        for key in [key for key in {**self.fans, **fans} if fans.get(key) is not self.fans.get(key)]:
            self._rouse(key)
        self.fans = fans
        changed = [] if self.seen is None else records.changed_since(self.seen)
        self.seen = records
        if changed is None:  # loaded anew: whoever has answered meanwhile may have changed any of them
            for items in self.items.values():
                items.rouse_all()
            return
        for key in changed:
            self._rouse(key)

    def _rouse(self, key: StepKey) -> None:
        for foreach, index in items_around(key):
            if foreach in self.items:
                self.items[foreach].rouse(index)


_Asked: TypeAlias = tuple[list[Action], datetime | None, datetime | None, bool]


def decide(graph: Graph, snapshot: Snapshot, now: datetime, passed: Passed | None = None) -> Decision:
    """What to do next with a run that this worker holds.

    Args:
        snapshot: a child's with the records of the run it is a part of; then its share of that run's work is decided
            on. Nobody wants its work any more: ``Finish(Ended)``.
        now: the run's own clock, at least ``snapshot.head.updated_at``; decides which sleeps are over.
        passed: the memo of earlier calls for the same run, extended in place.
    """
    passed = passed or Passed()
    passed.catch_up(snapshot.records, snapshot.fans)
    walk = _Walk(snapshot, now, passed)
    head, began_with = snapshot.head, snapshot.root.input
    result = walk.sequence(graph, ROOT, began_with, began_with)
    if head.part is not None:
        if walk.share is None:
            return Finish(Ended(None))
        result = walk.share
        walk.actions, walk.wake, walk.retry, walk.joins = walk.own
    match result:
        case Done() | Broken():
            return Finish(result)
        case Ended(value):
            return Finish(Done(value))
        case Live() | Held() if walk.actions:
            deaths = _deaths(snapshot)
            if deaths is not None:
                return Run((GiveUp(walk.actions[0].place, deaths),), None)
            return Run(tuple(walk.actions), walk.retry)
        case Live() if walk.joins:
            return Park(RunStatus.JOINING, walk.wake, walk.retry)
        case Live():
            if walk.wake is None:
                raise InvariantError(f"run {head.run.id!r} at version {head.version} is live, but nothing in it moves")
            return Park(RunStatus.WAITING, walk.wake, walk.retry)
        case Held():
            return Park(RunStatus.SUSPENDED, walk.wake, None)
        case _:
            assert_never(result)


class _Walk:
    """One pass over the tree: collects what is ready and when the next pause ends."""

    __slots__ = (
        *("actions", "epoch", "fans", "incarnation", "is_around", "joins", "now", "own", "part", "passed", "records"),
        *("retry", "share", "wake"),
    )

    def __init__(self, snapshot: Snapshot, now: datetime, passed: Passed) -> None:
        self.records = snapshot.records
        self.incarnation = snapshot.head.incarnation
        self.epoch = snapshot.head.epoch
        self.now = now
        self.passed = passed
        self.actions: list[Action] = []
        self.wake: datetime | None = None
        self.retry: datetime | None = None
        self.joins = False
        """Whether children of this run are at work."""
        self.fans = snapshot.fans
        self.part = snapshot.head.part
        self.is_around = self.part is not None
        """Whether what is visited lies around a child's share: the run it is a part of has seen to it."""
        self.share: Result | None = None
        """Of a child: what its items have come to."""
        self.own: _Asked = ([], None, None, False)

    def sequence(self, graph: Graph, home: Scope, value: Json, init: Json) -> Result:
        """The nodes of one workflow, one after the other, each with what the one before gave."""
        done, value = self.passed.prefixes.get(home, (0, value))
        for position in range(done, len(graph.nodes)):
            node = graph.nodes[position]
            if self._is_long_passed(graph.nodes[position : position + 2], home):
                continue
            place = Place(key=inside(home, node.id), node=node, graph=graph, home=home, init=init)
            result = self.visit(place, value)
            if not isinstance(result, Done):
                return result
            value = result.value
            self.passed.prefixes[home] = (position + 1, value)
        return Done(value)

    def _is_long_passed(self, nodes: Sequence[Node], home: Scope) -> bool:
        """Whether a node's output went into the next one, which has an output of its own: nobody looks at it again.

        So an output that lies elsewhere is not fetched for a run that is further on.
        """
        return len(nodes) == 2 and all(
            isinstance(node, (StepNode, MapNode, NestedNode, LoopNode, ForeachNode))
            and (record := self.records.get(inside(home, node.id))) is not None
            and record.outcome is Outcome.OK
            for node in nodes
        )

    def visit(self, place: Place, value: Json) -> Result:
        """One node, wherever it stands."""
        node = place.node
        match node:
            case StepNode():
                return self._step(self._acting(place, node), value)
            case MapNode():
                return self._evaluated(place, value)
            case SleepNode():
                return self._sleep(place, value)
            case EventNode():
                return self._event(place, node, value)
            case ParallelNode():
                return self._arms(place, node.arms, value)
            case BranchNode():
                return self._branch(place, node, value)
            case NestedNode():
                return self._nested(place, node, value)
            case LoopNode():
                return self._loop(place, node, value)
            case ForeachNode():
                return self._foreach(place, node, value)
            case _:
                assert_never(node)

    def _step(self, place: Place, value: Json) -> Result:
        record = self.records.get(place.key)
        if record is None:
            return self._ask(RunStep(place, value, None))
        match record.outcome:
            case Outcome.RESU:
                return self._ask(RunStep(place, _input(record, value), record))
            case Outcome.RETRY:
                if self._is_over(record.until):
                    return self._ask(RunStep(place, _input(record, value), record))
                self.retry = _earlier(self.retry, record.until)
                return LIVE
            case Outcome.SUSP:
                return self._held(place, record, None if record.terms is None else record.terms.lapse)
            case Outcome.START if record.epoch < self.epoch:
                return self._ask(Doubt(place))
            case Outcome.START:
                return self._ask(RunStep(place, _input(record, value), record))
            case _:
                return _settled(record, value)

    def _acting(self, place: Place, node: StepNode | EventNode) -> Place:
        """The place with the stand-in that runs there by now, if one does."""
        record = self.records.get(place.key)
        if record is None or record.instead is None:
            return place
        acting = stand_in(node, record.instead[0])
        if acting is None:
            raise InvariantError(f"nothing named {record.instead[0]!r} can stand in at {place.key!r}")
        return _at(place, place.key, acting)

    def _held(self, place: Place, record: StepRecord, lapse: Lapse | None) -> Result:
        if record.until is None or not self._is_over(record.until):
            return HELD
        before = "" if record.instead is None else f"{record.instead[0]}:"
        instead = None if lapse is None or lapse.step is None else before + lapse.step
        return self._ask(TimeOut(place, wait_id(record, self.incarnation), lapse, instead))

    def _evaluated(self, place: Place, value: Json) -> Result:
        record = self.records.get(place.key)
        return self._ask(Evaluate(place, value)) if record is None else _settled(record, value)

    def _branch(self, place: Place, node: BranchNode, value: Json) -> Result:
        chosen = self._evaluated(place, value)
        if not isinstance(chosen, Done) or self.records[place.key].outcome is Outcome.SKIP:
            return chosen
        return self._arms(place, [arm for arm in node.nodes if arm.id in chosen.value], value)

    def _sleep(self, place: Place, value: Json) -> Result:
        record = self.records.get(place.key)
        if record is None:
            return self._ask(Evaluate(place, value))
        if record.outcome is Outcome.SLP:
            # By a clock that is behind, a sleep in front of a child's share is not over: who began it knows better.
            return Done(value) if self.is_around or self._is_over(record.until) else LIVE
        return _settled(record, value)

    def _event(self, place: Place, node: EventNode, value: Json) -> Result:
        record = self.records.get(place.key)
        if record is None:
            return self._ask(Evaluate(place, value))
        if record.instead is not None:
            return self._step(self._acting(place, node), value)
        return self._held(place, record, node.lapse) if record.outcome is Outcome.SUSP else _settled(record, value)

    def _arms(self, place: Place, arms: Iterable[Node], value: Json) -> Result:
        """Arms share the scope of their container. Failed beats suspended, once nothing moves by itself any more."""
        outputs: dict[str, Json] = {}
        names = place.node.names if isinstance(place.node, (ParallelNode, BranchNode)) else {}
        broken: Broken | None = None
        live = held = False
        for arm in arms:
            match result := self.visit(_at(place, inside(place.home, arm.id), arm), value):
                case Done() | Ended():
                    outputs[names.get(arm.id, arm.id)] = result.value
                case Broken():
                    broken = broken or result
                case Live():
                    live = True
                case Held():
                    held = True
                case _:
                    assert_never(result)
        if live:
            return LIVE
        return broken or (HELD if held else Done(outputs))

    def _nested(self, place: Place, node: NestedNode, value: Json) -> Result:
        record = self.records.get(place.key)
        if record is None:
            return self._ask(Enter(place, value))
        if record.outcome is not Outcome.START:
            return _settled(record, value)
        result = self.sequence(node.graph, Scope(place.key), record.output, record.output)
        return result if isinstance(result, (Live, Held)) else self._ask(Leave(place, result, Scope(place.key)))

    def _loop(self, place: Place, node: LoopNode, value: Json) -> Result:
        slot = self.records.get(place.key)
        if slot is None:
            return self._ask(Enter(place, value))
        if slot.outcome is not Outcome.START:
            return _settled(slot, value)
        turn = slot.count or 1
        self.passed.prefixes.pop(Scope(turn_of(place.key, turn - 1)), None)
        match result := self._body(place, node.body, turn_of(place.key, turn), slot.output):
            case Done(output):
                return self._ask(Advance(place, output, turn))
            case Ended() | Broken():
                return self._ask(Leave(place, result, Scope(turn_of(place.key, turn))))
            case _:
                return result

    def _foreach(self, place: Place, node: ForeachNode, value: Json) -> Result:
        """At most ``count`` items open. An item that is suspended or asleep keeps its slot, the others go on.

        Once an item has bailed, or more have failed than are tolerated, no other is begun; those begun before still
        come to their end. How the foreach ends does not depend on which of them was the fastest.
        """
        record = self.records.get(place.key)
        if record is None:
            return self._ask(Enter(place, value))
        if record.outcome is not Outcome.START:
            return _settled(record, value)
        if shard_of(record) is not None:
            return self._fan(place, node, value)
        items = self.passed.items.setdefault(place.key, _Items())
        self.wake = _earlier(self.wake, items.alarm(self.now))
        for index in sorted((*items.awake, *items.busy)):
            if index in items.busy:
                self.actions += items.busy[index]
            else:
                self._item(place, node, items, index, value)
        slots = record.count or 1
        may_fail = tolerated(node, len(value))
        while not items.is_stopped(may_fail) and items.next < len(value) and items.open < slots:
            if items.moving >= MOST_AT_ONCE and not self.is_around:  # a child's share may lie behind so many
                break
            items.next += 1
            self._item(place, node, items, items.next - 1, value)
        if items.is_stopped(may_fail):
            self._begun(place, node, items, value)
        if items.moving or items.live:
            return LIVE
        if items.is_stopped(may_fail):
            return self._ask(Leave(place, items.told(may_fail), Scope(place.key)))
        if items.resting:
            return HELD
        done = Done([items.outputs.get(index) for index in range(len(value))])
        return self._ask(Leave(place, done, Scope(place.key)))

    def _fan(self, place: Place, node: ForeachNode, value: Sequence[Json]) -> Result:
        """A foreach whose items other runs see to. It ends as one in this run would, item by item.

        What lies behind the item that decides how it ends is not waited for.
        """
        if self.part is not None:
            if self.part.key == place.key:
                return self._share(place, node, self.part, value)
            for index in (index for key, index in items_around(self.part.key) if key == place.key):
                self._body(place, node.body, item_of(place.key, index), value[index])
                return LIVE  # the share lies in there; the item itself is another's
        fan = self.fans.get(place.key)
        if fan is None:
            return self._ask(Gather(place, value))
        last = decider(fan, tolerated(node, fan.total))
        if awaited := missing(fan, last):
            self.wake = _earlier(self.wake, fan.wake)
            if is_held(fan, awaited):
                return HELD
            self.joins = True
            return LIVE
        told = range(fan.total) if last is None else (last if last in fan.bailed else min(fan.failed),)
        if any(item_of(place.key, index) not in self.records for index in told):
            return self._ask(Gather(place, value))  # read before the last of them was done
        if last is None:
            outputs = [self.records[item_of(place.key, index)].output for index in range(fan.total)]
            return self._ask(Leave(place, Done(outputs), Scope(place.key)))
        item = self.records[item_of(place.key, told[0])]
        result = _settled(item, None)
        if isinstance(result, Done):
            raise InvariantError(f"a foreach cannot end with {item.key!r}, which is {item.outcome.value!r}")
        return self._ask(Leave(place, result, Scope(place.key)))

    def _share(self, place: Place, node: ForeachNode, part: Part, value: Sequence[Json]) -> Result:
        """A child's items, all at once; each comes to its own end."""
        asked, wake, retry = self.actions, self.wake, self.retry
        self.actions, self.wake, self.retry, self.joins, self.is_around = [], None, None, False, False
        items = self.passed.items.setdefault(place.key, _Items(next=part.first))
        self.wake = items.alarm(self.now)
        for index in sorted((*items.awake, *items.busy)):
            if index in items.busy:
                self.actions += items.busy[index]
            else:
                self._item(place, node, items, index, value)
        while items.next < part.stop and items.moving < MOST_AT_ONCE:
            items.next += 1
            self._item(place, node, items, items.next - 1, value)
        is_live = items.moving or items.live or items.next < part.stop
        self.share = LIVE if is_live else HELD if items.resting else Done(None)
        self.own = (self.actions, self.wake, self.retry, self.joins)
        self.actions, self.wake, self.retry = asked, wake, retry
        self.joins = self.is_around = True
        return LIVE

    def _begun(self, place: Place, node: ForeachNode, items: _Items, value: Sequence[Json]) -> None:
        """Visit what was begun behind the item that stopped the foreach, before it did; such items have records."""
        following, items.next = range(items.next, len(value)), len(value)
        for index in following:
            if item_of(place.key, index) in self.records:
                self._item(place, node, items, index, value)

    def _item(self, place: Place, node: ForeachNode, items: _Items, index: int, value: Sequence[Json]) -> None:
        asked, wake, retry, joins = len(self.actions), self.wake, self.retry, self.joins
        self.wake = self.retry = None
        self.joins = False
        result = self._body(place, node.body, item_of(place.key, index), value[index])
        items.awake.discard(index)
        match result:
            case Done():
                items.outputs[index] = result.value
            case Ended() | Broken():
                items.stops[index] = result
            case Live() if self.joins:
                items.awake.add(index)  # no record of this run tells when its children are done
            case Live() | Held():
                items.keep(index, result, tuple(self.actions[asked:]), self.wake, self.retry)
            case _:
                assert_never(result)
        self.joins = self.joins or joins
        self.wake, self.retry = _earlier(self.wake, wake), _earlier(self.retry, retry)

    def _body(self, place: Place, body: Body, key: StepKey, value: Json) -> Result:
        return self.visit(_at(place, key, body), value)

    def _ask(self, action: Action) -> Live:
        self.actions.append(action)
        return LIVE

    def _is_over(self, until: datetime | None) -> bool:
        """Whether a pause has ended; if not, the walk remembers the earliest end."""
        if until is None or until <= self.now:
            return True
        self.wake = _earlier(self.wake, until)
        return False


def _at(place: Place, key: StepKey, node: Node) -> Place:
    """Another node in the same workflow. Not ``replace``: a foreach makes one for each open item in every turn."""
    return Place(key=key, node=node, graph=place.graph, home=place.home, init=place.init)


def _input(record: StepRecord, value: Json) -> Json:
    """What the step begins with: the value in front of it, unless time travel gave it another."""
    return record.given[0] if record.given else value


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _settled(record: StepRecord, value: Json) -> Done | Ended | Broken:
    match record.outcome:
        case Outcome.OK:
            return Done(record.output)
        case Outcome.SKIP:
            return Done(value)
        case Outcome.BAIL:
            return Ended(record.output)
        case Outcome.ERR if record.failure is not None:
            return Broken(record.failure)
        case _:
            raise InvariantError(
                f"record {record.key!r} with outcome {record.outcome.value!r} has no meaning where it stands"
            )


def _deaths(snapshot: Snapshot) -> int | None:
    """How many workers have died here, if the last claims all ended without a clean release and a single record."""
    head = snapshot.head
    if head.attempts <= MOST_CLAIMS:
        return None
    records = (record for record in snapshot.records.values() if not is_beat(record.key))
    progress = max((record.epoch for record in records), default=0)
    # This claim is not one of them; the one that has made the last record is.
    return min(head.attempts - 1, head.epoch - progress) if head.epoch - progress > MOST_CLAIMS else None
