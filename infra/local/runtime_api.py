"""A sandbox: one process that runs one handler, driven through the Lambda Runtime API on loopback.

The process is AWS's own runtime client (awslambdaric), so events, context, errors and log lines are what Lambda
gives. Owns the deadline of an invocation, cold starts and death. One invocation at a time, as on Lambda; ``pool.py``
makes it many. Source: Lambda developer guide, "Using the Lambda runtime API".
"""

import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from infra.local.blueprint import FunctionSpec
from infra.local.outcomes import Died, Outcome, Raised, Returned, TimedOut
from infra.local.processes import end, spawn
from infra.local.wire import read_body

_PREFIX = "/2018-06-01/runtime/"
_ENTRY = Path(__file__).with_name("sandbox_entry.py")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_INHERITED_PREFIXES = ("COVERAGE_", "COV_CORE_", "PYTHON")

INIT_LIMIT = timedelta(seconds=60)
"""Lambda allows 10 s and then repeats init inside the invocation; a loaded laptop gets more, once."""

LineSink = Callable[[str, str], None]
"""Takes a function's logical id and one line it printed."""


@dataclass(slots=True, eq=False)
class _Invocation:
    event: bytes
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    taken: threading.Event = field(default_factory=threading.Event)
    outcome: "Future[Outcome]" = field(default_factory=Future)

    def settle(self, outcome: Outcome) -> None:
        """Fix the outcome; whoever comes second, a late answer or the watcher of a death, changes nothing."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)
        self.taken.set()


class Sandbox:
    """One warm (or not yet started) instance of a function."""

    def __init__(
        self, spec: FunctionSpec, *, environment: Mapping[str, str], task_root: Path, on_line: LineSink
    ) -> None:
        self.spec = spec
        self._environment = environment
        self._task_root = task_root
        self._on_line = on_line
        self._inbox: queue.SimpleQueue[_Invocation | None] = queue.SimpleQueue()
        self._current: _Invocation | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._server: _RuntimeApi | None = None
        self._settle = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process, if one is alive."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def is_at_work(self) -> bool:
        """Whether the process has taken an event and not answered yet; one that still starts has not."""
        current = self._current
        return current is not None and current.taken.is_set() and not current.outcome.done()

    def invoke(self, event: bytes) -> Outcome:
        """Run the handler on one event; starts the process when there is none."""
        if self.pid is None:
            self._start()
        invocation = _Invocation(event)
        self._current = invocation
        process = self._process
        if process is None or process.poll() is not None:
            self._finish(invocation, Died(process.returncode if process else 0))
        self._inbox.put(invocation)
        try:
            invocation.taken.wait(INIT_LIMIT.total_seconds())
            return invocation.outcome.result(timeout=self.spec.timeout.total_seconds())
        except TimeoutError:
            self._finish(invocation, TimedOut(self.spec.timeout))
            self._stop_process()
            return invocation.outcome.result()
        finally:
            self._current = None

    def kill(self, signal_number: int) -> bool:
        """Send the process a signal; false when there is none."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, signal_number)
        return True

    def close(self) -> None:
        """End the process and its Runtime API for good."""
        self._closed = True
        self._stop_process()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def next_invocation(self) -> tuple[str, bytes, int] | None:
        """For the Runtime API: wait for work; its id, event and deadline in epoch milliseconds."""
        invocation = self._inbox.get()
        if invocation is None:
            return None
        deadline = time.time() + self.spec.timeout.total_seconds()
        invocation.taken.set()
        return invocation.id, invocation.event, int(deadline * 1000)

    def answer(self, invocation_id: str | None, outcome: Outcome) -> bool:
        """For the Runtime API: the outcome of the invocation under way; without id, init failed."""
        current = self._current
        if current is None or (invocation_id is not None and current.id != invocation_id):
            return False
        self._finish(current, outcome)
        return True

    def _finish(self, invocation: _Invocation, outcome: Outcome) -> None:
        with self._settle:
            invocation.settle(outcome)

    def _start(self) -> None:
        if self._server is None:
            self._server = _RuntimeApi(self)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        # An event the last process never took must not be the first thing a new one gets.
        self._inbox = queue.SimpleQueue()
        process = spawn(
            [sys.executable, "-P", str(_ENTRY), str(os.getpid()), self.spec.handler],
            env=self._process_environment(self._server.server_port),
            cwd=self._task_root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._process = process
        threading.Thread(target=self._watch, args=(process, self._inbox), daemon=True).start()
        if self._closed:
            end(process)

    def _watch(self, process: "subprocess.Popen[bytes]", inbox: "queue.SimpleQueue[_Invocation | None]") -> None:
        """Pass on what the process prints; when it is gone, so is the invocation under way."""
        threading.Thread(target=self._read_lines, args=(process,), daemon=True).start()
        exit_code = process.wait()
        inbox.put(None)  # Frees the thread that still waits for an event on behalf of the dead.
        current = self._current
        if process is self._process and current is not None:
            self._finish(current, Died(exit_code))

    def _read_lines(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._on_line(self.spec.id, line.decode("utf-8", "replace").rstrip("\n"))

    def _stop_process(self) -> None:
        if self._process is not None:
            end(self._process)

    def _process_environment(self, port: int) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
        }
        paths = [str(self._task_root), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **inherited,
            "TZ": ":UTC",
            "PYTHONPATH": os.pathsep.join(paths),
            "LAMBDA_TASK_ROOT": str(self._task_root),
            "_HANDLER": self.spec.handler,
            "AWS_LAMBDA_FUNCTION_NAME": self.spec.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.spec.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/local/{self.spec.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            **self.spec.environment,
            **self._environment,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        }


class _RuntimeApi(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeRequests)
        self.sandbox = sandbox

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that was killed leaves broken connections; that is not news."""


class _RuntimeRequests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one write, and no Nagle: together they took 45-90 ms of every call.
    wbufsize = -1
    disable_nagle_algorithm = True

    @property
    def _sandbox(self) -> Sandbox:
        return cast("_RuntimeApi", self.server).sandbox

    def do_GET(self) -> None:
        if self.path != f"{_PREFIX}invocation/next":
            return self._reply(404, b"{}")
        work = self._sandbox.next_invocation()
        if work is None:
            self.close_connection = True
            return None
        invocation_id, event, deadline_ms = work
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self._sandbox.spec.arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
        }
        return self._reply(200, event, headers)

    def do_POST(self) -> None:
        body = read_body(self)
        error_type = self.headers.get("Lambda-Runtime-Function-Error-Type", "Unhandled")
        match self.path.removeprefix(_PREFIX).split("/"):
            case ["invocation", invocation_id, "response"]:
                known = self._sandbox.answer(invocation_id, Returned(body))
            case ["invocation", invocation_id, "error"]:
                known = self._sandbox.answer(invocation_id, Raised(body, error_type))
            case ["init", "error"]:
                known = self._sandbox.answer(None, Raised(body, error_type))
            case _:
                return self._reply(404, b"{}")
        return self._reply(202 if known else 400, b'{"status":"OK"}')

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
