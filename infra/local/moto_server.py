"""moto in a process of its own on loopback, with the one lock without which it loses writes.

moto's DynamoDB is not safe between threads: racing conditional writes have two winners, and a failing transaction
undoes other writers' acknowledged ones. Here every DynamoDB request is answered alone; SQS long polls stay outside
the lock. ``install_lock`` does the same for tests that run moto in their own process.

Adds one route to moto's own, ``POST /local/queues/pass-time``, because a message's delay lives in moto's memory and the
stack's clock has to be able to let it pass. A process of its own, because moto keeps its state in module globals that
``mock_aws`` in the same interpreter would wipe.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from infra.local.processes import die_with_parent, end, spawn

PASS_TIME_PATH = "/local/queues/pass-time"  # noqa: S105  # a path, not a password
_ONE_AT_A_TIME = threading.RLock()
_ROOT = Path(__file__).resolve().parents[2]


def install_lock() -> None:
    """Make in-process moto (``mock_aws``) answer DynamoDB calls one at a time; a second call changes nothing."""
    from moto.dynamodb.responses import DynamoHandler

    unlocked = DynamoHandler.call_action
    if getattr(unlocked, "answers_alone", False):
        return

    @functools.wraps(unlocked)
    def call_action(self: DynamoHandler) -> Any:
        with _ONE_AT_A_TIME:
            return unlocked(self)

    call_action.answers_alone = True  # type: ignore[attr-defined]
    DynamoHandler.call_action = call_action  # type: ignore[method-assign]


class MotoServer:
    """A running moto; ``url`` is where it answers. Dies with ``close`` or with this process."""

    def __init__(self, *, port: int = 0) -> None:
        command = [sys.executable, "-m", "infra.local.moto_server", "--port", str(port), "--parent", str(os.getpid())]
        self._process = spawn(command, env=os.environ, cwd=_ROOT, stdout=subprocess.PIPE)
        self._url: str | None = None

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Blocks until the server listens.

        Raises:
            RuntimeError: it ended instead; what it said is on stderr.
        """
        if self._url is None:
            assert self._process.stdout is not None
            line = self._process.stdout.readline().decode().strip()
            if not line.startswith("http"):
                raise RuntimeError(f"moto did not start: {line!r}, exit code {self._process.wait()}.")
            self._url = line
        return self._url

    def close(self) -> None:
        """End the process; what it stored is gone."""
        end(self._process)
        if self._process.stdout is not None:
            self._process.stdout.close()


def pass_time_in_queue(url: str, queue_name: str, step: timedelta, held: Iterable[str]) -> bool:
    """Let ``step`` pass for the messages of a queue, except for those a worker holds (by message id).

    Returns:
        False when the endpoint is not our own moto: delays there end in real time, and until then the sweeper finds
        the run.
    """
    body = {"queue": queue_name, "seconds": step.total_seconds(), "held": list(held)}
    request = urllib.request.Request(url.rstrip("/") + PASS_TIME_PATH, json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _let_time_pass(request: dict[str, Any]) -> int:
    from moto.backends import get_backend

    passed_ms = request["seconds"] * 1000
    touched = 0
    for regions in get_backend("sqs").values():
        for backend in regions.values():
            queue = backend.queues.get(request["queue"])
            for message in list(queue._messages) if queue else ():  # noqa: SLF001  # moto has no other way to a message
                if message.id not in request["held"]:
                    message.delayed_until -= passed_ms
                    message.visible_at -= passed_ms
                    touched += 1
    return touched


def _application() -> Callable[..., Iterable[bytes]]:
    """moto's WSGI application behind the lock, with our route in front."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == PASS_TIME_PATH:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            touched = _let_time_pass(json.loads(environ["wsgi.input"].read(length)))
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"messages": touched}).encode()]
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB"):
            with _ONE_AT_A_TIME:
                return list(moto(environ, start_response))
        result: Iterable[bytes] = moto(environ, start_response)
        return result

    return answer


def _serve(port: int) -> None:
    import logging

    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, _application(), threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="moto on loopback, one DynamoDB request at a time")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent", type=int, default=0, help="end when this process does")
    arguments = parser.parse_args()
    if arguments.parent:
        die_with_parent(arguments.parent)
    _serve(arguments.port)
