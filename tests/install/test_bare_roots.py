# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images are built in roots that have no /dev and no /proc, or lack a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from kdumpfence.install.layouts import LAYOUTS
from tests.install import roots
from tests.install.machine import resolve
from tests.support.netlab import Host

#: Runs a command where /dev and /proc are empty.
BARE = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs none /dev && mount -t tmpfs none /proc && exec "$@"',
    "sh",
)
PROGRAM = (sys.executable, "-m", "kdumpfence.cli")

pytestmark = pytest.mark.usefixtures("root")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BARE, *PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("distribution", LAYOUTS)
def test_the_sender_is_installed_without_dev_and_proc(
    root_directory: Path, built: str, distribution: str
) -> None:
    arguments = ("install-sender", "--root", str(root_directory), "--distribution", distribution)
    for more in ((), ("--remove",)):
        done = run(*arguments, *more)
        assert (done.returncode, done.stderr) == (0, "")
    assert roots.whats(root_directory) == {}


def test_the_agent_is_installed_without_dev_and_proc(root_directory: Path) -> None:
    roots.with_python(root_directory)
    for more in ((), ("--remove",)):
        done = run("install-agent", "--root", str(root_directory), *more)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_names_need_and_a_bare_root_lacks_is_said(root_directory: Path, built: str) -> None:
    root = roots.make(root_directory, "debian")
    nodes = roots.put(root, layouts.NODES, 'NODES="node2"\n')
    said = run("install-sender", "--root", str(root)).stderr
    assert said == "kdumpfence: /dev/null is missing: node names cannot be looked up\n"
    nodes.write_text("NODES=node2 node3\n")
    said = run("install-sender", "--root", str(root)).stderr
    assert said == f"kdumpfence: {nodes}: line 1: several words need quotes around them\n"


@pytest.mark.parametrize(
    ("missing", "remark", "addresses"),
    [
        ("getent", "no node is looked up, the crash kernel has their names alone", ""),
        ("timeout", "no node is looked up, the crash kernel has their names alone", ""),
        ("ip (iproute2)", "this machine's own addresses are not left out", "10.0.0.1 10.0.0.3"),
    ],
)
def test_a_program_that_is_missing_is_named(
    node1: Host, missing: str, remark: str, addresses: str
) -> None:
    name, _, _ = missing.partition(" ")
    few = f"mkdir -p /run/few; ln -sf /usr/bin/* /sbin/ip /run/few; rm /run/few/{name}"
    node1.run(["sh", "-c", few], check=True)
    found, remarks = resolve(node1, "node1.cluster node3", through=["env", "PATH=/run/few"])
    assert f"kdumpfence: no command {missing}: {remark}" in remarks
    assert found["ADDRESSES"] == addresses
    assert found["NODES"] == "node1.cluster node3"
