# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guide and the manuals tell administrators to write does what they say."""

from __future__ import annotations

import re
from pathlib import Path

from kdumpfence.install import layouts, sender_arguments
from tests.install import roots
from tests.install.conftest import Command

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
