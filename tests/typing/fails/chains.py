"""Chains that do not fit: each marked line is an error in both checkers."""

from datetime import timedelta

from pydantic import BaseModel

from flowcore import App, Start, otherwise, step, workflow


class Both(BaseModel):
    """What two steps come to."""

    double: int
    shout: str


@step
def double(number: int) -> int:
    """A number to a number."""
    return 2 * number


@step
def shout(number: int) -> str:
    """A number to a text."""
    return f"{number}!"


@step
async def later(number: int) -> str:
    """A number to a text, as a coroutine."""
    return str(number)


@step
def length(text: str) -> int:
    """A text to a number."""
    return len(text)


from_int = workflow("from-int", input=int, output=str)
from_list = workflow("from-list", input=list[int], output=str)

from_int.then(length)  # error
from_int.then(later).then(double)  # error
from_int.then(double).commit()  # error
from_int.then(later).then(shout)  # error
from_int.foreach(double)  # error
from_list.foreach(length)  # error
from_list.foreach(double).commit()  # error
from_list.foreach(shout, tolerated_failures=1).commit()  # error
workflow("some", input=list[int], output=list[str]).foreach(shout, min_successful=1).commit()  # error
from_list.foreach(shout, distributed=True, shard=0.5)  # error
from_list.foreach(shout, distributed=100)  # error
from_int.foreach(double, distributed=True)  # error
from_int.parallel(double, length)  # error
from_int.parallel(double, shout, into=Both).then(double)  # error
from_int.parallel(double, shout, into=Both).commit()  # error
from_int.branch((lambda number: number > 1, length), (otherwise, double))  # error
from_int.branch((lambda number: number.nothing, double))  # error: pyright
from_int.branch((lambda number: number > 1, double), into=Both).then(length)  # error
from_int.dowhile(length, lambda number: True)  # error
from_int.dountil(shout, lambda text: text.nothing)  # error: pyright
from_int.map(lambda number: number * 2).then(length)  # error
from_int.map(lambda number: number.nothing)  # error
from_int.map(lambda number: number * 2).commit()  # error
from_int.sleep(3)  # error
from_int.sleep(lambda number: number)  # error: pyright
from_int.sleep_until("tomorrow")  # error
from_int.wait_for_event("paid", key=3)  # error
from_int.wait_for_event("paid", key="k", model=str).then(double)  # error
from_int.wait_for_event("paid", key="k", timeout=3)  # error
from_int.wait_for_event("paid", key="k", model=str, timeout=timedelta(1), on_timeout=double).then(length)  # error
from_int.wait_for_event("paid", key="k", model=str, timeout=timedelta(1), on_timeout=None).then(length)  # error
from_int.wait_for_event("paid", key="k", model=int).commit()  # error

text_flow = from_int.then(shout).commit()
from_int.then(text_flow).then(double)  # error
workflow("from-text", input=str, output=str).then(text_flow)  # error

app = App(text_flow)
app.workflow(text_flow).create_run().start("wrong")  # error
number: int | None = app.workflow(text_flow).create_run().start(1).output  # error

Start(workflow("shouted", input=int, output=str).then(shout).commit(), "not a number")  # error
