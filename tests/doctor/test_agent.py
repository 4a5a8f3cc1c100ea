# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which agent a root has, and who holds the port of a running system."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence._version import __version__
from tests.daemon.running import Kdumpfenced
from tests.doctor.cluster_root import AGENT, FOLDER, MAP, Fault, Root, judge, with_agent
from tests.support.labs import lab
from tests.support.netlab import Host
from tests.support.programs import wait_for_line

#: What is said of the agent itself, and not of the machine.
OWN = ("agent", "agent version", "agent core")
STOCK = "\x7fELF the stock agent\n"


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return with_agent(tmp_path)


def _stock(root: Root) -> Root:
    return root.write(AGENT, STOCK)


FAULTS = [
    Fault("none", lambda root: root.remove(AGENT), "fails", "agent", ("no /usr/sbin/fence_kdump",)),
    Fault(
        "the stock one, which cannot use the map",
        _stock,
        "fails",
        "agent",
        ("the stock agent, which ignores that kdump has addresses", "kdumpfence install-agent"),
    ),
    Fault(
        "the stock one, which believes everything",
        lambda root: _stock(root).set("pcmk_host_map", "node2:node2").set("auth", "sha256"),
        "fails",
        "agent",
        ("ignores that kdump has auth=sha256",),
    ),
    Fault(
        "the stock one, and nothing else is wrong",
        lambda root: _stock(root).unset("pcmk_host_map").set("pcmk_host_list", "node1 node2 node3"),
        "warning",
        "agent",
        ("is the stock agent: it hears one node at a time", "kdumpfence install-agent"),
    ),
    Fault(
        "an old one",
        lambda root: root.write(f"{FOLDER}/_version.py", '__version__ = "0.0.9"\n'),
        "warning",
        "agent version",
        (f"is kdumpfence 0.0.9, this is {__version__}", "kdumpfence install-agent"),
    ),
    Fault(
        "one without its files",
        lambda root: root.remove(f"{FOLDER}/_version.py"),
        "warning",
        "agent version",
        ("kdumpfence of an unknown version",),
    ),
    Fault(
        "the pure core",
        lambda root: root.remove(f"{FOLDER}/_kdumpwire.cpython-313-x86_64-linux-gnu.so"),
        "warning",
        "agent core",
        ("the pure core",),
    ),
]


def test_this_projects_agent_is_fine(healthy: Root) -> None:
    (found,) = healthy.find("agent")
    assert (found.state, found.text) == ("ok", f"kdumpfence {__version__}, compiled core")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    assert MAP in (healthy.folder / "var/lib/pacemaker/cib/cib.xml").read_text()
    judge(healthy, "agent", fault)


# ------------------------------------------------------------------ on a running system


@pytest.fixture
def host() -> Iterator[Host]:
    with lab() as opened:
        yield opened.host("node1")


def _look(host: Host, program: str = "") -> list[dict[str, str]]:
    """What is found there, with this in the place of /usr/sbin/fence_kdump."""
    command = [sys.executable, "-m", "kdumpfence.cli", "doctor", "--json", "agent"]
    if program:
        host.write_file("/run/fence_kdump", program)
        (host.root / "run/fence_kdump").chmod(0o755)
        # The machine's own file, if there is one, is covered for this command alone.
        script = """
            mkdir -p /run/sbin
            cp -a /usr/sbin/ip /run/sbin/ 2>/dev/null
            cp /run/fence_kdump /run/sbin/fence_kdump
            mount --bind /run/sbin /usr/sbin
            exec "$@"
        """
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    said = host.run(command)
    assert said.stderr == ""
    found: list[dict[str, str]] = json.loads(said.stdout)["findings"]
    return found


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (f"fence_kdump {__version__} (kdumpfence, compiled core)", "ok", "compiled core"),
        (f"fence_kdump {__version__} (kdumpfence, pure core)", "warning", "the pure core"),
        ("fence_kdump 0.0.1 (kdumpfence, compiled core)", "warning", "is kdumpfence 0.0.1"),
        ("Traceback: no module named kdumpfence", "unknown", "-V says Traceback: no module"),
    ],
)
def test_a_running_systems_agent_says_what_it_is(
    host: Host, said: str, state: str, words: str
) -> None:
    found = [one for one in _look(host, f"#!/bin/sh\necho '{said}'\n") if one["check"] in OWN]
    assert [one["state"] for one in found] == [state], found
    assert words in found[0]["text"]


def _port(host: Host) -> tuple[str, str]:
    (found,) = (one for one in _look(host) if one["check"] == "port")
    return found["state"], found["text"]


LISTEN = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 7410))
print("ready", flush=True)
input()
"""


def test_another_program_on_the_port(host: Host) -> None:
    assert _port(host) == ("ok", "7410/udp is nobody's")
    stranger = host.popen(
        [sys.executable, "-c", LISTEN, "/srv/kdumpfence/.venv/python"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert wait_for_line(stranger, "ready")
    state, text = _port(host)
    comm = Path(sys.executable).name[:15]
    assert state == "warning"
    assert f"({comm}) holds 7410/udp" in text


def test_our_own_daemon_on_the_port(host: Host, tmp_path: Path) -> None:
    with contextlib.closing(Kdumpfenced(tmp_path)) as daemon:
        text = daemon.settings.read_text()
        daemon.settings.write_text(text.replace(f"port = {daemon.port}", "port = 7410", 1))
        daemon.start_on(host)
        assert _port(host) == ("ok", "7410/udp is kdumpfence's")
