"""``make demo``: the story of an expense report and of a refund, told over real HTTP against the embedded stack.

Every line printed was observed; the first thing that is not as promised ends the demonstration with exit code 1.
"""

import json
import re
import signal
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from examples import bank, refund
from flowcore.webhooks import sign
from infra.local.demo_app import BANK_KEY, ENVIRONMENT
from infra.local.stack import LocalStack

_PATIENCE = timedelta(seconds=40)
_BANK_SECONDS = 1.5
_EXPENSE = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}


class BrokenPromiseError(Exception):
    """Something the demonstration promises was not so."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response; its body as JSON, or as the page it is."""

    status: int
    body: Any


def main(arguments: Sequence[str]) -> int:
    """Tell the story; 0 when every promise held."""
    if arguments:
        print(f"The demonstration takes no arguments: {' '.join(arguments)}")
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        books = Path(folder) / "bank.sqlite"
        environment = {"EXPENSE_BANK_FILE": str(books), "EXPENSE_BANK_SECONDS": str(_BANK_SECONDS), **ENVIRONMENT}
        parameters = {"AppModule": "infra.local.demo_app:app"}
        print("Deploying template.yaml to a local AWS (moto); the handlers run under AWS's Lambda runtime client ...")
        try:
            with LocalStack(parameters=parameters, environment=environment) as stack:
                _tell(_Story(stack, books))
        except BrokenPromiseError as broken:
            print(f"\nNOT AS PROMISED: {broken}")
            return 1
    print(f"\nAll as promised, in {time.monotonic() - began:.0f} s. Keep a stack running with `make up`; it prints the")
    print(
        "curl lines that do the same, and links to click. The workflows are examples/expense.py and examples/refund.py."
    )
    return 0


def _tell(story: "_Story") -> None:
    story.starts_and_suspends()
    story.refuses_a_wrong_answer()
    story.takes_the_right_answer_once()
    story.survives_a_killed_worker()
    story.sleeps_for_days()
    story.shows_the_finished_run()
    story.decides_over_a_link()
    story.hears_from_the_bank()


class _Story:
    """The chapters, in order; each checks what it prints."""

    def __init__(self, stack: LocalStack, books: Path) -> None:
        self.stack = stack
        self.run = "expense-1"
        self.key = f"{self.run}/pay"
        self.books = books

    def starts_and_suspends(self) -> None:
        body = {"input": _EXPENSE, "run_id": self.run}
        reply = self.call("POST", "/v1/workflows/expense/runs", body)
        self.expect(reply.status == 202, f"start answers 202, got {reply.status}: {reply.body}")
        shown = self.until("suspended")
        wait = shown["waits"][0]
        _say("start", f"POST /v1/workflows/expense/runs -> 202, run {self.run!r}")
        _say("suspended", f"two checks ran in parallel, one branch was taken; {'.'.join(wait['path'])!r} asks:")
        print(_indented(wait["payload"]))

    def refuses_a_wrong_answer(self) -> None:
        before = self.call("GET", f"/v1/runs/{self.run}").body
        reply = self.resume({"approved": "perhaps"})
        after = self.call("GET", f"/v1/runs/{self.run}").body
        self.expect(reply.status == 422, f"a wrong answer is refused with 422, got {reply.status}")
        self.expect(before == after, "a refused answer leaves the run untouched")
        fault = reply.body["errors"][0]
        _say("refused", f'{{"approved": "perhaps"}} -> 422, run untouched. {fault["path"]}: {fault["message"]}')

    def takes_the_right_answer_once(self) -> None:
        first = self.resume({"approved": True, "comment": "look at Saturn"})
        self.expect(first.status == 202, f"the answer is taken with 202, got {first.status}: {first.body}")
        second = self.resume({"approved": False})
        self.expect(second.status == 409, f"a second answer is refused with 409, got {second.status}")
        winner = second.body["winner"]
        self.expect(winner["at"][:23] == first.body["receipt"]["at"][:23], "the 409 names the answer that counted")
        _say("resumed", f"approved -> 202, receipt {first.body['receipt']['wait']!r}")
        _say(
            "clicked twice",
            f"-> 409 {second.body['type'].rsplit('/', 1)[1]}, won at {winner['at']} via {winner['via']}",
        )

    def survives_a_killed_worker(self) -> None:
        began = time.monotonic()
        self.wait_for(lambda: self.asked() == 1, "the bank is asked to pay after a sleep of 3 seconds")
        _say("slept", f"3 seconds for real ({time.monotonic() - began:.1f} s until the bank was asked)")
        pid = self.stack.kill_worker(signal.SIGKILL)
        self.expect(pid is not None, "a worker was alive to be killed")
        self.wait_for(lambda: self.stack.idle, "the killed worker is noticed")
        self.expect(self.paid() == 0, "the worker died before the money moved")
        _say("killed", f"worker {pid} got SIGKILL in the middle of 'pay'; its lease stands, nobody holds the run")
        self.stack.forward(timedelta(minutes=4))
        self.wait_for(
            lambda: self.step("pay").get("status") == "success", "the sweeper finds the run, another worker pays"
        )
        self.expect(self.paid() == 1, f"money moved exactly once, it moved {self.paid()} times")
        self.expect(self.asked() == 2, f"the bank was asked twice, it was asked {self.asked()} times")
        _say("revived", "clock 4 minutes on: the sweeper found the run, another worker ran 'pay' again")
        _say("exactly once", f"the bank was asked {self.asked()} times and paid once, under the key {self.key!r}")

    def sleeps_for_days(self) -> None:
        self.until("waiting")
        wake = self.step("settlement")["wake_at"]
        _say("asleep", f"until {wake}: no process, no cost, one EventBridge schedule")
        self.stack.forward(timedelta(days=3, seconds=2))
        _say("woken", "clock 3 days on: the schedule fired")

    def shows_the_finished_run(self) -> None:
        shown = self.until("success")
        self.expect(shown["output"] == {"status": "booked", "payment": "payment-1"}, f"the output is {shown['output']}")
        print(f"\n{self.run}  {shown['status']}  {json.dumps(shown['output'])}")
        steps = list(shown["steps"].items())
        for number, (name, step) in enumerate(steps):
            branch = "└─" if number == len(steps) - 1 else "├─"
            print(f"{branch} {name:<44} {step['status']:<8} {_duration(step):>10}  {_outcome(step)}")

    def decides_over_a_link(self) -> None:
        self.run = "refund-1"
        body = {"input": {"order": "A-17", "cents": 990, "reason": "the kettle leaks"}, "run_id": self.run}
        reply = self.call("POST", "/v1/workflows/refund/runs", body)
        self.expect(reply.status == 202, f"start answers 202, got {reply.status}: {reply.body}")
        self.wait_for(lambda: bool(self.mails()), "the approver is written to")
        link = self.mails()[0]
        print(f"\n{self.run}, another run, asks by mail:")
        _say("mail", f"to {refund.APPROVER}: {link}")
        page = self.browse(link)
        self.expect(page.status == 200 and 'name="approved"' in page.body, f"the link shows a form, got {page.status}")
        self.expect(self.browse(link).status == 200, "opening a link decides nothing")
        _say("opened", "GET -> 200, a page with a form; mail scanners open links too, so only a POST decides")
        first = self.browse(link, approved="true", comment="of course")
        self.expect(first.status == 200, f"the form is taken with 200, got {first.status}")
        second = self.browse(link, approved="false")
        self.expect(second.status == 409 and refund.APPROVER in second.body, "a second click is told who was faster")
        _say("sent", f"the form -> 200; a second click -> 409, decided by {refund.APPROVER}")

    def hears_from_the_bank(self) -> None:
        self.wait_for(lambda: "refund.paid" in str(self.look().body["waits"]), "the run waits for the bank")
        body = json.dumps({"order": "A-17", "amount": 990})
        headers = sign("evt-1", body.encode(), self.stack.clock.now(), [BANK_KEY])
        forged = self.call("POST", "/hooks/bank", body + " ", headers)
        self.expect(forged.status == 401, f"a delivery that was changed is refused with 401, got {forged.status}")
        told = [self.call("POST", "/hooks/bank", body, headers).body["verdict"] for _ in range(2)]
        self.expect(told == ["applied", "duplicate"], f"a delivery counts once, it was {told}")
        _say("webhook", "POST /hooks/bank, signed -> applied; once more -> duplicate; with a byte added -> 401")
        shown = self.until("success")
        print(f"\n{self.run}  {shown['status']}  {json.dumps(shown['output'])}")

    # -- looking and asking -----------------------------------------------------------------------------------------

    def resume(self, data: Any) -> Reply:
        return self.call("POST", f"/v1/runs/{self.run}/resume", {"data": data})

    def look(self) -> Reply:
        return self.call("GET", f"/v1/runs/{self.run}")

    def mails(self) -> list[str]:
        """The links in what the workers have printed."""
        printed = "\n".join(line.text for line in self.stack.logs("WorkerFunction"))
        return re.findall(re.escape(self.stack.url) + r"/a/[\w.-]+", printed)

    def browse(self, link: str, **form: str) -> Reply:
        """What a browser is shown; with a form, when it was sent."""
        sent = urllib.parse.urlencode(form).encode() if form else None
        try:
            with urllib.request.urlopen(link, sent, timeout=60) as response:  # our own stack on loopback
                return Reply(response.status, response.read().decode())
        except urllib.error.HTTPError as refused:
            return Reply(refused.code, refused.read().decode())

    def step(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.call("GET", f"/v1/runs/{self.run}").body["steps"].get(name, {})
        return found

    def asked(self) -> int:
        return bank.calls(self.key, self.books)

    def paid(self) -> int:
        return bank.payments(self.key, self.books)

    def until(self, status: str) -> Any:
        """The run, once it has ``status``."""
        seen: list[Any] = []

        def reached() -> bool:
            seen.append(self.look().body)
            return bool(seen[-1]["status"] == status)

        self.wait_for(reached, f"the run becomes {status!r}")
        return seen[-1]

    def wait_for(self, happened: Callable[[], bool], promise: str) -> None:
        deadline = time.monotonic() + _PATIENCE.total_seconds()
        while not happened():
            if time.monotonic() > deadline:
                print("\n".join(f"  {line.function}: {line.text}" for line in self.stack.logs()[-15:]))
                raise BrokenPromiseError(f"{promise}; it did not within {_PATIENCE.total_seconds():.0f} s")
            time.sleep(0.05)

    def expect(self, held: bool, promise: str) -> None:  # noqa: FBT001  # reads as a sentence: expect(this, that)
        if not held:
            raise BrokenPromiseError(promise)

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        raw = body if isinstance(body, str) or body is None else json.dumps(body)
        request = urllib.request.Request(  # our own stack on loopback
            self.stack.url + path,
            method=method,
            data=None if raw is None else raw.encode(),
            headers={"content-type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # our own stack on loopback
                return Reply(response.status, json.load(response))
        except urllib.error.HTTPError as refused:
            return Reply(refused.code, json.load(refused))


def _say(title: str, text: str) -> None:
    print(f"{title:>14}  {text}", flush=True)


def _indented(payload: Mapping[str, Any]) -> str:
    return "\n".join(f"{'':>18}{name}: {value}" for name, value in payload.items())


def _duration(step: Mapping[str, Any]) -> str:
    if not step["started_at"] or not step["ended_at"]:
        return "-"
    lasted = datetime.fromisoformat(step["ended_at"]) - datetime.fromisoformat(step["started_at"])
    if lasted >= timedelta(days=1):
        return f"{lasted / timedelta(days=1):.1f} d"
    if lasted >= timedelta(minutes=1):
        return f"{lasted / timedelta(minutes=1):.1f} min"
    return f"{lasted / timedelta(seconds=1):.2f} s"


def _outcome(step: Mapping[str, Any]) -> str:
    return json.dumps(step["output"], ensure_ascii=False) if step["output"] is not None else ""
