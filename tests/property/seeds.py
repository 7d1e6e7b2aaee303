"""Many storms: which seeds of a range go wrong on which store, and the file of those that once did."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.roomy import RoomyStore
from flowcore.authoring.graph import Durability
from flowcore.ports import Store
from flowcore.testing import SeededIds
from flowcore.testing.generate import GENERATOR
from flowcore.testing.search import quiet
from tests.property.storm import verdict

KEPT = Path(__file__).with_name("seeds.txt")
StoreName: TypeAlias = Literal["memory", "roomy", "moto"]
"""``roomy``: in memory, with every value in a blob store."""


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """One line of the file: a seed that failed, under the generator of its day, on a store."""

    generator: int
    store: StoreName
    seed: int


def kept_seeds() -> list[int]:
    """The seeds that failed at some time, on whichever store, and still mean what they meant then."""
    return sorted({kept.seed for kept in _kept() if kept.generator == GENERATOR})


def bad_ones(
    seeds: Iterable[int], store: StoreName = "memory", durability: Durability = "step"
) -> dict[int, list[str]]:
    """What went wrong, by seed; seeds that fail are kept for good."""
    with _on(store) as stores, quiet():
        bad = {seed: wrong for seed in seeds if (wrong := wrong_with(seed, next(stores), durability))}
    if fresh := {Kept(GENERATOR, store, seed) for seed in bad} - _kept():
        with KEPT.open("a", encoding="utf-8") as file:
            file.writelines(f"{kept.generator} {kept.store} {kept.seed}\n" for kept in sorted(fresh))
    return bad


def wrong_with(seed: int, store: Store | None, durability: Durability = "step") -> list[str]:
    """What went wrong with one seed over an empty store; None is memory."""
    try:
        return verdict(seed, store, durability)
    except Exception as error:  # noqa: BLE001  # whatever happens is a finding about this seed
        return [f"{type(error).__name__}: {error}"]


def _kept() -> set[Kept]:
    lines = [line.split() for line in KEPT.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    names = {name: name for name in get_args(StoreName)}
    return {Kept(int(generator), names[store], int(seed)) for generator, store, seed in lines}


@contextmanager
def _on(store: StoreName) -> Iterator[Iterator[Store | None]]:
    """An empty store for each seed; None is memory, which needs no preparation."""
    if store == "memory":
        yield iter(lambda: None, object())
        return
    if store == "roomy":
        yield iter(lambda: RoomyStore(MemoryStore(), MemoryBlobs(), SeededIds(), inline=0), object())
        return
    from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto  # noqa: PLC0415  # takes a second

    def stores() -> Generator[Store, None, None]:
        while True:
            with fresh_table(client) as table:
                yield DynamoStore(client, table, SeededIds(), pause=lambda _: None)

    with locked_moto(), closing(stores()) as made:
        client = StrictClient(dynamo_client(region=REGION))
        yield made
