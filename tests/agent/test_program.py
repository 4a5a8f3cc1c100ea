# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent as a process, on loopback, with both cores."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import kdumpfence
from kdumpfence import addresses
from kdumpfence.addresses import Address
from kdumpfence.agent import main
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import fill, load_core, udp, unused_port
from tests.support.programs import AGENT, agent_waits, as_user, environment, start

NODE, OTHER = "127.0.0.21", "127.0.0.22"


def run(core_name: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [AGENT, *argv], input=stdin, env=environment(core_name),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def send(port: int, data: bytes = OWN_MESSAGE, host: str = NODE) -> None:
    sock = udp(host)
    sock.sendto(data, ("127.0.0.1", port))
    sock.close()


def waiting(core_name: str, *command: str, seconds: int) -> tuple[subprocess.Popen[str], int]:
    """An agent that waits for NODE, started by this command, and its port."""
    port = unused_port()
    argv = [*command, AGENT, "-n", NODE, "-p", str(port), "-t", str(seconds)]
    agent = start(argv, core_name)
    agent_waits(agent)
    return agent, port


def test_yes_comes_with_the_message_and_not_with_the_time_out(core_name: str) -> None:
    agent, port = waiting(core_name, seconds=50)
    send(port)
    out, err = agent.communicate(timeout=30)
    assert (agent.returncode, err) == (0, "")
    assert out == f"[debug]: received valid message from '{NODE}' ({NODE})\n"


@pytest.mark.slow
def test_no_comes_at_the_time_out(core_name: str) -> None:
    before = time.monotonic()
    done = run(core_name, "-n", NODE, "-p", str(unused_port()), "-t", "1")
    assert done.returncode == 1
    assert time.monotonic() - before >= 1
    assert "[debug]: timeout after 1 seconds\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_no_says_what_was_heard_instead(core_name: str) -> None:
    agent, port = waiting(core_name, seconds=4)
    send(port, host=OTHER)
    send(port, b"")
    send(port, b"rubbish!")
    out, err = agent.communicate(timeout=30)
    assert agent.returncode == 1
    assert "datagrams to the port: 1 short, 1 magic, 1 stranger\n" in out
    assert err == (f"[error]: valid messages from {OTHER}: not among the addresses of '{NODE}'\n")


def test_stdin_is_read_when_there_is_no_argument(core_name: str) -> None:
    port = unused_port()
    agent = start([AGENT], core_name, stdin=subprocess.PIPE)
    assert agent.stdin is not None
    agent.stdin.write(
        f"nodename=node-x.invalid\naction=off\nport={NODE}\nipport={port}\ntimeout=30"
    )
    agent.stdin.close()
    agent.stdin = None
    agent_waits(agent)
    send(port)
    agent.communicate(timeout=30)
    assert agent.returncode == 0


@pytest.mark.parametrize(
    "argv", [["--bogus"], ["-t", "abc", "-n", "a"], ["-p", "1junk", "-n", "a"], ["-o", "off"]]
)
def test_bad_input_is_one_line_and_status_1(core_name: str, argv: list[str]) -> None:
    done = run(core_name, *argv)
    assert (done.returncode, done.stdout) == (1, "")
    first, _, rest = done.stderr.partition("\n")
    assert first.startswith("[error]: ")
    assert rest == "" or rest.startswith("Usage: fence_kdump")
    assert "Traceback" not in done.stderr


def test_a_node_that_can_never_be_heard_is_a_no_at_once(core_name: str) -> None:
    done = run(core_name, "-n", "10.0.0.1", "-f", "ipv6", "-p", str(unused_port()))
    assert done.returncode == 1
    assert "node '10.0.0.1': not an ipv6 address" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_no_and_a_word(core_name: str, number: signal.Signals) -> None:
    agent, _ = waiting(core_name, seconds=50)
    agent.send_signal(number)
    out, err = agent.communicate(timeout=30)
    assert (agent.returncode, out) == (1, "")
    assert err == f"[error]: ended by {number.name} before the node was heard\n"


@pytest.mark.slow
def test_a_stopped_agent_goes_on_and_keeps_its_deadline(core_name: str) -> None:
    agent, _ = waiting(core_name, seconds=6)
    agent.send_signal(signal.SIGSTOP)
    time.sleep(6.5)
    went_on = time.monotonic()
    agent.send_signal(signal.SIGCONT)
    agent.communicate(timeout=60)
    assert agent.returncode == 1
    # Had it slept on for what was left of its wait, it would have been nearly 6 seconds.
    assert time.monotonic() - went_on < 5


@pytest.mark.slow
def test_a_message_that_came_while_it_was_stopped_counts(core_name: str) -> None:
    agent, port = waiting(core_name, seconds=4)
    agent.send_signal(signal.SIGSTOP)
    send(port)
    time.sleep(4.5)
    agent.send_signal(signal.SIGCONT)
    agent.communicate(timeout=30)
    assert agent.returncode == 0


def test_closed_output_changes_no_answer(core_name: str) -> None:
    port = unused_port()
    agent = subprocess.Popen(
        ["sh", "-c", f"exec {AGENT} -n {NODE} -p {port} -t 30 >&- 2>&- <&-"],
        env=environment(core_name),
    )
    while agent.poll() is None:
        send(port)
        time.sleep(0.05)
    assert agent.returncode == 0


def test_nobody_reading_its_output_changes_no_answer(core_name: str) -> None:
    port = unused_port()
    read, write = os.pipe()
    fill(write)
    agent = subprocess.Popen(
        [AGENT, "-n", NODE, "-p", str(port), "-t", "30", "-vvv"],
        env=environment(core_name),
        stdout=write,
        stderr=write,
    )
    while agent.poll() is None:
        send(port)
        time.sleep(0.05)
    os.close(read)
    os.close(write)
    assert agent.returncode == 0


def test_validate_all_really_validates(core_name: str) -> None:
    port = str(unused_port())
    assert run(core_name, "-o", "validate-all", "-p", port).returncode == 0
    good = run(core_name, "-o", "validate-all", "-n", "127.0.0.1,::1", "-p", port)
    assert (good.returncode, good.stderr) == (0, "")
    bad = run(core_name, "-o", "validate-all", "-n", "nosuchnode.invalid", "-p", port)
    assert bad.returncode == 1
    assert "node 'nosuchnode.invalid':" in bad.stderr
    assert run(core_name, "-o", "validate-all", "-t", "x").returncode == 1


@pytest.mark.parametrize("action", ["monitor", "status"])
def test_monitor_says_what_it_sees(core_name: str, action: str) -> None:
    done = run(core_name, "-o", action)
    assert done.returncode in (0, 1)
    said = done.stdout if done.returncode == 0 else done.stderr
    assert "crash kernel" in said or "firmware-assisted" in said


def test_metadata_goes_to_stdout_in_full(core_name: str) -> None:
    done = run(core_name, stdin="action=metadata\n")
    assert done.returncode == 0
    assert done.stdout.startswith("<?xml")
    assert done.stdout.rstrip().endswith("</resource-agent>")


def test_version_and_help(core_name: str) -> None:
    assert f"{core_name} core" in run(core_name, "-V").stdout
    assert run(core_name, "-h").stdout.startswith("Usage: fence_kdump [options]")


def test_a_message_from_a_name_that_resolves_to_several_addresses(core_name: str) -> None:
    port = unused_port()
    names = f"{OTHER},localhost,::1,{NODE}"
    for host, to in ((NODE, "127.0.0.1"), ("::1", "::1")):
        agent = start([AGENT, "-n", names, "-p", str(port), "-t", "30"], core_name)
        agent_waits(agent)
        sock = udp(host)
        sock.sendto(OWN_MESSAGE, (to, port))
        sock.close()
        agent.communicate(timeout=20)
        assert agent.returncode == 0


def test_only_its_own_descriptors_are_open_while_it_waits(core_name: str) -> None:
    agent, _ = waiting(core_name, seconds=30)
    folder = f"/proc/{agent.pid}/fd"
    end = time.monotonic() + 20
    while True:  # what it writes its lines with, to stdout and to the system log, comes and goes
        kinds = []
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                kinds.append(os.readlink(f"{folder}/{fd}"))
        # The standard ones, sockets (two for each family, netlink, questions), the resolver's pipe.
        sockets = sum(kind.startswith("socket:") for kind in kinds)
        if (sockets <= 6 and len(kinds) <= 3 + sockets + 2) or time.monotonic() > end:
            break
        time.sleep(0.01)
    assert sockets <= 6, kinds
    assert len(kinds) <= 3 + sockets + 2, kinds
    agent.kill()
    agent.communicate()


@pytest.mark.slow
def test_after_a_strangers_message_it_sleeps_again(core_name: str) -> None:
    agent, port = waiting(core_name, seconds=30)
    send(port, host=OTHER)
    time.sleep(1)
    before = times_woken(agent.pid)
    time.sleep(2)
    # It looks for signals twice a second; a wait with short rests would be woken 40 times and more.
    assert times_woken(agent.pid) - before < 20
    send(port)
    agent.communicate(timeout=20)
    assert agent.returncode == 0


def times_woken(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        (line,) = [line for line in file if line.startswith("voluntary_ctxt_switches")]
    return int(line.split()[1])


def test_a_whole_wait_needs_no_module_that_is_slow_to_import() -> None:
    load_core("compiled")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from kdumpfence.agent.main import main; main()\n"
        "slow = {'enum', 'os', 're', 'signal', 'socket', 'struct', 'threading', 'typing'}\n"
        "print('slow:', *slow & set(sys.modules))"
    )
    modules = str(Path(kdumpfence.__file__).parents[1])
    argv = ["-n", f"{NODE},localhost", "-p", str(unused_port()), "-t", "1"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, modules, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "slow:", done.stdout


def test_unprivileged_it_works_with_udp_sockets(core_name: str, root: None) -> None:
    agent, port = waiting(core_name, *as_user(), "--bounding-set=-all", seconds=30)
    send(port)
    agent.communicate(timeout=20)
    assert agent.returncode == 0


def test_without_descriptors_it_is_a_no_in_one_line(core_name: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 6; exec {AGENT} -n {NODE} -p {unused_port()} -t 30"],
        env=environment(core_name),
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "[error]: cannot continue: Too many open files"


@pytest.mark.slow
def test_a_name_that_appears_in_the_hosts_file_is_looked_up_although_a_look_up_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, port, over = tmp_path / "hosts", unused_port(), threading.Event()

    def look_up(name: str, family: int) -> list[Address]:
        if not hosts.exists():
            over.wait(60)
        return [Address(socket.inet_aton(NODE))]

    def node() -> None:
        time.sleep(1)
        hosts.touch()
        while not over.wait(0.1):
            send(port)

    monkeypatch.setattr(addresses, "NAME_FILES", (str(hosts),))
    monkeypatch.setattr(main, "look_up_node", look_up)
    monkeypatch.setattr("kdumpfence.signals.install", lambda: None)
    sender = threading.Thread(target=node)
    sender.start()
    try:
        assert main.main(["-n", "late.invalid", "-p", str(port), "-t", "20"]) == 0
    finally:
        over.set()
        sender.join()
