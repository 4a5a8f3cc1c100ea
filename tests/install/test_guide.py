# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guide, the README and the manuals tell administrators to write does what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdumpfence.install import layouts, sender_arguments
from tests.install import roots
from tests.install.conftest import Command

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.name: path.read_text().replace("\\-", "-") if path.suffix == ".8" else path.read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.8"), *(ROOT / "docs").glob("*.md"))
}
GUIDE = PAGES["operations.md"]


def section(title: str) -> str:
    return GUIDE[GUIDE.index(f". {title}\n") :].split("\n## ")[0]


def test_whoever_is_told_to_make_the_image_is_told_to_load_it() -> None:
    texts = {**PAGES, "layouts": layouts.LAYOUTS["rhel"].afterwards}
    assert sum("kdumpctl rebuild" in text for text in texts.values()) >= 4
    for name, text in texts.items():
        for match in re.finditer(r"kdumpctl rebuild(.{0,30})", text, re.DOTALL):
            behind = match[1].lstrip("`")
            assert behind.startswith((" && kdumpctl reload", " alone makes")), (name, match[0])


def test_nobody_is_told_to_end_a_command_of_suse_with_an_ampersand() -> None:
    scripts = [
        (name, script)
        for name, text in PAGES.items()
        for script in re.findall(r"KDUMP_P(?:RE|OST)SCRIPT=([^\n|]*fence_kdump_send[^\n|]*)", text)
    ]
    assert len(scripts) >= 3
    for name, script in scripts:
        assert "&" not in script, name
        assert re.match("'(setsid -f|timeout [0-9]+) ", script), (name, script)


def test_the_nodes_of_the_guide_are_taken(command: Command, root_directory: Path) -> None:
    told = section("Put the programs in place")
    root = roots.make(root_directory, "rocky")
    (line,) = re.findall(r"`(fence_kdump_nodes [^`]*) \.\.\.`", told)
    roots.put(root, sender_arguments.KDUMP_CONF, line + "\n")
    (nodes,) = re.findall(r'`NODES="([^"]*) \.\.\."`', told)
    roots.put(root, layouts.NODES, f'NODES="{nodes}"\n')
    (script,) = re.findall(r"`KDUMP_PRESCRIPT='([^']*) \.\.\.'`", told)
    roots.put(
        root,
        sender_arguments.SUSE,
        f"KDUMP_PRESCRIPT='{script}'\nKDUMP_REQUIRED_PROGRAMS='{sender_arguments.SUSE_SENDER}'\n"
        "KDUMP_NETCONFIG='auto:force'\n",
    )
    for distribution in ("rhel", "suse", "dracut"):
        said = command.ok(root, "--distribution", distribution)
        assert "warning: " not in said, said


def test_one_list_for_all_nodes_is_promised_where_it_is_true() -> None:
    told = section("Put the programs in place")
    assert "list may be the same" not in told
    for paragraph in told.split("\n\n"):
        if paragraph.startswith("**RHEL, Fedora.**"):
            assert "differs from node to node" in paragraph
        elif paragraph.startswith(("**SLES.**", "**Debian, Ubuntu.**")):
            assert "One list may serve all nodes" in paragraph


@pytest.mark.parametrize("distribution", ["RHEL, Fedora", "SLES", "Debian, Ubuntu"])
def test_the_guide_has_something_for_each_distribution(distribution: str) -> None:
    assert f"\n**{distribution}.** " in section("Put the programs in place")


def test_no_map_of_hosts_has_a_colon_too_many() -> None:
    maps = [value for text in PAGES.values() for value in re.findall(r'host_map="([^"]*)"', text)]
    assert len(maps) >= 4
    for value in maps:
        assert all(one.count(":") == 1 for one in value.split(";")), value
    assert 'nodename="192.0.2.1,2001:db8::1" pcmk_host_list=node1' in GUIDE


def test_how_to_look_into_an_image_is_said_the_same_everywhere() -> None:
    look = "lsinitrd /boot/initramfs-$(uname -r)kdump.img | grep fence_kdump_send"
    source = Path(sender_arguments.__file__).read_text()
    for text in (GUIDE, PAGES["kdumpfence.8"], source):
        assert look in text


def test_the_price_of_cma_is_in_the_table_of_time_outs() -> None:
    (row,) = (line for line in section("Choose the time-outs").splitlines() if ",cma`" in line)
    assert row.startswith("| `timeout`")
    assert "10 seconds more" in row
    assert "reserves\nnothing at all" in section("What there must be")
