# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make demo` shows what README says, notices what goes wrong, and leaves nothing behind."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run
from tests.interop import stock

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tools" / "demo.py"
WITHOUT_RAW_SOCKETS = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")


@functools.lru_cache
def demo(
    *argv: str | Path, core: str = "compiled", wrapper: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*wrapper, sys.executable, DEMO, *argv],
        env={**os.environ, "KDUMPFENCE_PURE": "1" if core == "pure" else "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_as_expected(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "Everything went as expected." in done.stdout
    assert "WRONG" not in done.stdout
    for agent, status in (("agent1", 0), ("agent2", 1), ("agent3", 0), ("agent4", 1)):
        assert re.search(rf"\b{agent} +exit status {status}$", done.stdout, re.MULTILINE)


def test_a_yes_and_a_no_are_shown_each_with_its_time(core_name: str) -> None:
    done = demo(core=core_name)
    assert_as_expected(done)
    lines = [line for line in done.stdout.splitlines() if re.search(r"\[(debug|error)\]:", line)]
    times = [re.match(r" *(\d+\.\d\d) s ", line) for line in lines]
    assert None not in times, lines
    assert max(float(at[1]) for at in times if at) < 15


def without_figures(text: str) -> set[str]:
    """The lines with every number replaced, since times and ports differ."""
    return {" ".join(re.sub(r"\d+(\.\d\d)?", "0", line).split()) for line in text.splitlines()}


def test_the_readme_shows_what_it_prints(root: None) -> None:
    sample = (ROOT / "README.md").read_text().split("```")[1]
    assert without_figures(sample) - without_figures(demo(core="compiled").stdout) == set()


def test_it_works_without_the_right_to_raw_sockets(core_name: str) -> None:
    wrapper = WITHOUT_RAW_SOCKETS if os.geteuid() == 0 else ()
    if wrapper and shutil.which(wrapper[0]) is None:
        cannot_run(f"{wrapper[0]} is missing")
    assert_as_expected(demo(core=core_name, wrapper=wrapper))


#: Programs that misbehave, and the first expectation that they fail.
#: $NODE is the node that an agent is to hear: 127.0.0.1 dumps, 127.0.0.2 never speaks.
LIARS = {
    "yes at once": ("--agent", "exit 0", "agent1 believes none of it"),
    "yes to both": ("--agent", "sleep 1.5; exit 0", "agent2 says no"),
    "no to both": ("--agent", "sleep 4.2; exit 1", "agent1 says yes"),
    "no too early": (
        "--agent",
        "[ $NODE = 127.0.0.1 ] && sleep 1.5 && exit 0; sleep 2.5; exit 1",
        "agent2 says no",
    ),
    "killed": ("--agent", "kill -9 $$", "agent1 believes none of it"),
    "never an answer": ("--agent", "exec sleep 600", "agent1 says yes"),
    "never a message": ("--sender", "exec sleep 600", "agent1 says yes"),
}


@pytest.mark.parametrize(("option", "script", "missed"), LIARS.values(), ids=LIARS)
def test_a_program_that_lies_is_found_out(
    tmp_path: Path, option: str, script: str, missed: str
) -> None:
    program = tmp_path / "program"
    name = "NODE=$(sed -n 's/^nodename=//p')\n" if option == "--agent" else ""
    program.write_text(f"#!/bin/sh\n{name}{script}\n")
    program.chmod(0o755)
    done = demo(option, program)
    assert done.returncode == 1, done.stdout
    wrong = re.findall(r"WRONG, expected: (.*)", done.stdout)
    assert any(text.startswith(missed) for text in wrong), done.stdout
    assert not re.search(r"-\d|\d\.\d", "".join(wrong)), "a time of what did not happen"


def test_the_stock_agent_fails_where_the_readme_says_so() -> None:
    try:
        agent = stock.get().agent
    except stock.NotAvailable as reason:
        cannot_run(str(reason))
    done = demo("--agent", agent)
    assert done.returncode == 1, done.stdout
    # Whichever came second met the port in use, and one crashed node is not heard.
    early = re.findall(r"WRONG, expected: (agent[12]) believes none of it", done.stdout)
    assert len(early) == 1, done.stdout


#: An agent that writes down for two seconds what it is sent.
LISTENER = """\
import signal, socket, sys
options = dict(line.strip().split("=") for line in sys.stdin)
signal.alarm(2)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
sock.bind(("", int(options["ipport"])))
print("[debug]: waiting", flush=True)
while True:
    with open(HEARD, "a") as file:
        print("0x" + sock.recv(2048).hex(), file=file)
"""


def test_rubbish_is_sent_to_our_own_agent_alone(tmp_path: Path) -> None:
    agent, heard = tmp_path / "agent", tmp_path / "heard"
    agent.write_text(f"#!{sys.executable}\nHEARD = {str(heard)!r}\n{LISTENER}")
    agent.chmod(0o755)
    demo("--agent", agent)
    assert set(heard.read_text().split()) == {"0x" + OWN_MESSAGE.hex()}


def test_a_program_that_does_not_exist_is_named() -> None:
    done = demo("--agent", "/no/such/agent")
    assert done.returncode == 1
    assert "/no/such/agent: no such program" in done.stderr


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)
def test_nothing_is_left_behind_when_it_is_interrupted(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, DEMO], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "message sent" in line:
                break
        started = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert started, "nothing was running"
        running.send_signal(number)
        running.stdout.read()
        assert running.wait(20) == (-9 if number == signal.SIGKILL else 1)
    end = time.monotonic() + 10
    while any(is_alive(pid) for pid in started) and time.monotonic() < end:
        time.sleep(0.05)
    assert [pid for pid in started if is_alive(pid)] == []
