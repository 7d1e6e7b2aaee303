"""The local stack as one object: entered, all of template.yaml runs on loopback; left, nothing remains.

Owns start, wiring, the jump of time and the end. Everything else is a room of its own: ``deploy.py`` makes the
resources, ``pool.py`` runs functions, ``movers.py`` moves messages and schedules, ``http_front.py`` answers HTTP.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.local.blueprint import Blueprint
from infra.local.clients import Clients
from infra.local.clock import StackClock
from infra.local.deploy import Deployment
from infra.local.http_front import HttpFront
from infra.local.knobs import Knobs
from infra.local.logs import Line, Logs
from infra.local.moto_server import MotoServer, pass_time_in_queue
from infra.local.movers import Mover, QueuePoller, RateTicker, ScheduleFirer
from infra.local.outcomes import Died, Outcome
from infra.local.pool import FunctionPool
from infra.local.runtime_api import Sandbox
from infra.local.streams import StreamReader
from infra.local.template import load, translate

PROJECT = Path(__file__).resolve().parents[2]
_POLL_S = 0.1
_MAX_SANDBOXES = 4
"""Processes per function; the template's concurrency is for Lambda, not for one machine."""
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


class LocalStack:
    """A context manager; every verb works between enter and exit.

    Args:
        port: of the HTTP API; 0 takes a free one.
        moto_port: of moto; 0 takes a free one. Not used when ``AWS_ENDPOINT_URL`` names an endpoint to deploy to.
        parameters: of the template, by name. Unless told otherwise everybody is let in, and links lead back here.
        overrides: logical id of a function -> handler to run instead of the template's.
        environment: added to every function's own variables.
        task_root: the directory handlers are imported from.
        clock: where the stack's time starts and how fast it runs.
        knobs: may be turned while the stack runs.
        log_file: gets every line the functions print.
        echo: is called with every such line.
        max_sandboxes: processes per function at most.
    """

    blueprint: Blueprint
    firer: ScheduleFirer
    _front: HttpFront
    _clients: Clients

    def __init__(
        self,
        *,
        port: int = 0,
        moto_port: int = 0,
        parameters: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        template: Path = PROJECT / "template.yaml",
        task_root: Path = PROJECT,
        clock: StackClock | None = None,
        knobs: Knobs | None = None,
        log_file: Path | None = None,
        echo: Callable[[Line], None] | None = None,
        region: str = "us-east-1",
        stack_name: str = "flowcore-local",
        max_sandboxes: int = _MAX_SANDBOXES,
    ) -> None:
        self.clock = clock or StackClock()
        self.knobs = knobs or Knobs()
        self._port = port
        self._moto_port = moto_port
        self._parameters = {"AuthMode": "NONE", **(parameters or {})}  # there is no authorizer here to ask who calls
        self._overrides = dict(overrides or {})
        self._environment = dict(environment or {})
        self._template = template
        self._task_root = task_root
        self._region = region
        self._stack_name = stack_name
        self._max_sandboxes = max_sandboxes
        self._logs = Logs(self.clock.now, log_file, echo)
        self._exit = ExitStack()
        self.pools: dict[str, FunctionPool] = {}
        self._movers: list[Mover] = []
        self._pollers: list[tuple[str, QueuePoller]] = []
        self._tickers: list[RateTicker] = []
        self.moto_pid: int | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    @property
    def url(self) -> str:
        """Of the HTTP API, without a slash at the end."""
        return self._front.url

    @property
    def endpoint_url(self) -> str:
        """Of the AWS services; what ``AWS_ENDPOINT_URL`` is set to in the functions."""
        return self._clients.endpoint

    def client(self, service: str) -> Any:
        """Boto3's client for this stack; made once, shared by threads."""
        return self._clients(service)

    def environment(self, function: str = "ApiFunction") -> dict[str, str]:
        """Variables under which any program sees this stack as the function does: resources, endpoint, clock."""
        return {**self.blueprint.functions[function].environment, **self._shared_environment()}

    def invoke(self, function: str, event: bytes) -> Outcome:
        """Run one event on a function, named by its logical id."""
        pool = self.pools[function]
        fed_by_a_queue = any(source.function == function for source in self.blueprint.queue_sources)
        if not fed_by_a_queue or not self.knobs.dooms():
            return pool.invoke(event)
        outcome = pool.invoke(event, killed_after=self.knobs.instant(self.knobs.killed_within))
        if not isinstance(outcome, Died):
            self.knobs.spares()
        return outcome

    def sweep(self) -> list[Outcome]:
        """Run every function with a rate once, now, whatever clock and knobs say."""
        return [ticker.tick() for ticker in self._tickers]

    def forward(self, step: timedelta | None = None, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Let time pass: schedules, delays, visibility timeouts and rates that fall due do so now.

        Functions get the new time by starting anew; one that is busy ends its invocation in the old time, like a
        machine whose clock lags.
        """
        step = step or timedelta(days=days, hours=hours, seconds=seconds)
        with ExitStack() as paused:
            # A schedule fired between the two would wake a worker of the old time, for which it is days too early.
            for mover in self._movers:
                paused.enter_context(mover.paused())
            self.clock.forward(step)
            for pool in self.pools.values():
                pool.recycle()
            for queue_name, poller in self._pollers:
                with poller.held() as held:
                    pass_time_in_queue(self.endpoint_url, queue_name, step, held)
        for mover in self._movers:
            mover.nudge()

    @property
    def idle(self) -> bool:
        """Nobody is at work at this moment; messages may wait in the queue."""
        for _, poller in self._pollers:
            with poller.held() as held:
                if held:
                    return False
        return not any(pool.busy for pool in self.pools.values())

    @property
    def messages(self) -> tuple[int, int]:
        """How many messages functions were handed so far, and of how many a copy was sent as ``Knobs.doubled`` asks."""
        pollers = [poller for _, poller in self._pollers]
        return sum(poller.received for poller in pollers), sum(poller.copies for poller in pollers)

    def kill_worker(self, signal_number: int = signal.SIGKILL) -> int | None:
        """Signal a worker process, a busy one first; its pid, or None when none is alive."""
        return self.pools["WorkerFunction"].kill(signal_number)

    def logs(self, function: str | None = None) -> list[Line]:
        """What the functions printed so far, oldest first."""
        return self._logs.lines(function)

    def pids(self) -> list[int]:
        """Processes of all sandboxes alive now."""
        return [pid for pool in self.pools.values() for pid in pool.pids()]

    def _start(self) -> None:
        self._exit.callback(self._logs.close)
        given_endpoint = os.environ.get("AWS_ENDPOINT_URL")
        moto = None if given_endpoint else MotoServer(port=self._moto_port)
        if moto is not None:
            self.moto_pid = moto.pid
            self._exit.callback(moto.close)
        translated = translate(load(self._template), region=self._region)  # While moto imports itself.
        endpoint = given_endpoint or (moto.url if moto is not None else "")
        self._clients = Clients(endpoint, self._region, _CREDENTIALS)
        deployment = Deployment(
            translated,
            self.client,
            given=self._parameters,
            overrides=self._overrides,
            region=self._region,
            stack_name=self._stack_name,
        )
        self.blueprint = deployment.run()
        self._start_pools()
        self._front = HttpFront(self.blueprint.routes, self.invoke, now=self.clock.now, port=self._port)
        self._exit.callback(self._front.close)
        self._start_movers()

    def _start_pools(self) -> None:
        limits = {source.function: source.concurrency for source in self.blueprint.queue_sources}
        for function in self.blueprint.functions:
            limit = min(limits.get(function, self._max_sandboxes), self._max_sandboxes)
            self.pools[function] = FunctionPool(partial(self._sandbox, function), limit=limit)
        self._exit.callback(self._close_pools)

    def _sandbox(self, function: str) -> Sandbox:
        spec = self.blueprint.functions[function]
        return Sandbox(spec, environment=self._shared_environment(), task_root=self._task_root, on_line=self._logs.add)

    def _shared_environment(self) -> dict[str, str]:
        return {
            **_CREDENTIALS,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self._region,
            "AWS_DEFAULT_REGION": self._region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            **({} if self._parameters.get("PublicUrl") else {"FLOWCORE_PUBLIC_URL": self.url}),
            **self.clock.environment(),
            **self._environment,
        }

    def _start_movers(self) -> None:
        blueprint, sqs = self.blueprint, self.client("sqs")
        self._exit.callback(self._close_movers)
        for source in blueprint.queue_sources:
            slots = min(source.concurrency, self._max_sandboxes)
            poller = QueuePoller(source, sqs, self.invoke, slots=slots, region=self._region, knobs=self.knobs)
            self._pollers.append((source.queue_arn.rpartition(":")[2], poller))
            self._movers.append(Mover("queue poller", poller.turn, pause=_POLL_S))
        for stream in blueprint.stream_sources:
            reader = StreamReader(stream, self.client("dynamodbstreams"), self.invoke, region=self._region)
            self._movers.append(Mover("stream reader", reader.turn, pause=_POLL_S))
        scheduler = self.client("scheduler")
        self.firer = ScheduleFirer(blueprint.schedule_groups, scheduler, sqs, self.clock, self.knobs)
        self._movers.append(Mover("schedule firer", self.firer.turn, pause=_POLL_S))
        self._tickers = [
            RateTicker(r, self.invoke, self.clock, self.knobs, region=self._region) for r in blueprint.rates
        ]
        self._movers += [Mover("rate ticker", ticker.turn, pause=_POLL_S) for ticker in self._tickers]

    def _close_movers(self) -> None:
        """Movers take no more work, then their sandboxes end, then what they had begun is over."""
        for mover in self._movers:
            mover.ask_to_close()
        self._close_pools()
        for mover in self._movers:
            mover.close()
        for _, poller in self._pollers:
            poller.close()

    def _close_pools(self) -> None:
        for pool in self.pools.values():
            pool.close()
