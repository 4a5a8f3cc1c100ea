# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scripts that go into images, run where they run: names are looked up, the sender is started.

Real images with real panics are made in tests/system/crash; here are the other cases.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.install import layouts, sender_arguments
from tests.install.machine import Machine, resolve, running, senders, until
from tests.support.netlab import Host

FILES = Path(layouts.data_path(""))


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
        "kdumpfence: node 'alias-of-node1' is this machine, by its addresses: left out",
    ]


@pytest.mark.parametrize("node", ["192.0.2.010", "127.1", "10.1", "0x0a.0x0a000002", "167772162"])
def test_what_is_nearly_an_address_does_not_become_another_one(node1: Host, node: str) -> None:
    found, remarks = resolve(node1, f"{node} node3")
    assert (found["NODES"], found["ADDRESSES"]) == (f"{node} node3", "10.0.0.3")
    assert len(remarks) == 1


def test_a_list_without_another_node_is_said(node1: Host) -> None:
    found, remarks = resolve(node1, "node1")
    assert (found["NODES"], found["ADDRESSES"]) == ("", "")
    assert remarks == ["kdumpfence: /etc/nodes: names no other node, so nobody is told"]


@pytest.mark.slow
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


@pytest.fixture
def with_key(machine: Machine) -> Iterator[keys.Keys]:
    """The key of a cluster in which the machine is node7."""
    made = keys.Keys((keys.key_id(bytes(range(32))), bytes(range(32))))
    file = machine.root / keys.DEFAULT_PATH[1:]
    file.parent.mkdir(exist_ok=True)
    file.touch(0o600)
    file.write_text(made.text())
    machine.install("initramfs-tools", "--node", "node7")
    yield made
    file.unlink()
    (machine.root / layouts.NODE_KEY[1:]).unlink(missing_ok=True)


def hook(machine: Machine) -> str:
    """Run it once more for the image that is there; what it said."""
    shutil.rmtree(machine.root / "image/etc/kdumpfence")
    return machine.chroot(
        "/etc/initramfs-tools/hooks/kdumpfence", env={"DESTDIR": "/image", "verbose": "n"}
    )


@pytest.mark.slow
@pytest.mark.usefixtures("image")
def test_the_hook_puts_in_this_nodes_key_and_never_the_clusters(
    machine: Machine, with_key: keys.Keys
) -> None:
    assert hook(machine) == ""
    folder = machine.root / "image/etc/kdumpfence"
    assert sorted(path.name for path in folder.iterdir()) == ["node-key", "resolved", "this-node"]
    assert (folder / "node-key").stat().st_mode & 0o7777 == 0o600
    found, derived = keys.read(str(folder / "node-key")), with_key.of("node7")
    assert derived is not None
    assert (found.node, found.signs) == ("node7", derived.signs)
    told = f'THIS_NODE="--node=node7 --key-file={layouts.NODE_KEY}"\n'
    assert told in (folder / "resolved").read_text()
    assert (machine.root / "image/usr/lib/kdumpfence/tell-end").stat().st_mode & 0o111

    (machine.root / layouts.NODE_KEY[1:]).unlink()
    assert f"W: kdumpfence: no {layouts.NODE_KEY}: messages will not be signed" in hook(machine)
    assert "--node=node7" in (folder / "resolved").read_text()


def test_the_hook_asks_for_nothing_before_itself(machine: Machine, image: str) -> None:
    for script in ("hooks/kdumpfence", "scripts/init-top/kdumpfence"):
        assert machine.chroot(f"/etc/initramfs-tools/{script}", "prereqs") == ""


@pytest.mark.parametrize("trouble", ["no nodes", "no sense", "no sender"])
@pytest.mark.slow
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


def test_a_normal_boot_starts_nothing(machine: Machine, booted: Path) -> None:
    assert machine.chroot("/usr/lib/kdumpfence/start-sender") == ""
    script = "/etc/initramfs-tools/scripts/init-top/kdumpfence"
    assert machine.chroot(script, env={"IP": "dhcp"}) == ""
    assert machine.end_senders() == []
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
    assert machine.end_senders() == [["@fence_kdump_send", *arguments]]


def test_a_second_sender_is_not_started_where_ours_runs(
    machine: Machine, booted: Path, ear: socket.socket
) -> None:
    """kdump.sh of kdump-utils starts one later, with the nodes of kdump.conf."""

    def look() -> dict[int, list[str]]:
        """Let the script see the names of the senders that run, as the kernel tells them."""
        for folder in (machine.root / "proc").glob("[0-9]*"):
            shutil.rmtree(folder)
        found = senders(machine.host)
        for pid in (1, *found):
            folder = machine.root / "proc" / str(pid)
            folder.mkdir()
            (folder / "comm").write_text(Path(f"/proc/{pid}/comm").read_text())
        return found

    booted.write_text("dump")
    again = machine.root / "usr/libexec/fence_kdump_send"
    again.parent.mkdir(exist_ok=True)
    shutil.copy(FILES / "dracut/unless-it-runs", again)
    again.chmod(0o755)
    assert look() == {}
    machine.chroot("/usr/libexec/fence_kdump_send", "-c", "1", "10.0.0.2")
    assert len(ear.recv(100)) >= 8
    assert machine.chroot("/usr/lib/kdumpfence/start-sender") == ""
    assert len(ear.recv(100)) >= 8
    before = look()
    assert len(before) == 1
    assert machine.chroot("/usr/libexec/fence_kdump_send", "10.0.0.2") == ""
    assert look() == before
    again.unlink()


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
    node1: Host,
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
    # What goes on beside the script has its name.
    until(lambda: not any("init-top" in " ".join(words) for words in running(node1).values()))
    assert (said.read_text() if said.exists() else None) == network


@pytest.mark.parametrize(
    ("nodes", "args"),
    [
        ("node2 node3", ""),
        ("  node2\t node3 ", "-v -i 5"),
        ("node2,node3 10.9.9.9,,node4", "\t-v\t\t-i   5 --family=ipv4  "),
        ("fe80::7%eth0 2001:db8::2", "-vv --interval=5 -p7411"),
        ("10.9.9.9", "-i 10x"),
    ],
)
def test_the_words_that_are_judged_are_those_that_the_sender_gets(
    machine: Machine, booted: Path, monkeypatch: pytest.MonkeyPatch, nodes: str, args: str
) -> None:
    judged: list[list[str]] = []

    def complaints(words: list[str], to_be_continued: bool = False) -> list[str]:
        judged.append(words)
        return []

    monkeypatch.setattr(sender_arguments, "complaints", complaints)
    machine.host.write_file("/etc/nodes", f'NODES="{nodes}"\nARGS="{args}"\n')
    script = FILES / "common/resolve-nodes"
    read = machine.host.run(["sh", str(script), "--read", "/etc/nodes"], check=True).stdout
    assert sender_arguments.own_file("nodes", read.encode()) == []

    booted.write_text("dump")
    resolved = machine.host.run(["sh", str(script), "/etc/nodes"], check=True).stdout
    (machine.root / layouts.RESOLVED[1:]).write_text(resolved)
    sender = machine.root / "usr/lib/kdumpfence/fence_kdump_send"
    sender.unlink()
    sender.write_text(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >/tmp/argv.new\n/bin/mv /tmp/argv.new /tmp/argv\n"
    )
    sender.chmod(0o755)
    (machine.root / "tmp/argv").unlink(missing_ok=True)
    machine.chroot("/usr/lib/kdumpfence/start-sender")
    until((machine.root / "tmp/argv").exists)
    given = (machine.root / "tmp/argv").read_text().splitlines()
    sender.unlink()
    options, names = judged
    assert given[: len(options)] == options
    # Each of the nodes, or all of its addresses.
    rest = given[len(options) :]
    assert {name for name in names if name != "node1"} <= {*rest, *ADDED}
    assert set(rest) - set(names) <= ADDED


#: The addresses of the names that node1 knows.
ADDED = {"10.0.0.2", "2001:db8::2", "10.0.0.3"}


@pytest.mark.parametrize(
    "character", ["\r", "\v", "\f", "*", "?", "[", "\\\\", "$", "`", "&", "|", ";", "<"]
)
def test_what_shells_and_systemd_may_split_or_replace_is_refused(
    node1: Host, character: str
) -> None:
    for name in ("NODES", "ARGS"):
        node1.write_file("/etc/nodes", f'{name}="a{character}b"\n')
        done = node1.run(["sh", str(FILES / "common/resolve-nodes"), "--read", "/etc/nodes"])
        assert (done.returncode, done.stdout) == (1, "")
        assert "letters, digits and" in done.stderr
