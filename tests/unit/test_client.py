"""The client against the real API in this process: every operation, on a thread and on a loop, from one table."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from flowcore import App, Start, StepContext, errors, step, workflow
from flowcore.client import AskedWait, AsyncClient, Client, DeliveryLine, InboxWait, WorkflowInfo, operations
from flowcore.client.clients import Listed, Listing, Operation, Stream
from flowcore.deliveries import Webhook
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    ApiError,
    CannotDelegate,
    FlowcoreError,
    Forbidden,
    IdempotencyKeyReused,
    InvalidPayload,
    MalformedRequest,
    NotActive,
    NotBlocked,
    NotFailed,
    NotSuspended,
    RunExists,
    RunNotFound,
    SettingsError,
    Throttled,
    Unauthenticated,
    Unreachable,
    VersionMismatch,
    WaitExpired,
    WorkflowNotFound,
)
from flowcore.http import problems
from flowcore.http.access import Policy
from flowcore.http.openapi import problem_types
from flowcore.links import Links
from flowcore.testing import LocalApp
from flowcore.testing.served import in_process
from flowcore.webhooks import StandardWebhooks, sign

URL = "https://api.example.com"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
broken: list[bool] = []


class Decision(BaseModel):
    """What is answered."""

    approved: bool
    at: datetime | None = None


@step
def double(number: int) -> int:
    """Twice as much, unless the world is broken."""
    if broken:
        raise ValueError("broken")
    return 2 * number


def tell(wait: Any) -> None:
    """Somebody, elsewhere."""


@step
def approve(number: int, ctx: StepContext[Decision, dict[str, int]]) -> bool:
    """Either of two decides."""
    if ctx.resume_data is None:
        ctx.suspend(
            {"number": number},
            label="boss",
            approvers=["ada", "bob"],
            escalate={1: ["eve"]},
            remind=[timedelta(days=1)],
            notify=tell,
        )
    return ctx.resume_data.approved


@step
def confirm(number: int, ctx: StepContext[bool]) -> bool:
    """Anybody decides."""
    return ctx.suspend(timeout=timedelta(days=3), on_timeout=False) if ctx.resume_data is None else ctx.resume_data


FLOWS = (
    workflow("twice", input=int, output=int, state=dict[str, int]).then(double).then(double, id="again").commit(),
    workflow("approval", input=int, output=bool).then(double).then(approve).commit(),
    workflow("confirmation", input=int, output=bool).then(confirm).commit(),
    workflow("both", input=int, output=dict[str, bool]).parallel(confirm, confirm.clone(id="again")).commit(),
    workflow("later", input=int, output=bool).sleep(timedelta(hours=1)).then(confirm).commit(),
    workflow("nap", input=int, output=int).sleep(timedelta(hours=1)).then(double).commit(),
    workflow("fan", input=list[int], output=list[bool]).foreach(confirm, distributed=True).commit(),
    workflow("order", input=str, output=int).wait_for_event("paid", key=lambda order: order, model=int).commit(),
)
HOOK = Webhook(name="shop", scheme=StandardWebhooks(), secret="env:SHOP", event="paid", key="order", data="amount")


class Desk:
    """An App behind its API, a client of one kind, and what that has sent."""

    def __init__(self, kind: type[Client | AsyncClient], *, tokens: Any = None, auth: Any = None, **more: Any) -> None:
        broken.clear()
        self.links = Links(URL, {"k1": "s" * 32})
        self.app = LocalApp(App(*FLOWS, links=self.links, webhooks=[HOOK]))
        self.sent: list[httpx.Request] = []
        self.got: list[httpx.Response] = []
        self.called: set[str] = set()
        served = in_process(
            self.app,
            links=self.links,
            secrets=lambda _: [SECRET],
            tokens=tokens,
            policy=Policy(mode="jwt") if tokens is not None else None,
        )

        def watched(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            self.got.append(served.handler(request))  # type: ignore[arg-type]  # it is not async
            return self.got[-1]

        transport = httpx.MockTransport(watched)
        if kind is Client:
            self.client: Any = Client(URL, auth, transport=transport, sleep=self._sleep, now=self._now, **more)
        else:
            self.client = AsyncClient(URL, auth, transport=transport, sleep=self._sleep_async, now=self._now, **more)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The operation of that name, done; of a listing and of what is followed, all items."""
        self.called.add(name)
        return lambda *args, **kwargs: self.done(getattr(self.client, name)(*args, **kwargs))

    def done(self, found: Any) -> Any:
        """The value, whichever client it comes from."""
        if inspect.isawaitable(found):
            return asyncio.run(_awaited(found))
        if hasattr(found, "__aiter__"):
            return asyncio.run(_all(found))
        if isinstance(found, (Listed, Iterator)):
            return list(found)
        return found

    def run(self, workflow: str, input: Any, id: str = "r-1", **more: Any) -> Any:
        """A run that the App has started itself."""
        run = self.app.workflow(workflow).create_run(id, **more)
        run.start(input, by="eve")
        return run

    def _now(self) -> float:
        return self.app.clock.now().timestamp()

    def _sleep(self, seconds: float) -> None:
        self.app.advance(timedelta(seconds=seconds))

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)


async def _awaited(found: Any) -> Any:
    return await found


async def _all(found: Any) -> list[Any]:
    return [item async for item in found]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Each client."""
    return request.param


@pytest.fixture
def desk(kind: Any) -> Desk:
    """With an API that asks nobody who he is."""
    return Desk(kind)


# -- every operation --------------------------------------------------------------------------------------------------


def workflows(desk: Desk) -> None:
    """Listed by id, with their schemas."""
    found = desk.workflows()
    assert {flow.id for flow in FLOWS} <= {one.id for one in found}  # and what a distributed foreach serves
    assert desk.workflow("twice") == found[-1]
    assert isinstance(found[0], WorkflowInfo)
    assert ({"type": "integer"}, ["double", "again"]) == (found[-1].input_schema, found[-1].steps)
    with pytest.raises(WorkflowNotFound) as caught:
        desk.workflow("thrice")
    assert "approval" in caught.value.known


def drawings(desk: Desk) -> None:
    """As the App draws them."""
    desk.run("approval", 1)
    flow = desk.app.workflow("approval").workflow
    assert flow.graph(schemas=True) == desk.workflow_graph("approval")
    assert (flow.to_mermaid(), flow.to_svg()) == (
        desk.draw_workflow("approval"),
        desk.draw_workflow("approval", "svg"),
    )
    assert {"double": "success", "approve": "suspended"} == desk.run_graph("r-1")["steps"]
    assert flow.to_mermaid(desk.app.run("r-1").result()) == desk.draw_run("r-1")


def reading(desk: Desk) -> None:
    """A run is the value that the App gives, but for what has to be asked for."""
    run = desk.run("approval", 1, resource_id="c-1", tags=["vip"])
    known = replace(run.result(), waits=[replace(wait, doors=None, born=None) for wait in run.result().waits])
    assert known == desk.get_run("r-1")
    broken.append(True)
    failed = desk.run("twice", 1, "r-2")
    assert failed.result() == desk.get_run("r-2")
    fan = desk.run("fan", [1, 2], "r-3")
    desk.app.run_until_idle()
    assert fan.result() == desk.get_run("r-3")
    assert fan.result(fields=["progress"]) == desk.get_fields("r-3", ["progress"])
    assert 2 == desk.get_run("r-3").progress["confirm"].total
    some = desk.get_fields("r-1", ["waits", "created_at", "state"])
    assert (["waits", "created_at", "state"], known.waits) == (list(some), some.waits)
    assert known.created_at == some.created_at
    with pytest.raises(RunNotFound) as caught:
        desk.get_run("r-9")
    assert ("r-9", (404, "run-not-found")) == (caught.value.run_id, _problem(caught.value))


def finding(desk: Desk) -> None:
    """Every page, as the App lists them."""
    for n in range(5):
        desk.run("twice", n, f"r-{n}", tags=["a", "b"] if n < 3 else [])
    listed = desk.app.list_runs().items
    assert listed == desk.list_runs(limit=2)
    assert 3 == len(desk.sent)
    assert listed[:2] == desk.done(desk.client.list_runs(limit=2).page()).items
    assert 3 == len(desk.list_runs(tag=["a", "b"], status=["success", "failed"], workflow="twice"))
    assert [] == desk.list_runs(since=datetime(2100, 1, 1, tzinfo=UTC))
    assert desk.app.counts() == desk.counts()
    assert 3 == desk.counts(tag="a")["success"]
    assert [] == desk.doctor()


def happening(desk: Desk) -> None:
    """Events are the App's, and so are receipts."""
    run = desk.run("confirmation", 1)
    run.resume(True, by="ada", idempotency_key="k")
    run.resume(True, by="ada", idempotency_key="k")
    assert run.events() == desk.events("r-1")
    assert run.events()[2:] == desk.events("r-1", after=run.events()[1].offset)
    assert run.receipts() == desk.receipts("r-1")


def starting(desk: Desk) -> None:
    """Once, whatever is sent again."""
    first = desk.start("twice", 2, run_id="r-1", state={"a": 1}, tags=["t"], resource_id="c", wait=timedelta(seconds=5))
    assert (8, False, "c", ["t"]) == (first.output, first.replayed, first.resource_id, first.tags)
    assert {"a": 1} == desk.get_run("r-1", include_state=True).state
    assert "wait=5" == desk.sent[0].headers["prefer"]
    again = desk.start("twice", 3, idempotency_key="k", tracing={"trace_id": "a" * 32})
    assert ("a" * 32, again.run_id) == (again.trace_id, desk.start("twice", 3, idempotency_key="k").run_id)
    assert desk.start("twice", 3, idempotency_key="k").replayed
    with pytest.raises(RunExists) as caught:
        desk.start("twice", 9, run_id="r-1")
    assert "r-1" == caught.value.run_id
    with pytest.raises(InvalidPayload) as wrong:
        desk.start("twice", "two")
    assert ["int_parsing"] == [row["type"] for row in wrong.value.errors]


def resuming(desk: Desk) -> None:
    """By every name that a suspension has, with a model for an answer, once."""
    run = desk.run("confirmation", 1)
    seen = desk.get_run("r-1")
    desk.app.run("r-1").pause()
    with pytest.raises(VersionMismatch):
        desk.resume("r-1", True, version=seen.version)
    run.unpause()
    done = desk.resume("r-1", True, wait=seen.waits[0].id, idempotency_key="k", drive=timedelta(seconds=10))
    assert (True, "applied", "http") == (done.output, done.receipt.verdict, done.receipt.via)
    assert "duplicate" == desk.resume("r-1", True, wait=seen.waits[0].id, idempotency_key="k").receipt.verdict
    with pytest.raises(AlreadyResumed) as caught:
        desk.resume("r-1", False, step="confirm")
    assert ("r-1", "http") == (caught.value.run_id, caught.value.winner["via"])
    desk.run("both", 1, "r-2")
    with pytest.raises(AmbiguousWait) as several:
        desk.resume("r-2", True)
    assert [["confirm"], ["again"]] == [wait["path"] for wait in several.value.waits]
    assert "suspended" == desk.resume("r-2", True, step=["again"]).status


def answering_late(desk: Desk) -> None:
    """When the deadline has settled a wait, nobody else has."""
    run = desk.run("confirmation", 1)
    wait = next(iter(desk.waits()))
    desk.app.advance(days=4)
    assert "success" == run.result().status
    with pytest.raises(WaitExpired) as caught:
        desk.resume("r-1", True, wait=wait.wait.id)
    assert caught.value.at.startswith(f"{wait.wait.deadline:%Y-%m-%dT%H:%M}")
    with pytest.raises(WaitExpired):
        desk.answer(wait.id, True)
    assert 410 == desk.got[-1].status_code


def answering_early(desk: Desk) -> None:
    """Kept for the step that does not ask yet, if it is said for how long."""
    run = desk.app.workflow("later").create_run("r-1")
    run.start(1)
    with pytest.raises(NotSuspended):
        desk.resume("r-1", True, step="confirm")
    early = desk.resume("r-1", True, step="confirm", idempotency_key="k", keep=timedelta(hours=2))
    assert ("buffered", "waiting") == (early.receipt.verdict, early.status)
    assert 202 == desk.got[-1].status_code
    again = desk.resume("r-1", True, step="confirm", idempotency_key="k", keep=timedelta(hours=2))
    assert ("duplicate", True) == (again.receipt.verdict, again.replayed)
    desk.app.advance(hours=1)
    assert (True, "success") == (desk.get_run("r-1").output, desk.get_run("r-1").status)
    with pytest.raises(InvalidPayload) as wrong:
        desk.resume("r-1", True, step="confirm", keep=timedelta(days=366))
    assert "keep" == wrong.value.errors[0]["path"]


def delegating(desk: Desk) -> None:
    """A vote is somebody's: without a name there is none to hand over."""
    desk.run("approval", 1)
    with pytest.raises(Exception) as caught:  # which is asked below
        desk.delegate("r-1", "mia", label="boss")
    assert caught.type.__name__ in ("NotAnApprover", CannotDelegate.__name__)


def operating(desk: Desk) -> None:
    """Each verb of an operator, or why it is refused."""
    desk.run("approval", 1)
    assert "paused" == desk.pause("r-1").status
    assert "suspended" == desk.unpause("r-1").status
    with pytest.raises(NotBlocked):
        desk.unblock("r-1")
    travelled = desk.time_travel("r-1", "double", input=5)
    assert {"number": 10} == travelled.waits[0].payload
    forked = desk.fork("r-1", "approve", new_id="r-2", input=7)
    assert ("r-2", {"number": 7}) == (forked.run_id, forked.waits[0].payload)
    with pytest.raises(NotActive):
        desk.restart("r-1")
    assert "canceled" == desk.cancel("r-1").status
    with pytest.raises(NotFailed) as caught:
        desk.redrive("r-1")
    assert "canceled" == caught.value.status
    assert None is desk.delete("r-1")
    with pytest.raises(RunNotFound):
        desk.get_run("r-1")
    broken.append(True)
    assert "failed" == desk.run("twice", 1, "r-3").result().status
    broken.clear()
    assert 4 == desk.redrive("r-3").output


def answering(desk: Desk) -> None:
    """From the inbox, which says what an answer has to look like."""
    desk.run("approval", 1, resource_id="c-1")
    desk.run("confirmation", 1, "r-2")
    assert {"r-1", "r-2"} == {one.wait.run_id for one in desk.waits(limit=1)}
    assert ["r-2"] == [one.wait.run_id for one in desk.waits(due_before=datetime(2100, 1, 1, tzinfo=UTC))]
    assert ["r-2"] == [one.wait.run_id for one in desk.waits(assignee="mia")]
    assert ["r-2"] == [one.wait.run_id for one in desk.waits(assignee="eve")]
    desk.app.advance(days=1)
    assert {"r-1", "r-2"} == {one.wait.run_id for one in desk.waits(assignee="eve")}
    (mine,) = desk.waits(label="boss", resource_id="c-1", workflow="approval")
    assert isinstance(mine, InboxWait)
    assert replace(desk.app.run("r-1").result().waits[0], doors=None) == mine.wait
    form = desk.get_wait(mine.id)
    assert isinstance(form, AskedWait)
    assert ("approval", mine.wait, {"approved", "at"}) == (
        form.workflow_id,
        form.wait,
        set(form.answer_schema["properties"]),
    )
    (other,) = desk.waits(workflow="confirmation")
    assert desk.answer(other.id, True, idempotency_key="k").output
    assert "duplicate" == desk.answer(other.id, True, idempotency_key="k").receipt.verdict


def calling_back(desk: Desk) -> None:
    """An address that says by itself who may."""
    run = desk.run("approval", 1)
    url = run.result().waits[0].callback_url(actor="ada")
    decision = Decision(approved=True, at=datetime(2026, 1, 1, tzinfo=UTC))
    receipt = desk.callback(url, decision, idempotency_key="k-1")
    assert ("applied", "ada", "callback") == (receipt.verdict, receipt.by, receipt.via)
    assert receipt == run.receipts()[0]
    assert "duplicate" == desk.callback(url, decision, idempotency_key="k-1").verdict


def telling(desk: Desk) -> None:
    """Events settle waits, are kept, and start runs."""
    desk.run("order", "A-1")
    assert ("applied", "r-1") == _told(desk.send_event("paid", "A-1", 5))
    assert ("buffered", None) == _told(desk.send_event("paid", "A-2", 5, event_id="e-1"))
    assert ("buffered", None) == _told(desk.send_event("paid", "A-2", 5, event_id="e-1"))
    with pytest.raises(IdempotencyKeyReused):
        desk.send_event("paid", "A-2", 6, event_id="e-1")
    desk.send_event("paid", "A-4", 5, keep=timedelta(minutes=1))
    desk.app.advance(minutes=2)
    assert "suspended" == desk.app.workflow("order").create_run("r-4").start("A-4").status
    started = desk.send_event("paid", "A-3", 5, start_if_absent=Start("order", "A-3", run_id="r-3"))
    assert ("started", "r-3") == _told(started)
    assert 5 == desk.get_run("r-3").output


def hooking(desk: Desk) -> None:
    """The log of a webhook, and another chance."""
    body = b'{"order": "A-1", "amount": 7}'
    headers = sign("msg-1", body, desk.app.clock.now(), [SECRET])
    httpx.Client(transport=desk.client._http._transport).post(f"{URL}/hooks/shop", content=body, headers=headers)
    (line,) = desk.list_deliveries("shop")
    assert isinstance(line, DeliveryLine)
    assert ("buffered", "msg-1", "A-1") == (line.verdict, line.delivery_id, line.key)
    desk.run("order", "A-1")
    again = desk.replay_delivery("shop", line.id)
    assert ("duplicate", "r-1") == (again.verdict, again.run_id)


def waiting(desk: Desk) -> None:
    """Until it moves no more, or for so long."""
    desk.run("nap", 3)
    assert "waiting" == desk.wait("r-1", timedelta(seconds=5)).status
    assert 6 == desk.wait("r-1", every=timedelta(minutes=20)).output


def following(desk: Desk) -> None:
    """Each event once, over a suspension if wanted, and no longer than wanted."""
    run = desk.run("confirmation", 1)
    short = desk.follow("r-1", through_waits=False)
    assert run.events() == short
    assert short == desk.follow("r-1", timeout=timedelta(seconds=3))
    whole = desk.follow("r-1", every=timedelta(hours=30))  # the deadline settles it meanwhile
    assert "run-finished" == whole[-1].type or "run-failed" == whole[-1].type
    assert len(whole) == len(set(whole))
    assert [] == desk.follow("r-1", after=whole[-1].offset)


def itself(desk: Desk) -> None:
    """The API about itself."""
    assert desk.healthy()
    assert "3.1.0" == desk.openapi()["openapi"]


SCENES: tuple[Callable[[Desk], None], ...] = (
    *(workflows, drawings, reading, finding, happening, starting, resuming, answering_early, answering_late),
    *(delegating, operating, answering),
    *(calling_back, telling, hooking, waiting, following, itself),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_client_does(scene: Callable[[Desk], None], desk: Desk) -> None:
    """What its docstring says, over the API as over the App."""
    scene(desk)


def test_every_operation_is_in_a_scene() -> None:
    """None is left out."""
    known = {name for name in dir(Client) if isinstance(getattr(Client, name), (Operation, Listing, Stream))}
    assert len(known) > 30
    assert set() == known - {name for scene in SCENES for name in scene.__code__.co_names}


def test_input_of_none_is_sent_and_one_left_out_is_not() -> None:
    """To begin a step with nothing is not to begin it with what stands before it."""
    bodies = [operations.fork("r-1", "ask", **given).body for given in ({}, {"input": None})]
    assert [{"step": "ask"}, {"step": "ask", "input": None}] == bodies


# -- how it asks ------------------------------------------------------------------------------------------------------


def test_run_that_has_not_changed_is_not_sent_again(desk: Desk) -> None:
    """The second answer is a 304 without a body, and reads as the first; a value is nobody else's to change."""
    desk.run("approval", 1)
    first = desk.get_run("r-1")
    first.suspended.clear()
    again = desk.get_run("r-1")
    assert ([200, 304], "", [["approve"]]) == (
        [response.status_code for response in desk.got],
        desk.got[1].text,
        again.suspended,
    )
    desk.app.cancel("r-1")
    assert "canceled" == desk.get_run("r-1").status


def test_token_is_asked_for_once_and_again_when_it_is_good_no_more(kind: Any) -> None:
    """A function gives tokens; a fixed one stays what it is; a callback address is shown none."""
    claims = {"sub": "ada", "scopes": ["flowcore:admin"], "exp": "4102444800"}
    good = {"t2": claims, "t3": claims}
    given = iter(["t1", "t2", "t3"])
    desk = Desk(kind, tokens=good, auth=lambda: next(given))
    assert [] == desk.list_runs()
    assert ["Bearer t1", "Bearer t2"] == [request.headers["authorization"] for request in desk.sent]
    good.pop("t2")
    started = desk.start("confirmation", 1)
    assert ("ada", 4) == (started.started_by, len(desk.sent))
    url = desk.app.run(started.run_id).result().waits[0].callback_url()
    desk.callback(url, data=True)
    assert "authorization" not in desk.sent[-1].headers
    assert [] == desk.done(Desk(kind, tokens=good, auth="t3").client.list_runs())
    with pytest.raises(Unauthenticated) as caught:
        Desk(kind, tokens=good, auth="t1").counts()
    assert (401, "") == (
        caught.value.problem and caught.value.problem.status,
        caught.value.problem and caught.value.problem.code,
    )


def test_token_may_be_asked_for_on_the_loop() -> None:
    """By a function that is awaited."""

    async def token() -> str:
        return "t"

    claims = {"sub": "ada", "scopes": ["flowcore:read"], "exp": "4102444800"}
    assert [] == Desk(AsyncClient, tokens={"t": claims}, auth=token).list_runs()


class Stub:
    """Answers in order, whatever is asked, and a client of it that counts the seconds it pauses."""

    def __init__(self, kind: Any, *answers: httpx.Response | Exception, **more: Any) -> None:
        self.answers = iter(answers)
        self.pauses: list[float] = []
        self.sent: list[httpx.Request] = []
        sleep = self.pauses.append if kind is Client else self._sleep
        more = {"transport": httpx.MockTransport(self._answer), "sleep": sleep, "chance": lambda: 0.5, **more}
        self.client: Any = kind(URL, **more)

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Do an operation."""
        found = getattr(self.client, name)(*args, **kwargs)
        return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


BUSY = {"type": "https://flowcore.dev/problems/throttled", "status": 429, "detail": "slowly"}
KEPT = {"event_id": "e", "verdict": "buffered", "run_id": None, "wait": None}


def busy(seconds: str | None = "2") -> httpx.Response:
    """Come back later."""
    return httpx.Response(429, json=BUSY, headers={} if seconds is None else {"Retry-After": seconds})


def test_busy_api_is_asked_again_when_it_says(kind: Any) -> None:
    """After what it says and a little more each time, and if there is no word, after that little."""
    stub = Stub(kind, busy(), busy(None), httpx.ConnectError("no"), httpx.Response(200, json={"counts": {"failed": 1}}))
    assert {"failed": 1} == stub.ask("counts")
    assert [2.25, 0.5, 1.0] == stub.pauses


def test_busy_api_is_not_asked_for_ever(kind: Any) -> None:
    """Three times more, or as often as wanted; and not at all if it asks for a long pause."""
    stub = Stub(kind, *[busy()] * 4)
    with pytest.raises(Throttled, match="slowly"):
        stub.ask("counts")
    assert 4 == len(stub.sent)
    with pytest.raises(Throttled):
        Stub(kind, busy(), retries=0).ask("counts")
    with pytest.raises(Throttled):
        Stub(kind, busy("3600")).ask("counts")


def died() -> httpx.Response:
    """What an HTTP API answers for a function that ran out of time or memory."""
    return httpx.Response(500, json={"message": "Internal Server Error"})


def test_api_that_died_is_asked_again(kind: Any) -> None:
    """As one that gives no answer: where that does no harm. A fault that it tells itself is final."""
    stub = Stub(kind, died(), httpx.Response(200, json={"counts": {"failed": 1}}))
    assert {"failed": 1} == stub.ask("counts")
    told = httpx.Response(500, json={"type": "https://flowcore.dev/problems/internal-error", "detail": "no"})
    for answer, ask, error in ((told, ("counts",), ApiError), (died(), ("send_event", "paid", "A-1"), Unreachable)):
        with pytest.raises(error):
            (stub := Stub(kind, answer)).ask(*ask)
        assert 1 == len(stub.sent)


def test_change_is_asked_for_again_only_with_a_key(kind: Any) -> None:
    """Nobody knows whether an answer that did not come was no answer."""
    stub = Stub(kind, httpx.ReadTimeout("late"), httpx.Response(200, json=KEPT))
    assert "buffered" == stub.ask("send_event", "paid", "A-1", event_id="e").verdict
    with pytest.raises(Unreachable, match="POST /v1/events got no answer: ReadTimeout: late"):
        Stub(kind, httpx.ReadTimeout("late")).ask("send_event", "paid", "A-1")


def test_api_that_is_away_is_not_healthy(kind: Any) -> None:
    """Which is no error, and is asked once."""
    assert not Stub(kind, httpx.ConnectError("no")).ask("healthy")


STRANGE: dict[str, tuple[httpx.Response, type[FlowcoreError]]] = {
    "a page": (httpx.Response(200, text="<html>"), ApiError),
    "something else": (httpx.Response(200, json=[1]), ApiError),
    "an error of tomorrow": (
        httpx.Response(418, json={"type": "https://x/problems/teapot", "detail": "hot"}),
        ApiError,
    ),
    "a broken API": (httpx.Response(500, json={"type": "x/internal-error", "detail": "no"}), ApiError),
    "a redirection": (httpx.Response(302, headers={"location": "https://elsewhere"}), ApiError),
    "a gateway that denies": (httpx.Response(403, json={"message": "Forbidden"}), Forbidden),
    "a function that died": (died(), Unreachable),
    "a gateway that is alone": (httpx.Response(502, text="Bad Gateway"), Unreachable),
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_answer_is_an_error_that_says_what_came(case: str) -> None:
    """With its status, and never a KeyError from within."""
    answer, error = STRANGE[case]
    with pytest.raises(error) as caught:
        Stub(Client, answer, retries=0).ask("counts")
    assert error is caught.type
    assert answer.status_code == _problem(caught.value)[0]


def test_client_wants_an_address() -> None:
    """A host alone is none."""
    with pytest.raises(SettingsError, match="is no address"):
        Client("api.example.com")


def test_client_does_not_show_its_token() -> None:
    """Not where it is printed by mistake."""
    assert "secret" not in repr(Client(URL, "secret")._memory)


# -- errors -----------------------------------------------------------------------------------------------------------

ERRORS: tuple[FlowcoreError, ...] = (
    errors.TooManyAnswers(600, 7),
    errors.WorkflowNotFound("x", ["a", "b"]),
    errors.RunNotFound("x"),
    errors.EventNotFound("paid", "A-1", "e"),
    errors.RunExists("x", "w"),
    errors.NotSuspended("x", "running", open_steps=["a"]),
    errors.RunFinished("x", "failed"),
    errors.AlreadyResumed("x", "a", {"at": "2026", "by": "ada", "via": "link"}),
    errors.NotAnApprover("x", "a", "eve"),
    errors.CannotDelegate("x", "a", "is over"),
    errors.AmbiguousWait("x", [{"path": ["a"]}, {"path": ["b"]}]),
    errors.UnknownStep("a", ["b"]),
    errors.UnknownLabel("a", ["b"]),
    errors.IndexOutOfRange("a", 3, [1, 2]),
    errors.InvalidPayload("input", [{"path": "a", "message": "no", "type": "int"}]),
    errors.UnknownField("a", ["b"]),
    errors.StillRunning("x", "fork"),
    errors.NotRecorded("a", ["b"]),
    errors.NotActive("x", "failed", "paused"),
    errors.NotBlocked("x", "failed"),
    errors.NotFailed("x", "success"),
    errors.PartOfRun("x", "r"),
    errors.IdempotencyKeyReused("k"),
    errors.LinkUnknown(),
    errors.LinkExpired(datetime(2026, 1, 1, tzinfo=UTC)),
    errors.WebhookNotFound("x"),
    errors.DeliveryNotFound("x", "y"),
    errors.WaitExpired("2026"),
    errors.VersionMismatch(3, 4),
    errors.BadSignature("late"),
    errors.DefinitionChanged("x", "gone"),
    errors.PayloadTooLarge("input", 5, 4),
    errors.TooManyAnswers(600, 7),
    errors.BlobMissing("input", run_id="x", step=None, key="k", why="gone."),
    errors.BlobAltered("input", run_id="x", step="a", key="k", why="cut."),
    errors.MalformedRequest("no"),
    errors.Unauthenticated("who"),
    errors.Forbidden("no"),
    errors.Throttled("later"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_error_is_the_one_that_the_app_has_raised(error: FlowcoreError) -> None:
    """Its class, its sentence and its facts."""
    told = problems.of_error(error)
    reply = httpx.Response(told.status_code, text=str(told.body))
    with pytest.raises(FlowcoreError) as caught:
        Stub(Client, reply, retries=0).ask("run_graph", "x")
    assert (type(error), str(error)) == (caught.type, str(caught.value))
    assert error.details() == caught.value.details()
    assert error.retry_after_s == caught.value.retry_after_s
    assert getattr(error, "run_id", "x") == getattr(caught.value, "run_id", "x")
    assert (told.status_code, error.code) == _problem(caught.value)


def test_error_names_the_run_that_it_is_about(desk: Desk) -> None:
    """Also where a wait, a callback address or another run was asked about."""
    for id in ("r-1", "r-2"):
        desk.run("confirmation", 1, id)
    (wait,) = [one for one in desk.waits() if one.wait.run_id == "r-1"]
    url = desk.app.run("r-1").result().waits[0].callback_url()
    with pytest.raises(RunExists) as exists:
        desk.fork("r-1", "confirm", new_id="r-2")
    desk.answer(wait.id, True)
    refused: list[Callable[[], Any]] = [
        lambda: desk.get_wait(wait.id),
        lambda: desk.answer(wait.id, True),
        lambda: desk.callback(url, True),
    ]
    told = []
    for ask_it in refused:
        with pytest.raises(AlreadyResumed) as late:
            ask_it()
        told.append(late.value.run_id)
    assert ("r-2", ["r-1"] * 3) == (exists.value.run_id, told)


@pytest.mark.parametrize("key", ["schlüssel", "日本", "a\nb", " a", "a ", ""])
def test_key_that_no_header_can_hold_is_refused_by_its_name(key: str) -> None:
    """Before anything is sent, and not as an error of the encoding."""
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("idempotency_key", lambda: operations.start("w", 1, idempotency_key=key)),
        ("idempotency_key", lambda: operations.resume("r-1", 1, idempotency_key=key)),
        ("idempotency_key", lambda: operations.answer("w", 1, idempotency_key=key)),
        ("event_id", lambda: operations.send_event("paid", "A-1", event_id=key)),
    ]
    for name, call in calls:
        with pytest.raises(MalformedRequest, match=name):
            call()
    assert "a b" == operations.start("w", 1, idempotency_key="a b").headers["idempotency-key"]


def test_every_problem_is_an_error_of_its_own() -> None:
    """Those whose sentence the API keeps to itself have their class; none is left to the general one."""
    tried = {error.code for error in ERRORS}
    for code, status in problem_types().items():
        body = {"type": f"{problems.TYPE_PREFIX}{code}", "status": status, "detail": "no"}
        with pytest.raises(FlowcoreError) as caught:
            Stub(Client, httpx.Response(status, json=body), retries=0).ask("counts")
        if code not in problems.OTHERS:
            assert code == caught.value.code
            assert code in tried or caught.value.details() in ({}, {"run_id": "", "step": "", "key": ""})


def _problem(error: FlowcoreError) -> tuple[int, str]:
    """As the API has told it."""
    assert error.problem is not None
    return error.problem.status, error.problem.code


def _told(receipt: Any) -> tuple[str, str | None]:
    return receipt.verdict, receipt.run_id
