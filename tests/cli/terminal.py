# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program on a terminal of its own: what it draws, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

#: What leaves the terminal as it was.
SCREEN_ON, SCREEN_OFF = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """The program `argv` on a pseudo-terminal of so many lines and columns."""

    def __init__(
        self,
        argv: Sequence[str],
        lines: int = 24,
        columns: int = 100,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(lines, columns)
        self.before: list[Any] = termios.tcgetattr(self.slave)
        self.text = ""
        unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        fixed = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        self.program = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**inherited, **fixed, **(environment or {})},
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def await_text(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait until this was drawn; what was drawn up to there does not count again."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.text, re.DOTALL)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not drawn, but {plain(self.text)[-2000:]!r}"
            self.read(left)
        self.text = self.text[found.end() :]
        return found

    def read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.text += os.read(self.master, 1 << 16).decode("utf-8", "replace")

    def end(self) -> int:
        """Wait for the program's end; return its status. All it drew is in `text`."""
        deadline = time.monotonic() + 60
        while self.program.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {plain(self.text)[-2000:]!r}"
            self.read(0.05)
        while select.select([self.master], [], [], 0)[0]:
            self.read(0)
        return self.program.returncode

    def is_as_before(self) -> bool:
        return bool(termios.tcgetattr(self.slave) == self.before)


def plain(text: str) -> str:
    """The text without what moves the cursor and changes colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
