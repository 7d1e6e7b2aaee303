"""What is wrong with the open runs: a pure judgement of each, and a thin loop around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowcore.app import App
from flowcore.core.evolve import fold
from flowcore.core.health import Finding, findings
from flowcore.keys import RunRef
from flowcore.model import PublicStatus

OPEN: Sequence[PublicStatus] = ("pending", "running", "waiting", "suspended", "paused")
"""Statuses of runs that may still change."""
_AT_ONCE = 100


def doctor(app: App, *, workflow: str | None = None) -> Iterator[Finding]:
    """What is wrong with the open runs of an App's tenant, judged by the code it serves. Changes nothing.

    Run it with the new code before a deploy, and it names the waiting runs that the deploy would stop. Reads each open
    run once, as it goes: about a read unit a run, so a look at the first findings costs little.

    Example:
        >>> from flowcore import App, step, workflow
        >>> from flowcore.ops import doctor
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> list(doctor(App(workflow("twice", input=int, output=int).then(double).commit())))
        []
    """
    cursor: str | None = None
    while True:
        page = app.list_runs(workflow=workflow, status=OPEN, limit=_AT_ONCE, cursor=cursor)
        for summary in page:
            loaded = app.store.load(RunRef(app.tenant, summary.run_id))
            if loaded is not None:
                served = app.workflows.get(loaded[0].workflow)
                snapshot = fold(loaded[0], loaded[1].values())
                yield from findings(None if served is None else served.compiled, snapshot, app.clock.now())
        cursor = page.cursor
        if cursor is None:
            return
