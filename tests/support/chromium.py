# SPDX-License-Identifier: LGPL-2.1-or-later
"""A browser without a window: Debian's chromium-headless-shell, spoken to over two pipes.

Its own protocol (DevTools), as far as tests and tools/statuspage.py need it. What may not be in
this file: what a page should look like.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.conftest import cannot_run

PROGRAM = "chromium-headless-shell"

#: Seconds that anything may take.
PATIENCE = 60.0


class Refused(Exception):
    """The browser did not do it: its own words."""


class Browser:
    """One, with one page. What a page complained of stands in `complaints`."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            cannot_run(f"{PROGRAM} is missing")
        self.complaints: list[str] = []
        self._size = (width, height)
        self._folder = tempfile.TemporaryDirectory()
        self._number = 0
        self._session = ""
        self._unread = b""
        self._events: deque[dict[str, Any]] = deque()
        command_in, self._to = os.pipe()
        self._from, command_out = os.pipe()
        # It takes 3 and 4 for them; a shell puts them there, and goes away by exec.
        line = f'exec "$@" 3<&{command_in} 4>&{command_out}'
        self._process = subprocess.Popen(
            [
                *("bash", "-c", line, "bash", program),
                *("--no-sandbox", "--remote-debugging-pipe", "--lang=en", "--hide-scrollbars"),
                *("--disable-background-networking", "--disable-component-update"),
                # One process less, and none that takes more of /dev/shm than a container has.
                *("--disable-gpu", "--in-process-gpu", "--disable-dev-shm-usage"),
                f"--user-data-dir={self._folder.name}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            pass_fds=(command_in, command_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TZ": "Europe/Vienna", "HOME": self._folder.name},
            start_new_session=True,
        )
        os.close(command_in)
        os.close(command_out)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and what it started."""
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(10)  # it ends with its pipe
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
        self._folder.cleanup()

    # What a test does with it

    def emulate(self, scheme: str = "light", media: str = "", scripts: bool = True) -> None:
        """Look at pages in that colour scheme, as on that medium, with scripts or without."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def size(self, width: int, height: int, scale: float = 1.0) -> None:
        """Have a window of that size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Go there; return when it is there."""
        self._events.clear()
        self._call("Page.navigate", url=url)
        self._await("Page.loadEventFired")

    def follow(self, expression: str) -> None:
        """Do that, which leads to another page; return when that is there."""
        self._events.clear()
        with contextlib.suppress(Refused):  # the page that would answer may be gone by then
            self.evaluate(expression)
        self._await("Page.loadEventFired")

    def leave(self) -> None:
        """Go to an empty page: the last one does nothing any more."""
        self.open("about:blank")

    def evaluate(self, expression: str) -> Any:
        """What that comes to in the page, a promise included."""
        done = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def text(self) -> str:
        """What can be read on the page; also where it runs no scripts of its own."""
        return str(self.evaluate("document.body.innerText"))

    def until(self, expression: str) -> Any:
        """What that comes to as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(Refused):  # between two pages
                found = self.evaluate(expression)
                if found:
                    return found
            assert time.monotonic() < end, f"not within {PATIENCE} s: {expression}: {self.text()}"
            time.sleep(0.05)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What the window shows, or the whole page, as a PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF")["data"])

    # How

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        call: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        sent = json.dumps(call).encode() + b"\0"
        while sent:
            sent = sent[os.write(self._to, sent) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Refused(method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _await(self, event: str) -> None:
        while not any(one.get("method") == event for one in self._events):
            self._note(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser says nothing"
            more = os.read(self._from, 1 << 20)
            assert more, "the browser has ended"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] == "error":
            self.complaints.append(json.dumps(about["args"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
