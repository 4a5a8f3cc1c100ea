# SPDX-License-Identifier: LGPL-2.1-or-later
"""The SELinux module can be compiled, and allows what the agent needs and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packages.conftest import needs, run
from tests.support.sources import ROOT

SOURCE = ROOT / "packaging/selinux/kdumpfence.te"


def test_it_can_be_compiled_as_its_head_says(tmp_path: Path) -> None:
    needs("checkmodule", "semodule_package", "semodule_unpackage")
    commands = re.findall(r"^#     (.*)$", SOURCE.read_text(), re.MULTILINE)
    assert commands.pop() == "semodule -i kdumpfence.pp"
    (tmp_path / SOURCE.name).write_bytes(SOURCE.read_bytes())
    for command in commands:
        run(*command.split(), cwd=tmp_path)
    run("semodule_unpackage", "kdumpfence.pp", "unpacked.mod", cwd=tmp_path)
    module = (tmp_path / "unpacked.mod").read_bytes()
    assert module == (tmp_path / "kdumpfence.mod").read_bytes()
    assert b"cluster_t" in module


def test_it_allows_raw_sockets_and_the_port_and_nothing_else() -> None:
    text = re.sub(r"#.*", "", SOURCE.read_text())
    required, rules = re.fullmatch(
        r"\s*module kdumpfence [\d.]+;\s*require \{(.*?)\n\}(.*)", text, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    raw = "rawip_socket { create getattr getopt setopt read }"
    assert [" ".join(rule.split()) for rule in rules.split(";")] == [
        f"allow cluster_t self:{raw}",
        "allow cluster_t ionixnetmon_port_t:udp_socket name_bind",
        "",
    ]
    assert [" ".join(line.split()) for line in required.split(";")] == [
        "type cluster_t",
        "type ionixnetmon_port_t",
        f"class {raw}",
        "class udp_socket name_bind",
        "",
    ]
