"""A step that is too slow for its worker as often as its input says, as a deployment serves it."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from flowcore import App, StepContext, step, workflow
from flowcore.pace import Pace
from infra.local.soak_flows import BOOK, enter


@step
def crawl(slow_tries: int, ctx: StepContext[None, None]) -> int:
    """How many tries it took: what has begun stands in the book, whatever became of it."""
    enter(ctx)
    tries = Path(os.environ[BOOK]).read_text("utf-8").count(f"{ctx.idempotency_key} ")
    if tries <= slow_tries:
        time.sleep(60)
    return tries


app = App(
    workflow("crawl", input=int, output=int).then(crawl).commit(),
    pace=Pace(margin=timedelta(milliseconds=100)),  # else nothing would begin in so short a life
)
