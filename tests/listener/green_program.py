# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program of an eventlet or gevent service with a Listener: each step has to work in it.

Arguments: "eventlet" or "gevent"; "first" or "later": whether Python's modules are patched before
the package is imported, as these libraries demand, or only before there is a Listener; "user" or
"kernel": who counts. It prints a line for each step that it has done.
"""

from __future__ import annotations

import sys
import warnings

if sys.argv[2] == "later":
    import kdumpfence.listener.listener  # noqa: F401

warnings.simplefilter("ignore")

if sys.argv[1] == "eventlet":
    import eventlet

    eventlet.monkey_patch()
    spawn = eventlet.spawn
else:
    import gevent
    import gevent.monkey

    gevent.monkey.patch_all()
    spawn = gevent.spawn

import socket  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

from kdumpfence import Listener, encode  # noqa: E402

NODE = "127.7.4.1"


def say(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((NODE, 0))
        sock.sendto(encode("little"), ("127.0.0.1", port))


def done(what: str) -> None:
    print(what, flush=True)


def main() -> None:
    turns = 0

    def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(0.01)

    spawn(take_turns)
    given = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    given.bind(("127.0.0.1", 0))
    for number, sockets in enumerate((None, [given])):
        nodes = {"node1": [NODE], "node2": ["localhost"]}
        with Listener(
            nodes,
            port=0,
            silence_timeout=1.0,
            sockets=sockets,
            answer_as="node9",
            counting=sys.argv[3],  # type: ignore[arg-type]
        ) as listener:
            before, end = turns, time.monotonic() + 60
            while turns - before <= 5:  # others have their turn while one waits
                assert listener.events(0.3) == []
                assert time.monotonic() < end
            later = threading.Timer(0.2, say, [listener.port])
            later.start()
            told = []
            for event in listener:
                told.append(event.kind)
                if event.kind == "silent":
                    break
            assert told == ["began", "silent"], told
            done(f"events {number}")
            say(listener.port)
            while listener.dump("node1") is None:
                time.sleep(0.01)
            done(f"looks {number}")
            found: list[str] = []

            def take(listener: Listener = listener, found: list[str] = found) -> None:
                for event in listener:
                    found.append(event.kind)

            takers = [spawn(take) for _ in range(3)]
            while len(found) < 2:  # began, silent
                time.sleep(0.01)
            while listener.snapshot().unresolved == ["node1"]:
                time.sleep(0.01)
            listener.close()
            for taker in takers:
                (taker.wait if hasattr(taker, "wait") else taker.join)()
            done(f"closed {number}")


main()
