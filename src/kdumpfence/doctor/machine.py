# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that is examined: the files of a root directory, and what its programs say.

Only the running system's programs are asked. Of another root, an image's for example, files alone
can be judged.
"""

from __future__ import annotations

import functools
import os
import subprocess

from kdumpfence.doctor.finding import Unknown
from kdumpfence.install.sysroot import Sysroot

#: Seconds that a program may take for its answer.
_PATIENCE = 3.0

#: Where `systemctl enable` puts its links.
_UNITS = "/etc/systemd/system"


class Machine:
    """What checks look at. Its methods raise Unknown for what they may not, or cannot, look at."""

    def __init__(self, root: Sysroot, image: str = "") -> None:
        self.root = root
        #: The path of the crash kernel's image, where no kdump of a distribution has its own.
        self.image = image
        #: Whether it is the system that this program runs on.
        self.runs = root.root == "/"

    def read(self, path: str) -> str | None:
        """The text of a file, links followed; None if there is none."""
        try:
            content = self.root.read(path)
        except OSError as error:
            raise Unknown(self._why(path, error)) from None
        return None if content is None else content.decode(errors="surrogateescape")

    def bytes_of(self, path: str) -> bytes | None:
        """The content of a file, links followed; None if there is none."""
        try:
            return self.root.read(path)
        except OSError as error:
            raise Unknown(self._why(path, error)) from None

    def names(self, folder: str) -> list[str]:
        """What is in a directory; nothing if there is none."""
        try:
            return self.root.names(folder)
        except OSError as error:
            raise Unknown(self._why(folder, error)) from None

    def exists(self, path: str) -> bool:
        """Whether there is something, links followed."""
        try:
            return self.root.real_path(path) is not None
        except OSError as error:
            raise Unknown(self._why(path, error)) from None

    def changed(self, path: str) -> float | None:
        """When a file was last changed (Unix time), links followed; None if there is none."""
        try:
            real = self.root.real_path(path)
            return None if real is None else os.stat(self.root.outside(real)).st_mtime
        except OSError as error:
            raise Unknown(self._why(path, error)) from None

    def ask(self, *command: str, seconds: float = _PATIENCE) -> subprocess.CompletedProcess[str]:
        """How the program ended and what it said; it may not run longer than that."""
        if not self.runs:
            raise Unknown(f"{command[0]} can be asked on the running system only")
        return _asked(command, seconds)

    def has_program(self, name: str) -> bool:
        """Whether the root has this program."""
        folders = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
        return any(self.exists(f"{folder}/{name}") for folder in folders)

    def is_enabled(self, unit: str) -> bool:
        """Whether systemd starts this unit because the administrator enabled it."""
        return any(
            unit in self.names(f"{_UNITS}/{folder}")
            for folder in self.names(_UNITS)
            if folder.endswith((".wants", ".requires"))
        )

    def _why(self, path: str, error: OSError) -> str:
        hint = " (needs root)" if isinstance(error, PermissionError) and os.geteuid() else ""
        return f"{self.root.outside(path)}: {error.strerror}{hint}"


def run(command: tuple[str, ...], seconds: float = _PATIENCE) -> subprocess.CompletedProcess[str]:
    """How a program of the running system ended and what it said, now. Raises Unknown."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Unknown(f"{command[0]} did not answer within {seconds:g} s") from None
    except OSError as error:
        raise Unknown(f"{command[0]}: {error.strerror}") from None


#: What was asked once is not asked again.
_asked = functools.cache(run)
