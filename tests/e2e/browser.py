"""Debian's Chromium without a window, told what to do over its DevTools pipe: opens pages, types, clicks, looks.

No driver and no port: messages are JSON, each ended by a NUL, on the descriptors 3 and 4 of the browser's process.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NEEDED = "FLOWCORE_BROWSER"
"""``needed``: where there is no browser, a test that wants one fails. Else it is left out, and says how to get it."""
HOW = "There is no Chromium here. On Debian: sudo make browser. Elsewhere put `chromium` on the PATH."
PATIENCE_S = 60.0

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a sandbox in a container needs more rights than the container has
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-extensions",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def chromium() -> str:
    """Where the browser is. Skips the test, or fails it where a browser is needed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get(NEEDED) == "needed":
        pytest.fail(HOW)
    if found is None:
        pytest.skip(HOW)
    return found


class Browser:
    """One window on nothing yet; a context manager, which leaves no process behind."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        spare = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser, from_browser)]
        self._pid = os.posix_spawn(
            found := chromium(),
            [found, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, spare[0], 3),
                (os.POSIX_SPAWN_DUP2, spare[1], 4),
            ],
            setsid=True,
        )
        for end in (to_browser, from_browser, *spare):
            os.close(end)
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        self.requests: list[str] = []
        """Addresses that pages have asked for."""
        self.complaints: list[str] = []
        """What the browser has said about pages: violations of their policy, errors of scripts."""

    def __enter__(self) -> Self:
        target = self._tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._tell(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._to)
        os.close(self._from)

    def open(self, url: str) -> None:
        """Go to an address, and wait until its page stands."""
        self._leaving(lambda: self._tell("Page.navigate", url=url))

    def click(self, selector: str) -> None:
        """Click on the first element, as a mouse does."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView();"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._tell("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def send(self, selector: str = "button") -> None:
        """Click on what sends a form, and wait for the page that comes."""
        self._leaving(lambda: self.click(selector))

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a control and type."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._tell("Input.insertText", text=text)

    def run(self, script: str) -> Any:
        """What an expression gives on the page; it is the test's, so the page's policy does not hold it up."""
        answer = self._tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """What a reader sees."""
        return str(self.run("document.body.innerText"))

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size, whose owner likes it light or dark."""
        self._tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", features=[scheme])

    def shoot(self, path: Path) -> bytes:
        """Keep what is to be seen as a PNG."""
        shown = base64.b64decode(self._tell("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(shown)
        return shown

    def _leaving(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until that one stands."""
        self.run("window.here = true")
        act()
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(AssertionError):  # between two pages there is none to ask
                if self.run("window.here !== true && document.readyState === 'complete'"):
                    return
            time.sleep(0.02)
        raise AssertionError(f"No other page after {PATIENCE_S} s; this one says:\n{self.text}")

    def _tell(self, method: str, **params: Any) -> dict[str, Any]:
        """One message and its answer; what the browser says in between is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            said = self._hear()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            case _:
                pass

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            waiting = select.poll()  # select() itself takes no number above 1,023
            waiting.register(self._from, select.POLLIN)
            ready = waiting.poll(PATIENCE_S * 1_000)
            read = os.read(self._from, 1 << 20) if ready else b""
            assert read, "The browser does not answer."
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(first))
