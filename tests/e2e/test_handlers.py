"""The main job through the real handlers on moto: every hop between functions is a message, an event or a schedule."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from examples import bank
from flowcore import App, create_step, workflow
from tests.e2e.deployment import Deployment

LARGE = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}
SMALL = {"employee": "ada", "amount": 6_000, "purpose": "books"}


def started(deployment: Deployment, input_: Any = LARGE, run_id: str = "r-1") -> None:
    """A run that has come as far as it can by itself."""
    answer = deployment.call("POST", "/v1/workflows/expense/runs", {"input": input_, "run_id": run_id})
    assert answer.status == 202
    deployment.settle()


def shown(deployment: Deployment, run_id: str = "r-1") -> Any:
    """The run as the API shows it."""
    answer = deployment.call("GET", f"/v1/runs/{run_id}")
    assert answer.status == 200
    return answer.body


def test_start_answers_202_with_a_location_before_any_step_ran(deployment: Deployment) -> None:
    """Starting commits the run and asks a worker to look; it does not wait for one."""
    answer = deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})

    assert (answer.status, answer.headers["location"]) == (202, "/v1/runs/r-1")
    assert (answer.body["status"], answer.body["steps"]) == ("pending", {})


def test_approval_run_goes_through_every_function_to_its_end(deployment: Deployment) -> None:
    """Suspended, resumed, asleep for seconds, asleep for days, finished: each part in a process image of its own."""
    started(deployment)
    suspended = shown(deployment)
    assert suspended["status"] == "suspended"
    assert suspended["suspended"] == [["manager_approval"]]
    assert suspended["waits"][0]["payload"]["employee"] == "ada"

    deployment.start_cold()
    answer = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}})
    assert (answer.status, answer.body["receipt"]["verdict"]) == (202, "applied")
    deployment.settle()
    assert shown(deployment)["steps"]["second-thoughts"]["status"] == "waiting"

    deployment.forward(minutes=3)
    deployment.settle()
    asleep = shown(deployment)
    assert (asleep["status"], asleep["steps"]["pay"]["output"]) == ("waiting", "payment-1")

    deployment.forward(days=3, seconds=2)
    deployment.settle()
    ended = shown(deployment)
    assert ended["status"] == "success"
    assert ended["output"] == {"status": "booked", "payment": "payment-1"}
    assert bank.payments("r-1/pay") == 1


def test_a_run_is_handed_on_far_more_often_than_lambda_would_have_it(deployment: Deployment) -> None:
    """Thirty workers in a row have no time left; none loses the run, and the next one with time goes on."""
    assert deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"}).status == 202
    for _ in range(30):
        (body,) = deployment.messages()
        assert deployment.work(body, remaining_ms=2_000) == []
    assert shown(deployment)["status"] == "running"
    deployment.settle()
    assert shown(deployment)["status"] == "suspended"


def test_events_tell_what_has_happened_beyond_an_offset(deployment: Deployment) -> None:
    """In order, and each once."""
    started(deployment)
    first = deployment.call("GET", "/v1/runs/r-1/events")
    assert first.status == 200
    types = [event["type"] for event in first.body["items"]]
    assert (types[0], types[-2:]) == ("run-started", ["step-suspended", "run-suspended"])
    last = first.body["items"][-1]["offset"]

    assert deployment.call("GET", f"/v1/runs/r-1/events?after={last}").body == {"items": []}
    deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}})
    deployment.settle()
    later = deployment.call("GET", f"/v1/runs/r-1/events?after={last}").body["items"]
    assert ("step-resumed", "manager_approval") == (later[0]["type"], later[0]["step"])
    assert deployment.call("GET", "/v1/runs/nobody/events").status == 404


def test_schedule_alone_wakes_a_run_that_sleeps_for_days(deployment: Deployment) -> None:
    """A sleep over 900 seconds is an EventBridge one-shot into the same queue; the sweeper is not needed."""
    started(deployment, SMALL)
    deployment.forward(minutes=3)
    deployment.settle()
    assert shown(deployment)["status"] == "waiting"

    deployment.forward(days=3, seconds=2)
    assert deployment.fire_schedules() == 1
    assert deployment.work(*deployment.messages()) == []

    assert shown(deployment)["status"] == "success"


def test_wrong_answer_is_422_with_field_errors_and_leaves_the_run_alone(deployment: Deployment) -> None:
    """Validation happens at the door, before any write."""
    started(deployment)
    before = shown(deployment)

    answer = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": "perhaps"}})

    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["type"].endswith("/invalid-input")
    assert answer.body["errors"][0]["path"] == "approved"
    assert shown(deployment) == before


def test_second_resume_is_409_and_names_the_winner(deployment: Deployment) -> None:
    """A person who clicks twice is told when and how the first click counted."""
    started(deployment)
    deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}})

    answer = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": False}})

    assert (answer.status, answer.body["type"].rsplit("/", 1)[1]) == (409, "already-resumed")
    assert answer.body["winner"]["via"] == "http"


def test_repeated_idempotency_key_is_200_with_the_first_receipt(deployment: Deployment) -> None:
    """A client that lost the reply may ask again."""
    started(deployment)
    headers = {"Idempotency-Key": "k-1"}
    first = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}}, headers)

    again = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}}, headers)

    assert (first.status, again.status) == (202, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body["receipt"] == {**first.body["receipt"], "verdict": "duplicate"}


def test_reused_idempotency_key_with_other_data_is_422(deployment: Deployment) -> None:
    """One key names one answer."""
    started(deployment)
    headers = {"Idempotency-Key": "k-1"}
    deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}}, headers)

    answer = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": False}}, headers)

    assert (answer.status, answer.body["type"].rsplit("/", 1)[1]) == (422, "idempotency-key-reused")


def test_starting_twice_with_the_same_input_is_one_run(deployment: Deployment) -> None:
    """The run id is the dedupe; so is an idempotency key."""
    started(deployment)
    again = deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    other = deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL, "run_id": "r-1"})
    keyed = [
        deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL}, {"Idempotency-Key": "k"}).body["run_id"]
        for _ in range(2)
    ]

    assert (again.status, again.headers["location"]) == (200, "/v1/runs/r-1")
    assert (other.status, other.body["type"].rsplit("/", 1)[1]) == (409, "run-exists")
    assert keyed[0] == keyed[1]


def test_prefer_wait_drives_here_and_answers_200_with_how_far_it_got(deployment: Deployment) -> None:
    """A caller that wants to wait needs no worker."""
    answer = deployment.call(
        "POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"}, {"Prefer": "wait=10"}
    )

    assert (answer.status, answer.body["status"]) == (200, "suspended")
    assert deployment.messages() == []


def test_cancel_ends_a_waiting_run_and_later_answers_are_409(deployment: Deployment) -> None:
    """A canceled run stays canceled, whoever answers."""
    started(deployment)

    canceled = deployment.call("POST", "/v1/runs/r-1/cancel")
    late = deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}})
    again = deployment.call("POST", "/v1/runs/r-1/cancel")

    assert (canceled.status, canceled.body["status"]) == (200, "canceled")
    assert (late.status, late.body["type"].rsplit("/", 1)[1]) == (409, "run-finished")
    assert (late.body["status"], late.body["run_status"]) == (409, "canceled")
    assert again.body["version"] == canceled.body["version"]


def test_listing_shows_runs_newest_first_in_pages(deployment: Deployment) -> None:
    """The cursor continues where the page ended."""
    for number in range(3):
        started(deployment, SMALL if number else LARGE, f"r-{number}")
    first = deployment.call("GET", "/v1/runs?limit=2")
    second = deployment.call("GET", f"/v1/runs?limit=2&cursor={first.body['cursor']}")
    suspended = deployment.call("GET", "/v1/runs?status=suspended")

    assert [item["run_id"] for item in first.body["items"]] == ["r-2", "r-1"]
    assert [item["run_id"] for item in second.body["items"]] == ["r-0"]
    assert [item["run_id"] for item in suspended.body["items"]] == ["r-0"]


def test_workflows_are_listed_with_the_schemas_of_their_doors(deployment: Deployment) -> None:
    """A client can build its form from them."""
    listed = deployment.call("GET", "/v1/workflows").body["items"]
    one = deployment.call("GET", "/v1/workflows/expense").body

    assert [workflow["id"] for workflow in listed] == ["expense"]
    assert one["input_schema"]["required"] == ["employee", "amount", "purpose"]


BAD_REQUESTS = [
    ("unknown workflow", "POST", "/v1/workflows/nope/runs", {"input": LARGE}, 404, "workflow-not-found"),
    ("unknown run", "GET", "/v1/runs/nope", None, 404, "run-not-found"),
    ("resume of an unknown run", "POST", "/v1/runs/nope/resume", {"data": 1}, 404, "run-not-found"),
    ("cancel of an unknown run", "POST", "/v1/runs/nope/cancel", None, 404, "run-not-found"),
    ("a run id with separators", "GET", "/v1/runs/r%23HEAD", None, 404, "run-not-found"),
    (
        "a new run id with separators",
        "POST",
        "/v1/workflows/expense/runs",
        {"input": LARGE, "run_id": "a#b"},
        400,
        "malformed-request",
    ),
    ("malformed JSON", "POST", "/v1/workflows/expense/runs", "{not json", 400, "malformed-request"),
    ("a body that is no object", "POST", "/v1/workflows/expense/runs", "[1]", 422, "invalid-input"),
    ("no body", "POST", "/v1/workflows/expense/runs", None, 422, "invalid-input"),
    ("an unknown field", "POST", "/v1/workflows/expense/runs", {"inptu": LARGE}, 422, "invalid-input"),
    (
        "input of the wrong type",
        "POST",
        "/v1/workflows/expense/runs",
        {"input": {**LARGE, "amount": "x"}},
        422,
        "invalid-input",
    ),
    (
        "input that breaks a rule",
        "POST",
        "/v1/workflows/expense/runs",
        {"input": {**LARGE, "amount": 0}},
        422,
        "invalid-input",
    ),
    (
        "an unknown step",
        "POST",
        "/v1/runs/r-1/resume",
        {"data": {"approved": True}, "step": "nope"},
        422,
        "unknown-step",
    ),
    ("a step that waits for nobody", "POST", "/v1/runs/r-1/resume", {"data": {}, "step": "pay"}, 409, "not-suspended"),
    (
        "an unknown label",
        "POST",
        "/v1/runs/r-1/resume",
        {"data": {"approved": True}, "label": "x"},
        422,
        "unknown-label",
    ),
    (
        "a wait that is not open",
        "POST",
        "/v1/runs/r-1/resume",
        {"data": {}, "wait": "manager_approval@9"},
        409,
        "not-suspended",
    ),
    (
        "an index where nothing is repeated",
        "POST",
        "/v1/runs/r-1/resume",
        {"data": {}, "index": 4},
        422,
        "index-out-of-range",
    ),
    ("a cursor nobody gave", "GET", "/v1/runs?cursor=zzz", None, 400, "malformed-request"),
    ("a limit that is no number", "GET", "/v1/runs?limit=many", None, 422, "invalid-input"),
    ("a status that does not exist", "GET", "/v1/runs?status=asleep", None, 422, "invalid-input"),
    ("an unknown route", "GET", "/v2/runs", None, 404, "route-not-found"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [row[1:] for row in BAD_REQUESTS],
    ids=[row[0] for row in BAD_REQUESTS],
)
def test_bad_request_is_a_typed_problem_and_leaves_the_run_alone(
    deployment: Deployment, method: str, path: str, body: Any, status: int, code: str
) -> None:
    """What was asked, what was found: as problem+json with a stable type."""
    started(deployment)
    before = shown(deployment)

    answer = deployment.call(method, path, body)

    assert (answer.status, answer.body["type"].rsplit("/", 1)[1]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["status"] == status
    assert answer.body["detail"]
    assert shown(deployment) == before


def test_message_that_is_no_hint_is_dropped_and_its_batch_goes_on(deployment: Deployment) -> None:
    """A forged or broken message changes nothing and does not come again."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    (hint,) = deployment.messages()

    failed = deployment.work("not json", '{"v":1}', '{"v":1,"tenant":"default","run":"a#b","at":0}', hint)

    assert failed == []
    assert shown(deployment)["status"] == "suspended"


def test_message_for_a_deleted_run_is_acknowledged(deployment: Deployment) -> None:
    """Nothing to look at is nothing to do."""
    assert deployment.work('{"v":1,"tenant":"default","run":"gone","at":0}') == []


def test_hint_that_comes_three_times_moves_the_run_once(deployment: Deployment) -> None:
    """SQS delivers at least once."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": SMALL, "run_id": "r-1"})
    (hint,) = deployment.messages()
    deployment.work(hint, hint)
    before = shown(deployment)

    deployment.work(hint)

    assert shown(deployment) == before


def test_lost_hint_is_found_by_the_sweeper(deployment: Deployment) -> None:
    """A start whose message never arrived is overdue after a few seconds."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    deployment.messages()
    assert deployment.sweep() == 0

    deployment.forward(seconds=10)
    assert deployment.sweep() == 1
    deployment.settle()

    assert shown(deployment)["status"] == "suspended"


def test_sweeper_tells_how_many_runs_nobody_has_come_for(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those it has sent a hint for, and those that this has not helped in five minutes: an alarm rests on them."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    for minutes, told in ((1, '"LongOverdueRuns":[0.0]'), (5, '"LongOverdueRuns":[1.0]')):
        deployment.forward(minutes=minutes)
        capsys.readouterr()
        deployment.sweep()
        printed = capsys.readouterr().out
        assert told in printed
        assert '"OverdueRuns":[1.0]' in printed
        assert '"HintsLost":[0.0]' in printed
        assert '"Namespace":"a-stack"' in printed


def test_worker_tells_how_late_hints_come_and_which_are_stale(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """In milliseconds since the instant for which each was meant; a copy of the last one finds the run at its end."""
    started(deployment, SMALL)
    deployment.forward(minutes=3)
    deployment.settle()
    deployment.forward(days=3, seconds=2)
    assert deployment.fire_schedules() == 1
    (hint,) = deployment.messages()
    told = []
    for seconds in (0, 60):
        deployment.forward(seconds=seconds)
        capsys.readouterr()
        assert deployment.work(hint) == []
        printed = capsys.readouterr().out
        told.append([float(value) for value in re.findall(r'"(?:HintsStale|HintLateness)":\[([\d.]+)\]', printed)])
    (in_time, no_copy), (late, a_copy) = told
    assert (0, 1) == (no_copy, a_copy)
    assert 0 < in_time < 60_000 < late


def test_worker_short_of_time_hands_the_run_on(deployment: Deployment) -> None:
    """With two seconds left no step is begun: another worker goes on."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    (hint,) = deployment.messages()

    deployment.work(hint, remaining_ms=2_000)
    assert shown(deployment)["status"] == "running"
    deployment.work(*deployment.messages())

    assert shown(deployment)["status"] == "suspended"


def test_only_the_first_of_a_batch_begins_a_step_that_fits_no_worker(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind it have spent some of their worker's life already, however much that says is left."""
    slow = create_step(id="slow", execute=lambda value: value, timeout=timedelta(hours=1))
    app = App(workflow("slow", input=int, output=int).then(slow).commit())
    monkeypatch.setitem(sys.modules, "slow_app", cast("ModuleType", SimpleNamespace(app=app)))
    monkeypatch.setenv("FLOWCORE_APP", "slow_app:app")
    deployment.start_cold()
    assert deployment.call("POST", "/v1/workflows/slow/runs", {"input": 1, "run_id": "r-1"}).status == 202
    for batch in ([], ["no hint"]):
        assert deployment.work(*batch, *deployment.messages()) == []
        assert shown(deployment)["status"] == "running"
    assert deployment.work(*deployment.messages(), "no hint") == []
    assert shown(deployment)["status"] == "success"
