"""The long proof: ``make prove``. Tells how many random runs agreed with the oracle, and every seed that did not.

A seed that disagrees is added to ``seeds.txt`` and makes the command fail. Half a million seeds take some core-hours:
``--first`` goes on where another day has ended, and ``rows.py`` adds the pieces up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.property.rows import told
from tests.property.seeds import StoreName, bad_ones

CHUNKS: dict[StoreName, int] = {"memory": 200, "moto": 10}
"""Seeds in one piece of work: a few seconds' worth."""


def main() -> int:
    """Run the storms; 1 if any seed disagreed."""
    parser = argparse.ArgumentParser(prog="python -m tests.property.prove", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500_000, help="storms over the store in memory")
    parser.add_argument("--moto", type=int, default=500, help="storms over DynamoDB as moto plays it")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=None, help="processes; one per core when left out")
    asked = parser.parse_args()
    wanted: dict[StoreName, int] = {"moto": asked.moto, "memory": asked.seeds}
    with ProcessPoolExecutor(asked.jobs) as pool:
        return max(_proved(pool, store, asked.first, count) for store, count in wanted.items())


def _proved(pool: ProcessPoolExecutor, store: StoreName, first: int, count: int) -> int:
    began, bad, done = time.monotonic(), dict[int, list[str]](), 0
    work = {pool.submit(bad_ones, seeds, store): len(seeds) for seeds in _pieces(first, count, CHUNKS[store])}
    for finished in as_completed(work):
        done += work[finished]
        for seed, wrong in finished.result().items():
            bad[seed] = wrong
            print(f"\nseed {seed} on {store}:", *wrong[:5], sep="\n  ", flush=True)
        print(f"\r{store}: {done} of {count} seeds, {len(bad)} bad", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    row = "storms" if store == "memory" else "storms-moto"
    told(row, count, len(bad), time.monotonic() - began, seed=f"{first}-{first + count - 1}")
    if bad:
        print("bad seeds:", *sorted(bad))
    return int(bool(bad))


def _pieces(first: int, count: int, size: int) -> Iterator[range]:
    for begin in range(first, first + count, size):
        yield range(begin, min(begin + size, first + count))


if __name__ == "__main__":
    sys.exit(main())
