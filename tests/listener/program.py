# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program with a Listener, to be stopped, flooded and killed by tests.

Its argument is a JSON object of the Listener's options. It prints a JSON array a line:
["port", number], then each event, and after SIGUSR1 ["counts", {...}, whether the kernel drops
what is no message].
"""

from __future__ import annotations

import json
import signal
import socket
import sys

from kdumpfence.listener.listener import Listener

_SO_GET_FILTER = 26


def say(*thing: object) -> None:
    print(json.dumps(thing), flush=True)


def size_of_filter(sock: socket.socket) -> int:
    """0 for an eBPF program, of which the kernel does not tell."""
    try:
        return len(sock.getsockopt(socket.SOL_SOCKET, _SO_GET_FILTER, 1024))
    except PermissionError:
        return 0


def main() -> None:
    options = json.loads(sys.argv[1])
    queue = options.pop("receive_buffer")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    with Listener(sockets=[sock], receive_buffer=queue, **options) as listening:
        guard = size_of_filter(sock)
        signal.signal(signal.SIGTERM, lambda *_: listening.close())
        asked: list[int] = []
        signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
        say("port", listening.port)
        while not listening.closed:
            for event in listening.events(0.1):
                say(*event)
            if asked:
                asked.clear()
                fenced = size_of_filter(sock) > guard
                if listening.snapshot().counting == "kernel":
                    fenced = listening._in_use._fence_up > 0
                say("counts", listening.snapshot().counts, fenced)


if __name__ == "__main__":
    main()
