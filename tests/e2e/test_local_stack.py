"""The local stack behaves as AWS does where the engine depends on it.

Real processes, real HTTP, the real template; only the handlers are throw-away ones. Nothing here sleeps for a fixed
time: each test waits for a fact, up to a deadline that a loaded machine can meet.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from infra.local.stack import PROJECT, LocalStack

pytestmark = pytest.mark.xdist_group("local-stack")

DEADLINE_S = 30.0
HANDLERS = {
    "ApiFunction": "tests.e2e.fixture_handlers.api",
    "WorkerFunction": "tests.e2e.fixture_handlers.worker",
    "SweepFunction": "tests.e2e.fixture_handlers.sweep",
}
VISIBILITY_S = 4
QUICK = {"WorkerTimeout": "2", "QueueVisibility": str(VISIBILITY_S), "WorkerBatchSize": "10"}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """One stack for the file; tests tell their traces apart by name."""
    with LocalStack(overrides=HANDLERS, parameters=QUICK) as running:
        yield running


@pytest.fixture(autouse=True)
def _reliable(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test starts and ends with knobs that break nothing."""
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").knobs.twice = 0.0
        request.getfixturevalue("stack").knobs.never = 0.0


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


def until(look: Callable[[], Any], wanted: Callable[[Any], bool] = bool) -> Any:
    """What ``look`` answers once it is wanted; fails with the last answer at the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not wanted(answer := look()):
        assert time.monotonic() < end, f"Still {answer!r} after {DEADLINE_S} s."
        time.sleep(0.02)
    return answer


def seen(stack: LocalStack, name: str) -> list[dict[str, Any]]:
    """What the worker noted about messages of this name."""
    found = stack.client("dynamodb").query(
        TableName=stack.blueprint.outputs["TableName"],
        KeyConditionExpression="pk = :name",
        ExpressionAttributeValues={":name": {"S": f"SAW#{name}"}},
        ConsistentRead=True,
    )
    return sorted((json.loads(item["facts"]["S"]) for item in found["Items"]), key=lambda facts: facts.get("times", 0))


def counts(stack: LocalStack, name: str) -> list[int]:
    """Receive counts of the deliveries noted."""
    return [facts["times"] for facts in seen(stack, name)]


def send(stack: LocalStack, *orders: Mapping[str, Any], delay: int = 0) -> None:
    """Put orders for the worker into the queue, as one batch."""
    entries = [{"Id": str(n), "MessageBody": json.dumps(o), "DelaySeconds": delay} for n, o in enumerate(orders)]
    stack.client("sqs").send_message_batch(QueueUrl=stack.blueprint.outputs["QueueUrl"], Entries=entries)


def pass_visibility(stack: LocalStack) -> None:
    """Once nobody is at work, let failed messages become visible again."""
    until(lambda: stack.idle)
    stack.forward(seconds=VISIBILITY_S)


def schedule(stack: LocalStack, name: str, due: datetime, timezone: str = "UTC") -> None:
    """A one-shot schedule that sends an order of this name, made as the engine makes its own."""
    queue = stack.client("sqs").get_queue_attributes(
        QueueUrl=stack.blueprint.outputs["QueueUrl"], AttributeNames=["QueueArn"]
    )
    stack.client("scheduler").create_schedule(
        GroupName=stack.blueprint.outputs["ScheduleGroupName"],
        Name=name,
        ScheduleExpression=f"at({due:%Y-%m-%dT%H:%M:%S})",
        ScheduleExpressionTimezone=timezone,
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={
            "Arn": queue["Attributes"]["QueueArn"],
            "RoleArn": stack.blueprint.outputs["ScheduleRoleArn"],
            "Input": json.dumps({"name": name}),
        },
    )


def schedules(stack: LocalStack) -> set[str]:
    """Names of the schedules there are."""
    found = stack.client("scheduler").list_schedules(GroupName=stack.blueprint.outputs["ScheduleGroupName"])
    return {one["Name"] for one in found["Schedules"]}


def call(stack: LocalStack, path: str, **options: Any) -> tuple[int, Any, Any]:
    """Status, headers and JSON body of a request."""
    try:
        with urlopen(Request(stack.url + path, **options), timeout=DEADLINE_S) as response:
            return response.status, response.headers, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def test_http_request_becomes_a_version_2_event(stack: LocalStack) -> None:
    """Route, variables, query, headers, cookies and body arrive as API Gateway's payload 2.0 has them."""
    status, headers, body = call(
        stack,
        "/v1/runs/r%3A1/resume?a=1&a=2&b=",
        method="POST",
        data=b'{"x": "\xc3\xa4"}',
        headers={"Content-Type": "application/json", "Cookie": "k=v; l=w", "If-Match": '"7"'},
    )
    event = body["event"]
    assert (201, "true", ["a=1", "b=2"]) == (status, headers["X-Yes"], headers.get_all("Set-Cookie"))
    assert ("2.0", "POST /v1/runs/{run}/resume") == (event["version"], event["routeKey"])
    assert ("/v1/runs/r:1/resume", "a=1&a=2&b=") == (event["rawPath"], event["rawQueryString"])
    assert {"a": "1,2", "b": ""} == event["queryStringParameters"]
    assert {"run": "r:1"} == event["pathParameters"]
    assert (["k=v", "l=w"], '"7"') == (event["cookies"], event["headers"]["if-match"])
    assert ('{"x": "\u00e4"}', False) == (event["body"], event["isBase64Encoded"])
    assert ("POST", "$default") == (event["requestContext"]["http"]["method"], event["requestContext"]["stage"])


def test_form_body_arrives_as_base64(stack: LocalStack) -> None:
    """API Gateway encodes every body that is not of a text type, forms included."""
    _, _, body = call(stack, "/v1/runs/r/resume", method="POST", data=b"approved=true")
    assert ("YXBwcm92ZWQ9dHJ1ZQ==", True) == (body["event"]["body"], body["event"]["isBase64Encoded"])


def test_unknown_route_is_not_found(stack: LocalStack) -> None:
    """The function is not asked; API Gateway answers by itself."""
    status, _, body = call(stack, "/v1/nowhere")
    assert (404, {"message": "Not Found"}) == (status, body)


def test_function_that_raises_is_a_500(stack: LocalStack) -> None:
    """The caller learns nothing about the exception."""
    status, _, body = call(stack, "/v1/runs?wish=raise")
    assert (500, {"message": "Internal Server Error"}) == (status, body)


def test_function_output_is_kept_as_log_lines(stack: LocalStack) -> None:
    """What a handler prints can be read on the stack, with the function's name."""
    call(stack, "/v1/runs/printed-here")
    lines = until(lambda: [line for line in stack.logs("ApiFunction") if "printed-here" in line.text])
    assert "api asked for /v1/runs/printed-here" == lines[0].text


def test_warm_process_is_used_again(stack: LocalStack) -> None:
    """Two requests in a row meet one process and two request ids."""
    first, second = (call(stack, "/healthz")[2] for _ in range(2))
    assert first["pid"] == second["pid"]
    assert first["request_id"] != second["request_id"]


def test_partial_failure_redelivers_only_the_failed(stack: LocalStack, name: str) -> None:
    """The message named in batchItemFailures comes again with a higher count; its neighbour is gone."""
    send(stack, {"name": f"{name}-good"}, {"name": f"{name}-bad", "fail_until": 1})
    until(lambda: seen(stack, f"{name}-good") and seen(stack, f"{name}-bad"))
    pass_visibility(stack)
    assert [1, 2] == until(lambda: counts(stack, f"{name}-bad"), lambda found: len(found) == 2)
    assert [1] == counts(stack, f"{name}-good")


def test_killed_worker_gets_the_message_again(stack: LocalStack, name: str) -> None:
    """SIGKILL in the middle of an invocation: after the visibility timeout, in real time, another process sees it."""
    send(stack, {"name": name, "hang_until": 1})
    [first] = until(lambda: seen(stack, name))
    os.kill(first["pid"], signal.SIGKILL)
    first, second = until(lambda: seen(stack, name), lambda found: len(found) == 2)
    assert [1, 2] == [first["times"], second["times"]]
    assert first["pid"] != second["pid"]


def test_worker_over_its_timeout_is_killed(stack: LocalStack, name: str) -> None:
    """A hanging invocation ends with its process, and the message comes again."""
    send(stack, {"name": name, "hang_until": 1})
    [first] = until(lambda: seen(stack, name))
    pass_visibility(stack)
    until(lambda: seen(stack, name), lambda found: len(found) == 2)
    assert first["pid"] not in stack.pids()
    assert not alive(first["pid"])


def test_due_schedule_fires_and_is_deleted(stack: LocalStack, name: str) -> None:
    """A one-shot in the next second reaches the worker, not before its time, and leaves no schedule behind."""
    due = stack.clock.now().replace(microsecond=0) + timedelta(seconds=1)
    schedule(stack, name, due)
    until(lambda: seen(stack, name))
    assert stack.clock.now() >= due
    assert name not in until(lambda: schedules(stack), lambda found: name not in found)


def test_schedule_has_its_own_time_zone(stack: LocalStack, name: str) -> None:
    """Local wall time in Tokyo is nine hours ahead; read as UTC it would be nine hours late."""
    schedule(stack, name, stack.clock.now() + timedelta(hours=9), timezone="Asia/Tokyo")
    assert [1] == until(lambda: counts(stack, name))


def test_knob_twice_fires_twice(stack: LocalStack, name: str) -> None:
    """Two messages for one schedule, as "at least once" allows."""
    stack.knobs.twice = 1.0
    schedule(stack, name, stack.clock.now())
    assert [1, 1] == until(lambda: counts(stack, name), lambda found: len(found) == 2)


def test_knob_never_loses_the_firing(stack: LocalStack, name: str) -> None:
    """The schedule completes without a message; one made afterwards arrives, so the queue was not just slow."""
    stack.knobs.never = 1.0
    lost = stack.firer.lost
    schedule(stack, name, stack.clock.now())
    until(lambda: stack.firer.lost == lost + 1)
    stack.knobs.never = 0.0
    schedule(stack, f"{name}-after", stack.clock.now())
    until(lambda: seen(stack, f"{name}-after"))
    assert [] == seen(stack, name)


def test_forward_fires_a_schedule_days_away(stack: LocalStack, name: str) -> None:
    """Three days pass in a moment, and the worker that is woken has the new time."""
    offset = stack.clock.offset + timedelta(days=3)
    schedule(stack, name, stack.clock.now() + timedelta(days=3))
    stack.forward(days=3, seconds=1)
    [facts] = until(lambda: seen(stack, name))
    assert float(facts["offset"]) >= offset.total_seconds()


def test_forward_ends_the_delay_of_a_message(stack: LocalStack, name: str) -> None:
    """A message that waits fifteen minutes in the queue is there as soon as those have passed."""
    send(stack, {"name": name}, delay=900)
    stack.forward(seconds=901)
    assert [1] == until(lambda: counts(stack, name))


def test_forward_by_a_minute_sweeps(stack: LocalStack) -> None:
    """The rate of the sweep function follows the stack's clock."""
    before = len(seen(stack, "sweep"))
    stack.forward(seconds=61)
    facts = until(lambda: seen(stack, "sweep"), lambda found: len(found) > before)
    assert "aws.events" == facts[0]["source"]


def test_resources_have_what_the_template_says(stack: LocalStack) -> None:
    """Table, TTL, indexes, recovery, redrive and group are there under the names the functions are told."""
    told = stack.environment("WorkerFunction")
    dynamodb, sqs = stack.client("dynamodb"), stack.client("sqs")
    table = dynamodb.describe_table(TableName=told["FLOWCORE_TABLE"])["Table"]
    ttl = dynamodb.describe_time_to_live(TableName=told["FLOWCORE_TABLE"])["TimeToLiveDescription"]
    queue = sqs.get_queue_attributes(QueueUrl=told["FLOWCORE_QUEUE_URL"], AttributeNames=["All"])["Attributes"]
    group = stack.client("scheduler").get_schedule_group(Name=told["FLOWCORE_SCHEDULE_GROUP"])
    assert {"due-index", "list-index"} == {index["IndexName"] for index in table["GlobalSecondaryIndexes"]}
    assert ("ENABLED", "ttl") == (ttl["TimeToLiveStatus"], ttl["AttributeName"])
    assert (10, str(VISIBILITY_S)) == (
        json.loads(queue["RedrivePolicy"])["maxReceiveCount"],
        queue["VisibilityTimeout"],
    )
    assert "ACTIVE" == group["State"]


def test_links_lead_back_to_the_stack(stack: LocalStack) -> None:
    """With keys of its own; and everybody is let in, as nobody is there to ask who calls."""
    told = stack.environment("WorkerFunction")
    place = told["FLOWCORE_LINK_SECRETS"].removeprefix("secretsmanager:")
    kept = json.loads(stack.client("secretsmanager").get_secret_value(SecretId=place)["SecretString"])
    assert (stack.url, "NONE") == (told["FLOWCORE_PUBLIC_URL"], told["FLOWCORE_AUTH"])
    assert all(len(secret) >= 32 for secret in kept.values())


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def busy_stack(running: LocalStack) -> list[int]:
    """Put the functions of a stack to work; the processes of it all: moto, an idle api and a hanging worker."""
    call(running, "/healthz")
    send(running, {"name": "busy", "hang_until": 1})
    until(lambda: seen(running, "busy"))
    assert running.moto_pid is not None
    return [running.moto_pid, *running.pids()]


def test_interrupted_stack_leaves_no_process() -> None:
    """Ctrl-C while a worker is in the middle of something: everything has ended before the with block is left."""
    pids: list[int] = []

    def work_until_interrupted() -> None:
        with LocalStack(overrides=HANDLERS) as running:
            pids.extend(busy_stack(running))
            assert [True] * 3 == [alive(pid) for pid in pids]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_until_interrupted()
    assert [False] * 3 == [alive(pid) for pid in pids]


_CHILD = """
import signal
from infra.local.stack import LocalStack
from tests.e2e.test_local_stack import HANDLERS, busy_stack
with LocalStack(overrides=HANDLERS) as stack:
    print(*busy_stack(stack), flush=True)
    signal.pause()
"""


def test_killed_stack_leaves_no_process() -> None:
    """SIGKILL gives the stack no chance to clean up; its children end with it all the same."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "-c", _CHILD], env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pids = [int(pid) for pid in child.stdout.readline().split()]
        assert [True] * 3 == [alive(pid) for pid in pids]
        child.kill()
    until(lambda: not any(map(alive, pids)))


def test_failed_start_leaves_no_process() -> None:
    """A mistake after moto has started is raised, and moto is not left behind."""
    failing = LocalStack(overrides={"NoSuchFunction": "a.b"})
    with pytest.raises(Exception, match="NoSuchFunction"), failing:
        pass
    assert failing.moto_pid is not None
    assert not alive(failing.moto_pid)
