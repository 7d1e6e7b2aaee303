"""Child processes that cannot outlive us.

Linux kills a child when the *thread* that forked it ends, so all children are forked by one thread that lives as long
as the interpreter; elsewhere a child notices at its next call to us. Children lead their own session: Ctrl-C reaches
only the parent, which then ends them in order.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_FORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child in its own session; it should call ``die_with_parent`` first of all."""

    def fork() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    return _FORKER.submit(fork).result()


def die_with_parent(parent: int) -> None:
    """Called by the child: ask to be killed when ``parent`` ends, and leave at once if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a child with all it started, stopped ones included, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
