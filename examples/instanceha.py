# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kdump thread of OpenStack's InstanceHA, with a Listener instead of its own socket.

`listen(service)` takes the place of that thread's function. It keeps the dictionary up to date
that InstanceHA decides by before it evacuates a host and before it enables one again: short host
name -> time.monotonic() of the host's last message. docs/clouds.md says what that promises.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from kdumpfence import Event, Listener

EVERYBODY = ("0.0.0.0/0", "::/0")
FORGET = 300.0  # seconds after its last message
LOOK_UPS = 32  # at a time; name servers that are away may take half a minute for each


def listen(service: Any, networks: Iterable[str] = EVERYBODY) -> None:  # noqa: ANN401
    """Hear hosts of these networks until `service` sets its event. OSError if the port is taken."""
    stop, times = service.kdump_listener_stop_event, service.kdump_hosts_timestamp
    names: dict[str, str] = {}  # address -> host; "": being looked up

    def note(name: str, heard: float) -> None:
        with service.kdump_lock:
            times[name] = max(heard, times.pop(name, 0.0))  # moves to the end
            while times[(oldest := next(iter(times)))] < heard - FORGET:
                del times[oldest]

    def look_up() -> None:
        while (event := unknown.get()) is not None:
            name = name_of(event.node)
            if name is not None:
                if event.node in names:  # its dump goes on
                    names[event.node] = name
                note(name, event.heard)
            elif names.pop(event.node, None) is not None:  # tried again when it is heard again
                logging.warning("%s is dumping: it has no name that leads back to it", event.node)

    port, host = service.config.get_udp_port(), service.udp_ip or None
    unknown: SimpleQueue[Event | None] = SimpleQueue()
    for _ in range(LOOK_UPS):
        Thread(target=look_up, daemon=True).start()
    try:
        with Listener(networks=networks, port=port, host=host, repeat_interval=1.0) as listener:
            while not stop.is_set():
                for event in listener.events(1.0):
                    if event.kind == "overflow":
                        logging.warning("kdump: %d were lost (%s)", event.messages, event.counter)
                        continue
                    name = names.get(event.node)
                    if name:
                        note(name, event.heard)
                    elif name is None:
                        names[event.node] = ""
                        unknown.put(event)
                    if event.kind in ("finished", "failed", "silent"):
                        names.pop(event.node, None)
    finally:
        for _ in range(LOOK_UPS):
            unknown.put(None)


def name_of(address: str) -> str | None:
    """The host's short name, if its name leads back to the address."""
    try:
        name = socket.gethostbyaddr(address)[0]
        found = {one[4][0] for one in socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)}
    except (OSError, UnicodeError):
        return None
    return name.partition(".")[0] if address in found else None
