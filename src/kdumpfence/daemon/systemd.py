# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd and a service say to each other: sd_notify(3), the watchdog, passed sockets.

Without systemd nothing here does anything. What may not be in this file: when something is to
be said.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import MutableMapping

from kdumpfence.cmdline import MOST_SECONDS
from kdumpfence.listener import port_rivals
from kdumpfence.text import shown

#: The first passed descriptor, and more of them than anybody passes.
FIRST = 3
MOST_SOCKETS = 16


class NotifyError(Exception):
    """What systemd passed is not what is needed; one line."""


class Notify:
    """Speaks to the service manager that started this program, if one did.

    Its variables are taken out of the environment, so that no child believes them.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        #: Seconds within which the manager wants to hear that all is well; None: it does not.
        self.watchdog = _watchdog(
            environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        )
        self._next_ping = 0.0

    def say(self, *lines: str) -> bool:
        """Send these lines, as in READY=1; whether they could be sent.

        A manager that does not read for a second is left alone.
        """
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError):
            return False
        return True

    def ready(self, status: str) -> None:
        """It works; also said at the end of a reload."""
        self.say("READY=1", _status(status))

    def reloading(self) -> None:
        """The settings are being read again; `ready` ends it."""
        self.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self.say(_status(text))

    def stopping(self) -> None:
        """It ends."""
        self.say("STOPPING=1")

    def alive(self) -> None:
        """Call it once a round of the main loop: pings the watchdog as often as that wants."""
        if self.watchdog is None:
            return
        now = time.monotonic()
        if now >= self._next_ping:
            self.say("WATCHDOG=1")
            self._next_ping = now + self.watchdog / 3


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())


def _watchdog(microseconds: str, pid: str) -> float | None:
    if pid and pid != str(os.getpid()):
        return None
    if microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 20:
        seconds = int(microseconds) / 1e6
        return seconds if 0 < seconds <= MOST_SECONDS else None
    return None


# ------------------------------------------------------------------ socket activation


def passed_sockets(
    port: int, families: tuple[int, ...], environment: MutableMapping[str, str] = os.environ
) -> list[socket.socket]:
    """The sockets that were passed (LISTEN_FDS), checked; [] if none were.

    They are non-blocking and close on exec. All are UDP sockets bound to `port`, of one of
    `families` (AF_INET, AF_INET6), one for each at most; nobody can share that port from now
    on, and no other process reads them. Raises NotifyError for anything else: a daemon that
    hears nothing is worse than one that does not start.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not count or (pid and pid != str(os.getpid())):
        return []
    if not (count.isascii() and count.isdigit() and int(count[:9]) <= MOST_SOCKETS):
        raise NotifyError(f"LISTEN_FDS {shown(count)}: not a number from 0 to {MOST_SOCKETS}")
    found: list[socket.socket] = []
    try:
        for at in range(int(count)):
            name = names[at] if at < len(names) and names[at] else "unknown"
            what = f"passed socket {at + 1} ({shown(name)})"
            try:
                fault = _take(FIRST + at, port, families, found)
            except OSError as error:
                fault = error.strerror or str(error)
            if fault:
                raise NotifyError(f"{what}: {fault}")
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return found


def _take(fd: int, port: int, families: tuple[int, ...], found: list[socket.socket]) -> str:
    """Add the socket to those that were found; what is wrong with it, "" if nothing is."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return f"not a socket; need a UDP socket on port {port}"
    os.set_inheritable(fd, False)
    os.set_blocking(fd, False)
    sock = socket.socket(fileno=fd)
    others = [one.family for one in found]
    found.append(sock)
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if not internet or sock.type != socket.SOCK_DGRAM or sock.proto != socket.IPPROTO_UDP:
        return f"not a UDP socket (ListenDatagram=0.0.0.0:{port})"
    bound = sock.getsockname()[1]
    if bound != port:
        where = f"bound to port {bound}" if bound else "not bound"
        return f"{where}, but the settings say port {port}"
    fault = port_rivals.fault(sock, port)
    if fault:
        return fault
    if sock.family == socket.AF_INET6 and not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    ):
        return "also receives IPv4: set BindIPv6Only=ipv6-only"
    # systemd sets SO_REUSEADDR on every socket that it opens.
    port_rivals.claim(sock)
    process = port_rivals.lock(sock)
    if process:
        return f"already read by process {process}; each would get half of the messages"
    if sock.family not in families:
        return "not of the family of the settings"
    if sock.family in others:
        return "a second one of its family; one for IPv4 and one for IPv6 are enough"
    return ""
