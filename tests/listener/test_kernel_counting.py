# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener whose kernel counts: what is not said by the tests of this folder, of both ways.

That the kernel counted is seen by a queue that has no room for what came.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kdumpfence.listener import reader
from kdumpfence.listener.events import Dump, Overflow
from kdumpfence.listener.kernel import assembler, bpf, counting
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import (
    NETWORK,
    A,
    B,
    MakeListener,
    kinds,
    wait_for,
)
from tests.support.kernel import need_kernel_counting
from tests.support.programs import as_user
from tests.support.signer import KEY, key_text

MANY = 5000


@pytest.fixture(params=["kernel"], name="counting")
def _counting(request: pytest.FixtureRequest) -> str:
    need_kernel_counting()
    return str(request.param)


def repeat(host: str, port: int, times: int = MANY, payload: bytes = OWN_MESSAGE) -> None:
    """As fast as may be."""
    with udp(host) as sock:
        for _ in range(times):
            sock.sendto(payload, ("::1" if ":" in host else "127.0.0.1", port))


def test_messages_for_which_the_queue_has_no_room_are_all_counted(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, receive_buffer=1, repeat_interval=0.01)
    listening.after_message(A)
    repeat(A, listening.port)
    assert listening.counted() == {"accepted": MANY + 1}
    listening.until(lambda events: bool(events) and events[-1].messages == MANY + 1)


@pytest.mark.usefixtures("ipv6")
def test_the_same_over_both_families_and_of_nodes_of_a_network(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK, "::1/128"], receive_buffer=1, repeat_interval=3600)
    for host in (A, "::1", B):
        listening.after_message(host)
        repeat(host, listening.port)
    assert listening.counted() == {"accepted": 3 * MANY + 3}


def test_what_is_lost_beside_them_is_told(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, receive_buffer=1, repeat_interval=3600)
    listening.after_message(A)
    repeat(A, listening.port)

    def flooded() -> bool:
        repeat(B, listening.port, 500)
        return bool(listening.counted().get("unread"))

    wait_for(flooded)
    assert listening.counted()["accepted"] == MANY + 1
    (lost,) = listening.until(bool)
    assert isinstance(lost, Overflow)
    assert lost.counter == "unread"


def test_it_goes_on_when_the_kernel_drops_what_is_no_message(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, receive_buffer=1, repeat_interval=3600)
    listening.after_message(A)
    for fence in (reader.ALL, reader.RUBBISH, reader.NOTHING):
        before = listening.counted()["accepted"]
        listening._in_use._fence(fence)
        repeat(A, listening.port)
        assert listening.counted()["accepted"] == before + MANY


def test_who_asks_is_told_of_all_that_the_kernel_has_counted(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, silence_timeout=3600, repeat_interval=3600)
    listening.after_message(A)
    looks: list[Callable[[], Dump | None]] = [
        lambda: listening.dump("a"),
        lambda: listening.dumps(["a"])[0],
        lambda: listening.snapshot().dumps[0],
    ]
    for number, look in enumerate(looks):
        repeat(A, listening.port, 10)
        assert listening.snapshot(fresh=False).dumps[0].messages == 10 * number + 1
        dump = look()
        assert dump is not None
        assert dump.messages == 10 * number + 11
    assert listening.events(0) == []


def test_a_dump_has_the_port_of_the_last_message_that_was_read(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, repeat_interval=3600)
    began = listening.after_message(A)
    repeat(A, listening.port, 10)  # from another one
    dump = listening.dump("a")
    assert dump is not None
    assert (dump.messages, dump.port) == (11, began.port)


def test_who_asks_does_not_wait_until_the_thread_looks_at_what_the_kernel_counted(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SWEEP_FIRST", 3600.0)
    monkeypatch.setattr(reader, "SWEEP_LAST", 3600.0)
    listening = listen({"a": [A], "b": [B]}, silence_timeout=0.2)
    for host in (A, B):
        listening.after_message(host)
        repeat(host, listening.port, 10)
        wait_for(lambda: listening.dump("a") is listening.dump("b") is None)
        assert kinds(listening.events(0)) == ["silent"]


def test_a_node_that_is_removed_while_it_sends_is_a_stranger(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, repeat_interval=3600)
    listening.after_message(A)
    repeat(A, listening.port, 10)
    listening.remove("a")
    assert kinds(listening.several(1)) == ["silent"]
    repeat(A, listening.port, 3)
    listening.wait_for_count("stranger", 3)
    assert listening.counted() == {"accepted": 11, "stranger": 3}
    listening.add("b", [A])
    event = listening.after_message(A)
    assert (event.kind, event.node, event.messages) == ("began", "b", 1)


def test_a_dump_that_goes_on_under_another_name_keeps_what_was_counted(
    listen: MakeListener,
) -> None:
    listening = listen(networks=[NETWORK], repeat_interval=3600)
    began = listening.after_message(A)
    repeat(A, listening.port, 10)
    listening.add("node1", [A])
    dump = listening.dump("node1")
    assert dump is not None
    assert (dump.since, dump.messages) == (began.since, 11)
    repeat(A, listening.port, 10)
    listening.wait_for_count("accepted", 21)
    assert kinds(listening.events(0)) == ["silent", "dumping"]


def test_when_nobody_looks_any_more_messages_are_queued(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LEASE", -1.0)
    listening = listen({"a": [A]}, repeat_interval=3600)
    listening.after_message(A)
    repeat(A, listening.port, 3)
    wait_for(lambda: listening.counts["accepted"] == 4)
    assert listening._reader is not None
    assert listening._reader._sources.counted == 0


def test_a_socket_that_outlives_it_has_the_guard_again(listen: MakeListener) -> None:
    sock = udp()
    port = sock.getsockname()[1]
    with sock.dup() as kept:
        listening = listen({"a": [A]}, sockets=[sock])
        listening.after_message(A)
        listening.close()
        repeat(A, port, 3)
        assert [kept.recv(100) for _ in range(3)] == [OWN_MESSAGE] * 3
        again = listen({"a": [A]}, sockets=[kept.dup()])
        repeat(A, port, 2)
        assert again.only_event().kind == "began"


def test_all_descriptors_are_closed_with_it(listen: MakeListener) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        listen({"a": [A]}).close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


# ------------------------------------------------------------------- where it cannot be


def cannot(why: str, code: int = errno.EOPNOTSUPP, **options: object) -> None:
    """It says so if it has to, and does without if it need not."""
    with pytest.raises(OSError, match=f"cannot count in the kernel: {why}") as caught:
        Listener({"a": [A]}, port=0, counting="kernel", **options)  # type: ignore[arg-type]
    assert caught.value.errno == code
    with Listener({"a": [A]}, port=0, counting="auto", **options) as listening:  # type: ignore[arg-type]
        assert listening.snapshot().counting == "user"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.EPERM, "no right to load the program: it needs CAP_BPF"),
        (errno.ENOSYS, "this kernel cannot do it: it needs Linux 5.8"),
        (errno.EINVAL, "this kernel cannot do it: it needs Linux 5.8"),
        (errno.ENOMEM, "bpf: Cannot allocate memory"),
    ],
)
def test_why_the_kernel_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, code: int, why: str
) -> None:
    def refuse(command: int, attributes: bytes) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(bpf, "_call", refuse)
    cannot(why, code)


def test_on_a_machine_whose_number_of_the_call_is_not_known_nothing_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bpf, "_NUMBERS", {})
    cannot("this kernel cannot do it", errno.ENOSYS)


def test_what_the_verifier_says_of_a_program_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_result(*_: object, **__: object) -> list[assembler.Line]:
        return [assembler.leave()]

    monkeypatch.setattr(counting, "text", without_result)
    before = set(os.listdir("/proc/self/fd"))
    cannot("the kernel refuses the program: R0 !read_ok", errno.EACCES)
    assert set(os.listdir("/proc/self/fd")) == before


def test_with_a_clock_of_its_own_it_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offsets = tmp_path / "offsets"
    monkeypatch.setattr(counting, "_TIME_OFFSETS", str(offsets))
    offsets.write_text("monotonic           5         0\nboottime            0         0\n")
    cannot("this time namespace has a monotonic clock of its own")
    offsets.write_text("monotonic           0         0\nboottime            7         0\n")
    Listener({"a": [A]}, port=0, counting="kernel").close()


def test_without_the_right_it_is_done_without(root: None) -> None:
    code = (
        "from kdumpfence import Listener\n"
        "with Listener({'a': ['192.0.2.1']}, port=0, counting='auto') as one:\n"
        "    print(one.snapshot().counting)"
    )
    done = subprocess.run(
        [*as_user(), sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "user\n"


def test_signed_messages_are_not_counted_there(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_text(key_text(KEY))
    cannot("messages have to be signed", auth="sha256", key_file=str(key_file))
    need_kernel_counting()
    with (
        udp() as sock,
        contextlib.closing(counting.load([sock], 1, 30.0, 10.0)) as made,
        pytest.raises(ValueError, match="counting: messages have to be signed"),
    ):
        Listener({"a": [A]}, auth="sha256", key_file=str(key_file), counting=made)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="counting 'maybe': must be one of auto, kernel, user"):
        Listener({"a": [A]}, port=0, counting="maybe")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("places", "size", "room"),
    [(1, 1 << 16, 1843), (1365, 1 << 16, 1843), (1366, 69632, 1958), (100_000, 4800512, 135014)],
)
def test_the_table_has_room_for_a_third_more(places: int, size: int, room: int) -> None:
    need_kernel_counting()
    with udp() as sock, contextlib.closing(counting.load([sock], places, 30.0, 10.0)) as made:
        assert len(made._table.memory) == size
        assert made.room == room >= places * 4 // 3
