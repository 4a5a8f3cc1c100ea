# SPDX-License-Identifier: GPL-2.0-or-later
"""Python threads that read without the GIL: what a trial of bench/limits.py runs as a process.

    python -m bench.limits_python sockets=2 threads=2 count=20000

Sockets share a port (SO_REUSEPORT) and are filled first; then each thread, on a core of its own,
has its `Receiver.count` empty its sockets, with `Sources` of its own. Prints what limits_drain
prints, or "refused: ..." with exit status 3 where the core has no such call.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time

from bench import paired
from kdumpfence import wire

NODES = 1000
SO_RCVBUFFORCE = 33


def main() -> int:
    given = dict(word.split("=") for word in sys.argv[1:])
    sockets, threads = int(given.get("sockets", 1)), int(given.get("threads", 1))
    count, port = int(given.get("count", 20000)), 0
    if not hasattr(wire.Receiver, "count"):
        print(f"refused: Receiver.count: not in the {wire.IMPLEMENTATION} core")
        return 3
    receivers = []
    for _ in range(threads):
        sources = wire.Sources()
        for node in range(NODES):
            sources.add((0x7F010000 + node).to_bytes(4, "big"), 0, node)
        receivers.append(wire.Receiver(sources, batch=256))
    for number in range(sockets):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        except PermissionError as reason:
            print(f"refused: SO_RCVBUFFORCE: {reason.strerror}")
            return 3
        sock.bind(("127.0.0.1", port))
        port = sock.getsockname()[1]
        receivers[number % threads].add_socket(sock)
    flood = [str(paired.WORK / "limits_flood"), f"port={port}", f"count={count}"]
    flood += ["core=0", f"first={paired.OTHER_CPU}"]
    said = subprocess.run(flood, capture_output=True, check=True, timeout=60)
    sent = json.loads(said.stdout)["sent"]

    read, used = [0] * threads, [0] * threads
    start = threading.Barrier(threads)

    def drain(me: int) -> None:
        # With one thread it reads on the core that did not send.
        os.sched_setaffinity(
            0, {paired.OTHER_CPU if threads > 1 and me == 0 else paired.MEASURED_CPU}
        )
        start.wait()
        before = time.thread_time_ns()
        while True:
            got = receivers[me].count(0)
            read[me] += got
            if not got:
                break
        used[me] = time.thread_time_ns() - before

    readers = [threading.Thread(target=drain, args=(me,)) for me in range(threads)]
    began = time.monotonic_ns()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    wall = time.monotonic_ns() - began
    if sum(read) != sent:
        print(f"{sent} sent, {sum(read)} read", file=sys.stderr)
        return 1
    told = {"read": sent, "wall": wall, "readers": sum(used), "longest": max(used), "calls": 0}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
