# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package: what is in it, that it works, and that it gets along with fence-agents.

dpkg is really run, in a bare Debian, with Debian's own fence-agents. Of that only the package
itself is there: its Python libraries for cloud providers are left out by --force-depends.
"""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import TRAPS, install_agent, lay_traps, needs, run

pytestmark = pytest.mark.slow

AGENT = "/usr/sbin/fence_kdump"
KEPT = "/usr/sbin/.fence_kdump.stock"
PAGES = ("fence_kdump", "fence_kdump_send")
NODES = 'NODES="192.0.2.7"\n'


def stock(machine: bare.Machine, debian: bare.Debian) -> str:
    """Install fence-agents; what dpkg said."""
    return machine.dpkg("--force-depends", "-i", machine.put(debian.fence_agents))


def ours(machine: bare.Machine, deb: Path) -> str:
    """Install the package; what dpkg said."""
    return machine.dpkg("-i", machine.put(deb))


def version(machine: bare.Machine) -> str:
    """Whose agent it is that the cluster would start."""
    return machine.run("fence_kdump", "-V")


def is_stock(machine: bare.Machine, path: str = AGENT) -> bool:
    """Whether that is the stock agent, a program in C, and one that runs."""
    return (machine.root / path[1:]).read_bytes()[:4] == b"\x7fELF" and "0.1" in machine.run(
        path, "-V"
    )


def agents(machine: bare.Machine) -> list[str]:
    """The agents that Pacemaker would list."""
    return sorted(path.name for path in (machine.root / "usr/sbin").glob("fence_kdump*"))


# ------------------------------------------------------------------ the package itself


def test_lintian_is_content(deb: Path) -> None:
    needs("lintian")
    run("lintian", "--fail-on", "error,warning,info", "--suppress-tags",
        # They call nothing that could be fortified.
        "hardening-no-fortify-functions", deb)  # fmt: skip


def test_what_is_in_the_package(deb: Path) -> None:
    listed = run("dpkg-deb", "--contents", deb)
    paths = {
        path: rights
        for rights, path in re.findall(r"^(-\S+) root/root .* \.(/\S+)$", listed, re.MULTILINE)
    }
    assert paths[AGENT] == paths["/usr/sbin/kdumpfence"] == "-rwxr-xr-x"
    modules = "/usr/lib/kdumpfence/python/kdumpfence"
    for sender in ("fence_kdump_send", "fence_kdump_send.static"):
        assert paths[f"{modules}/_native/{sender}"] == "-rwxr-xr-x"
    assert len([path for path in paths if path.startswith(f"{modules}/_kdumpwire.cpython-")]) == 1
    # No other program of ours is in anybody's way.
    assert [path for path in paths if re.match(r"/(usr/)?s?bin/", path)] == [
        AGENT,
        "/usr/sbin/kdumpfence",
        "/usr/sbin/kdumpfenced",
    ]
    for unit in ("service", "socket"):
        assert paths[f"/lib/systemd/system/kdumpfenced.{unit}"] == "-rw-r--r--"
    assert paths["/etc/kdumpfence/kdumpfenced.toml"] == "-rw-r--r--"
    assert "/usr/share/kdumpfence/monitoring/kdumpfenced.rules.yml" in paths
    for page in (*PAGES, "kdumpfence", "kdumpfenced"):
        assert f"/usr/share/man/man8/{page}.8.gz" in paths
    assert all(rights.endswith(("r--", "r-x")) for rights in paths.values())


def test_what_firewalls_are_told(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    service = machine.root / "usr/lib/firewalld/services/kdumpfence.xml"
    ports = ET.parse(service).getroot().findall("port")
    assert [port.attrib for port in ports] == [{"protocol": "udp", "port": "7410"}]
    profile = configparser.ConfigParser()
    profile.read(machine.root / "etc/ufw/applications.d/kdumpfence")
    assert profile["kdumpfence"]["ports"] == "7410/udp"
    assert {"title", "description"} < set(profile["kdumpfence"])


# ------------------------------------------------------------------ the daemon


def test_the_daemon_is_not_enabled_by_itself(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    wanted = [str(path) for path in machine.root.glob("etc/systemd/system/*.wants/kdumpfenced*")]
    assert wanted == []
    # deb-systemd-invoke, which starts units after an installation, passes disabled ones over.
    assert "deb-systemd-invoke" in run("dpkg-deb", "--info", deb, "postinst")


def test_the_daemon_works_and_its_settings_outlive_an_upgrade(
    machine: bare.Machine, deb: Path, newer_deb: Path
) -> None:
    ours(machine, deb)
    refused = machine.try_("kdumpfenced", "--check")
    assert refused.returncode == 1
    assert "kdumpfenced.toml: no nodes configured" in refused.stdout
    settings = machine.root / "etc/kdumpfence/kdumpfenced.toml"
    settings.write_text("networks = ['127.0.0.0/8']\n" + settings.read_text())
    assert "networks: 127.0.0.0/8;" in machine.run("kdumpfenced", "--check")
    native = "/usr/lib/kdumpfence/python/kdumpfence/_native/fence_kdump_send"
    heard = machine.run(
        "sh", "-euc", f"timeout 3 kdumpfenced 2>&1 & sleep 1; {native} -c 1 127.0.0.1 2>&1; wait"
    )
    assert "node '127.0.0.1' began to dump" in heard
    assert (machine.root / "var/lib/kdumpfenced/history.sqlite").exists()
    ours(machine, newer_deb)
    assert "networks: 127.0.0.0/8;" in machine.run("kdumpfenced", "--check")
    machine.dpkg("-P", "kdumpfence")
    assert not settings.exists()


# ------------------------------------------------------------------ alone


def test_hacluster_can_use_the_agent_whatever_lies_about(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    env = lay_traps(machine)
    for arguments, said in (("-V",), "compiled core"), (("-o", "metadata"), "</resource-agent>"):
        assert said in machine.as_hacluster(AGENT, *arguments, env=env, cwd=TRAPS)
    assert "install-agent" in machine.run("kdumpfence", "--help", env=env, cwd=TRAPS)


def test_it_says_yes_and_no(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    sender = machine.run("kdumpfence", "native-sender").strip()
    script = f"{sender} 127.0.0.1 >/dev/null 2>&1 & fence_kdump -n 127.0.0.1 -t 30 && kill $!"
    machine.run("sh", "-euc", script)
    assert machine.try_("fence_kdump", "-n", "127.0.0.2", "-t", "1").returncode == 1


def test_nothing_is_left_after_purge(machine: bare.Machine, deb: Path) -> None:
    before = machine.files()
    ours(machine, deb)
    version(machine)
    machine.dpkg("-P", "kdumpfence")
    assert machine.files() == before
    assert machine.run("dpkg-divert", "--list", "*kdump*") == ""


def test_another_python_makes_it_slower_and_does_not_stop_it(
    machine: bare.Machine, deb: Path
) -> None:
    """The compiled core is for the Python of its day."""
    ours(machine, deb)
    core = next((machine.root / "usr/lib/kdumpfence/python/kdumpfence").glob("_kdumpwire.*"))
    core.rename(core.with_name("_kdumpwire.cpython-399-x86_64-linux-gnu.so"))
    assert "pure core" in machine.as_hacluster("fence_kdump", "-V")
    # What Debian runs when it comes.
    machine.run("/usr/share/python3/runtime.d/kdumpfence.rtupdate", "rtupdate", "3.10", "3.11")
    assert list((core.parent / "agent/__pycache__").glob("main.*.pyc"))


# ------------------------------------------------------------------ beside fence-agents


@pytest.mark.parametrize("first", ["fence-agents", "kdumpfence"])
def test_it_gets_along_with_fence_agents(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, first: str
) -> None:
    pristine = machine.files()
    if first == "fence-agents":
        stock(machine, bare_debian)
        ours(machine, deb)
    else:
        ours(machine, deb)
        stock(machine, bare_debian)
    assert "compiled core" in version(machine)
    assert is_stock(machine, KEPT)
    assert agents(machine) == ["fence_kdump"]
    for page in PAGES:
        assert (machine.root / f"usr/share/man/man8/{page}.stock.8.gz").exists()
    assert machine.run("dpkg", "--verify", "kdumpfence", "fence-agents") == ""
    assert machine.run("dpkg", "-S", AGENT).count("diversion by kdumpfence") == 2

    stock(machine, bare_debian)  # an update of that package
    assert "compiled core" in version(machine)
    machine.dpkg("-P", "kdumpfence")
    assert is_stock(machine)
    assert machine.run("dpkg", "--verify", "fence-agents") == ""
    assert machine.run("dpkg-divert", "--list", "*kdump*") == ""
    ours(machine, deb)
    machine.dpkg("-P", "fence-agents")
    assert "compiled core" in version(machine)
    assert agents(machine) == ["fence_kdump"]
    machine.dpkg("-P", "kdumpfence")
    left = {line.split()[0] for line in machine.files() ^ pristine}
    assert not [path for path in left if "kdump" in path or path.startswith("/usr/sbin/")], left


def test_an_upgrade_keeps_the_stock_files_where_they_are(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, newer_deb: Path
) -> None:
    stock(machine, bare_debian)
    before = machine.files()
    ours(machine, deb)
    diversions = machine.run("dpkg-divert", "--list", "*kdump*")
    ours(machine, newer_deb)
    assert version(machine).startswith("fence_kdump 9 ")
    assert machine.run("dpkg-divert", "--list", "*kdump*") == diversions
    assert is_stock(machine, KEPT)
    ours(machine, deb)  # and back
    assert version(machine).startswith("fence_kdump 0.")
    machine.dpkg("-P", "kdumpfence")
    assert machine.files() == before


def test_an_installation_that_fails_leaves_the_stock_agent(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, tmp_path: Path
) -> None:
    stock(machine, bare_debian)
    other = tmp_path / "other"
    (other / "DEBIAN").mkdir(parents=True)
    (other / "DEBIAN/control").write_text(
        "Package: other\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        "Description: has a file of ours\n"
    )
    (other / "usr/sbin").mkdir(parents=True)
    (other / "usr/sbin/kdumpfence").touch()
    run("dpkg-deb", "--build", "--root-owner-group", other, tmp_path / "other.deb")
    machine.dpkg("-i", machine.put(tmp_path / "other.deb"))
    before = machine.files()
    failed = machine.try_("dpkg", "-i", machine.put(deb))
    assert failed.returncode != 0
    assert "trying to overwrite '/usr/sbin/kdumpfence'" in failed.stdout
    assert machine.files() == before
    assert is_stock(machine)


@pytest.mark.parametrize("how", ["dpkg-divert", "install-agent"])
def test_an_agent_that_was_put_there_by_hand_is_not_run_over(
    machine: bare.Machine, bare_debian: bare.Debian, deb: Path, how: str
) -> None:
    stock(machine, bare_debian)
    if how == "dpkg-divert":
        elsewhere = "/usr/libexec/fence-agents/fence_kdump.stock"
        machine.run("dpkg-divert", "--local", "--rename", "--divert", elsewhere, "--add", AGENT)
        (machine.root / AGENT[1:]).write_text("#!/bin/sh\necho mine\n")
        (machine.root / AGENT[1:]).chmod(0o755)
    else:
        install_agent(machine)
    said, before = version(machine), machine.files()
    failed = machine.try_("dpkg", "-i", machine.put(deb))
    assert failed.returncode != 0
    assert "first: " in failed.stdout
    assert (version(machine), machine.files()) == (said, before)


def test_install_agent_leaves_the_package_alone(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    before = machine.files()
    done = machine.try_("kdumpfence", "install-agent")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert f"{AGENT} belongs to the kdumpfence package" in done.stdout
    assert machine.files() == before


# ------------------------------------------------------------------ the sender


def test_the_sender_is_put_in_its_place_on_request_and_follows_the_package(
    machine: bare.Machine, deb: Path, newer_deb: Path
) -> None:
    before = machine.files()
    ours(machine, deb)
    assert not (machine.root / "usr/lib/kdumpfence/fence_kdump_send").exists()
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    machine.run("kdumpfence", "install-sender", "--distribution", "initramfs-tools", "--static")
    sender = machine.root / "usr/lib/kdumpfence/fence_kdump_send"
    static = sender.read_bytes()
    assert b"/ld-" not in static
    (machine.root / "etc/kdumpfence/nodes").write_text(NODES)
    ours(machine, newer_deb)
    assert sender.read_bytes() == static + b"\nversion 9\n"
    assert "192.0.2.7" in (machine.root / "etc/kdumpfence/resolved").read_text()
    said = machine.dpkg("-r", "kdumpfence")
    assert "left: /etc/kdumpfence/nodes" in said
    assert (machine.root / "etc/kdumpfence/nodes").read_text() == NODES
    assert not (machine.root / "usr/lib/kdumpfence").exists()
    assert not list((machine.root / "etc").rglob("*kdumpfence-send*"))
    machine.dpkg("-P", "kdumpfence")
    assert machine.files() == before


def test_a_sender_that_cannot_be_renewed_does_not_stop_the_upgrade(
    machine: bare.Machine, deb: Path, newer_deb: Path
) -> None:
    ours(machine, deb)
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    (machine.root / "etc/kdumpfence/nodes").write_text("this is no list\n")
    assert "still the older one" in ours(machine, newer_deb)
    assert version(machine).startswith("fence_kdump 9 ")
    machine.dpkg("-P", "kdumpfence")
    assert not (machine.root / "etc/kdumpfence").exists()


def test_the_sender_that_the_unit_starts_runs(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    unit = machine.root / "etc/systemd/system/kdumpfence-send.service"
    program = re.search(r"^ExecStart=@(\S+)", unit.read_text(), re.MULTILINE)
    assert program is not None
    assert "127.0.0.1" in machine.run(program[1], "--check", "127.0.0.1")
