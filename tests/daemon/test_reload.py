# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings that are read again: what is right counts at once, what is wrong changes nothing."""

from __future__ import annotations

import os

from tests.daemon.running import NODE, Kdumpfenced, patched, until


def test_settings_are_read_again_and_a_dump_goes_on(daemon: Kdumpfenced) -> None:
    top = 'networks = ["127.8.0.0/16"]\nsilence = 60'
    daemon.configure(top, 'a = ["127.7.0.1"]\nb = ["127.7.0.2"]\nc = ["127.7.0.3"]')
    daemon.start()
    daemon.hear("127.7.0.1", "127.7.0.2", "127.7.0.3")
    until(lambda: daemon.dumping() == {"a", "b", "c"})
    daemon.configure(
        top + "\nroom = 5", 'a = ["127.7.0.1", "127.7.0.11"]\nc = ["127.7.0.3"]\nd = ["127.7.0.4"]',
        'level = "debug"',
    )  # fmt: skip
    daemon.reload()
    line = daemon.says("settings reloaded")
    assert line.endswith("1 node added; 1 node removed; 1 node changed; [log] level changed")
    assert "room changed" in daemon.says("takes effect after a restart")
    daemon.hear("127.7.0.1", "127.7.0.11", "127.7.0.2", "127.7.0.3", "127.7.0.4")
    until(lambda: daemon.dumping() == {"a", "c", "d"})
    daemon.says("node 'b' fell silent")
    daemon.says("1 removed node was still dumping")
    assert len(daemon.past("a")) == len(daemon.past("c")) == 1
    assert daemon.past("a")[0].ended is None
    until(lambda: "127.7.0.11" in {a for d in daemon.status().dumps for a in d.addresses})


def test_faulty_settings_change_nothing_and_are_told_of(daemon: Kdumpfenced) -> None:
    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.start()
    daemon.configure("prot = 1", nodes='b = ["127.7.0.300"]')
    daemon.reload()
    daemon.says("settings refused")
    assert "prot is unknown; did you mean port?" in daemon.said()
    assert '[nodes] b "127.7.0.300"' in daemon.said()
    daemon.hear("127.7.0.1")
    until(lambda: daemon.dumping() == {"a"})
    until(lambda: any("settings refused" in line for line in daemon.status().troubles))
    assert daemon.get("/health")[0] == 200
    daemon.page_with("\nkdumpfence_settings_refused 1.0\n")
    daemon.configure(nodes='a = ["127.7.0.1"]')
    daemon.reload()
    daemon.says("settings reloaded: no change")
    daemon.page_with("\nkdumpfence_settings_refused 0.0\n")


def test_a_node_that_only_a_restart_can_take_leaves_everything_else_as_it_is(
    daemon: Kdumpfenced,
) -> None:
    daemon.configure('family = "ipv4"', 'a = ["127.7.0.1"]\nb = ["127.7.0.2"]')
    daemon.start()
    both = 'a = ["127.7.0.1"]\nb = ["127.7.0.2", "fd00::2"]\nc = ["fd00::3"]\nd = ["127.7.0.4"]'
    daemon.configure("", both)
    for times in (1, 2):
        daemon.reload()
        until(lambda times=times: daemon.said().count("settings reloaded") == times)  # type: ignore[misc]
        assert daemon.said().count("node 'b': address 'fd00::2': not an ipv4 address") == times
        assert daemon.said().count("node 'c': address 'fd00::3': not an ipv4 address") == times
    daemon.says("settings reloaded: 1 node added")
    daemon.says("settings reloaded: no change")
    daemon.hear("127.7.0.1", "127.7.0.2", "127.7.0.4")
    until(lambda: daemon.dumping() == {"a", "b", "d"})
    daemon.configure("", 'a = ["127.7.0.1"]')
    daemon.reload()
    daemon.says("settings reloaded: 2 nodes removed")
    until(lambda: daemon.dumping() == {"a"})
    assert daemon.end() == 0


def test_of_many_faults_the_log_tells_some_and_their_number(daemon: Kdumpfenced) -> None:
    daemon.start()
    before = len(daemon.said().splitlines())
    daemon.configure(nodes="".join(f'n{number} = ["127.7.0.300"]\n' for number in range(5000)))
    daemon.reload()
    daemon.says("settings refused")
    said = daemon.said().splitlines()
    assert said[-2] == "and 4,950 faults more: see --check"
    assert len(said) == before + 50 + 2
    assert len(daemon.run("--check").stderr.splitlines()) == 5000


NO_THREAD = """
import threading
start = threading.Thread.start
def refuse(self):
    if self.name == "settings":
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = refuse
"""


def test_settings_that_no_thread_can_read_are_refused(daemon: Kdumpfenced) -> None:
    daemon.start(program=patched(NO_THREAD))
    for times in (1, 2):
        daemon.reload()
        until(lambda times=times: daemon.said().count("settings refused") == times)  # type: ignore[misc]
    daemon.says("can't start new thread: not allowed")
    assert daemon.end() == 0


def test_settings_that_are_no_file_hang_nothing(daemon: Kdumpfenced) -> None:
    daemon.start()
    kept = daemon.settings.rename(daemon.folder / "kept")
    os.mkfifo(daemon.settings)
    daemon.reload()
    daemon.says("settings refused")
    why = f"{daemon.settings}: a FIFO; a regular file is needed\n"
    assert why in daemon.said()
    for arguments in ([], ["--check"]):
        done = daemon.run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"kdumpfenced: {why}"
    kept.rename(daemon.settings)
    daemon.reload()
    daemon.says("settings reloaded: no change")
    daemon.hears(NODE)
