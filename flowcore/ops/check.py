"""Before a deploy: which of the runs under way would the code at hand stop, and why? And after it: which go on?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from flowcore import operating
from flowcore.app import App
from flowcore.errors import ConflictError, NotBlocked, RunNotFound
from flowcore.model import RunStatus
from flowcore.ops.open_runs import OPEN, Obstacle, obstacles, open_runs

SHOWN = 10
"""Runs of which a report in words tells for each reason."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the code at hand would do to the runs under way.

    Example:
        >>> from flowcore.ops import CheckReport
        >>> print(CheckReport(looked_at=2))
        2 open runs, all of them fit
    """

    looked_at: int
    """Open runs."""
    obstacles: tuple[Obstacle, ...] = ()
    """Several of one run are possible."""

    @property
    def stopped(self) -> int:
        """How many runs would stand still."""
        return len({obstacle.run_id for obstacle in self.obstacles})

    @property
    def exit_code(self) -> int:
        """For a script: 0 when every run fits, 1 when a deploy would stop one."""
        return 1 if self.obstacles else 0

    def __str__(self) -> str:
        """In words, the same reason once for all its runs."""
        if not self.obstacles:
            return f"{self.looked_at} open runs, all of them fit"
        lines = [f"{self.looked_at} open runs, {self.stopped} of them would stand still:"]
        for (workflow, kind, detail), count in Counter(map(_reason, self.obstacles)).most_common():
            runs = [each.run_id for each in self.obstacles if _reason(each) == (workflow, kind, detail)]
            more = f" and {count - SHOWN} more" if count > SHOWN else ""
            lines.append(f"- {workflow}, {kind}: {detail}\n  runs {', '.join(runs[:SHOWN])}{more}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class UnblockReport:
    """What became of the runs that stood still.

    Example:
        >>> from flowcore.ops import UnblockReport
        >>> UnblockReport(unblocked=("r-1",)).exit_code
        0
    """

    unblocked: tuple[str, ...] = ()
    """Runs that go on."""
    obstacles: tuple[Obstacle, ...] = ()
    """Of the runs that still stand still."""

    @property
    def exit_code(self) -> int:
        """For a script: 0 when no run stands still any more."""
        return 1 if self.obstacles else 0


def check(app: App, *, workflow: str | None = None) -> CheckReport:
    """Whether the code at hand could go on with every open run of an App's tenant. Changes nothing.

    Run it with tomorrow's code on today's table before a deploy: every step that a run has met must be there, or be
    said to be renamed or removed, and what is stored must fit its type, or have a migration. Reads each open run once,
    about a read unit a run, and as much for each child of an open distributed foreach; migrations are called.

    Example:
        >>> from flowcore import App, step, workflow
        >>> from flowcore.ops import check
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> check(App(workflow("twice", input=int, output=int).then(double).commit())).exit_code
        0
    """
    looked_at, found = 0, list[Obstacle]()
    for run in open_runs(app, workflow):
        looked_at += not run.snapshot.head.is_terminal
        found += obstacles(run)
    return CheckReport(looked_at, tuple(found))


def unblock(app: App, *, workflow: str | None = None) -> UnblockReport:
    """Take up every run that stands still because the code did not fit, and would go on with the code at hand.

    To be called after a deploy that mends it; runs that somebody has paused are left alone. Children of a distributed
    foreach that stand still go on together with their run. Where the App has a queue, workers go on with them, else
    they are driven here, one after the other.
    """
    unblocked, left = list[str](), list[Obstacle]()
    fans_out = any(graph.fans_out for graph in app.engine.graphs.values())
    for run in open_runs(app, workflow, OPEN if fans_out else ("paused",)):
        head = run.snapshot.head
        if head.status is not RunStatus.BLOCKED and not run.has_blocked_children:
            continue
        standing = list(obstacles(run))
        if standing:
            left += standing
            continue
        try:
            operating.unblock(app.engine, head.run, here=app.queue is None)
        except (NotBlocked, RunNotFound, ConflictError):
            continue  # somebody else has seen to it meanwhile
        unblocked.append(head.run.id)
    return UnblockReport(tuple(unblocked), tuple(left))


def _reason(obstacle: Obstacle) -> tuple[str, str, str]:
    return obstacle.workflow_id, obstacle.kind, obstacle.detail
