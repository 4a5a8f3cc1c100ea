# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced as it runs: real messages in, history, log, status and metrics out."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import load_core, unused_port
from tests.daemon.running import NODE, PROGRAM, Kdumpfenced, neighbour, patched, until

CROWD = [f"127.6.{net}.{host}" for net in range(4) for host in range(1, 251)]


# ------------------------------------------------------------------ what it tells


@pytest.mark.slow
def test_a_dump_from_its_first_message_to_silence(daemon: Kdumpfenced) -> None:
    daemon.configure(
        'networks = ["127.3.0.0/16"]\nsilence = 3\nrepeat = 1',
        'alpha = ["127.4.0.1", "127.4.0.2"]',
        'level = "debug"',
    )
    daemon.start()
    assert daemon.is_well()
    daemon.hear("127.9.0.1", data=b"")  # a stranger, and no message
    daemon.hear("127.9.0.1")
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        daemon.hear("127.4.0.1", "127.4.0.2", NODE)
        time.sleep(0.1)
    until(lambda: daemon.dumping() == {"alpha", NODE})
    page = daemon.page_with("\nkdumpfence_dumping 2.0\n")
    assert re.search(r'\nkdumpfence_node_dump_start_time_seconds\{node="alpha"\} \d', page)
    line = daemon.says("node 'alpha' began to dump")
    assert re.search(
        r"first message 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\S+ from 127.4.0.1", line
    )
    assert "from 127.4.0.1, 127.4.0.2" in daemon.says("node 'alpha' has been dumping for")
    line = daemon.says("node 'alpha' fell silent: dumped for")
    messages = int(re.findall(r"; (\d+) messages from 127.4.0.1, 127.4.0.2$", line)[0])
    daemon.says(f"node '{NODE}' fell silent")
    (alpha,) = daemon.past("alpha")
    assert alpha.ended is not None
    assert alpha.messages == messages > 10
    assert alpha.addresses == ("127.4.0.1", "127.4.0.2")
    assert 1 < alpha.last - alpha.since < 30
    assert alpha.ended - alpha.last >= 3
    until(lambda: daemon.status().dumping == 0)
    page = daemon.page_with("kdumpfence_dumping 0.0")
    assert "\nkdumpfence_dumps_total 2.0\n" in page
    assert '\nkdumpfence_datagrams_total{verdict="short"} 1.0\n' in page
    assert '\nkdumpfence_datagrams_total{verdict="stranger"} 1.0\n' in page
    assert "\nkdumpfence_dump_seconds_count 2.0\n" in page
    assert "node_dump_start_time_seconds{" not in page
    assert daemon.end() == 0


def test_it_hears_both_families_on_the_pure_core(tmp_path: Path, counting: str) -> None:
    load_core("pure")
    daemon = Kdumpfenced(tmp_path, "pure", counting)
    daemon.configure('networks = ["127.0.0.0/8", "::1/128"]')
    with contextlib.closing(daemon):
        daemon.start()
        daemon.says("(pure core) listens on port")
        daemon.hears(NODE, "::1")
        assert daemon.end() == 0


def test_nodes_whose_names_have_no_address_are_all_counted(daemon: Kdumpfenced) -> None:
    nodes = "".join(f'"n{number}.invalid" = []\n' for number in range(300))
    daemon.configure(nodes='partly = ["127.7.0.1", "name.invalid"]\n' + nodes)
    daemon.start()
    status = daemon.status()
    assert (status.unresolved_nodes, len(status.unresolved)) == (301, 100)
    daemon.page_with("\nkdumpfence_unresolved 301.0\n")
    daemon.hear("127.7.0.1")
    until(lambda: daemon.dumping() == {"partly"})


def test_a_log_that_nobody_reads_does_not_stop_it(daemon: Kdumpfenced) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [*PROGRAM, "--config", str(daemon.settings)], stdout=write, stderr=write
    ) as process:
        daemon.process = process
        os.close(write)
        until(daemon.answers)
        daemon.hear(*CROWD)
        until(lambda: daemon.status().dumping == len(CROWD))
        lost = re.compile(r"(?m)^kdumpfence_log_lines_left_out_total ([\d.]+)$")
        until(lambda: float(lost.findall(daemon.get("/metrics")[1])[0]) > 100)
        assert daemon.end() == 0
        os.close(read)


def test_a_burst_is_told_in_some_lines_and_a_sum(daemon: Kdumpfenced) -> None:
    daemon.configure(log="lines = 20", metrics="nodes = 3")
    daemon.start()
    daemon.hears(CROWD[0])
    daemon.hear(*CROWD[1:500])
    until(lambda: daemon.status().dumping == 500)

    def told() -> tuple[int, int]:
        said = daemon.said()
        spared = re.findall(r"not shown: (\d+) dumps that began", said)
        return len(re.findall("began to dump", said)), sum(map(int, spared))

    # The sum of a second is told when it is over, and they may have come in more than one.
    until(lambda: sum(told()) >= 500)
    assert sum(told()) == 500
    assert told()[0] < 200
    assert len(daemon.past()) == 500
    # And in the metrics, those few have a name that began first.
    page = daemon.page_with("dumping 500.0")
    named = re.findall(r'kdumpfence_node_dump_start_time_seconds\{node="(.*?)"\}', page)
    assert (len(named), named[0]) == (3, CROWD[0])
    assert daemon.end() == 0


def test_more_nodes_than_there_is_room_for_are_told_of(daemon: Kdumpfenced) -> None:
    daemon.configure("networks = ['127.0.0.0/8']\nroom = 2")
    daemon.start()
    daemon.hears("127.0.0.2", "127.0.0.3")
    daemon.hear("127.0.0.4", "127.0.0.5", "127.0.0.2")
    daemon.says("no room for the senders of")
    daemon.page_with('kdumpfence_datagrams_total{verdict="crowded"} 2.0')
    assert daemon.dumping() == {"127.0.0.2", "127.0.0.3"}


@pytest.mark.slow
def test_a_flood_of_forged_senders_pushes_out_nothing_of_a_named_node(daemon: Kdumpfenced) -> None:
    most = 300
    daemon.configure(
        'networks = ["127.16.0.0/12"]\nsilence = 1\nrepeat = 1',
        f'genuine = ["{NODE}"]\nother = ["127.3.0.8"]',
        log="lines = 10",
        history=f"most = {most}",
    )
    daemon.start()
    daemon.hear(NODE)
    daemon.says("node 'genuine' fell silent")
    counts = []
    reader = sqlite3.connect(f"file:{daemon.history}?mode=ro", uri=True)
    forging = daemon.storm("--from=127.16.0.0/12", "--nodes=3000", "--rate=3000", "--rounds=3")
    with forging, contextlib.closing(reader):
        while forging.poll() is None:
            daemon.hear("127.3.0.8")
            counts += reader.execute("SELECT count(*) FROM dump").fetchone()
            time.sleep(0.01)
        assert forging.stderr is not None
        assert (forging.returncode, forging.stderr.read()) == (0, b"")
    until(lambda: daemon.status().counts["accepted"] > 3000)
    assert max(counts) == most
    named = {dump.node for dump in daemon.past() if not dump.node.startswith("127.")}
    assert named == {"genuine", "other"}


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.slow
def test_it_ends_cleanly(daemon: Kdumpfenced, number: signal.Signals) -> None:
    daemon.start()
    daemon.hears(NODE)
    assert daemon.end(number) == 0
    assert not daemon.control.exists()
    assert not (daemon.folder / "history.sqlite-wal").exists()
    assert [past.node for past in daemon.past()] == [NODE]
    assert daemon.said().splitlines()[-1] == f"kdumpfenced is stopping: {number.name}"


def test_what_it_heard_last_is_in_the_history(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.send(signal.SIGSTOP)  # the message is to lie in the queue when it is ended
    daemon.hear(NODE)
    daemon.send(signal.SIGTERM)
    daemon.send(signal.SIGCONT)
    assert daemon.ended() == 0
    # Whether it was read before the end or not: what was told is written, and nothing else.
    assert bool(daemon.past()) == ("began to dump" in daemon.said())


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


# Ended by its first event, and what a round takes is less than is there by then.
END_AT_ONCE = """
import signal
record = recorder.Recorder.record
def end(self, events):
    if events and teller.BATCH > 1:
        teller.BATCH = 1
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)
    return record(self, events)
recorder.Recorder.record = end
"""


@pytest.mark.slow
def test_what_a_crowd_said_before_the_end_is_in_the_history(daemon: Kdumpfenced) -> None:
    crowd = 5000
    daemon.configure(log="lines = 10")
    daemon.start(program=patched(END_AT_ONCE))
    with daemon.storm(f"--nodes={crowd}", "--rate=10000", "--rounds=1") as storm:
        assert storm.wait(30) == 0
    assert daemon.ended() == 0
    assert len(daemon.past()) == crowd
    said = daemon.said()
    spared = [int(number) for number in re.findall(r"(\d+) dumps that began\n", said)]
    assert said.count("began to dump: ") + sum(spared) == crowd
    assert said.endswith("\nkdumpfenced is stopping: SIGTERM\n")


def test_closed_standard_streams_are_nobody_elses(daemon: Kdumpfenced) -> None:
    daemon.start(("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    for number in range(3):
        assert Path(f"/proc/{daemon.pid}/fd/{number}").readlink() == Path("/dev/null")
    daemon.hears(NODE)
    assert daemon.end() == 0


# ------------------------------------------------------------------ what keeps it from starting


@pytest.mark.slow
def test_a_second_one_is_refused_whatever_it_shares_with_the_first(
    daemon: Kdumpfenced, tmp_path: Path
) -> None:
    daemon.start()
    port = (
        f"kdumpfenced: port {daemon.port}/udp: Address already in use (another program holds it: "
        f"process {daemon.pid} ("
    )
    done = daemon.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(port)
    assert done.stderr.endswith(f") of user {os.geteuid()})\n")
    # Even with files of its own.
    (tmp_path / "other").mkdir()
    other = Kdumpfenced(tmp_path / "other")
    other.port = daemon.port
    other.configure()
    assert other.run().stderr.startswith(port)
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
    assert f"history: {other.history}: in use by another kdumpfenced" in done.stderr
    daemon.hears(NODE)
    assert [dump.node for dump in daemon.past()] == [NODE]


SQUAT = """
name = "\\0kdumpfenced/" + sys.argv[1]
sock = socket.socket(socket.AF_UNIX)
sock.bind(name)
waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
if sys.argv[2] == "full":
    sock.listen(0)
    for one in waiting:
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.connect(name)
"""


@pytest.mark.parametrize("how", ["bound", "full"])
@pytest.mark.slow
def test_a_name_that_anybody_can_hold_keeps_nobody_from_listening(
    daemon: Kdumpfenced, root: None, how: str
) -> None:
    with neighbour(SQUAT, str(daemon.port), how):
        daemon.start()
        daemon.hears(NODE)


def test_a_metrics_port_that_is_taken_keeps_nobody_from_listening(daemon: Kdumpfenced) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", daemon.metrics_port))
        other.listen(1)
        daemon.start(program=patched("http.RETRY = 0.2"))
        what = (
            f"metrics: cannot listen on 127.0.0.1 port {daemon.metrics_port}: "
            "Address already in use"
        )
        daemon.says(f"{what}; will try again")
        daemon.hears(NODE)
        assert daemon.status().troubles == (what,)
    until(lambda: daemon.status().troubles == ())
    assert daemon.is_well()
    assert daemon.said().count(what) == 1
    assert daemon.end() == 0


def test_metrics_without_prometheus_client(daemon: Kdumpfenced, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    wrapper = ("env", f"PYTHONPATH={path}")
    for arguments in (["--check"], []):
        done = daemon.run(*arguments, wrapper=wrapper)
        assert done.returncode == 1
        assert "prometheus-client is not installed" in done.stderr
    # Nobody asked for metrics: nothing is missed.
    daemon.settings.write_text(
        re.sub(r"port = \d+\n\n\[log", "\n[log", daemon.settings.read_text())
    )
    daemon.start(wrapper)
    daemon.hears(NODE)


def test_check_says_what_the_settings_mean(daemon: Kdumpfenced) -> None:
    done = daemon.run("--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"listens on UDP port {daemon.port} over IPv4 and IPv6" in done.stdout
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


def test_nothing_is_leaked(daemon: Kdumpfenced) -> None:
    def kept() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{daemon.pid}/fd")), len(
            os.listdir(f"/proc/{daemon.pid}/task")
        )

    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.start()
    daemon.get("/metrics")
    before = kept()
    for round_ in range(20):
        daemon.configure(nodes=f'a = ["127.7.0.{round_ + 1}"]')
        daemon.reload()
        daemon.get("/metrics")
        daemon.status()
        daemon.hear(NODE, "127.7.0.1")
    until(lambda: kept() <= before)
    until(lambda: daemon.status().counts["accepted"] >= 20)
