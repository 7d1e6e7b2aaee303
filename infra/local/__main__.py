"""``python -m infra.local``: the local stack from a terminal.

``up`` starts it and stays until Ctrl-C. ``demo`` tells the story in ``demo.py``,
``soak`` kills and freezes workers for as long as asked.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.local import demo, soak
from infra.local.demo_app import ENVIRONMENT
from infra.local.logs import Line
from infra.local.stack import LocalStack


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="The deployed stack, on loopback.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and stay until Ctrl-C")
    up.add_argument("--port", type=int, default=8000, help="of the HTTP API; 0 takes a free one")
    up.add_argument("--app", help="the App to serve, as module:attribute")
    up.add_argument("--log-file", type=Path, help="append what the functions print to this file")
    commands.add_parser("demo", help="run the demonstration", add_help=False)
    commands.add_parser("soak", help="runs by the dozen while workers are killed and frozen", add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if options.command == "demo":
        return demo.main(rest)
    if options.command == "soak":
        return soak.main(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _up(options.port, options.app, options.log_file)


def _up(port: int, app: str | None, log_file: Path | None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that a kill shuts down in order, like Ctrl-C.
    try:
        parameters = {"AppModule": app or "infra.local.demo_app:app"}
        environment = {} if app else ENVIRONMENT
        with LocalStack(
            port=port, parameters=parameters, environment=environment, log_file=log_file, echo=_show
        ) as stack:
            print(_greeting(stack, app), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("Stopped; nothing is left running, and what was stored is gone.", file=sys.stderr)
    return 0


def _show(line: Line) -> None:
    print(f"{line.function}: {line.text}", file=sys.stderr, flush=True)


def _greeting(stack: LocalStack, app: str | None) -> str:
    example = "" if app else _EXAMPLE.format(url=stack.url)
    return f"""The stack is up: {stack.url}

  curl {stack.url}/healthz
  curl {stack.url}/v1/workflows
  curl {stack.url}/v1/runs
{example}
AWS services: AWS_ENDPOINT_URL={stack.endpoint_url}
Ctrl-C ends it."""


_EXAMPLE = """
  curl -X POST {url}/v1/workflows/expense/runs -H 'content-type: application/json' \\
       -d '{{"run_id": "e-1", "input": {{"employee": "ada", "amount": 60000, "purpose": "a telescope"}}}}'
  curl {url}/v1/runs/e-1
  curl -X POST {url}/v1/runs/e-1/resume -H 'content-type: application/json' -d '{{"data": {{"approved": true}}}}'
  curl -X POST {url}/v1/runs/e-1/cancel

  curl -X POST {url}/v1/workflows/refund/runs -H 'content-type: application/json' \\
       -d '{{"run_id": "r-1", "input": {{"order": "A-17", "cents": 990, "reason": "the kettle leaks"}}}}'
  # prints a mail here: open its link in a browser
"""
"""What to do with the examples that are served when no other App is named."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
