"""A module of its own, for what an author may import from one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from nowhere import Nowhere  # type: ignore[import-not-found]  # it is not there when the program runs, either


class Order(BaseModel):
    """Bears a name that other modules use as well."""

    amount: int
    note: str


def takes_its_own_order(order: Order) -> str:
    """Means the class above, whoever makes a step of it."""
    return order.note


def takes_nothing_known(value: Nowhere) -> int:
    """Its annotation cannot be resolved."""
    return int(value)
