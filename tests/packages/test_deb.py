# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: what is in it, and that it works. dpkg is really run, in a bare Debian."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kdumpfence._version import __version__
from tests.packages import bare
from tests.packages.conftest import MODULES, TRAPS, lay_traps, library_of, needs, run
from tests.packages.dpkg import AGENT, PAGES, library, ours, ours_gone, version
from tests.support.units import UNITS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

NODES = 'NODES="192.0.2.7"\n'

#: An example runs until it has called its program once, for a message that Python has sent.
HEARD = """
echo '#!/bin/sh
echo "$@" >/tmp/heard.new && mv /tmp/heard.new /tmp/heard' >/tmp/fence
chmod +x /tmp/fence
KDUMP_PORT=7410 python3 {example} /tmp/fence node1=127.0.0.9 &
until [ -e /tmp/heard ]; do
    python3 -c 'import kdumpfence, socket
sender = socket.socket(type=socket.SOCK_DGRAM)
sender.bind(("127.0.0.9", 0))
sender.sendto(kdumpfence.encode("little"), ("127.0.0.1", 7410))'
done
kill $!
wait
cat /tmp/heard
"""


# ------------------------------------------------------------------ the package itself


def test_lintian_is_content(deb: Path) -> None:
    needs("lintian")
    run("lintian", "--fail-on", "error,warning,info", "--suppress-tags",
        # They call nothing that could be fortified.
        "hardening-no-fortify-functions", deb, library_of(deb))  # fmt: skip


def content(package: Path) -> dict[str, str]:
    """The package's files, with their rights."""
    listed = run("dpkg-deb", "--contents", package)
    found = re.findall(r"^(-\S+) root/root .* \.(/\S+)$", listed, re.MULTILINE)
    return {path: rights for rights, path in found}


def test_what_is_in_the_package(deb: Path) -> None:
    paths = content(deb)
    assert paths[AGENT] == paths["/usr/sbin/kdumpfence"] == "-rwxr-xr-x"
    for sender in ("fence_kdump_send", "fence_kdump_send.static"):
        assert paths[f"/{MODULES}/_native/{sender}"] == "-rwxr-xr-x"
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


def test_what_is_in_the_librarys_package(deb: Path) -> None:
    paths = content(library_of(deb))
    assert len([path for path in paths if path.startswith(f"/{MODULES}/_kdumpwire.cpython-")]) == 1
    for file in ("__init__.py", "py.typed", "_kdumpwire.pyi", "listener/listener.py"):
        assert paths[f"/{MODULES}/{file}"] == "-rw-r--r--"
    for file in ("status.css", "status.js", "icon.svg"):  # without which the daemon has no page
        assert paths[f"/{MODULES}/daemon/page/files/{file}"] == "-rw-r--r--"
    assert not [path for path in paths if re.match(r"/(usr/)?s?bin/|/etc/", path)]
    assert not paths.keys() & content(deb).keys()


def test_a_program_can_import_the_library_alone(machine: bare.Machine, deb: Path) -> None:
    """Nothing of an agent, no unit and no setting comes along; and it goes without a trace."""
    before = machine.files()
    library(machine, deb)
    script = "import kdumpfence; print(kdumpfence.IMPLEMENTATION, kdumpfence.Listener.__name__)"
    assert machine.run("python3", "-c", script) == "compiled Listener\n"
    script = "from importlib.metadata import version; print(version('kdumpfence'))"
    assert machine.run("python3", "-c", script) == f"{__version__}\n"
    example = "/usr/share/doc/python3-kdumpfence/examples/cloud_fencing.py"
    said = machine.run("sh", "-euc", HEARD.format(example=example))
    assert said == "hold node1 60\n"
    added = {line.split()[0] for line in machine.files() - before}
    ours_alone = rf"/{MODULES}|/usr/share/(doc|lintian)/.*kdumpfence"
    assert [path for path in added if not re.match(ours_alone, path)] == []
    machine.dpkg("-P", "python3-kdumpfence")
    assert machine.files() == before


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


#: The daemon is told by the sender, $1, that this machine dumps, as soon as it listens.
HEARS = """
timeout 60 kdumpfenced >/tmp/said 2>&1 & daemon=$!
until grep -q "began to dump" /tmp/said; do kill -0 $daemon; "$1" -c 1 127.0.0.1; sleep 0.2; done
kill $daemon
wait $daemon
cat /tmp/said
"""


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
    native = f"/{MODULES}/_native/fence_kdump_send"
    heard = machine.run("sh", "-euc", HEARS, "sh", native)
    assert "node '127.0.0.1' began to dump" in heard
    assert (machine.root / "var/lib/kdumpfenced/history.sqlite").exists()
    ours(machine, newer_deb)
    assert "networks: 127.0.0.0/8;" in machine.run("kdumpfenced", "--check")
    ours_gone(machine)
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
    ours_gone(machine)
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
    ours_gone(machine)
    assert machine.files() == before


def test_another_python_makes_it_slower_and_does_not_stop_it(
    machine: bare.Machine, deb: Path
) -> None:
    """The compiled core is for the Python of its day."""
    ours(machine, deb)
    core = next((machine.root / MODULES).glob("_kdumpwire.*.so"))
    core.rename(core.with_name("_kdumpwire.cpython-399-x86_64-linux-gnu.so"))
    assert "pure core" in machine.as_hacluster("fence_kdump", "-V")
    # What Debian runs when it comes.
    machine.run("py3clean", "-p", "python3-kdumpfence")
    assert not list(core.parent.rglob("*.pyc"))
    python = Path(machine.run("readlink", "-f", "/usr/bin/python3").strip()).name
    machine.run("/usr/share/python3/runtime.d/public_modules.rtinstall", "rtinstall", python)
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
    ours_gone(machine)
    assert machine.files() == before


def test_a_sender_that_cannot_be_renewed_does_not_stop_the_upgrade(
    machine: bare.Machine, deb: Path, newer_deb: Path
) -> None:
    ours(machine, deb)
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    (machine.root / "etc/kdumpfence/nodes").write_text("this is no list\n")
    assert "still the older one" in ours(machine, newer_deb)
    assert version(machine).startswith("fence_kdump 9 ")
    ours_gone(machine)
    assert not (machine.root / "etc/kdumpfence").exists()


def test_the_sender_that_the_unit_starts_runs(machine: bare.Machine, deb: Path) -> None:
    ours(machine, deb)
    machine.run("kdumpfence", "install-sender", "--distribution", "debian")
    unit = machine.root / "etc/systemd/system/kdumpfence-send.service"
    program = re.search(r"^ExecStart=@(\S+)", unit.read_text(), re.MULTILINE)
    assert program is not None
    assert "127.0.0.1" in machine.run(program[1], "--check", "127.0.0.1")
