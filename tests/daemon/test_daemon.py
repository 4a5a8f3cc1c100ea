# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfenced as it runs: real messages in, history, log, status and metrics out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kdumpfence.daemon.history import History
from tests.conftest import cannot_run, load_core, unused_port
from tests.daemon.running import PROGRAM, Kdumpfenced, Manager, manager, until

NODE = "127.3.0.7"


def page_with(daemon: Kdumpfenced, text: str) -> str:
    """The metrics as soon as they have that."""

    def look() -> str:
        page = daemon.get("/metrics")[1]
        return page if text in page else ""

    return until(look)


# ------------------------------------------------------------------ what it tells


@pytest.mark.slow
def test_a_dump_from_its_first_message_to_silence(daemon: Kdumpfenced) -> None:
    daemon.configure(
        'networks = ["127.3.0.0/16"]\nsilence = 3\nrepeat = 1',
        'alpha = ["127.4.0.1", "127.4.0.2"]',
        'level = "debug"',
    )
    daemon.start()
    assert daemon.get("/health") == (200, "well\n")
    daemon.hear("127.9.0.1", data=b"")  # a stranger, and no message
    daemon.hear("127.9.0.1")
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        daemon.hear("127.4.0.1", "127.4.0.2", NODE)
        time.sleep(0.1)
    until(lambda: daemon.dumping() == {"alpha", NODE})
    page = page_with(daemon, "\nkdumpfence_dumping 2.0\n")
    assert re.search(r'\nkdumpfence_node_dump_start_time_seconds\{node="alpha"\} \d', page)
    line = daemon.says("node 'alpha' began to dump")
    assert re.search(
        r"first message 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\S+ from 127.4.0.1", line
    )
    assert "from 127.4.0.1, 127.4.0.2" in daemon.says("node 'alpha' is dumping for")
    line = daemon.says("node 'alpha' fell silent: it dumped for")
    messages = int(re.findall(r"; (\d+) messages from 127.4.0.1, 127.4.0.2$", line)[0])
    daemon.says(f"node '{NODE}' fell silent")
    (alpha,) = daemon.past("alpha")
    assert alpha.ended is not None
    assert alpha.messages == messages > 10
    assert alpha.addresses == ("127.4.0.1", "127.4.0.2")
    assert 1 < alpha.last - alpha.since < 30
    assert alpha.ended - alpha.last >= 3
    until(lambda: daemon.status().dumping == 0)
    page = page_with(daemon, "kdumpfence_dumping 0.0")
    assert "\nkdumpfence_dumps_total 2.0\n" in page
    assert '\nkdumpfence_datagrams_total{verdict="short"} 1.0\n' in page
    assert '\nkdumpfence_datagrams_total{verdict="stranger"} 1.0\n' in page
    assert "\nkdumpfence_dump_seconds_count 2.0\n" in page
    assert "node_dump_start_time_seconds{" not in page
    assert daemon.end() == 0


def test_both_families_are_heard(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8", "::1/128"]')
    daemon.start()
    daemon.hear("127.0.0.2", "::1")
    until(lambda: daemon.dumping() == {"127.0.0.2", "::1"})


def test_nodes_whose_names_have_no_address_are_all_counted(daemon: Kdumpfenced) -> None:
    nodes = "".join(f'"n{number}.invalid" = []\n' for number in range(300))
    daemon.configure(nodes='partly = ["127.7.0.1", "name.invalid"]\n' + nodes)
    daemon.start()
    status = daemon.status()
    assert (status.unresolved_nodes, len(status.unresolved)) == (301, 100)
    page_with(daemon, "\nkdumpfence_unresolved 301.0\n")
    daemon.hear("127.7.0.1")
    until(lambda: daemon.dumping() == {"partly"})


def test_it_works_on_the_pure_core(tmp_path: Path) -> None:
    load_core("pure")
    daemon = Kdumpfenced(tmp_path, "pure")
    try:
        daemon.start()
        daemon.says("(pure core) hears port")
        daemon.hear(NODE)
        until(lambda: daemon.dumping() == {NODE})
        assert daemon.end() == 0
    finally:
        daemon.close()


def test_a_name_that_would_break_the_log_is_escaped(daemon: Kdumpfenced) -> None:
    # Unicode's line separator and right-to-left override are not printable, so no names;
    # what is printable is shown as it is.
    daemon.configure(nodes='"käse 🧀 \'x\'" = ["127.5.0.1"]')
    daemon.start()
    daemon.hear("127.5.0.1")
    daemon.says("node 'käse 🧀 'x'' began to dump")
    assert "node=\"käse 🧀 'x'\"" in until(
        lambda: p if "käse" in (p := daemon.get("/metrics")[1]) else ""
    )


def test_what_nobody_reads_does_not_stop_it(daemon: Kdumpfenced, tmp_path: Path) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [*PROGRAM, "--config", str(daemon.settings)], stdout=write, stderr=write
    ) as process:
        daemon.process = process
        os.close(write)
        until(daemon._answers)
        for host in range(1, 251):
            daemon.hear(f"127.6.0.{host}", f"127.6.1.{host}", f"127.6.2.{host}", f"127.6.3.{host}")
        until(lambda: daemon.status().dumping == 1000)
        lost = re.compile(r"(?m)^kdumpfence_log_lines_left_out_total ([\d.]+)$")
        until(lambda: float(lost.findall(daemon.get("/metrics")[1])[0]) > 100)
        assert daemon.end() == 0
        os.close(read)


def test_a_burst_is_told_in_some_lines_and_a_sum(daemon: Kdumpfenced) -> None:
    daemon.configure(log="lines = 20")
    daemon.start()
    for host in range(1, 251):
        daemon.hear(f"127.6.0.{host}", f"127.6.1.{host}")
    until(lambda: daemon.status().dumping == 500)

    def told() -> tuple[int, int]:
        said = daemon.said()
        spared = re.findall(r"many: (\d+) dumps that began", said)
        return len(re.findall("began to dump", said)), sum(map(int, spared))

    # The sum of a second is told when it is over, and they may have come in more than one.
    until(lambda: sum(told()) >= 500)
    assert sum(told()) == 500
    assert told()[0] < 200
    assert len(daemon.past()) == 500
    assert daemon.end() == 0


def test_few_nodes_by_name_in_the_metrics_however_many_dump(daemon: Kdumpfenced) -> None:
    daemon.configure(metrics="nodes = 3")
    daemon.start()
    daemon.hear("127.6.0.1")
    until(lambda: daemon.dumping() == {"127.6.0.1"})
    daemon.hear(*(f"127.6.0.{host}" for host in range(2, 50)))
    page = until(lambda: p if "dumping 49.0" in (p := daemon.get("/metrics")[1]) else "")
    named = re.findall(r'kdumpfence_node_dump_start_time_seconds\{node="(.*?)"\}', page)
    assert len(named) == 3
    assert named[0] == "127.6.0.1"


# ------------------------------------------------------------------ beginning and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.slow
def test_it_ends_cleanly(daemon: Kdumpfenced, number: signal.Signals) -> None:
    daemon.start()
    daemon.hear(NODE)
    until(daemon.dumping)
    assert daemon.end(number) == 0
    assert not daemon.control.exists()
    assert not (daemon.folder / "history.sqlite-wal").exists()
    assert [past.node for past in daemon.past()] == [NODE]
    assert daemon.said().splitlines()[-1] == f"kdumpfenced ends: {number.name}"


def test_what_it_heard_last_is_in_the_history(daemon: Kdumpfenced) -> None:
    daemon.start()
    process = daemon.pid
    os.kill(process, signal.SIGSTOP)  # the message is to lie in the queue when it is ended
    daemon.hear(NODE)
    os.kill(process, signal.SIGTERM)
    os.kill(process, signal.SIGCONT)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 0
    # Whether it was read before the end or not: what was told is written, and nothing else.
    told = "began to dump" in daemon.said()
    assert bool(daemon.past()) == told


def test_closed_standard_streams_are_nobody_elses(daemon: Kdumpfenced) -> None:
    daemon.start(("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    for number in range(3):
        assert Path(f"/proc/{daemon.pid}/fd/{number}").readlink() == Path("/dev/null")
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})
    assert daemon.end() == 0


def test_threads_that_cannot_be_had_are_said_in_one_line() -> None:
    if shutil.which("setpriv") is None or shutil.which("prlimit") is None:
        cannot_run("setpriv and prlimit are missing")
    if os.geteuid() != 0:
        cannot_run("this has to be started by root")
    nobody_else = 61947  # the limit counts what a user has in all
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody_else, nobody_else)
        daemon = Kdumpfenced(Path(folder))
        user = ("setpriv", f"--reuid={nobody_else}", f"--regid={nobody_else}", "--clear-groups")
        done = subprocess.run(
            ["prlimit", "--nproc=2:2", *user, *PROGRAM, "--config", str(daemon.settings)],
            env=daemon.environment(), capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "kdumpfenced: can't start new thread: so many processes and threads are not allowed"
    )
    assert "Traceback" not in done.stderr


def test_settings_that_no_thread_can_read_are_refused(daemon: Kdumpfenced) -> None:
    script = (
        "import threading\n"
        "from kdumpfence.daemon import main as daemon\n"
        "start = threading.Thread.start\n"
        "def refuse(self):\n"
        "    if self.name == 'settings': raise RuntimeError(\"can't start new thread\")\n"
        "    start(self)\n"
        "threading.Thread.start = refuse\n"
        "daemon.script()\n"
    )
    daemon.start(program=[sys.executable, "-c", script])
    for times in (1, 2):
        daemon.send(signal.SIGHUP)
        until(lambda times=times: daemon.said().count("settings refused") == times)  # type: ignore[misc]
    daemon.says("can't start new thread: so many processes")
    assert daemon.end() == 0


def test_what_a_status_showed_is_in_the_history_when_it_was_ended(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear(NODE)
    daemon.says("began to dump")
    for _ in range(4):
        time.sleep(0.1)
        daemon.hear(NODE)
    until(lambda: [dump.messages for dump in daemon.status().dumps] == [5])
    [shown] = daemon.status().dumps
    assert daemon.end() == 0
    [past] = daemon.past()
    assert (past.since, past.last, past.messages) == (shown.since, shown.last, 5)
    assert shown.last > shown.since
    assert past.ended is None  # it may go on, and is the same one after a restart
    daemon.start()
    assert [dump.messages for dump in daemon.status().dumps] == [5]


@pytest.mark.slow
def test_what_a_crowd_said_before_the_end_is_in_the_history(daemon: Kdumpfenced) -> None:
    crowd = 5000
    # It is ended by its first event, and what a round takes is less than is there by then.
    script = (
        "import os, signal, time\n"
        "from kdumpfence.daemon import main as daemon\n"
        "record = daemon.Recorder.record\n"
        "def end(self, events):\n"
        "    if events and daemon.BATCH > 1:\n"
        "        daemon.BATCH = 1\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(2)\n"
        "    return record(self, events)\n"
        "daemon.Recorder.record = end\n"
        "daemon.script()\n"
    )
    daemon.configure(log="lines = 10")
    daemon.start(program=[sys.executable, "-c", script])
    process = daemon.process
    assert process is not None
    storm = ("storm", f"--port={daemon.port}", f"--nodes={crowd}", "--rate=10000", "--rounds=1")
    subprocess.run(
        [sys.executable, "-m", "kdumpfence.cli", *storm],
        env=daemon.environment(), check=True, timeout=30, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.wait(60) == 0
    assert len(daemon.past_of_all()) == crowd
    said = daemon.said()
    spared = [int(number) for number in re.findall(r"(\d+) dumps that began\n", said)]
    assert said.count("began to dump: ") + sum(spared) == crowd
    assert said.endswith("\nkdumpfenced ends: SIGTERM\n")


def test_what_the_history_could_not_take_is_told_at_the_end(daemon: Kdumpfenced) -> None:
    daemon.history.write_text("not a history")
    daemon.start()
    daemon.hear(NODE)
    until(lambda: daemon.status().counts["accepted"])
    page_with(daemon, "\nkdumpfence_history_held 1.0\n")
    assert daemon.end() == 1
    *_, told, missing, _ = daemon.said().splitlines()
    assert "began to dump" in told
    assert told.endswith("(not in the history yet)")
    assert missing == "history: what was last heard of 1 dump is not in it"


@pytest.mark.slow
def test_a_second_one_says_who_holds_the_port(daemon: Kdumpfenced, tmp_path: Path) -> None:
    daemon.start()
    said = (
        f"kdumpfenced: port {daemon.port}/udp: Address already in use (another program holds it: "
        f"process {daemon.pid} ("
    )
    for _ in range(4):
        done = daemon.run()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(said)
        assert done.stderr.endswith(f") of user {os.geteuid()})\n")
    # Even with files of its own.
    (tmp_path / "other").mkdir()
    other = Kdumpfenced(tmp_path / "other")
    other.port = daemon.port
    other.configure()
    assert other.run().stderr.startswith(said)
    # And on another port it cannot take over the socket, the place or the history.
    other.port = unused_port()
    other.control = daemon.control
    other.configure()
    done = other.run()
    assert done.returncode == 1
    assert str(daemon.control) in done.stderr.splitlines()[-1]
    other.control, other.history = tmp_path / "other" / "control", tmp_path / "other" / "link"
    other.history.symlink_to(daemon.history)
    other.configure()
    done = other.run()
    assert done.returncode == 1
    assert done.stderr == (
        f"kdumpfenced: history: {other.history}: another kdumpfenced writes this history: "
        "give each a [history] path of its own\n"
    )
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})
    assert [dump.node for dump in daemon.past()] == [NODE]


SQUAT = """
import socket, sys
socks = []
for at, backlog in enumerate((None, 0, 5)):
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind("\\0kdumpfenced/" + sys.argv[1])
    except OSError:
        continue
    if sys.argv[2] == "full":
        sock.listen(0)
        for _ in range(3):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            try:
                one.connect("\\0kdumpfenced/" + sys.argv[1])
            except OSError:
                pass
            socks.append(one)
    socks.append(sock)
print("squats", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("how", ["bound", "full"])
@pytest.mark.slow
def test_a_name_that_anybody_can_hold_keeps_nobody_from_listening(
    daemon: Kdumpfenced, how: str
) -> None:
    if shutil.which("setpriv") is None:
        cannot_run("setpriv is missing")
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with subprocess.Popen(
        [*user, sys.executable, "-c", SQUAT, str(daemon.port), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "squats\n"
        daemon.start()
        daemon.hear(NODE)
        until(lambda: daemon.dumping() == {NODE})


def test_more_nodes_than_there_is_room_for_are_told_of(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nroom = 2")
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(lambda: daemon.status().dumping == 2)
    daemon.hear("127.0.0.4", "127.0.0.5", "127.0.0.2")
    daemon.says("messages of nodes for which there was no room")
    page_with(daemon, 'kdumpfence_datagrams_total{verdict="crowded"} 2.0')
    assert daemon.dumping() == {"127.0.0.2", "127.0.0.3"}


def test_a_port_that_another_program_holds(daemon: Kdumpfenced) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", daemon.port))
        done = daemon.run()
    assert done.returncode == 1
    assert f"{daemon.port}/udp" in done.stderr
    assert "another program holds it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_metrics_port_that_is_taken_keeps_nobody_from_listening(daemon: Kdumpfenced) -> None:
    script = (
        "from kdumpfence.daemon import main as daemon\n"
        "daemon.METRICS_RETRY = 0.2\n"
        "daemon.script()\n"
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", daemon.metrics_port))
        other.listen(1)
        daemon.start(program=[sys.executable, "-c", script])
        what = (
            f"metrics cannot listen on 127.0.0.1 port {daemon.metrics_port}: Address already in use"
        )
        daemon.says(f"{what}; it is tried again")
        daemon.hear(NODE)
        until(lambda: daemon.dumping() == {NODE})
        assert daemon.status().troubles == (what,)
    until(lambda: daemon.status().troubles == ())
    assert daemon.get("/health") == (200, "well\n")
    assert daemon.said().count(what) == 1
    assert daemon.end() == 0


def test_metrics_without_prometheus_client(daemon: Kdumpfenced, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError\n")
    wrapper = ("env", f"PYTHONPATH={tmp_path}")
    for argument in ("--check", "--config"):
        arguments = [argument] if argument == "--check" else []
        done = subprocess.run(
            [*wrapper, *PROGRAM, "--config", str(daemon.settings), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "this Python has no prometheus-client" in done.stderr
    # Nobody asked for metrics: nothing is missed.
    daemon.settings.write_text(
        re.sub(r"port = \d+\n\n\[log", "\n[log", daemon.settings.read_text())
    )
    daemon.start(wrapper)
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})


def test_check_says_what_the_settings_mean(daemon: Kdumpfenced) -> None:
    done = daemon.run("--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"hears UDP port {daemon.port} over IPv4 and IPv6" in done.stdout
    daemon.configure("prot = 1\nsilence = 0")
    done = daemon.run("--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr == daemon.run().stderr
    assert not daemon.history.exists()


@pytest.mark.parametrize("argument", ["--nonsense", "operand"])
def test_an_argument_that_it_does_not_know(daemon: Kdumpfenced, argument: str) -> None:
    done = daemon.run(argument)
    assert done.returncode == 1
    assert done.stderr == (
        f"kdumpfenced: unrecognized arguments: {argument}; see kdumpfenced --help\n"
    )


# ------------------------------------------------------------------ rights


def rights(pid: int) -> set[tuple[str, str]]:
    """What each thread of the process may do, as /proc has it."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # that of a look-up may have ended meanwhile
            continue
        for line in lines:
            if line.startswith(("Cap", "NoNewPrivs")):
                name, value = line.split()
                found.add((name, value))
    return found


NOTHING = {(f"Cap{which}:", "0" * 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


@pytest.mark.usefixtures("root")
def test_started_by_root_it_keeps_no_capability_in_any_thread(daemon: Kdumpfenced) -> None:
    daemon.configure(nodes='"name.invalid" = []')  # so there is a thread that looks it up
    daemon.start()
    daemon.get("/health")
    assert len(list(Path(f"/proc/{daemon.pid}/task").iterdir())) >= 4
    assert rights(daemon.pid) == NOTHING | {("NoNewPrivs:", "1")}


@pytest.mark.usefixtures("root")
def test_capabilities_that_cannot_be_given_up_are_an_error(daemon: Kdumpfenced) -> None:
    # Through seccomp nobody would get here; so let drop() do nothing.
    script = (
        "from kdumpfence.daemon import main as daemon, privileges\n"
        "import ctypes; real = ctypes.CDLL(None)\n"
        "class Nothing:\n"
        "    prctl = type('F', (), {'__call__': lambda *a: 0})()\n"
        "    capset = prctl\n"
        "privileges.ctypes.CDLL = lambda *a, **k: Nothing\n"
        "daemon.script()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", str(daemon.settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("kdumpfenced: capabilities that cannot be given up: CapPrm ")


@pytest.mark.usefixtures("root")
def test_an_ordinary_user_can_run_it() -> None:
    if shutil.which("setpriv") is None:
        cannot_run("setpriv is missing")
    # Where nobody but root may look, as pytest has it, it could not work.
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        daemon = Kdumpfenced(Path(folder))
        try:
            daemon.start(("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
            assert ("CapEff:", "0" * 16) in rights(daemon.pid)
            assert ("NoNewPrivs:", "1") in rights(daemon.pid)
            daemon.hear(NODE)
            until(lambda: daemon.dumping() == {NODE})
            assert daemon.control.stat().st_uid == 65534
            assert daemon.end() == 0
        finally:
            daemon.close()


# ------------------------------------------------------------------ settings read again


def test_settings_are_read_again_and_a_dump_goes_on(daemon: Kdumpfenced, tmp_path: Path) -> None:
    top = 'networks = ["127.8.0.0/16"]\nsilence = 60'
    daemon.configure(top, 'a = ["127.7.0.1"]\nb = ["127.7.0.2"]\nc = ["127.7.0.3"]')
    daemon.start()
    daemon.hear("127.7.0.1", "127.7.0.2", "127.7.0.3")
    until(lambda: daemon.dumping() == {"a", "b", "c"})
    daemon.configure(
        top + "\nroom = 5", 'a = ["127.7.0.1", "127.7.0.11"]\nc = ["127.7.0.3"]\nd = ["127.7.0.4"]',
        'level = "debug"',
    )  # fmt: skip
    daemon.send(signal.SIGHUP)
    line = daemon.says("settings read again")
    assert line.endswith("1 node added; 1 node removed; 1 node changed; [log] level changed")
    assert "room changed, which needs a restart" in daemon.says("needs a restart")
    daemon.hear("127.7.0.1", "127.7.0.11", "127.7.0.2", "127.7.0.3", "127.7.0.4")
    until(lambda: daemon.dumping() == {"a", "c", "d"})
    daemon.says("node 'b' fell silent")
    daemon.says("settings: 1 removed node was dumping: told as silent from now on")
    assert len(daemon.past("a")) == len(daemon.past("c")) == 1
    assert daemon.past("a")[0].ended is None
    until(lambda: "127.7.0.11" in {a for d in daemon.status().dumps for a in d.addresses})


def test_faulty_settings_change_nothing_and_are_told_of(daemon: Kdumpfenced) -> None:
    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.start()
    daemon.configure("prot = 1", nodes='b = ["127.7.0.300"]')
    daemon.send(signal.SIGHUP)
    daemon.says("settings refused: those from before stay in force")
    assert "prot is unknown: is port meant?" in daemon.said()
    assert '[nodes] b "127.7.0.300"' in daemon.said()
    daemon.hear("127.7.0.1")
    until(lambda: daemon.dumping() == {"a"})
    until(lambda: any("settings: refused" in line for line in daemon.status().troubles))
    assert daemon.get("/health")[0] == 200
    until(lambda: "\nkdumpfence_settings_refused 1.0\n" in daemon.get("/metrics")[1])
    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.send(signal.SIGHUP)
    daemon.says("settings read again: no change")
    until(lambda: "\nkdumpfence_settings_refused 0.0\n" in daemon.get("/metrics")[1])


def test_a_node_that_only_a_restart_can_take_leaves_everything_else_as_it_is(
    daemon: Kdumpfenced,
) -> None:
    daemon.configure('family = "ipv4"', 'a = ["127.7.0.1"]\nb = ["127.7.0.2"]')
    daemon.start()
    both = 'a = ["127.7.0.1"]\nb = ["127.7.0.2", "fd00::2"]\nc = ["fd00::3"]\nd = ["127.7.0.4"]'
    daemon.configure("", both)
    for times in (1, 2):
        daemon.send(signal.SIGHUP)
        until(lambda times=times: daemon.said().count("read again") == times)  # type: ignore[misc]
        assert daemon.said().count("node 'b': address 'fd00::2': not an ipv4 address") == times
        assert daemon.said().count("node 'c': address 'fd00::3': not an ipv4 address") == times
    daemon.says("settings read again: 1 node added")
    daemon.says("settings read again: no change")
    daemon.hear("127.7.0.1", "127.7.0.2", "127.7.0.4")
    until(lambda: daemon.dumping() == {"a", "b", "d"})
    daemon.configure("", 'a = ["127.7.0.1"]')
    daemon.send(signal.SIGHUP)
    daemon.says("settings read again: 2 nodes removed")
    until(lambda: daemon.dumping() == {"a"})
    assert daemon.end() == 0


def test_of_many_faults_the_log_tells_some_and_their_number(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.configure(nodes="".join(f'n{number} = ["127.7.0.300"]\n' for number in range(5000)))
    daemon.send(signal.SIGHUP)
    daemon.says("settings refused: those from before stay in force")
    said = daemon.said().splitlines()
    assert said[-2] == "and 4,950 faults more: see --check"
    assert len(said) == 1 + 50 + 2
    assert len(daemon.run("--check").stderr.splitlines()) == 5000


# ------------------------------------------------------------------ systemd


@pytest.mark.slow
def test_it_tells_the_service_manager_how_it_is(daemon: Kdumpfenced, tmp_path: Path) -> None:
    with manager(tmp_path) as systemd:
        daemon.start(environment={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "600000"})
        systemd.hears("READY=1")
        systemd.hears("STATUS=dumping: 0; nodes")
        assert not any(line.startswith("WATCHDOG") for line in systemd.heard[:1])
        daemon.hear(NODE)
        systemd.hears("STATUS=dumping: 1; nodes")
        systemd.heard.clear()
        daemon.send(signal.SIGHUP)
        systemd.hears("READY=1")
        heard = systemd.heard
        at = heard.index("RELOADING=1")
        assert heard[at + 1].startswith("MONOTONIC_USEC=")
        assert int(heard[at + 1][15:]) <= time.monotonic_ns() // 1000
        assert at < heard.index("READY=1")
        systemd.heard.clear()
        time.sleep(2)
        pings = systemd.read().count("WATCHDOG=1")
        assert 4 <= pings <= 21  # of 0.6 s, three times as often
        daemon.end()
        systemd.hears("STOPPING=1")


@pytest.mark.slow
def test_a_main_loop_that_hangs_does_not_say_that_it_is_alive(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    # The history's file system hangs, say: the other threads are well, and answer.
    script = (
        "import os, time\n"
        "from kdumpfence.daemon import main as daemon, history\n"
        "def hang(self, events, *more):\n"
        "    if list(events): time.sleep(600)\n"
        "history.History.record = hang\n"
        "daemon.STUCK_AFTER = 1.0\n"
        "daemon.script()\n"
    )
    with manager(tmp_path) as systemd:
        environment = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "300000"}
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", script, "--config", str(daemon.settings)],
            env={**os.environ, **environment},
        )
        systemd.hears("WATCHDOG=1")
        until(lambda: daemon.get("/health")[0] == 200)
        daemon.hear(NODE)
        until(lambda: daemon.get("/health")[0] == 503)
        why = daemon.get("/health")[1]
        assert re.match(r"the main loop has not gone round for \d+ s\n", why)
        systemd.read()
        systemd.heard.clear()
        time.sleep(1)
        assert systemd.read() == []
        assert "kdumpfence_healthy 0.0" in daemon.get("/metrics")[1]


def test_a_variable_of_the_manager_is_not_inherited(daemon: Kdumpfenced, tmp_path: Path) -> None:
    gone: Manager
    with manager(tmp_path) as gone:
        pass
    daemon.start(environment={"NOTIFY_SOCKET": gone.path, "WATCHDOG_USEC": "x"})
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})


def test_under_systemd_lines_have_their_priority(daemon: Kdumpfenced) -> None:
    with daemon.log.open("ab") as log:
        about = os.fstat(log.fileno())
    daemon.start(environment={"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"})
    daemon.hear(NODE)
    assert daemon.says("began to dump").startswith(f"<6>node '{NODE}' began to dump")
    daemon.configure("prot = 1")
    daemon.send(signal.SIGHUP)
    assert daemon.says("prot is unknown").startswith("<3>")


def test_passed_sockets_are_used_and_keep_what_comes_during_a_restart(daemon: Kdumpfenced) -> None:
    if shutil.which("systemd-socket-activate") is None:
        cannot_run("systemd-socket-activate is missing")
    # The real thing passes one UDP socket, and starts the program at the first datagram.
    activate = ["systemd-socket-activate", "--datagram", "-l", f"127.0.0.1:{daemon.port}"]
    activate += ["--fdname=kdump", "-E", "KDUMPFENCE_PURE"]
    daemon.start(activate, wait=False)
    until(lambda: "Listening on" in daemon.said())
    assert not daemon.control.exists()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(daemon._answers)
    until(lambda: daemon.dumping() == {"127.0.0.2", "127.0.0.3"})
    assert daemon.end() == 0


PASS = """
import os, socket, sys
sockets = []
for what in {sockets!r}:
    kind, family, host, port = what
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6only})
    if port is not None:
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1)
    sockets.append(sock)
for at, sock in enumerate(sockets):
    os.dup2(sock.fileno(), 50 + at)
for at in range(len(sockets)):
    os.dup2(50 + at, 3 + at, inheritable=True)
os.environ.update(LISTEN_FDS={count!r}, LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="kdump:more")
os.execv(sys.argv[1], sys.argv[1:])
"""
V4, V6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")


@pytest.mark.parametrize(
    ("sockets", "said"),
    [
        ([(socket.SOCK_STREAM, *V4, 0)], "passed socket 1 ('kdump'): not a UDP socket"),
        ([(socket.SOCK_DGRAM, *V4, 1)], "passed socket 1 ('kdump'): bound to port"),
        ([(socket.SOCK_DGRAM, *V4, None)], "passed socket 1 ('kdump'): not bound, but"),
        (
            [(socket.SOCK_DGRAM, V6[0], "::", 0)],
            "takes IPv4 as well; it needs BindIPv6Only=ipv6-only",
        ),
        (
            [(socket.SOCK_DGRAM, *V4, 0), (socket.SOCK_DGRAM, socket.AF_INET, "127.0.0.2", 0)],
            "passed socket 2 ('more'): a second one of its family",
        ),
    ],
)
def test_passed_sockets_that_are_rubbish_are_refused(
    daemon: Kdumpfenced, sockets: list[tuple[int, int, str, int | None]], said: str
) -> None:
    # Port 0 stands for the right one, 1 for a wrong one.
    ports = {0: daemon.port, 1: 0, None: None}
    real = [(int(kind), int(family), host, ports[port]) for kind, family, host, port in sockets]
    script = PASS.format(sockets=real, v6only=0, count=str(len(real)))
    done = subprocess.run(
        [sys.executable, "-c", script, *PROGRAM, "--config", str(daemon.settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("count", "said"), [("x", "LISTEN_FDS 'x': not a number"), ("3", "passed socket 3 ('unknown')")]
)
def test_a_number_of_passed_sockets_that_is_wrong(
    daemon: Kdumpfenced, count: str, said: str
) -> None:
    real = [(int(socket.SOCK_DGRAM), int(V4[0]), V4[1], daemon.port),
            (int(socket.SOCK_DGRAM), int(V6[0]), V6[1], daemon.port)]  # fmt: skip
    script = PASS.format(sockets=real, v6only=1, count=count)
    done = subprocess.run(
        [sys.executable, "-c", script, *PROGRAM, "--config", str(daemon.settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert said in done.stderr


def test_sockets_that_were_passed_to_another_process_are_not_ours(daemon: Kdumpfenced) -> None:
    daemon.start(environment={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})


# ------------------------------------------------------------------ a history that fails


@pytest.mark.slow
def test_a_locked_history_does_not_stop_it(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear("127.0.0.2")
    until(lambda: daemon.dumping() == {"127.0.0.2"})
    with sqlite3.connect(daemon.history, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon.hear("127.0.0.3")
        daemon.says("locked by another program; listening goes on")
        until(lambda: daemon.get("/health")[0] == 503)
        assert "locked by another program" in daemon.get("/health")[1]
        # After a while it is told all the same, and said to be unwritten.
        daemon.says("node '127.0.0.3' began to dump")
        assert daemon.says("'127.0.0.3'").endswith("(not in the history yet)")
        until(lambda: daemon.dumping() == {"127.0.0.2", "127.0.0.3"})
        assert any("locked" in line for line in daemon.status().troubles)
        page = daemon.get("/metrics")[1]
        errors = re.findall(r"(?m)^kdumpfence_history_errors_total ([\d.]+)$", page)
        assert float(errors[0]) >= 1
        assert "\nkdumpfence_history_held 1.0\n" in page
        other.execute("ROLLBACK")
    other.close()
    daemon.says("history: works again after")
    until(lambda: daemon.get("/health") == (200, "well\n"))
    assert {past.node for past in daemon.past()} == {"127.0.0.2", "127.0.0.3"}
    assert daemon.end() == 0


@pytest.mark.slow
def test_a_damaged_history_is_said_and_a_new_one_taken_when_it_is_gone(
    daemon: Kdumpfenced,
) -> None:
    daemon.history.write_bytes(b"this is no database, and long enough to be taken for one" * 100)
    before = daemon.history.read_bytes()
    daemon.start()
    daemon.says("listening goes on, and it is tried again")
    daemon.hear(NODE)
    daemon.says("began to dump")
    assert daemon.get("/health")[0] == 503
    assert daemon.history.read_bytes() == before
    daemon.history.rename(daemon.folder / "damaged")
    daemon.says("history: works again after")
    assert [past.node for past in daemon.past()] == [NODE]
    assert daemon.end() == 0


@pytest.mark.slow
def test_a_history_with_a_row_that_is_no_dump_does_not_stop_it(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear(NODE)
    daemon.says("began to dump")
    assert daemon.end() == 0
    with sqlite3.connect(daemon.history) as damaging:
        damaging.execute("UPDATE dump SET since = 'noon'")
    damaging.close()
    daemon.start()
    daemon.says("it is left as it is")
    daemon.hear("127.3.0.8")
    until(lambda: daemon.dumping() == {"127.3.0.8"})


def mounted(mounting: str, folder: Path) -> tuple[str, ...]:
    """What a program is started with for something to be mounted at "$0", the folder.

    Where nobody else sees it: in a mount namespace of the program's own.
    """
    wrapper = ("unshare", "--mount", "sh", "-c", f'{mounting} && exec "$@"', str(folder))
    probe = subprocess.run([*wrapper, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        cannot_run(f"no mount namespace: {probe.stderr.decode()}")
    return wrapper


@pytest.mark.usefixtures("root")
def test_a_history_that_may_not_be_written_says_why_and_works_once_it_may(
    daemon: Kdumpfenced,
) -> None:
    folder = daemon.folder / "state"
    folder.mkdir()
    folder.chmod(0o555)  # root without capabilities is refused as well
    daemon.history = folder / "history.sqlite"
    daemon.configure()
    daemon.start()
    daemon.says(f"history: {daemon.history}: permission denied: {folder}; listening goes on")
    folder.chmod(0o755)
    daemon.says("history: works again after")
    assert daemon.end() == 0
    daemon.start(mounted('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', folder))
    why = f"{daemon.history}: the file system is mounted read-only"
    daemon.says(f"history: {why}; listening goes on")
    assert daemon.status().troubles == (f"history: {why}",)


@pytest.mark.usefixtures("root")
@pytest.mark.slow
def test_a_full_disk_does_not_stop_it(daemon: Kdumpfenced) -> None:
    disk = daemon.folder / "disk"
    disk.mkdir()
    daemon.history = disk / "history.sqlite"
    daemon.configure()
    daemon.start(mounted('mount -t tmpfs -o size=300k,mode=700 tmpfs "$0"', disk))
    seen = Path(f"/proc/{daemon.pid}/root") / str(disk)[1:]
    daemon.hear("127.0.0.2")
    until(lambda: daemon.dumping() == {"127.0.0.2"})
    ballast = seen / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096) == 4096:
                pass
        except OSError:
            pass
    nodes = [f"127.11.{host // 200}.{host % 200 + 1}" for host in range(2000)]
    daemon.hear(*nodes)
    daemon.says("no space left for it; listening goes on")
    until(lambda: daemon.status().dumping == 2001)
    assert daemon.get("/health")[0] == 503
    daemon.hear("127.12.0.1")
    until(lambda: "127.12.0.1" in daemon.dumping())
    ballast.unlink()
    # Now there is room, if not for all that a log and a file of it take.
    subprocess.run(
        ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", "mount", "-o", "remount,size=30m", disk],
        check=True,
    )
    daemon.says("history: works again after")
    until(lambda: daemon.get("/health") == (200, "well\n"))
    shutil.copytree(seen, daemon.folder / "copy")
    with History(str(daemon.folder / "copy/history.sqlite")) as history:
        assert {past.node for past in history.past(most=9999)} == {
            *nodes,
            "127.0.0.2",
            "127.12.0.1",
        }
    assert daemon.end() == 0


@pytest.mark.slow
def test_a_history_that_can_be_opened_only_later(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(lambda: daemon.status().dumping == 2)
    daemon.end(signal.SIGKILL)
    shutil.copy(daemon.history, daemon.folder / "kept")
    (daemon.folder / "history.sqlite-wal").rename(daemon.folder / "kept-wal")
    daemon.history.unlink()
    daemon.history.mkdir()
    daemon.start()
    daemon.says("listening goes on")
    daemon.hear("127.0.0.3")
    until(lambda: daemon.dumping() == {"127.0.0.3"})
    # It would make a new one between two of these.
    daemon.send(signal.SIGSTOP)
    daemon.history.rmdir()
    (daemon.folder / "kept-wal").rename(daemon.folder / "history.sqlite-wal")
    (daemon.folder / "kept").rename(daemon.history)
    daemon.send(signal.SIGCONT)
    daemon.says("history: works again")
    # What was under way before has an end, and what is now is another dump.
    (gone,) = daemon.past("127.0.0.2")
    assert gone.ended is not None
    newest, before = daemon.past("127.0.0.3")
    assert (newest.ended is None, before.ended is None) == (True, False)


def test_what_is_old_is_removed(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 1")
    daemon.start()
    daemon.hear("127.0.0.2", "127.0.0.3", "127.0.0.4")
    until(lambda: len([past for past in daemon.past() if past.ended is not None]) == 3)
    daemon.configure("networks = ['127.0.0.0/8']\nsilence = 1", history="most = 1")
    daemon.send(signal.SIGHUP)
    daemon.says("history: 2 old dumps were removed")
    assert len(daemon.past()) == 1


# ------------------------------------------------------------------ clients


def test_clients_that_are_slow_or_rude_do_not_hold_up_others(daemon: Kdumpfenced) -> None:
    daemon.start()
    where = ("127.0.0.1", daemon.metrics_port)
    slow = [socket.create_connection(where) for _ in range(100)]
    for number, client in enumerate(slow):
        client.sendall((b"GET /met", b"\0\xff" * 100, b"GET /metrics HTTP/1.1\r\nX: ")[number % 3])
    assert daemon.get("/health") == (200, "well\n")
    with socket.create_connection(where) as long:
        long.sendall(b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 3000)
        try:
            assert long.recv(100) == b""
        except ConnectionError:
            pass
    for path, code in (("/", 404), ("/metrics?x=y", 200), ("/../etc/passwd", 404)):
        assert daemon.get(path)[0] == code
    with socket.create_connection(where) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 405 ")
    with socket.create_connection(where) as client:
        client.sendall(b"HEAD /health HTTP/1.1\r\n\r\n")
        answer = b""
        while part := client.recv(1000):
            answer += part
        assert answer.endswith(b"Content-Length: 5\r\nConnection: close\r\n\r\n")
    # Those that were let in are dropped when their time is up.
    open_now = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    assert open_now < 80
    for client in slow:
        client.close()


def test_nothing_is_leaked(daemon: Kdumpfenced) -> None:
    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.start()

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    def threads() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/task"))

    daemon.get("/metrics")
    before = until(lambda: (descriptors(), threads()))
    for round_ in range(20):
        daemon.configure(nodes=f'a = ["127.7.0.{round_ + 1}"]')
        daemon.send(signal.SIGHUP)
        daemon.get("/metrics")
        daemon.status()
        daemon.hear(NODE, "127.7.0.1")
    until(lambda: (descriptors(), threads()) <= before)
    until(lambda: daemon.status().counts["accepted"] >= 20)
