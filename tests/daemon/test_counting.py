# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced says who counts messages, and does without the kernel where it has to."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence import wire
from kdumpfence.daemon.counting import possible
from kdumpfence.listener.kernel import bpf
from tests.conftest import udp
from tests.daemon.running import COMMAND, MESSAGE, NODE, PROGRAM, Kdumpfenced, until
from tests.daemon.test_rights import NOTHING, rights

MANY = 20_000
NOT_POSSIBLE = "not counting in the kernel: no right to load the program: it needs CAP_BPF"

#: Runs a program whose system call bpf(2) fails with this errno, as seccomp has it in containers.
CONFINED = """
import ctypes, os, struct, sys
refused, number = int(sys.argv[1]), int(sys.argv[2])
code = b"".join(struct.pack("=HBBI", *one) for one in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | refused), (6, 0, 0, 0x7FFF0000)
))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HP", 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):
    raise OSError(ctypes.get_errno(), "seccomp")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def shown(daemon: Kdumpfenced) -> str:
    """What `kdumpfence status` prints."""
    return subprocess.run(
        [*COMMAND, "status", "--socket", str(daemon.control)],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.usefixtures("root")
def test_status_and_metrics_say_who_counts(daemon: Kdumpfenced, counting: str) -> None:
    daemon.start()
    assert daemon.status().counting == counting
    in_kernel = counting == "kernel"
    assert ("counted in the kernel" in shown(daemon)) == in_kernel
    daemon.page_with(f"\nkdumpfence_counting_in_kernel {float(in_kernel)}\n")
    assert ("counting in the kernel" in daemon.said()) == in_kernel
    assert rights(daemon.pid) == NOTHING | {("NoNewPrivs:", "1")}


@pytest.mark.parametrize("counting", ["kernel"])
@pytest.mark.usefixtures("root")
def test_a_flood_of_nodes_that_are_dumping_is_counted_whole(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})
    with udp(NODE) as sock:
        for _ in range(MANY):
            sock.sendto(MESSAGE, ("127.0.0.1", daemon.port))
    until(lambda: daemon.status().counts["accepted"] == MANY + 1)
    assert daemon.status().counts["unread"] == 0
    assert daemon.end() == 0
    (dump,) = daemon.past()
    assert dump.messages == MANY + 1


@pytest.mark.parametrize("counting", ["kernel"])
def test_with_more_nodes_than_there_is_room_for_the_log_asks_for_a_restart(
    daemon: Kdumpfenced,
) -> None:
    lines = [f'node{n} = ["127.9.{n >> 8}.{n & 255}"]' for n in range(2000)]
    daemon.configure("networks = []", lines[0])
    daemon.start()
    for number, said in ((1843, "1,842 nodes added"), (1844, "1 node added")):
        daemon.configure("networks = []", "\n".join(lines[:number]))
        daemon.reload()
        daemon.says(f"settings reloaded: {said}")
        assert ("restart kdumpfenced" in daemon.said()) == (number == 1844)
    daemon.says("the kernel counts for 1,843 addresses, and there are 1,844: restart kdumpfenced")
    daemon.hear("127.9.7.51")
    until(lambda: daemon.dumping() == {"node1843"})


@pytest.mark.parametrize("way", ["auto", "kernel"])
def test_without_the_right_it_says_so_and_reads_each_message(
    public: Path, as_nobody: tuple[str, ...], way: str
) -> None:
    os.chown(public, 65534, 65534)
    with contextlib.closing(Kdumpfenced(public, counting=way)) as daemon:
        daemon.start(as_nobody)
        daemon.says(NOT_POSSIBLE)
        assert daemon.status().counting == "user"
        daemon.hears(NODE)


@pytest.mark.parametrize("counting", ["kernel"])
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.EPERM, NOT_POSSIBLE),
        (errno.ENOSYS, "not counting in the kernel: this kernel cannot do it: it needs Linux 5.8"),
    ],
)
@pytest.mark.usefixtures("root")
def test_where_seccomp_refuses_the_call_it_says_so_once_and_reads_each_message(
    daemon: Kdumpfenced, code: int, why: str
) -> None:
    number = bpf._NUMBERS[os.uname().machine, struct.calcsize("P")]
    daemon.start((sys.executable, "-c", CONFINED, str(code), str(number)))
    daemon.says(why)
    assert daemon.said().count("counting in the kernel") == 1
    daemon.hears(NODE)
    daemon.hear(*10 * [NODE])
    until(lambda: daemon.status().dumps[0].messages == 11)
    assert daemon.status().counting == "user"


@pytest.mark.usefixtures("root")
def test_the_version_says_whether_it_is_possible(as_nobody: tuple[str, ...]) -> None:
    for wrapper, words in ((), possible()), (as_nobody, "cannot count in the kernel: no right"):
        done = subprocess.run(
            [*wrapper, *PROGRAM, "-V"], capture_output=True, text=True, check=True
        )
        assert f"({wire.IMPLEMENTATION} core; {words}" in done.stdout


def test_the_one_capability_is_enough_and_is_given_up(
    public: Path, as_nobody: tuple[str, ...], counting: str
) -> None:
    os.chown(public, 65534, 65534)
    only = ("--inh-caps=+bpf", "--ambient-caps=+bpf", "--bounding-set=-all,+bpf")
    with contextlib.closing(Kdumpfenced(public, counting=counting)) as daemon:
        daemon.start((*as_nobody, *only))
        assert daemon.status().counting == counting
        left = {name: int(value, 16) for name, value in rights(daemon.pid)}
        # Without CAP_SETPCAP the bounding set stays, and NoNewPrivs makes it worthless.
        assert left.pop("CapBnd:")
        assert left == {"CapInh:": 0, "CapPrm:": 0, "CapEff:": 0, "CapAmb:": 0, "NoNewPrivs:": 1}
        daemon.hears(NODE)
