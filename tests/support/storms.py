# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crowds of nodes, played on loopback by `kdumpfence storm` in a process of its own.

In this process, where the sender's own processor time counts, use `kdumpfence.storm`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from tests.support.programs import environment


class Storm:
    """A storm under way; left by its `with`, it is gone."""

    def __init__(
        self,
        port: int,
        *options: str,
        wrapper: Sequence[str] = (),
        core: str | None = None,
        stderr: int | None = None,
    ) -> None:
        """Begin, with `options` as the command has them, below a command such as taskset."""
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "kdumpfence.cli", "storm"]
            + ["--port", str(port), "--json", *options],
            env=None if core is None else environment(core),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=stderr,
        )

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it early; it tells all the same."""
        if not self.over:
            self.process.send_signal(number)

    def told(self, seconds: float = 30) -> dict[str, Any]:
        """What it sent, when it has ended: within so many seconds."""
        self.process.wait(seconds)
        self._out.seek(0)
        told: dict[str, Any] = json.loads(self._out.read())
        return told

    def close(self) -> None:
        """Leave nothing behind."""
        if not self.over:
            self.process.kill()
        self.process.wait()
        self._out.close()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
