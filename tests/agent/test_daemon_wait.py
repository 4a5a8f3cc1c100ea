# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent with a `listener`: whatever sits there, it keeps its time and believes no nonsense."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kdumpfence
from kdumpfence.addresses import Address
from kdumpfence.agent.daemon_link import MOST_ANSWER, Link, LinkError, parsed
from kdumpfence.agent.daemon_wait import Waiting
from kdumpfence.agent.options import AgentOptions, agent_from_argv, agent_from_stdin
from kdumpfence.cmdline import OptionError
from kdumpfence.log import Report
from tests.agent.test_daemon_word import Daemon, said
from tests.conftest import load_core, unused_port
from tests.daemon.running import neighbour
from tests.support.answerer import key_text, packet, write_key
from tests.support.liar import Liar
from tests.support.programs import AGENT, as_user, start, wait_for_line

Made = Callable[..., Liar]


@pytest.fixture(params=["unix", "http"])
def liar(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Makes one, on either way to the daemon."""

    def made(reply: Any, hold: bool = False) -> Liar:
        path = tmp_path / "control" if request.param == "unix" else None
        return Liar(reply if callable(reply) else lambda _: reply, path, hold)

    return made


def waiting(place: str) -> Waiting:
    options = AgentOptions()
    options.names = options.called = ("node1",)
    options.listener = place
    return Waiting(options, Report("test"), None)


# ----------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("unix:/run/kdumpfenced/control", ("unix", "/run/kdumpfenced/control", 0)),
        ("http://192.0.2.1:9742", ("http", "192.0.2.1", 9742)),
        ("http://watcher:9742/", ("http", "watcher", 9742)),
        ("http://[2001:db8::1]:9742", ("http", "2001:db8::1", 9742)),
    ],
)
def test_a_place_is_a_socket_or_a_host_with_its_port(
    text: str, place: tuple[str, str, int]
) -> None:
    assert parsed(text) == place
    assert agent_from_argv(["-n", "a", "--listener", text]).listener == text


@pytest.mark.parametrize(
    "text",
    [
        "unix:", "unix:run/control", "/run/control", "unix:/" + 107 * "x", "unix:/a\0b", "https://a:1",
        "http://", "http://a", "http://a:", "http://a:0", "http://a:65536", "http://:1", "http://a:1/v1",
        "http://a b:1", "http://127.1:1", "http:a:1", "tcp://a:1", "a:1",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(OptionError, match=r"^listener '"):
        agent_from_argv(["-n", "a", "--listener", text])


def test_an_empty_listener_is_none() -> None:
    assert agent_from_stdin(b"nodename=a\nlistener=\n").listener == ""


def test_what_makes_no_sense_beside_it_is_said() -> None:
    given = b"nodename=a\nlistener=unix:/c\nipport=7411\nfamily=ipv4\nalive_grace=3\n"
    assert agent_from_stdin(given).complaints == [
        "ipport, family, alive_grace: not used with listener"
    ]
    assert not agent_from_stdin(b"nodename=a\nlistener=unix:/c\n").complaints


# ----------------------------------------------------------------------------- liars


def drip() -> bytes:
    time.sleep(0.01)
    return b" "


LIES = {
    "yes": {"heard": said(0.0)},
    "yes to anything": lambda question: {**question, "heard": said(0.0)},
    "yes with a life and no mark": lambda q: {
        "life": "l", "wait": q["wait"], "node": "node1", "heard": said(0.0)},
    "yes with another's mark": lambda q: {
        "life": "l", "wait": q["wait"], "node": "node1", "mark": time.monotonic(),
        "heard": said(0.0)},
    "yes with a new life each time": lambda q: {
        "life": os.urandom(4).hex(), "wait": q["wait"], "node": "node1", "mark": 1.0,
        "heard": said(0.0)},
    "yes for an old message": lambda q: Daemon().answer(q, heard=said(3600.0)),
    "an error": {"error": "no"},
    "no object": [[1, 2]],
    "no JSON": b"yes\n",
    "nothing": b"",
    "HTTP of something else": b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "a body without its length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "a body that breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
    "nested JSON": b"[" * 60_000 + b"\n",
    "a number without end": b"9" * 60_000 + b"\n",
    "no text": b"\xff\xfe\x00\n",
    "bytes without end": lambda _: (lambda: b"x" * 65536),
    "slow bytes without end": lambda _: drip,
}  # fmt: skip


def wait_for_no(wait: Waiting, server: Liar) -> None:
    """Waits, again if a busy machine left it no time to ask: the answer is no each time."""
    asked = False
    while not asked:
        began = time.monotonic()
        assert not wait.until(began + 0.3)
        assert 0.3 <= time.monotonic() - began < 30
        asked = server.asked.is_set()
    assert not wait.proof
    wait.close()


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_no_lie_is_a_yes_and_none_outlasts_the_time(liar: Made, lie: str) -> None:
    # Only one that knows what this wait is called, and its own mark, could say yes.
    with liar(LIES[lie]) as server:
        wait_for_no(waiting(server.place), server)


def test_one_that_never_answers_does_not_outlast_the_time(liar: Made) -> None:
    with liar(b"", hold=True) as server:
        wait_for_no(waiting(server.place), server)


def test_an_honest_one_behind_the_same_way_is_believed(liar: Made) -> None:
    daemon = Daemon()
    daemon.heard = said(0.0)
    with liar(daemon.answer) as server:
        wait = waiting(server.place)
        assert wait.until(time.monotonic() + 60)
        assert len(server.questions) >= 2
        wait.close()


def test_an_answer_may_come_in_pieces(liar: Made) -> None:
    data = b'{"life": "l"}'
    head = b"HTTP/1.1 200 OK\r\ncontent-length:  13 \r\nX: y\r\n\r\n"

    def reply(_: object) -> list[bytes]:
        whole = head + data if server.place.startswith("http") else data + b"\n"
        return [whole[at : at + 1] for at in range(len(whole))]

    with liar(reply) as server:
        link = Link(server.place)
        assert link.ask({"ask": "heard"}, time.monotonic() + 60) == {"life": "l"}
        link.close()


def test_an_address_of_its_host_that_says_nothing_does_not_keep_it_from_the_others() -> None:
    with Liar(lambda _: {"is": "heard"}) as server, contextlib.ExitStack() as stack:
        port = int(server.place.rpartition(":")[2])
        # One whose queue is full says nothing, as one behind a firewall does.
        mute = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(mute.getsockname())
        link = Link(f"http://both.example:{port}")
        link._found = [Address(bytes([127, 0, 0, number])) for number in (2, 1)]
        assert link.ask({"ask": "heard"}, time.monotonic() + 2) == {"is": "heard"}
        begin = time.monotonic()
        assert link.ask({"ask": "heard"}, begin + 2) == {"is": "heard"}
        assert time.monotonic() - begin < 0.9  # now it knows which of them answers


def test_a_longer_answer_than_any_is_is_refused(liar: Made) -> None:
    with liar({"life": "x" * MOST_ANSWER}) as server:
        link = Link(server.place)
        with pytest.raises(LinkError, match="is it kdumpfenced"):
            link.ask({"ask": "heard"}, time.monotonic() + 60)


def test_it_connects_again_to_one_that_hung_up(tmp_path: Path) -> None:
    replies = iter([{"n": 1}, b"", {"n": 2}])
    with Liar(lambda _: next(replies), tmp_path / "control") as server:
        link = Link(server.place)
        until = time.monotonic() + 60
        assert link.ask({"ask": "heard"}, until) == {"n": 1}
        link._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        next(replies)
        assert link.ask({"ask": "heard"}, until) == {"n": 2}
        link.close()


def test_a_socket_of_somebody_else_is_not_believed(root: None) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o777)
        path = f"{folder}/control"
        code = "s = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen(1)\n"
        with neighbour(code, path), pytest.raises(LinkError, match="answered by user 65534"):
            Link(f"unix:{path}").ask({"ask": "heard"}, time.monotonic() + 60)


def test_where_nobody_listens_it_waits_on_and_says_why(tmp_path: Path) -> None:
    wait = waiting(f"unix:{tmp_path}/control")
    assert not wait.until(time.monotonic() + 0.3)
    assert wait._trouble == "no kdumpfenced there: No such file or directory"


# ----------------------------------------------------------------------------- the program


def test_one_that_lies_with_auth_is_told_by_what_is_not_signed(
    core_name: str, liar: Made, tmp_path: Path
) -> None:
    key = write_key(tmp_path / "key", key_text())
    nonce = os.urandom(16)

    def reply(question: dict[str, Any]) -> dict[str, Any]:
        answers = [{"address": "192.0.2.1", "packet": packet("status", nonce).hex()}]
        return {"life": "l", "node": "node1", "dumping": True, "sent": 1, "answers": answers}

    with liar(reply) as server:
        argv = ["-n", "node1", "-t", "1", "--auth=sha256", f"--key-file={key}"]
        agent = start([AGENT, *argv, "--listener", server.place], core_name)
        out, err = agent.communicate(timeout=60)
        assert agent.returncode == 1
        assert f"[debug]: waiting for {server.place} to hear 'node1'\n" in out
        assert "Traceback" not in err
        nonce = bytes.fromhex(server.questions[0]["packet"])[40:56]


def test_a_signal_ends_it_while_the_daemon_hangs(core_name: str, liar: Made) -> None:
    with liar(b"", hold=True) as server:
        agent = start([AGENT, "-n", "node1", "-t", "60", "--listener", server.place], core_name)
        assert server.asked.wait(60)
        agent.send_signal(signal.SIGTERM)
        _, err = agent.communicate(timeout=60)
        assert (agent.returncode, err) == (
            1, "[error]: ended by SIGTERM before the node was heard\n",
        )  # fmt: skip


@pytest.mark.parametrize("action", ["monitor", "validate-all"])
def test_monitor_and_validate_all_say_that_nobody_listens(
    core_name: str, tmp_path: Path, action: str
) -> None:
    place = f"http://127.0.0.1:{unused_port()}"
    agent = start([AGENT, "-n", "node1", "-o", action, "--listener", place], core_name)
    _, err = agent.communicate(timeout=60)
    assert agent.returncode == 1
    assert f"[error]: {place}: no kdumpfenced there: Connection refused\n" in err


def test_a_cluster_that_validates_is_only_warned(core_name: str, tmp_path: Path) -> None:
    agent = start([AGENT], core_name, stdin=subprocess.PIPE)
    given = f"action=validate-all\nnodename=node1\nplug=node1\nlistener=unix:{tmp_path}/control\n"
    _, err = agent.communicate(given, timeout=60)
    why = "no kdumpfenced there: No such file or directory"
    assert (agent.returncode, err) == (0, f"[warning]: unix:{tmp_path}/control: {why}\n")


def test_without_a_listener_nothing_of_this_is_imported() -> None:
    load_core("compiled")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from kdumpfence.agent.main import main; main()\n"
        "print('more:', *{'json', 'kdumpfence.agent.daemon_link'} & set(sys.modules))"
    )
    modules = str(Path(kdumpfence.__file__).parents[1])
    argv = ["-n", "127.0.0.1", "-p", str(unused_port()), "-t", "1"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, modules, *argv],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "more:", done.stdout


def test_it_opens_no_udp_port_and_needs_no_right(
    core_name: str, tmp_path: Path, root: None
) -> None:
    daemon = Daemon()
    port = unused_port()
    with Liar(daemon.answer) as server:
        argv = [AGENT, "-n", "node1", "-t", "60", "--listener", server.place]
        agent = start([*as_user(), "--bounding-set=-all", *argv], core_name)
        wait_for_line(agent, "[debug]: waiting for")
        held = os.listdir(f"/proc/{agent.pid}/fd")
        names = {os.readlink(f"/proc/{agent.pid}/fd/{fd}") for fd in held}
        inodes = {name[8:-1] for name in names if name.startswith("socket:")}
        table = Path("/proc/net/udp").read_text() + Path("/proc/net/udp6").read_text()
        assert not inodes & {line.split()[9] for line in table.splitlines()[1:]}
        daemon.heard = said(0.0)
        agent.communicate(timeout=60)
        assert (agent.returncode, port > 0) == (0, True)
