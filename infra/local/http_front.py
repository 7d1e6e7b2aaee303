"""The HTTP API on loopback: a request in, an event to the function, its answer out.

Owns API Gateway's manners: 404 for an unknown route, 413 above 10 MB, 500 when the function fails, 503 after 30 s.
Authorizers are not here: everybody is let in.
"""

import json
import queue
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from flowcore.http.gateway import Request, Response
from infra.local.blueprint import Route
from infra.local.http_events import Match, Router, from_result, message, to_event
from infra.local.outcomes import Outcome, Returned, Throttled
from infra.local.wire import read_body

MAX_BODY = 10_000_000
"""API Gateway quotas, "HTTP API quotas": payload size 10 MB."""
INTEGRATION_LIMIT = timedelta(seconds=30)
"""API Gateway quotas, "HTTP API quotas": maximum integration timeout, 30 s, cannot be raised."""

Invoke = Callable[[str, bytes], Outcome]
"""Takes a function's logical id and an event."""


class HttpFront:
    """Serves the routes on 127.0.0.1 until ``close``."""

    def __init__(
        self,
        routes: Iterable[Route],
        invoke: Invoke,
        *,
        now: Callable[[], datetime],
        port: int = 0,
        limit: timedelta = INTEGRATION_LIMIT,
    ) -> None:
        self._router = Router(routes)
        self._invoke = invoke
        self._now = now
        self._limit = limit
        self._server = _Server(("127.0.0.1", port), _Requests)
        self._server.front = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request) -> Response:
        """What API Gateway would say to this request."""
        match = self._router.match(request.method, request.target.partition("?")[0])
        if match is None:
            return message(404, "Not Found")
        event = json.dumps(to_event(request, match, now=self._now())).encode()
        match self._within_limit(match, event):
            case Returned(payload):
                return from_result(payload)
            case None | Throttled():
                return message(503, "Service Unavailable")
            case _:
                return message(500, "Internal Server Error")

    def _within_limit(self, match: Match, event: bytes) -> Outcome | None:
        """The outcome, or None at the limit; the function is not told and works on, as on AWS."""
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

        def run() -> None:
            outcomes.put(self._invoke(match.route.function, event))

        threading.Thread(target=run, daemon=True).start()
        try:
            return outcomes.get(timeout=self._limit.total_seconds())
        except queue.Empty:
            return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    front: HttpFront

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not news."""


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body in one write; apart, Nagle makes each answer wait.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        if int(self.headers.get("Content-Length") or 0) > MAX_BODY:
            self.close_connection = True
            return self._send(message(413, "Request Entity Too Large"))
        request = Request(
            method=self.command,
            target=self.path,
            headers=list(self.headers.items()),
            body=read_body(self),
            source_ip=str(self.client_address[0]),
        )
        return self._send(cast("_Server", self.server).front.answer(request))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        for name, value in response.headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()
