# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whom the kernel keeps out once a second's answers are given, and that who asks much in one place
keeps nobody waiting in another. In each of the forms, at the ports that messages leave from.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import udp
from tests.sender.asker import Asker, answered, burst, nonces, question
from tests.sender.conftest import key_of, packet_of
from tests.support import mute
from tests.support.programs import FORMS


@pytest.fixture(params=[False, True], ids=["keyless", "key"])
def asker(request: pytest.FixtureRequest, form: str, key_file: str) -> Iterator[Asker]:
    """Of a sender without a key and of one that has one."""
    argv = ("--key-file", key_file) if request.param else ()
    with Asker(form, "127.0.0.1", "-i", "60", *argv) as asking:
        yield asking


def dropped(asker: Asker) -> int:
    """How many datagrams the kernel has kept from the sender where it is asked."""
    with open("/proc/net/udp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    (drops,) = [row[-1] for row in rows if int(row[1].rpartition(":")[2], 16) == asker.lane[1]]
    return int(drops)


def kept_out(asker: Asker, data: bytes) -> bool:
    """Whether the kernel drops this; there is room for it."""
    before = dropped(asker)
    asker.asks(data)
    asker.hears(0.05)
    return dropped(asker) > before


def until(what: Callable[[], bool]) -> None:
    """Wait for it."""
    ends = time.monotonic() + 20
    while not what():
        assert time.monotonic() < ends


def use_up(asker: Asker) -> None:
    """Ask as a stranger until strangers are kept out."""

    def enough() -> bool:
        asker.asks(*burst(60))
        asker.hears(0.05)
        return kept_out(asker, *burst(1))

    until(enough)


def state(asker: Asker) -> str:
    """R: it runs; S: it sleeps; T: it is stopped."""
    with open(f"/proc/{asker.process.pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_what_is_no_question_is_kept_out_and_questions_are_not(asker: Asker) -> None:
    until(lambda: kept_out(asker, b"rubbish"))
    assert not kept_out(asker, question(next(nonces)))


@pytest.mark.slow
def test_strangers_who_had_their_share_are_kept_out_until_there_is_another(asker: Asker) -> None:
    for _ in range(2):
        use_up(asker)
        asked = question(next(nonces))

        def heard(asked: bytes = asked) -> bool:
            asker.asks(asked)
            return answered(asker.hears(0.05), [asked]) == 1

        until(heard)
        assert not kept_out(asker, question(next(nonces)))
        until(lambda: state(asker) == "S")
        assert kept_out(asker, b"rubbish")


def test_whoever_has_the_key_is_let_in_meanwhile(form: str, key_file: str) -> None:
    with Asker(form, "127.0.0.1", "-i", "60", "--key-file", key_file) as asker:

        def meanwhile() -> bool:
            use_up(asker)
            asker.is_answered(key_of("node1"))
            return kept_out(asker, *burst(1))

        until(meanwhile)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "static"])
def test_where_the_kernel_takes_no_filter_any_more_strangers_are_let_in_again(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = tmp_path / "refused"
    monkeypatch.setenv("LD_PRELOAD", mute.library(tmp_path, refused, "SO_ATTACH_FILTER"))
    with Asker(form, "127.0.0.1", "-i", "60") as asker:
        monkeypatch.delenv("LD_PRELOAD")
        use_up(asker)
        refused.touch()
        until(lambda: not kept_out(asker, *burst(1)))
        asker.is_answered()
        assert not kept_out(asker, b"rubbish")


def test_who_asks_much_in_one_place_keeps_nobody_waiting_in_another(form: str) -> None:
    with udp("::1") as other:
        other.settimeout(20)
        port = other.getsockname()[1]
        with Asker(form, "127.0.0.1", "-i", "60", "::1", port=port) as asker:
            lane = other.recvfrom(1000)[1]
            until(lambda: kept_out(asker, b"rubbish"))
            asker.process.send_signal(signal.SIGSTOP)
            until(lambda: state(asker) == "T")
            # What passes for a question until it is looked at costs no answer.
            for data in [question(bytes(16))[:8] + bytes(144)] * 60 + burst(5):
                asker.asks(data)
                other.sendto(data, lane)
            asker.process.send_signal(signal.SIGCONT)
            here = [packet_of(asker.sock.recv(1000)).sequence for _ in range(5)]
            there = [packet_of(other.recv(1000)).sequence for _ in range(5)]
    assert min(here) < max(there)
    assert min(there) < max(here)
