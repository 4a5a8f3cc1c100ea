# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps under way whose messages the kernel counts: what the history has of them, in one piece."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import struct
from pathlib import Path

import pytest

from kdumpfence.daemon import history_reading
from kdumpfence.daemon.history import History
from kdumpfence.daemon.history_file import SCHEMA
from kdumpfence.daemon.standing import newest, read
from kdumpfence.listener.events import Event
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.daemon.running import NODE, Kdumpfenced, until

SINCE = 1_795_000_000.25
ADDRESS = "192.0.2.1"


def figures(*them: tuple[str, int, float], scope: int = 0) -> bytes:
    """As a Listener tells them: address, messages, last message."""
    made = b""
    for address, messages, last in them:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        packed = socket.inet_pton(family, address)
        if len(packed) == 4:
            packed = bytes(10) + b"\xff\xff" + packed
        made += struct.pack("=16sIId", packed, scope, messages, last)
    return made


def began(node: str = "node1", *addresses: str, since: float = SINCE) -> Event:
    return Event("began", node, since, since, since, 1, addresses or (ADDRESS,))


def test_what_stands_is_newer_than_the_row_for_whoever_looks(path: str) -> None:
    with History(path) as opened:
        opened.record([began(), began("node2", "2001:db8::2"), began("node3", "192.0.2.3")])
        opened.stand(figures((ADDRESS, 11, SINCE + 10), ("2001:db8::2", 5, SINCE + 4)))
        with History(path, writable=False) as other:
            for one in (opened, other):
                found = {dump.node: dump for dump in one.past()}
                assert [found[f"node{n}"].messages for n in (1, 2, 3)] == [11, 5, 1]
                assert [found[f"node{n}"].last - SINCE for n in (1, 2, 3)] == [10, 4, 0]
                assert [found[f"node{n}"].took for n in (1, 2, 3)] == [10, 4, 0]
                assert {dump.node: dump.messages for dump in one.under_way()} == {
                    "node1": 11,
                    "node2": 5,
                    "node3": 1,
                }


def test_after_a_kill_it_is_in_the_rows_and_stays_there(path: str) -> None:
    killed = History(path)
    killed.record([began()])
    killed.stand(figures((ADDRESS, 11, SINCE + 10)))
    killed._file.close()  # nothing else is done
    for _ in range(2):
        with History(path) as opened:
            (dump,) = opened.under_way()
            assert (dump.messages, dump.last, dump.took) == (11, SINCE + 10, 10)
            opened.stand(b"")


def test_of_a_dump_that_is_over_and_of_the_next_one_it_says_nothing(path: str) -> None:
    with History(path) as opened:
        opened.record([began()])
        opened.stand(figures((ADDRESS, 11, SINCE + 10)))
        opened.record([Event("silent", "node1", SINCE + 40, SINCE, SINCE + 8, 9, (ADDRESS,), 8.0)])
        opened.record([began(since=SINCE + 50)])
        new, old = opened.past()
        assert (new.messages, new.last) == (1, SINCE + 50)
        assert (old.messages, old.last) == (9, SINCE + 8)


def test_what_was_counted_before_the_row_was_written_changes_nothing(path: str) -> None:
    with History(path) as opened:
        opened.record([began()])
        opened.stand(figures((ADDRESS, 11, SINCE + 10)))
        last = SINCE + 20
        opened.record([Event("dumping", "node1", last, SINCE, last, 21, (ADDRESS,), 20.0)])
        (dump,) = opened.past()
        assert (dump.messages, dump.last, dump.took) == (21, SINCE + 20, 20)


def test_of_a_node_with_several_addresses_the_last_message_of_all_counts() -> None:
    standing = read(figures((ADDRESS, 7, SINCE + 4), ("2001:db8::1", 3, SINCE + 9)))
    both = (ADDRESS, "2001:db8::1")
    assert newest(standing, both, SINCE, SINCE, 1, 0.0) == (SINCE + 9, 7, 9.0)


def test_a_link_local_address_is_one_of_its_interface() -> None:
    lo = socket.if_nametoindex("lo")
    standing = read(figures(("fe80::1", 7, SINCE + 4), scope=lo))
    for address, messages in (("fe80::1%lo", 7), ("fe80::1%nosuch", 1), ("?", 1), ("::x", 1)):
        assert newest(standing, (address,), SINCE, SINCE, 1, 0.0)[1] == messages


@pytest.mark.parametrize("blob", [b"x", b"x" * 31, b"x" * 33, figures((ADDRESS, 7, float("nan")))])
def test_what_is_no_figures_says_nothing(path: str, blob: bytes) -> None:
    with History(path) as opened:
        opened.record([began()])
        opened.stand(blob)
    with History(path) as opened:
        assert opened.past()[0].messages == 1


def test_a_file_of_the_form_before_is_read_and_gets_a_place_for_it(path: str) -> None:
    with History(path) as opened:
        opened.record([began()])
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("DROP TABLE standing")
        other.execute("PRAGMA user_version = 3")
    with History(path, writable=False) as reading:
        assert reading.past()[0].messages == 1
    with History(path) as opened:
        opened.stand(figures((ADDRESS, 11, SINCE + 10)))
        assert opened.past()[0].messages == 11


def test_what_stood_in_a_file_that_was_removed_is_in_the_new_one(path: str) -> None:
    with History(path) as opened:
        opened.record([began()])
        opened.stand(figures((ADDRESS, 11, SINCE + 10)))
        Path(path).unlink()
        opened.look()
        (dump,) = opened.past()
        assert (dump.messages, dump.last) == (11, SINCE + 10)


# ------------------------------------------------------------------------- a real daemon


@pytest.mark.slow
@pytest.mark.parametrize("counting", ["kernel"])
def test_after_a_kill_the_last_message_is_known_though_no_event_told_of_it(
    daemon: Kdumpfenced,
) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 100\nrepeat = 1")
    daemon.start()
    daemon.hears(NODE)
    with contextlib.closing(sqlite3.connect(daemon.history)) as looking:
        (before,) = looking.execute("SELECT last, messages FROM dump").fetchall()
        with udp(NODE) as sock:
            for _ in range(50):
                sock.sendto(OWN_MESSAGE, ("127.0.0.1", daemon.port))
        until(lambda: daemon.past()[0].messages == 51)
        # Nobody wrote to the row.
        assert looking.execute("SELECT last, messages FROM dump").fetchall() == [before]
    (dump,) = daemon.status().dumps
    assert dump.messages == 51
    (there,) = daemon.past()
    assert there.last == pytest.approx(dump.last, abs=0.01)
    daemon.end(signal.SIGKILL)
    assert daemon.past() == [there]
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 3\nrepeat = 1")
    daemon.start()
    daemon.says(f"node '{NODE}' was dumping before the restart")
    daemon.says(f"node '{NODE}' fell silent")
    (gone,) = daemon.past()
    assert (gone.messages, gone.last) == (51, there.last)
    assert gone.ended is not None


@pytest.mark.parametrize("counting", ["kernel"])
def test_the_end_is_written_with_all_that_the_kernel_counted(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 6\nrepeat = 3600")
    daemon.start()
    daemon.hears(NODE)
    with udp(NODE) as sock:
        for _ in range(50):
            sock.sendto(OWN_MESSAGE, ("127.0.0.1", daemon.port))
    daemon.says(f"node '{NODE}' fell silent")
    (dump,) = daemon.past()
    assert (dump.messages, dump.end) == (51, "silent")
    assert dump.last > dump.since


@pytest.mark.parametrize("counting", ["kernel"])
def test_who_wants_to_know_everything_is_told_that_dumps_go_on(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nrepeat = 1", log='level = "debug"')
    daemon.start()
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})

    def told() -> bool:
        daemon.hear(NODE)
        return "has been dumping for" in daemon.said()

    until(told)
    daemon.configure("networks = ['127.0.0.0/8']\nrepeat = 1", log='level = "info"')
    daemon.reload()
    daemon.says("settings reloaded")


def test_the_form_of_the_file_is_known_to_whoever_only_reads() -> None:
    assert set(history_reading.COLUMNS) == set(range(1, SCHEMA + 1))
