"""What kills each mutant: a few schedules of a canonical workflow. Run as a program, in a process of its own.

``python -m tests.mutants.killers`` plays all of them against the flowcore that is imported; with names, only those. A
line for each says whether it was killed, and by what.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowcore import StepContext, Workflow, otherwise, step, workflow
from flowcore.testing import Diverged, explore
from flowcore.testing.explore import Exploration
from tests.canonical import CANONICAL

ASKED: Counter[str] = Counter()


@step
def first(number: int, ctx: StepContext) -> int:
    """The arm that is chosen when the condition is asked for the first time."""
    ASKED["first"] += 1
    return number


@step
def second(number: int, ctx: StepContext) -> int:
    """The arm that is chosen when it is asked again."""
    ASKED["second"] += 1
    return number


def is_asked_first(number: int) -> bool:
    """A condition that looks at the world and not at the value."""
    ASKED["condition"] += 1
    return ASKED["condition"] == 1


COIN = workflow("coin", input=int).branch((is_asked_first, first), (otherwise, second)).map(len).commit()


def one_arm(flow: Workflow[int, Any]) -> Exploration:
    """However often the condition is asked, only one arm may run."""
    return explore(
        flow,
        1,
        before=ASKED.clear,
        outcome=lambda _: len([arm for arm in ("first", "second") if ASKED[arm]]),
        blows=["dies-before", "dies-after"],
    )


KILLERS: Mapping[str, Sequence[Callable[[], object]]] = {
    "release-checks-only-the-epoch": [lambda: CANONICAL["parallel with one suspended"].explored(blows=["answered"])],
    "last-writer-wins-on-a-step": [lambda: CANONICAL["chain"].explored(blows=["taken-over"])],
    "decisions-not-journaled": [
        lambda: one_arm(COIN),
        lambda: one_arm(workflow("outer", input=int).then(COIN).commit()),
    ],
    "resume-does-not-touch-head": [lambda: CANONICAL["suspend and resume"].explored(blows=[])],
    "resume-as-two-writes": [lambda: CANONICAL["suspend and resume"].explored(blows=["dies-after"])],
    "no-due-on-a-sleep": [lambda: CANONICAL["sleeps"].explored(blows=["hint-lost"])],
    "no-fence": [lambda: CANONICAL["chain"].explored(blows=["taken-over"])],
    "steps-read-before-head": [lambda: CANONICAL["parallel with one suspended"].explored(blows=["answered"])],
    "join-by-counter": [lambda: CANONICAL["distributed foreach"].explored(blows=["dies-before", "dies-after"])],
}
"""By mutant: what must find it, each of them. The names are those of the patches beside this file."""


def main() -> int:
    """How many were killed, by each that must."""
    logging.disable(logging.CRITICAL)
    return sum([_kills(name, killer) for name in sys.argv[1:] or KILLERS for killer in KILLERS[name]])


def _kills(name: str, killer: Callable[[], object]) -> bool:
    try:
        killer()
    except Diverged as found:
        print(f"{name}: killed by", " | ".join(difference[:300] for difference in found.differences))
        return True
    print(f"{name}: survived")
    return False


if __name__ == "__main__":
    sys.exit(main())
