# SPDX-License-Identifier: GPL-2.0-or-later
"""The scripts that go into images, run where they run: names are looked up, the sender is started.

Real images with real panics are made in tests/crash; here are the cases that these leave out.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence import layouts
from tests.conftest import cannot_run
from tests.netlab import Host

from . import roots
from .machine import Machine

FILES = Path(layouts.data_path(""))
SCRIPTS = [
    ("sh", "common/resolve-nodes"),
    ("sh", "common/start-sender"),
    ("sh", "initramfs-tools/hook"),
    ("sh", "initramfs-tools/init-top"),
    ("bash", "dracut/module-setup.sh"),
    ("sh", "dracut/kdumpfence.sh"),
]
PORT = 7410


def test_no_shell_script_is_left_out() -> None:
    scripts = {
        str(path.relative_to(FILES))
        for path in FILES.rglob("*")
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/")
    }
    assert scripts == {name for _, name in SCRIPTS}


@pytest.mark.parametrize(("shell", "name"), SCRIPTS, ids=[name for _, name in SCRIPTS])
def test_scripts_are_sound(shell: str, name: str) -> None:
    if shutil.which("shellcheck") is None or shutil.which(shell) is None:
        cannot_run(f"shellcheck or {shell} is missing")
    assert (FILES / name).read_text().startswith(f"#!/bin/{shell}\n")
    for checker in ([shell, "-n"], ["shellcheck", "-s", shell]):
        done = subprocess.run(
            [*checker, str(FILES / name)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def resolve(host: Host, nodes: str, args: str = "") -> tuple[dict[str, str], list[str]]:
    """What resolve-nodes makes of a list of nodes, and its remarks."""
    host.write_file("/etc/nodes", f'# nodes\nNODES="{nodes}"\nARGS="{args}"\n')
    done = host.run(["sh", str(FILES / "common/resolve-nodes"), "/etc/nodes"])
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    found = {name: value.strip('"') for name, value in (line.split("=", 1) for line in lines)}
    assert set(found) == {"NODES", "ADDRESSES", "ARGS"}
    return found, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("nodes", "names", "addresses"),
    [
        ("node2", "node2", {"10.0.0.2", "2001:db8::2"}),
        ("node2 node3 node2", "node2 node3 node2", {"10.0.0.2", "2001:db8::2", "10.0.0.3"}),
        ("10.9.9.9 2001:db8::9", "", {"10.9.9.9", "2001:db8::9"}),
        ("fe80::7%lo", "", {"fe80::7%lo"}),
        ("node1 node1.cluster node3", "node3", {"10.0.0.3"}),
        ("10.0.0.1 127.0.0.1 ::1 node3", "node3", {"10.0.0.3"}),
        ("mixed", "mixed", {"10.0.0.4"}),
    ],
)
def test_nodes_get_their_addresses_and_this_one_is_left_out(
    node1: Host, nodes: str, names: str, addresses: set[str]
) -> None:
    found, remarks = resolve(node1, nodes, "-p 7411 -f ipv4")
    assert found["NODES"] == names
    assert set(found["ADDRESSES"].split()) == addresses
    assert len(found["ADDRESSES"].split()) == len(addresses)
    assert found["ARGS"] == "-p 7411 -f ipv4"
    own = {"10.0.0.1", "127.0.0.1", "::1"}
    assert len(remarks) == len(own & set(nodes.split()))


def test_what_does_not_resolve_is_said_and_kept(node1: Host) -> None:
    found, remarks = resolve(node1, "node9 node3 alias-of-node1")
    assert (found["NODES"], found["ADDRESSES"]) == ("node9 node3", "10.0.0.3")
    assert remarks == [
        "kdumpfence: node 'node9' does not resolve now: the crash kernel has its name alone",
        "kdumpfence: node 'alias-of-node1' is this machine itself, by its addresses: left out",
    ]


def test_a_list_without_another_node_is_said(node1: Host) -> None:
    found, remarks = resolve(node1, "node1")
    assert (found["NODES"], found["ADDRESSES"]) == ("", "")
    assert remarks == ["kdumpfence: /etc/nodes: names no other node, so nobody is told"]


@pytest.fixture
def ear(hosts: tuple[Host, Host]) -> Iterator[socket.socket]:
    """What node2 hears."""
    with hosts[1].open_socket() as sock:
        sock.bind(("10.0.0.2", PORT))
        sock.settimeout(30)
        yield sock


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


def test_the_hook_puts_in_a_sender_that_runs_there(
    machine: Machine, image: str, ear: socket.socket
) -> None:
    folder = machine.root / image[1:]
    resolved = (folder / "etc/kdumpfence/resolved").read_text()
    assert {"10.0.0.2", "2001:db8::2"} <= set(resolved.replace('"', " ").split())
    machine.chroot("chroot", image, "/usr/lib/kdumpfence/fence_kdump_send", "-c", "1", "10.0.0.2")
    assert len(ear.recv(100)) >= 8
    assert os.readlink(folder / "usr/lib/kdumpfence/@fence_kdump_send") == "fence_kdump_send"
    assert (folder / "usr/lib/kdumpfence/start-sender").stat().st_mode & 0o111


def test_the_hook_asks_for_nothing_before_itself(machine: Machine, image: str) -> None:
    for script in ("hooks/kdumpfence", "scripts/init-top/kdumpfence"):
        assert machine.chroot(f"/etc/initramfs-tools/{script}", "prereqs") == ""


@pytest.mark.parametrize("trouble", ["no nodes", "no sense", "no sender"])
def test_the_hook_says_why_it_leaves_the_sender_out_and_spoils_no_image(
    machine: Machine, image: str, trouble: str
) -> None:
    nodes = machine.root / layouts.NODES[1:]
    sender = machine.root / "usr/lib/kdumpfence/fence_kdump_send"
    shutil.rmtree(machine.root / "image/etc/kdumpfence")
    if trouble == "no nodes":
        nodes.unlink()
    elif trouble == "no sense":
        nodes.write_text("NODES=node2 node3\n")
    else:
        sender.unlink()
    said = machine.chroot(
        "/etc/initramfs-tools/hooks/kdumpfence", env={"DESTDIR": image, "verbose": "n"}
    )
    assert "W: kdumpfence: " in said
    assert "left out" in said
    assert not (machine.root / "image/etc/kdumpfence/resolved").exists()


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
    machine.senders()
    shutil.rmtree(machine.root / "scripts")
    (home / "@fence_kdump_send").unlink()
    (machine.root / "proc/vmcore").unlink(missing_ok=True)


def test_a_normal_boot_starts_nothing(machine: Machine, booted: Path) -> None:
    assert machine.chroot("/usr/lib/kdumpfence/start-sender") == ""
    script = "/etc/initramfs-tools/scripts/init-top/kdumpfence"
    assert machine.chroot(script, env={"IP": "dhcp"}) == ""
    assert machine.senders() == []
    assert not (machine.root / "tmp/network").exists()


def test_a_crash_kernel_starts_the_sender_and_goes_on(
    machine: Machine, booted: Path, ear: socket.socket
) -> None:
    booted.write_text("dump")
    assert machine.chroot("/usr/lib/kdumpfence/start-sender") == ""
    for _ in range(2):  # it goes on without the script
        assert len(ear.recv(100)) >= 8
    # systemd spares a process with this name, and the addresses come first.
    arguments = ["-i", "1", "10.0.0.2", "2001:db8::2", "no-such-node"]
    assert machine.senders() == [["@fence_kdump_send", *arguments]]


@pytest.mark.parametrize(
    ("env", "network"),
    [
        ({"IP": "dhcp"}, "17 dhcp\n"),
        ({"IP": "10.0.0.1:::255.255.255.0::eth0:off"}, "17 10.0.0.1:::255.255.255.0::eth0:off\n"),
        ({"IP": ""}, None),
        ({"IP": "off"}, None),
        ({"IP": "dhcp", "BOOT": "nfs"}, None),
    ],
)
def test_the_network_is_set_up_where_the_command_line_asks_for_it(
    machine: Machine,
    booted: Path,
    ear: socket.socket,
    env: dict[str, str],
    network: str | None,
) -> None:
    booted.write_text("dump")
    said = machine.root / "tmp/network"
    said.unlink(missing_ok=True)
    assert machine.chroot("/etc/initramfs-tools/scripts/init-top/kdumpfence", env=env) == ""
    assert len(ear.recv(100)) >= 8
    while any("init-top" in word for words in machine.running().values() for word in words):
        time.sleep(0.02)  # what goes on beside the script has its name
    assert (said.read_text() if said.exists() else None) == network
