# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks one kdumpfenced about one node after the other, so many times a second, and says how long
each answer took.

    python -m tests.system.scale.asker WHERE --nodes 100000 --rate 10000 --seconds 10

WHERE is the path of a control socket, asked in lines of JSON, or with "http:" before it over HTTP;
or HOST:PORT, over HTTP. A question's time counts from when it was due, so one that had to wait for
a free connection is told of as the slow one that it is. By how much the asker itself was late,
though a connection was free, is in these times and told beside them ("late"). What may not be in
this file: what a figure ought to be.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import socket
import time
from collections.abc import Callable

from tests.system.scale.play import quantile

#: Connections, as of a service with as many threads.
CONNECTIONS = 16


def in_a_line(node: str) -> bytes:
    return b'{"ask": "node", "node": "%s"}\n' % node.encode()


def over_http(node: str) -> bytes:
    return (
        f"GET /v1/nodes/{node} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: asker\r\n"
        "Accept: application/json\r\n\r\n"
    ).encode()


def connect(where: str) -> tuple[socket.socket, Callable[[str], bytes]]:
    """A connection, and how a question is put there."""
    host, colon, port = where.rpartition(":")
    if colon and port.isdigit():
        sock = socket.create_connection((host, int(port)), 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, over_http
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(where.removeprefix("http:"))
    return sock, over_http if where.startswith("http:") else in_a_line


def ask(
    where: str, names: list[str], rate: float, seconds: float, connections: int = CONNECTIONS
) -> tuple[list[float], list[float], int]:
    """Seconds that each answer took, and by which questions were late though a connection was free;
    and how many answers said that the node is dumping.
    """
    opened = [connect(where) for _ in range(connections)]
    socks = {sock.fileno(): sock for sock, _ in opened}
    for sock in socks.values():
        sock.setblocking(False)
    form = opened[0][1]
    questions = [form(name) for name in names]
    free = list(socks)
    due_of: dict[int, float] = {}
    parts: dict[int, bytes] = {}
    times: list[float] = []
    late: list[float] = []
    dumping = 0
    gc.disable()
    number, total = 0, int(rate * seconds)
    begin = free_since = time.perf_counter()
    while len(times) < total:
        now = time.perf_counter()
        while free and number < total and begin + number / rate <= now:
            fd = free.pop()
            due_of[fd] = due = begin + number / rate
            if due >= free_since:
                late.append(time.perf_counter() - due)
            socks[fd].send(questions[number % len(questions)])
            number += 1
        if free and number < total:
            wait = max(0.0, begin + number / rate - time.perf_counter())
        else:
            wait = 10.0
        # Not poll, nor epoll: they wait for whole milliseconds, in each of which ten are due.
        for fd in select.select(socks, (), (), wait)[0]:
            data = parts.pop(fd, b"") + socks[fd].recv(65536)
            if not data.endswith(b"}\n"):
                parts[fd] = data
                continue
            now = time.perf_counter()
            times.append(now - due_of.pop(fd))
            dumping += b'"dumping": true' in data
            if not free:
                free_since = now
            free.append(fd)
    for sock in socks.values():
        sock.close()
    return times, late, dumping


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("where")
    parser.add_argument("--names", required=True, help="a file with a node's name a line")
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    given = parser.parse_args()
    with open(given.names) as file:
        names = file.read().split()
    began = time.perf_counter()
    times, late, dumping = ask(given.where, names, given.rate, given.seconds, given.connections)
    took = time.perf_counter() - began
    quantiles = {str(q): quantile(times, q) for q in (0.5, 0.99, 1)}
    told = {"asked": len(times), "took": took, "dumping": dumping, **quantiles}
    print(json.dumps({**told, "late": quantile(late, 0.99) if late else 0.0}))


if __name__ == "__main__":
    main()
