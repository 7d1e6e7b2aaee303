"""Migrations that give something else: each marked line is an error in both checkers."""

from pydantic import BaseModel

from flowcore import migrate, step


class New(BaseModel):
    """After the deploy."""

    cents: int


@step
def price(article: str) -> New:
    """Gives the new form."""
    return New(cents=len(article))


@migrate(price, "output")  # error
def to_text(old: float) -> str:
    """Not what the step gives."""
    return str(old)


migrate(price, "exit")  # error
