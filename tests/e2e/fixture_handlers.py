"""Throw-away handlers for the tests of the local stack: each shows one thing a function can do to its surroundings.

What they saw goes to the table, as items ``pk = SAW#<name>``, because that is the one place a process that dies leaves
something behind. They write without boto3: its import would be most of the time these tests take.
"""

import json
import os
import time
import uuid
from typing import Any
from urllib.request import Request, urlopen

_SCOPE = f"{os.environ.get('AWS_ACCESS_KEY_ID')}/20260101/{os.environ.get('AWS_REGION')}/dynamodb/aws4_request"
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "DynamoDB_20120810.PutItem",
    "Authorization": f"AWS4-HMAC-SHA256 Credential={_SCOPE}, SignedHeaders=host, Signature=none",
}


def _saw(name: str, **facts: Any) -> None:
    item = {"pk": {"S": f"SAW#{name}"}, "sk": {"S": uuid.uuid4().hex}, "facts": {"S": json.dumps(facts)}}
    body = json.dumps({"TableName": os.environ["FLOWCORE_TABLE"], "Item": item}).encode()
    urlopen(Request(os.environ["AWS_ENDPOINT_URL"], body, _HEADERS), timeout=10).close()


def api(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answers with the event itself, unless the caller asks for trouble."""
    wish = event.get("queryStringParameters", {}).get("wish")
    if wish == "raise":
        raise RuntimeError("as wished")
    print(f"api asked for {event['rawPath']}")
    table = os.environ["FLOWCORE_TABLE"]
    facts = {"event": event, "request_id": context.aws_request_id, "pid": os.getpid(), "table": table}
    return {
        "statusCode": 201,
        "headers": {"Content-Type": "application/json", "X-Yes": True},
        "cookies": ["a=1", "b=2"],
        "body": json.dumps(facts),
    }


def worker(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Does what each message says, and notes what it saw."""
    failures = []
    for record in event["Records"]:
        order = json.loads(record["body"])
        times = int(record["attributes"]["ApproximateReceiveCount"])
        offset = os.environ.get("FLOWCORE_CLOCK_OFFSET", "")
        _saw(order["name"], times=times, pid=os.getpid(), offset=offset, arn=record["eventSourceARN"])
        if times <= order.get("fail_until", 0):
            failures.append({"itemIdentifier": record["messageId"]})
        if times <= order.get("hang_until", 0):
            time.sleep(60)
    return {"batchItemFailures": failures}


def sweep(event: dict[str, Any], context: Any) -> None:
    """Notes that it was called."""
    _saw("sweep", source=event["source"])
