# SPDX-License-Identifier: LGPL-2.1-or-later
"""The port on which kdumpfenced listens: the sockets that systemd passed, or its own.

What may not be in this file: how a passed socket is checked (`systemd`), and whatever is read from
sockets, which is the listener's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection

from kdumpfence.addresses import FAMILIES, socket_families
from kdumpfence.daemon import systemd
from kdumpfence.daemon.errors import DaemonError
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.settings import Settings
from kdumpfence.listener import port_rivals
from kdumpfence.listener.sockets import open_sockets, parsed_host
from kdumpfence.sockets import deepen


def open_port(settings: Settings, say: Callable[[str, str], None]) -> list[socket.socket]:
    """The sockets on which it listens. Says what it does not hear; DaemonError, NotifyError or
    OSError if it cannot listen at all.
    """
    hosts = [parsed_host(one, FAMILIES["auto"]) for one in settings.address]
    wanted = {host.family for host in hosts} or socket_families(settings.family)
    sockets = systemd.passed_sockets(settings.port, tuple(wanted))
    if sockets:
        _check_addresses(sockets, settings.address)
        say("debug", f"systemd passed {many(len(sockets), 'socket', 'sockets')}")
        why = "systemd passed no socket for it"
    else:
        sockets = open_sockets(wanted, settings.port, hosts)
        for sock in sockets:
            deepen(sock, settings.queue)
        why = "this machine does not have it"
    heard = {sock.family for sock in sockets}
    for family, name in ((socket.AF_INET, "IPv4"), (socket.AF_INET6, "IPv6")):
        if family in wanted and family not in heard:
            say("warning", f"not listening over {name}: {why}")
    try:
        port_rivals.rivals(sockets, settings.port)
    except OSError as error:
        say("warning", f"cannot check who else holds the port: sock_diag: {error.strerror}")
    return sockets


def _check_addresses(sockets: list[socket.socket], addresses: Collection[str]) -> None:
    """Where systemd opened them, that is where it listens: the settings must not say otherwise."""
    for sock in sockets:
        where = sock.getsockname()[0]
        if addresses and where not in addresses:
            raise DaemonError(
                f"address: systemd passed a socket at {where}: set ListenDatagram= of "
                "kdumpfenced.socket to the same"
            )
