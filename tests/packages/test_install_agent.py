# SPDX-License-Identifier: LGPL-2.1-or-later
"""`kdumpfence install-agent` on a whole Debian, with its own Python and the real dpkg."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import HOME, TRAPS, install_agent, lay_traps
from tests.support.sources import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

AGENT = "/usr/sbin/fence_kdump"
KEPT = "/usr/sbin/.fence_kdump.stock"


def core(machine: bare.Machine) -> str:
    """The core that is to be expected: is there a compiled one for the machine's Python?"""
    (python,) = (machine.root / "usr/bin").glob("python3.*[0-9]")
    tag = python.name.replace("python", "cpython-").replace(".", "")
    return "compiled" if list((ROOT / "src/kdumpfence").glob(f"*.{tag}-*.so")) else "pure"


def test_hacluster_can_use_it_whatever_lies_about(machine: bare.Machine) -> None:
    said = install_agent(machine)
    assert f"with the {core(machine)} core" in said
    env = lay_traps(machine)
    version = machine.as_hacluster(AGENT, "-V", env=env, cwd=TRAPS)
    assert version.endswith(f"(kdumpfence, {core(machine)} core)\n")
    said = machine.as_hacluster(AGENT, "-o", "metadata", env=env, cwd=TRAPS)
    assert "</resource-agent>" in said
    # And nothing of it is in the environment that it came from, which only root can read.
    (machine.root / HOME[1:]).rename(machine.root / "home/gone")
    assert machine.as_hacluster("fence_kdump", "-V") == version


def test_root_leaves_no_files_by_running_it(machine: bare.Machine) -> None:
    install_agent(machine)
    before = machine.files()
    machine.run("fence_kdump", "-o", "metadata")
    assert machine.try_("fence_kdump", "-n", "127.0.0.2", "-t", "1").returncode == 1
    assert machine.files() == before


def test_beside_debians_own_agent(machine: bare.Machine, bare_debian: bare.Debian) -> None:
    stock = ("--force-depends", "-i", machine.put(bare_debian.fence_agents))
    machine.dpkg(*stock)
    install_agent(machine, "--dry-run")
    before = machine.files()
    said = install_agent(machine)
    assert f"keep the existing file as {KEPT}" in said
    assert "run this again after each update of fence-agents" in said
    machine.dpkg(*stock)  # an update puts its own agent back
    assert "(kdumpfence, " not in machine.as_hacluster("fence_kdump", "-V")
    install_agent(machine)
    assert "(kdumpfence, " in machine.as_hacluster("fence_kdump", "-V")
    install_agent(machine, "--remove")
    assert machine.run("dpkg", "--verify", bare_debian.stock_package) == ""
    changed = {line.split()[0] for line in machine.files() ^ before}
    # Its own bytecode the update has made anew.
    assert not [path for path in changed if not path.startswith("/usr/share/fence/__pycache__")]


def test_it_says_yes(machine: bare.Machine) -> None:
    install_agent(machine)
    sender = machine.root / "tmp/sender"
    sender.write_bytes((ROOT / "src/kdumpfence/_native/fence_kdump_send").read_bytes())
    sender.chmod(0o755)
    script = "/tmp/sender 127.0.0.1 >/dev/null 2>&1 & fence_kdump -n 127.0.0.1 -t 30 && kill $!"
    machine.run("sh", "-euc", script)


@pytest.mark.parametrize("broken", ["missing", "no program"])
def test_a_system_without_a_python_that_runs(machine: bare.Machine, broken: str) -> None:
    before = machine.files()
    install_agent(machine)
    install_agent(machine, "--remove")
    python = machine.root / "usr/bin/python3"
    real = machine.run("readlink", "-f", "/usr/bin/python3").strip()
    python.unlink()
    if broken == "no program":
        python.write_text("#!/nowhere\n")
        python.chmod(0o755)
    script = f"import sys; sys.path.insert(0, {HOME!r}); from kdumpfence.cli.main import script"
    done = machine.try_(real, "-Bc", f"{script}; script()", "install-agent")
    assert done.returncode == 1
    assert re.fullmatch(
        "kdumpfence: (/usr/bin/python3 is missing: the agent needs it"
        "|/usr/bin/python3 does not run: No such file or directory)\n",
        done.stdout,
    )
    left = {line.split()[0] for line in machine.files() - before}
    assert not [path for path in left if Path(path).is_relative_to("/usr/lib/kdumpfence")]
