# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the guide and the manuals tell administrators to write does what they say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from subprocess import DEVNULL

import pytest

from kdumpfence import keys
from kdumpfence.install import layouts, sender_arguments
from tests.install import roots
from tests.install.conftest import Command
from tests.support.labs import lab

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.name: path.read_text().replace("\\-", "-") if path.suffix == ".8" else path.read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.8"), *(ROOT / "docs").glob("*.md"))
}
GUIDE = PAGES["operations.md"]


def test_every_command_that_rebuilds_the_image_loads_it_too() -> None:
    texts = {**PAGES, "layouts": layouts.LAYOUTS["rhel"].afterwards}
    found = [(name, part) for name, text in texts.items()
             for part in re.findall(r"kdumpctl rebuild(.{0,20})", text, re.DOTALL)]  # fmt: skip
    assert len({name for name, _ in found}) >= 3
    for name, behind in found:
        assert " ".join(behind.split()).startswith("&& kdumpctl reload"), name


def test_no_command_for_suse_needs_a_shell() -> None:
    scripts = [
        (name, script)
        for name, text in PAGES.items()
        for script in re.findall(r"KDUMP_P(?:RE|OST)SCRIPT=([^\n|]*fence_kdump_send[^\n|]*)", text)
    ]
    assert len(scripts) == 2
    for name, script in scripts:
        assert "&" not in script, name
        assert re.match("'(setsid -f|timeout [0-9]+) ", script), (name, script)


def test_the_nodes_of_the_guide_are_taken(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "rocky")
    (line,) = re.findall(r"`(fence_kdump_nodes [^`]*) \.\.\.`", GUIDE)
    roots.put(root, sender_arguments.KDUMP_CONF, line + "\n")
    (nodes,) = set(re.findall(r'`NODES="([^"]*) \.\.\."`', GUIDE))
    roots.put(root, layouts.NODES, f'NODES="{nodes}"\n')
    (network,) = re.findall(r"`(KDUMP_NETCONFIG='[^']*')`", GUIDE)
    roots.put(root, sender_arguments.SUSE, network + "\n")
    for distribution in ("rhel", "suse", "dracut"):
        said = command.ok(root, "--distribution", distribution)
        assert "warning: " not in said, said


def test_no_map_of_hosts_has_a_colon_too_many() -> None:
    maps = [value for text in PAGES.values() for value in re.findall(r'host_map="([^"]*)"', text)]
    assert len(maps) >= 3
    for value in maps:
        assert all(one.count(":") == 1 for one in value.split(";")), value


def test_the_command_that_looks_into_an_image_is_the_one_that_is_printed() -> None:
    look = "lsinitrd /boot/initramfs-$(uname -r)kdump.img | grep fence_kdump_send"
    assert look in " ".join(PAGES["kdumpfence.8"].split())
    assert look in Path(sender_arguments.__file__).read_text()


@pytest.mark.slow
def test_the_dry_run_of_signed_messages_says_yes() -> None:
    agents, senders = (
        re.findall(rf"^ +({pattern})$", GUIDE, re.MULTILINE)
        for pattern in (r"fence_kdump -n node2 .*--auth.*", r"timeout .*native-sender.*")
    )
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with lab() as opened:
        node1, node2 = opened.host("node1"), opened.host("node2")
        opened.link(node1, node2, ["10.0.0.1/24"], ["10.0.0.2/24"])
        for host in (node1, node2):
            host.add_name("node1", "10.0.0.1")
            host.add_name("node2", "10.0.0.2")
            host.run(["mkdir", "-p", "/etc/kdumpfence"], check=True)
        node1.run(["kdumpfence", "key", "create"], env=env, check=True)
        copied = node1.run(["cat", keys.DEFAULT_PATH], check=True).stdout
        node2.run(["sh", "-c", f"umask 077; echo '{copied}' >{keys.DEFAULT_PATH}"], check=True)
        derive = f"kdumpfence key derive --node node2 --out {layouts.NODE_KEY}"  # as install-sender
        node2.run(["sh", "-c", derive], env=env, check=True)
        shown = node2.run(["kdumpfence", "key", "show"], env=env, check=True).stdout
        assert re.fullmatch(r"signs    (\w{8})\nnode-key \1 of node2\n", shown)
        sender = node2.popen(["sh", "-c", senders[0]], env=env, stdout=DEVNULL, stderr=DEVNULL)
        try:
            done = node1.run(["sh", "-c", agents[0]], env=env)
        finally:
            sender.terminate()
            sender.wait()
        assert (done.returncode, done.stderr) == (0, "")
        assert "received signed answer of 'node2' from 10.0.0.2" in done.stdout
