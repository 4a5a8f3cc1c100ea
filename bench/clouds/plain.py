# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listeners as clouds write them without this project: the peers of the examples.

They are our own, of the shape that docs/clouds.md describes: one thread reads one socket, message
by message; the first looks after its sessions every few seconds and tells the database of each
that changed, the other asks the name service about each message before it reads the next.

What may not be in this file: anything of kdumpfence.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import MutableMapping

import psycopg

MAGIC, VERSION = 0x1B302A40, 1
SYNC, HEARTBEAT, FINISHED = 5.0, 30.0, 30.0  # seconds, as in oVirt's settings

_SAVE = "SELECT UpsertKdumpStatus(vds_id, %s, %s) FROM vds_interface WHERE addr = %s LIMIT 1"
_ALIVE = "SELECT UpsertExternalVariable('fence-kdump-listener-heartbeat', NULL)"


def _is_message(data: bytes) -> bool:
    return len(data) >= 8 and struct.unpack_from("=II", data) == (MAGIC, VERSION)


def to_database(conninfo: str, port: int) -> None:
    """Sessions by address and port, a statement for each that has begun or finished."""
    sessions: dict[tuple[str, int], list[object]] = {}
    changed: set[tuple[str, int]] = set()
    synced = alive = 0.0
    with (
        psycopg.connect(conninfo, autocommit=True) as database,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.bind(("0.0.0.0", port))
        while True:
            now = time.monotonic()
            if now - synced >= SYNC:
                for address, (state, last) in sessions.items():
                    if state == "dumping" and now - float(str(last)) >= FINISHED:
                        sessions[address][0] = "finished"
                        changed.add(address)
                for address in changed:
                    state = sessions[address][0]
                    database.execute(_SAVE, [state, json.dumps(address), address[0]])
                    if state == "finished":
                        del sessions[address]
                changed.clear()
                if now - alive >= HEARTBEAT:
                    database.execute(_ALIVE)
                    alive = now
                synced = time.monotonic()
            sock.settimeout(max(0.1, synced + SYNC - time.monotonic()))
            try:
                data, address = sock.recvfrom(32)
            except socket.timeout:
                continue
            if _is_message(data):
                if address not in sessions:
                    sessions[address] = ["dumping", 0.0]
                    changed.add(address)
                sessions[address][1] = time.monotonic()


def to_dictionary(
    port: int, times: MutableMapping[str, float], lock: threading.Lock, stop: threading.Event
) -> None:
    """Short name -> when it was last heard; the name service is asked each time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", port))
        sock.settimeout(1.0)
        while not stop.is_set():
            try:
                data, address = sock.recvfrom(4096)
                if not _is_message(data):
                    continue
                name = socket.gethostbyaddr(address[0])[0].partition(".")[0]
            except OSError:
                continue
            with lock:
                times[name] = time.monotonic()
