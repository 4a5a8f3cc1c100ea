# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command as the tests run it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdumpfence.cli.main import main
from kdumpfence.install import layouts, native_sender
from tests.conftest import cannot_run
from tests.install import roots
from tests.install.machine import Machine
from tests.support.labs import lab
from tests.support.netlab import Host

REAL_FIND = native_sender.find
OURS = b"\x7fELF our sender, version 1\n"


@dataclass(frozen=True)
class Done:
    """What became of a run."""

    status: int
    out: str
    err: str


class Command:
    """A command that installs, in this process; and a sender that the test makes up."""

    def __init__(
        self, sender: Path, capsys: pytest.CaptureFixture[str], name: str = "install-sender"
    ) -> None:
        self.sender = sender
        self.name = name
        self._capsys = capsys

    def build(self, content: bytes) -> None:
        """Another version of the sender."""
        self.sender.write_bytes(content)
        self.sender.chmod(0o755)

    def run(self, *arguments: str) -> Done:
        """Run it, whatever comes of it."""
        self._capsys.readouterr()
        status = main([self.name, *arguments])
        return Done(status, *self._capsys.readouterr())

    def ok(self, root: Path, *arguments: str) -> str:
        """Run it on a root, expecting success; what it said."""
        done = self.run("--root", str(root), *arguments)
        assert (done.status, done.err) == (0, "")
        return done.out

    def refused(self, *arguments: str) -> str:
        """Run it, expecting that it cannot: one line, which is returned."""
        done = self.run(*arguments)
        assert done.status == 1
        assert done.err.startswith("kdumpfence: ")
        assert done.err.count("\n") == 1
        return done.err[len("kdumpfence: ") :]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """install-sender, with version 1 of a made-up sender."""
    made = Command(tmp_path / "sender", capsys)
    made.build(OURS)
    monkeypatch.setattr(native_sender, "find", lambda static=False: str(made.sender))
    return made


@pytest.fixture
def agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """install-agent."""
    return Command(tmp_path / "unused", capsys, "install-agent")


@pytest.fixture
def root_directory(tmp_path: Path) -> Path:
    """An empty directory to be made a root."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def built() -> str:
    """The path of the real native sender."""
    try:
        return REAL_FIND()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
        raise


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two nodes with a cable between them, and names that only node1 knows."""
    with lab() as opened:
        node1, node2 = opened.host("node1"), opened.host("node2")
        opened.link(
            node1, node2, ["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.2/24", "2001:db8::2/64"]
        )
        for name, *addresses in (
            ("node1", "127.0.1.1"),
            ("node1.cluster", "10.0.0.1"),
            ("node2", "10.0.0.2", "2001:db8::2"),
            ("node3", "10.0.0.3"),
            ("mixed", "10.0.0.1", "127.0.0.5", "10.0.0.4"),
            ("alias-of-node1", "10.0.0.1", "2001:db8::1"),
        ):
            node1.add_name(name, *addresses)
        yield node1, node2


@pytest.fixture(scope="module")
def node1(hosts: tuple[Host, Host]) -> Host:
    return hosts[0]


@pytest.fixture(scope="module")
def machine(node1: Host) -> Machine:
    try:
        REAL_FIND()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
    return Machine(node1)


@pytest.fixture
def ear(hosts: tuple[Host, Host]) -> Iterator[socket.socket]:
    """What node2 hears."""
    with hosts[1].open_socket() as sock:
        sock.bind(("10.0.0.2", 7410))
        sock.settimeout(30)
        yield sock


@pytest.fixture
def booted(machine: Machine) -> Iterator[Path]:
    """The machine as in its initramfs: the list of nodes is there, and /proc/vmcore perhaps."""
    machine.install("initramfs-tools")
    home = machine.root / "usr/lib/kdumpfence"
    (home / "@fence_kdump_send").symlink_to("fence_kdump_send")
    (machine.root / layouts.RESOLVED[1:]).write_text(
        'NODES="no-such-node"\nADDRESSES="10.0.0.2 2001:db8::2"\nARGS="-i 1"\n'
    )
    (machine.root / "scripts").mkdir()
    (machine.root / "scripts/functions").write_text(
        'configure_networking() { echo "$starttime $IP" >/tmp/network; }\n'
    )
    (machine.root / "proc/uptime").write_text("17.39 12.00\n")
    yield machine.root / "proc/vmcore"
    machine.end_senders()
    shutil.rmtree(machine.root / "scripts")
    (home / "@fence_kdump_send").unlink()
    (machine.root / "proc/vmcore").unlink(missing_ok=True)


@pytest.fixture
def image(machine: Machine) -> Iterator[str]:
    """An initramfs, unpacked, into which the hook of initramfs-tools has put the sender."""
    functions = roots.debian_package("initramfs-tools-core") / "usr/share/initramfs-tools"
    shutil.copytree(functions, machine.root / "usr/share/initramfs-tools", dirs_exist_ok=True)
    nodes = machine.root / layouts.NODES[1:]
    nodes.parent.mkdir(exist_ok=True)
    nodes.write_text('NODES="node1 node2"\nARGS="-v"\n')
    machine.install("initramfs-tools")
    folder = machine.root / "image"
    for name in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin"):
        (folder / name).mkdir(parents=True)
        (folder / name[len("usr/") :]).symlink_to(name)
    said = machine.chroot(
        "/etc/initramfs-tools/hooks/kdumpfence",
        env={"DESTDIR": "/image", "verbose": "n", "MODULES": "list", "version": "6.1"},
    )
    assert said == ""
    yield "/image"
    shutil.rmtree(folder)
