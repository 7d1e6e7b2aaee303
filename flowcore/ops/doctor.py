"""What is wrong with the open runs: a pure judgement of each, and a thin loop around it."""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.app import App
from flowcore.core.fan import fans_of, open_fans
from flowcore.core.health import Finding, findings, findings_of_child
from flowcore.fanout.children import open_children
from flowcore.model import Page
from flowcore.ops.open_runs import OPEN, OpenRun, obstacles, open_page, open_runs
from flowcore.parcels import replace


def doctor(app: App, *, workflow: str | None = None) -> Iterator[Finding]:
    """What is wrong with the open runs of an App's tenant, judged by the code it serves. Changes nothing.

    Run it with the new code before a deploy, and it names the waiting runs that the deploy would stop. Reads each open
    run once, as it goes: about a read unit a run, so a look at the first findings costs little; and twice as much for
    each child of an open distributed foreach, what holds up a child being told of its run.

    Example:
        >>> from flowcore import App, step, workflow
        >>> from flowcore.ops import doctor
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> list(doctor(App(workflow("twice", input=int, output=int).then(double).commit())))
        []
    """
    for run in open_runs(app, workflow):
        yield from _found(app, run)


def doctor_page(app: App, *, workflow: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Finding]:
    """The same for up to ``limit`` runs; a page may be empty, only one without a cursor is the last.

    Raises: MalformedRequest for a cursor of something else.
    """
    page = open_page(app, workflow, OPEN, limit=limit, cursor=cursor)
    return Page([finding for run in page for finding in _found(app, run)], page.cursor)


def _found(app: App, run: OpenRun) -> Iterator[Finding]:
    snapshot, now = run.snapshot, app.clock.now()
    if open_fans(snapshot):
        joins = app.store.joins(snapshot.head.run, snapshot.head.incarnation)
        snapshot = replace(snapshot, fans=fans_of(joins))
        for child in open_children(app.engine, snapshot.head):
            yield from findings_of_child(child, now)
    found = list(findings(run.graph, snapshot, now)) if run.lost is None else []
    yield from found
    told = {finding.ailment for finding in found}
    for obstacle in obstacles(run):
        if obstacle.kind not in told:
            yield Finding(obstacle.run_id, obstacle.workflow_id, obstacle.kind, obstacle.detail)
