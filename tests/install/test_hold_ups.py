# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing that starts the sender or looks up its nodes holds up a dump, a reboot or an image."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from tests.conftest import fill
from tests.install.machine import Machine, resolve, running, senders, until
from tests.install.terminals import terminal
from tests.support.netlab import Host

SENDER = "usr/lib/kdumpfence/fence_kdump_send"
STARTERS: dict[str, Sequence[str]] = {
    "start-sender": ("/usr/lib/kdumpfence/start-sender",),
    "init-top": ("/etc/initramfs-tools/scripts/init-top/kdumpfence",),
    "dracut": ("sh", "-c", ". /kdumpfence.sh"),
    "tell-end": ("/usr/lib/kdumpfence/tell-end", "finished"),
}


@pytest.fixture
def crashed(machine: Machine, booted: Path) -> Iterator[Machine]:
    """The machine in its crash kernel, with the real sender."""
    booted.write_text("dump")
    shutil.copy(layouts.data_path("dracut/kdumpfence.sh"), machine.root / "kdumpfence.sh")
    yield machine
    for pid, words in running(machine.host).items():
        if "kdump" in " ".join(words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    resolved = machine.root / layouts.RESOLVED[1:]
    resolved.unlink(missing_ok=True)
    (machine.root / SENDER).unlink(missing_ok=True)


@contextlib.contextmanager
def pipes() -> Iterator[tuple[int, int]]:
    """A pipe in which nothing comes, to be read; and one that is full, to be written to."""
    empty, writer = os.pipe()
    reader, full = os.pipe()
    fill(full)
    try:
        yield empty, full
    finally:
        for descriptor in (empty, writer, reader, full):
            os.close(descriptor)


def start(machine: Machine, starter: str, empty: int, full: int) -> None:
    """Run it between such pipes; it returns, and well."""
    program = machine.host.popen(
        ["chroot", "/run/over/root", *STARTERS[starter]],
        env={"IP": "dhcp"},
        stdin=empty,
        stdout=full,
        stderr=full,
    )
    assert program.wait(30) == 0


def _break(machine: Machine, trouble: str) -> None:
    sender = machine.root / SENDER
    resolved = machine.root / layouts.RESOLVED[1:]
    programs = {
        "a sender that crashes": "kill -SEGV $$",
        "a sender that complains and ends": "echo no >&2; exit 1",
        "a sender that never ends": "while :; do sleep 0.1; done",
    }
    if trouble in programs:
        sender.unlink()
        sender.write_text(f"#!/bin/sh\n{programs[trouble]}\n")
        sender.chmod(0o755)
    elif trouble == "no sender":
        sender.unlink()
    elif trouble == "a sender that cannot run":
        sender.write_bytes(b"\x7fELF\0")
    elif trouble == "no list":
        resolved.unlink()
    elif trouble == "a list that hangs":
        resolved.unlink()
        os.mkfifo(resolved)
    elif trouble == "a list that makes no sense":
        resolved.write_text('NODES="node2\n)(\nexit 7\n')


@pytest.mark.parametrize(
    "trouble",
    [
        *("none", "a sender that crashes", "a sender that complains and ends"),
        *("a sender that never ends", "no sender", "a sender that cannot run"),
        *("no list", "a list that hangs", "a list that makes no sense"),
    ],
)
@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.slow
def test_what_starts_the_sender_returns_soon_and_well(
    crashed: Machine, starter: str, trouble: str
) -> None:
    _break(crashed, trouble)
    with pipes() as ends:
        start(crashed, starter, *ends)
    # And once more: who waits for the end of its output waits for nothing either.
    assert crashed.chroot(*STARTERS[starter], env={"IP": "dhcp"}) == ""


def _the_sender(machine: Machine) -> int:
    until(lambda: senders(machine.host))
    (pid,) = senders(machine.host)
    return pid


def test_the_sender_is_in_a_session_of_its_own_and_holds_nothing_of_its_callers(
    crashed: Machine,
) -> None:
    with pipes() as ends:
        start(crashed, "start-sender", *ends)
        ours = {os.readlink(f"/proc/self/fd/{one}") for one in ends}
        pid = _the_sender(crashed)
        assert os.getsid(pid) == pid
        descriptors = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        assert descriptors
        assert not descriptors & ours


def test_a_small_image_without_setsid_has_a_sender_too(
    crashed: Machine, ear: socket.socket
) -> None:
    assert crashed.chroot("/usr/bin/env", "PATH=/none", "/usr/lib/kdumpfence/start-sender") == ""
    assert len(ear.recv(100)) >= 8


@pytest.mark.slow
def test_a_console_that_nobody_reads_silences_no_sender(
    crashed: Machine, ear: socket.socket
) -> None:
    (crashed.root / layouts.RESOLVED[1:]).write_text(
        'NODES=""\nADDRESSES="10.0.0.2 10.0.0.9"\nARGS="-v -i 1"\n'
    )
    master, console, name = terminal(crashed.host)
    try:
        mount = (
            f"touch /run/over/root/dev/console && mount --bind {name} /run/over/root/dev/console"
        )
        crashed.host.run(["sh", "-c", mount], check=True)
        fill(console)
        assert crashed.chroot("/usr/lib/kdumpfence/start-sender") == ""
        for _ in range(3):
            assert len(ear.recv(100)) >= 8
        pid = _the_sender(crashed)
        assert os.readlink(f"/proc/{pid}/fd/1").endswith("/dev/console")
    finally:
        crashed.host.run(["umount", "/run/over/root/dev/console"])
        os.close(console)
        os.close(master)


# ------------------------------------------------------------------ look-ups


@pytest.fixture
def hanging(node1: Host) -> Iterator[Host]:
    """node1, where each name that /etc/hosts does not have is looked up for minutes."""
    server = node1.hang_name_service()
    yield node1
    server.close()
    node1.write_file("/etc/resolv.conf", "")
    node1.write_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")


LEFT_BEHIND = [
    f"kdumpfence: node '{name}' does not resolve now: the crash kernel has its name alone"
    for name in ("nobody", "no-one", "none")
]


@pytest.mark.slow
def test_a_name_service_that_hangs_costs_its_names_alone(hanging: Host) -> None:
    found, remarks = resolve(hanging, "nobody node2 no-one node3 none")
    assert found["NODES"] == "nobody node2 no-one node3 none"
    assert set(found["ADDRESSES"].split()) == {"10.0.0.2", "2001:db8::2", "10.0.0.3"}
    assert remarks == LEFT_BEHIND


@pytest.mark.slow
def test_a_look_up_that_cannot_be_ended_in_peace_is_killed(node1: Host) -> None:
    node1.run(["mkdir", "-p", "/run/bin"], check=True)
    node1.write_file(
        "/run/bin/getent",
        "#!/bin/sh\ncase $* in *nobody*) trap '' TERM; while :; do sleep 1; done ;; esac\n"
        'exec /usr/bin/getent "$@"\n',
    )
    node1.run(["chmod", "755", "/run/bin/getent"], check=True)
    path = "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found, remarks = resolve(node1, "nobody node3", env={"PATH": path})
    assert (found["NODES"], found["ADDRESSES"]) == ("nobody node3", "10.0.0.3")
    assert remarks == LEFT_BEHIND[:1]


@pytest.mark.slow
def test_a_name_service_that_hangs_keeps_no_image_from_being_made(
    hanging: Host, machine: Machine, image: str
) -> None:
    nodes = machine.root / layouts.NODES[1:]
    nodes.write_text('NODES="nobody node2"\n')
    said = machine.chroot(
        "/etc/initramfs-tools/hooks/kdumpfence", env={"DESTDIR": image, "verbose": "n"}
    )
    assert said.splitlines() == LEFT_BEHIND[:1]
    assert "10.0.0.2" in (machine.root / image[1:] / layouts.RESOLVED[1:]).read_text()


@pytest.mark.slow
def test_a_name_service_that_hangs_in_the_crash_kernel_holds_up_nothing(
    hanging: Host, crashed: Machine, ear: socket.socket
) -> None:
    assert crashed.chroot("/usr/lib/kdumpfence/start-sender") == ""
    for _ in range(2):
        assert len(ear.recv(100)) >= 8
