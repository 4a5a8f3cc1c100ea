# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that are measured, each with the client that looks at what it tells.

    python -m bench.clouds.subject KIND PORT HOSTS FILE

KIND: "library", "names" (examples/instanceha.py) or "plain-names". A thread of the same process is
the client: it looks every LOOK seconds. FILE is made, empty, when it has seen all hosts. When
SIGTERM comes, it gets when the client saw each of them first (CLOCK_MONOTONIC, a double; 0: never),
and then the processor time of a client that only looks into a dictionary. Names are looked up in a
name service that takes LOOK_UP seconds for each answer. What may not be in this file: what is
measured of these.
"""

from __future__ import annotations

import array
import collections
import importlib.util
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.clouds import hosts, plain
from kdumpfence import Listener

#: Seconds between two looks of the client, and until a name service answers.
LOOK = 0.02
LOOK_UP = 0.001

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NETWORK = "127.0.0.0/8"


class Service:
    """InstanceHA, as far as a listener uses it."""

    def __init__(self, port: int) -> None:
        self.udp_ip = ""
        self.port = port
        self.config = self
        self.kdump_lock = threading.Lock()
        self.kdump_hosts_timestamp: dict[str, float] = collections.defaultdict(float)
        self.kdump_listener_stop_event = threading.Event()

    def get_udp_port(self) -> int:
        return self.port


def _by_address(address: str) -> tuple[str, list[str], list[str]]:
    time.sleep(LOOK_UP)
    return f"host-{hosts.number(address)}.example.org", [], [address]


def _by_name(name: str, *_: object, **__: object) -> list[Any]:
    time.sleep(LOOK_UP)
    return [(0, 0, 0, "", (hosts.address(int(name[5:].partition(".")[0])), 0))]


def watch(
    new: Callable[[], Iterable[int]], seen: array.array[float], path: Path, stop: threading.Event
) -> float:
    """Be the client: `new` has the hosts that have come since the last look, and maybe others.

    `path` is made when all have been seen. Returns the processor time of the thread, in seconds.
    """
    missing = len(seen)
    while not stop.wait(LOOK):
        found = new()
        now = time.monotonic()
        for one in found:
            if not seen[one]:
                seen[one] = now
                missing -= 1
        if not missing:
            path.touch()
    return time.thread_time()


def main() -> None:
    kind, path = sys.argv[1], Path(sys.argv[4])
    port, number = map(int, sys.argv[2:4])
    seen = array.array("d", bytes(8 * number))
    service = Service(port)
    stop = service.kdump_listener_stop_event
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if kind == "library":
        with Listener(networks=[NETWORK], port=port) as listener:
            known = 0

            def new_dumps() -> Iterable[int]:
                nonlocal known
                dumps = listener.snapshot().dumps
                fresh, known = dumps[known:], len(dumps)
                return [hosts.number(dump.node) for dump in fresh]

            watch(new_dumps, seen, path, stop)
    else:
        replaced: Any = socket
        replaced.gethostbyaddr, replaced.getaddrinfo = _by_address, _by_name
        old: set[str] = set()

        def new_names() -> Iterable[int]:
            with service.kdump_lock:
                fresh = service.kdump_hosts_timestamp.keys() - old
            old.update(fresh)
            return [int(name[5:]) for name in fresh]

        took = array.array("d")
        client = threading.Thread(target=lambda: took.append(watch(new_names, seen, path, stop)))
        client.start()
        if kind == "names":
            found = importlib.util.spec_from_file_location("instanceha", EXAMPLES / "instanceha.py")
            assert found is not None
            assert found.loader is not None
            module: Any = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
            module.listen(service, [NETWORK])
        else:
            plain.to_dictionary(port, service.kdump_hosts_timestamp, service.kdump_lock, stop)
        client.join()
        seen += took
    path.write_bytes(seen.tobytes())


if __name__ == "__main__":
    main()
