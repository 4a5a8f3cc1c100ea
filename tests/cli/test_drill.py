# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor --drill: what it prints, for people and for programs, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import signals
from kdumpfence.cli import drill
from kdumpfence.cli.main import main
from kdumpfence.doctor.drill_course import (
    ASKED,
    BACK,
    FENCED,
    HEARD,
    LEFT,
    NO,
    REQUESTED,
    YES,
    Course,
    Event,
)
from kdumpfence.doctor.machine import Machine
from tests.doctor.cluster_root import COROSYNC, Root

HOSTILE = "a\x1b[2Jb\nc"
SEEN = (
    Event(HEARD, 101.0, "192.0.2.3", text="plain"),
    Event(LEFT, 102.5),
    Event(REQUESTED, 103.0, text="reboot"),
    Event(ASKED, 103.1, "node1", "kdump"),
    Event(YES, 103.4, "", "kdump"),
    Event(FENCED, 103.5, "node1", "", "reboot"),
    Event(BACK, 161.0),
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def after_signals() -> Iterator[None]:
    """Signals are what they were before."""
    before = {number: signal.getsignal(number) for number in signals._ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fake(
    monkeypatch: pytest.MonkeyPatch,
    seen: tuple[Event, ...],
    ends: Callable[[], bool] = lambda: True,
    strangers: tuple[str, ...] = (),
) -> None:
    """A watch that sees these; `ends` is how it does."""

    class Watch:
        def __init__(self, _: Machine, its: Any, tell: Callable[[Event], None], __: Any) -> None:
            self.course, self.tell = Course(its.device_names, ["kdump"]), tell
            self.strangers = list(strangers)

        def run(self, _: float) -> bool:
            for one in seen:
                for new in self.course.take(one):
                    self.tell(new)
            return ends()

        def close(self) -> None:
            pass

    monkeypatch.setattr(drill, "Watch", Watch)


def run(root: Root, *more: str, node: str = "node3") -> int:
    """Run it; its exit status."""
    return main(["doctor", "--root", str(root.folder), "--drill", node, *more])


@pytest.mark.usefixtures("after_signals")
def test_each_step_is_told_with_its_time_and_again_in_the_verdict(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, SEEN)
    assert run(root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A drill: crash node3. Nothing of this is done for you."
    watching = next(at for at, line in enumerate(lines) if line.startswith("Watching for 3600 s"))
    assert lines[watching + 1 : -1] == [
        "    0.0 s  first message from 192.0.2.3, plain",
        "    1.5 s  has left the cluster",
        "    2.0 s  fencing requested (reboot)",
        "    2.1 s  kdump asked on node1",
        "    2.4 s  kdump: yes",
        "    2.5 s  fenced (reboot) by node1",
        "   60.0 s  is back in the cluster",
    ]
    assert lines[-1] == (
        "node3: fenced by kdump, and no power was cut: first message from 192.0.2.3, plain 0.0 s, "
        "has left the cluster 1.5 s, fencing requested (reboot) 2.0 s, kdump asked on node1 2.1 s, "
        "kdump: yes 2.4 s, fenced (reboot) by node1 2.5 s, is back in the cluster 60.0 s"
    )


@pytest.mark.usefixtures("after_signals")
def test_for_programs_there_is_a_line_of_json_for_each_thing(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, SEEN)
    assert run(root, "--json", "--timeout", "60") == 0
    plan, watching, *events, verdict = map(json.loads, capsys.readouterr().out.splitlines())
    assert plan["node"] == "node3"
    assert {"title", "lines", "commands"} == set(plan["plan"][0])
    assert watching == {"watching": 60}
    assert [one["event"] for one in events] == [one.kind for one in SEEN]
    assert events[0] == {
        **{"event": "heard", "when": 101.0, "where": "192.0.2.3", "device": "", "text": "plain"}
    }
    assert (verdict["verdict"], verdict["node"], verdict["began"]) == ("kdump", "node3", 101.0)
    assert [one["after"] for one in verdict["steps"]] == [0, 1.5, 2.0, 2.1, 2.4, 2.5, 60.0]


@pytest.mark.usefixtures("after_signals")
@pytest.mark.parametrize(
    ("seen", "in_time", "status"),
    [
        (
            SEEN[1:4] + (Event(NO, 104, "", "kdump"), Event(ASKED, 105, "node1", "p"), SEEN[5]),
            True,
            1,
        ),
        (SEEN[:3], False, 1),
        ((), False, 2),
        ((SEEN[1], SEEN[5]), True, 2),
    ],
)
def test_the_exit_status_says_who_fenced_the_node(
    root: Root,
    seen: tuple[Event, ...],
    in_time: bool,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, seen, lambda: in_time)
    assert run(root) == status


def killed(number: int) -> Callable[[], bool]:
    """An end by that signal."""

    def end() -> bool:
        os.kill(os.getpid(), number)
        return False

    return end


@pytest.mark.usefixtures("after_signals")
@pytest.mark.parametrize(
    ("seen", "number", "status"),
    [
        (SEEN[:6], signal.SIGINT, 0),
        (SEEN[:3], signal.SIGINT, 2),
        (SEEN[:6], signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_signal_ends_it_with_what_was_seen_so_far(
    root: Root,
    seen: tuple[Event, ...],
    number: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(monkeypatch, seen, killed(number))
    assert run(root) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("node3: ")
    assert "has left the cluster 1.5 s" in last


@pytest.mark.usefixtures("after_signals")
def test_messages_from_elsewhere_are_told_if_none_came_from_the_node(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, SEEN[1:3], strangers=("192.0.2.77",))
    run(root)
    told = "kdumpfence: messages came from 192.0.2.77, which are no addresses of the node\n"
    assert capsys.readouterr().err == told
    fake(monkeypatch, SEEN[:3], strangers=("192.0.2.77",))
    run(root)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("after_signals")
def test_nothing_that_is_printed_breaks_the_terminal(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, (Event(LEFT, 1), Event(NO, 2, HOSTILE, HOSTILE, HOSTILE)))
    run(root)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len([line for line in out.splitlines() if r"\x1b[2J" in line]) == 2


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("node9", "'node9' is no node of this cluster"),
        ("node1", "'node1' is this very machine"),
        ("node3", "only a running system can watch"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(
    root: Root, node: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, node=node) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"kdumpfence: {words}")
    assert said.err.count("\n") == 1
    assert said.out.startswith("A drill: crash node3.") == (node == "node3")


def test_without_a_cluster_it_is_refused(root: Root, capsys: pytest.CaptureFixture[str]) -> None:
    root.remove(COROSYNC)
    assert run(root) == 2
    assert "no cluster here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--timeout", "5"), "--timeout: for --drill alone"),
        (("--drill", "node3", "image"), "--drill: without PART"),
        (("--drill", "node3", "--timeout", "0"), "not a number of seconds"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 1
    assert words in capsys.readouterr().err
