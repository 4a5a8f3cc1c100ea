# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: what is in it, and that it works. dpkg is really run, in a bare Debian."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.packages import bare
from tests.packages.conftest import TRAPS, lay_traps, needs, run
from tests.packages.dpkg import AGENT, PAGES, ours, version
from tests.support.units import UNITS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

NODES = 'NODES="192.0.2.7"\n'


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
    for unit in UNITS.iterdir():
        # Which of both is right for this Debian, lintian knows.
        places = [f"{usr}/lib/systemd/system/{unit.name}" for usr in ("", "/usr")]
        assert [paths[path] for path in places if path in paths] == ["-rw-r--r--"]
    assert paths["/etc/kdumpfence/kdumpfenced.toml"] == "-rw-r--r--"
    for rules in ("kdumpfenced", "kdumpfence-doctor"):
        assert f"/usr/share/kdumpfence/monitoring/{rules}.rules.yml" in paths
    assert "/usr/share/kdumpfence/wireshark/kdumpfence.lua" in paths
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


def test_no_unit_is_enabled_by_itself(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    wanted = [str(path) for path in machine.root.glob("etc/systemd/system/*.wants/kdumpfence*")]
    assert wanted == []
    # deb-systemd-invoke, which starts units after an installation, passes disabled ones over.
    started = re.findall("deb-systemd-invoke .*", run("dpkg-deb", "--info", deb, "postinst"))
    named = set(re.findall(r"kdumpfence[\w-]*\.\w+", " ".join(started)))
    assert named == {"kdumpfenced.service", "kdumpfenced.socket", "kdumpfence-doctor.timer"}


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


def test_what_the_doctor_wrote_goes_with_the_package(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    file = machine.root / "var/lib/prometheus/node-exporter/kdumpfence.prom"
    doctor = ("kdumpfence", "doctor", "--watch", f"/{file.relative_to(machine.root)}", "agent")
    missing = machine.try_(*doctor)
    assert (missing.returncode, missing.stdout.count("\n")) == (3, 1)
    assert f"/{file.parent.relative_to(machine.root)}: No such file" in missing.stdout
    file.parent.mkdir(parents=True)
    assert machine.try_(*doctor).returncode in (0, 1)
    assert 'check="agent",state="ok"} 1' in file.read_text()
    machine.dpkg("-r", "kdumpfence")
    assert list(file.parent.iterdir()) == []


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


def test_the_clusters_key_outlives_all_but_a_purge(
    machine: bare.Machine, deb: Path, newer_deb: Path
) -> None:
    before = machine.files()
    ours(machine, deb)
    machine.run("kdumpfence", "key", "create")
    key = machine.root / "etc/kdumpfence/key"
    made = key.read_bytes()
    assert key.stat().st_mode & 0o7777 == 0o600
    node = ("--distribution", "debian", "--node", "node7")
    machine.run("kdumpfence", "install-sender", *node)
    node_key = key.with_name("node-key")
    derived = node_key.read_bytes()
    assert b"\nnode node7\n" in derived
    ours(machine, newer_deb)  # which does not know the name but from before
    assert (key.read_bytes(), node_key.read_bytes()) == (made, derived)
    machine.dpkg("-r", "kdumpfence")
    assert key.read_bytes() == made
    assert not node_key.exists()
    machine.dpkg("-P", "kdumpfence")
    assert machine.files() == before


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
