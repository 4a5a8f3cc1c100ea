# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network of its own for a program: one loopback interface, and no other program's sockets."""

from __future__ import annotations

import functools
import subprocess


@functools.cache
def own_network() -> tuple[str, ...]:
    """A command that runs another in such a network; none if that is not allowed here."""
    command = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ()
    return command
