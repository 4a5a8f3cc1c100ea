# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Pacemaker's programs and its log say of a fencing, in the words of 2.1 and of 3."""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.doctor import drill_log, drill_pacemaker
from kdumpfence.doctor.drill_course import (
    ASKED,
    BACK,
    FAILED,
    FENCED,
    LEFT,
    MOVED,
    NO,
    REQUESTED,
    YES,
    Event,
)
from kdumpfence.doctor.drill_pacemaker import Fencing, Pacemaker, Status, history, moment, status
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot

NODE = '<node name="{}" online="{}" unclean="{}" pending="false"/>'


def crm_mon(online: bool = True, at: str = "node3", unclean: bool = False) -> str:
    """What it prints of three nodes, with a service at one of them, and a clone everywhere."""
    third = NODE.format("node3", str(online).lower(), str(unclean).lower())
    others = "".join(NODE.format(f"node{n}", "true", "false") for n in (1, 2))
    clone = '<resource id="dlm" active="true"><node name="node3"/></resource>'
    return (
        '<pacemaker-result api-version="2.25"><summary><current_dc present="true" name="node1"/>'
        f"</summary><nodes>{others}{third}</nodes><resources>"
        f'<group id="g"><resource id="web" active="true"><node name="{at}"/></resource></group>'
        f'<clone id="c">{clone}</clone>'
        '<resource id="idle" active="false"/></resources></pacemaker-result>'
    )


def entry(status: str, completed: str = "", target: str = "node3") -> str:
    """An entry of the fencing history."""
    over = f' delegate="node1" completed="{completed}"' if completed else ""
    return f'<fence_event action="reboot" target="{target}" status="{status}"{over}/>'


def past(*entries: str) -> str:
    """What stonith_admin --history prints."""
    return f"<pacemaker-result><list>{''.join(entries)}</list></pacemaker-result>"


def test_the_status_has_who_leads_who_is_there_and_what_runs_where() -> None:
    found = status(crm_mon(unclean=True))
    assert found == Status(
        "node1",
        {"node1": True, "node2": True, "node3": False},
        {"web": frozenset({"node3"})},
    )


def test_the_history_of_one_node() -> None:
    text = past(entry("success", "2026-11-22 16:05:22Z"), entry("failed", "x", "node2"))
    assert history(text, "NODE3") == [
        Fencing("reboot", "success", "node1", "2026-11-22 16:05:22Z", "")
    ]


@pytest.mark.parametrize("text", ["", "no XML", "<a><b></a>", '<!DOCTYPE a [<!ENTITY b "c">]><a/>'])
def test_what_is_no_answer_of_pacemaker_is_not_believed(text: str) -> None:
    with pytest.raises(Unknown):
        status(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22 16:05:22Z", 0.0),
        ("2026-11-22 16:05:22.250000Z", 0.25),
        ("2026-11-22 17:05:22.250000 +01:00", 0.25),
        ("2026-11-22 13:35:22 -0230", 0.0),
    ],
)
def test_moments_are_read_with_their_fractions_and_zones(text: str, seconds: float) -> None:
    base = calendar.timegm((2026, 11, 22, 16, 5, 22))
    assert moment(text) == base + seconds


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-22 99:99:99Z", "0000-00-00 00:00:00Z"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert moment(text) is None


FENCER = "Nov 22 16:05:22.125 node1 pacemaker-fenced    [41] (f) \tnotice: "
NOW = time.mktime((2026, 11, 22, 16, 5, 30, 0, 0, -1))
THEN = NOW - 7.875


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "Node node3 state is now lost | nodeid=3 previous=member source=crm_update_peer_proc",
            Event(LEFT, THEN),
        ),
        (
            "Requesting peer fencing (reboot) targeting node3 | id=b5a4e871 state=querying",
            Event(REQUESTED, THEN, text="reboot"),
        ),
        (
            "Requesting that node1 perform 'reboot' action targeting node3 using kdump | for "
            "client pacemaker-controld.42 (24s)",
            Event(ASKED, THEN, "node1", "kdump"),
        ),
        (
            "Requesting that node1 perform 'off' action targeting node3 | for client x (72s)",
            Event(ASKED, THEN, "node1"),
        ),
        (
            "Operation 'reboot' [325] targeting node3 using kdump returned 0 | call 7 from x",
            Event(YES, THEN, "", "kdump"),
        ),
        (
            "Operation 'reboot' [557] targeting node3 using kdump returned 1 | call 9 from x",
            Event(NO, THEN, "", "kdump", "exit status 1"),
        ),
        (
            "Operation 'reboot' [420] targeting node3 using kdump could not be executed: Timed "
            "Out (Fence agent did not complete within 5s) | call 9 from x",
            Event(NO, THEN, "", "kdump", "Timed Out (Fence agent did not complete within 5s)"),
        ),
        (
            "Operation 'reboot' targeting node3 by node1 for pacemaker-controld.42@node2: OK "
            "(complete) | id=b5a4e871",
            Event(FENCED, THEN, "node1", "", "reboot"),
        ),
        (
            "Operation 'reboot' targeting node3 by unknown node for pacemaker-controld.42@node2: "
            "No such device (Fencing failed) | id=b5a4e871",
            Event(FAILED, THEN, "", "", "reboot"),
        ),
        (
            "Operation 'reboot' targeting node3 by node1 for x@node2: Result arrived too late | id",
            None,
        ),
        ("Operation 'reboot' targeting node3 by node1 for x@node2 (merged): OK (Done) | id", None),
        ("Node node3 state is now member | nodeid=3 previous=lost source=x", None),
        ("Node node33 state is now lost | nodeid=33", None),
        ("Requesting that node3 perform 'reboot' action targeting node2 using kdump | x", None),
        ("Action 'reboot' targeting node3 using kdump on behalf of x@node2: complete", None),
        ("kdump[557] [ [debug]: timeout after 14 seconds ]", None),
    ],
)
def test_lines_of_the_log(line: str, event: Event | None) -> None:
    assert drill_log.said(FENCER + line, "node3", NOW) == event


def test_a_line_that_does_not_say_when_is_of_now() -> None:
    found = drill_log.said("x Node node3 state is now lost", "node3", 5.0)
    assert found == Event(LEFT, 5.0)


class Site:
    """Programs that say what a test lets them say, and a log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "pacemaker.log"
        self.log.write_text("Node node3 state is now lost\n")
        self.status, self.past = crm_mon(), past()
        monkeypatch.setattr(drill_log, "_PATH", str(self.log))
        monkeypatch.setattr(drill_pacemaker, "ask", self.ask)
        with Sysroot(str(folder)) as root:
            self.pacemaker = Pacemaker(Machine(root), "node3")

    def ask(self, *command: str) -> str:
        return self.status if command[0] == "crm_mon" else self.past

    def write(self, *lines: str) -> None:
        with self.log.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def kinds(self) -> list[str]:
        return [one.kind for one in self.pacemaker.look()]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, monkeypatch)
    yield made
    made.pacemaker.close()


def test_what_stood_there_before_is_no_news(site: Site) -> None:
    assert site.pacemaker.online
    assert site.kinds() == []


def test_the_node_goes_its_resources_move_and_it_comes_back(site: Site) -> None:
    site.status = crm_mon(online=False)
    assert site.kinds() == [LEFT]
    site.status = crm_mon(online=False, at="node2")
    assert site.kinds() == [MOVED]
    site.status = crm_mon(at="node2")
    assert site.kinds() == [BACK]


def test_a_fencing_that_log_and_history_tell_of_is_one(site: Site) -> None:
    site.past = past(entry("pending"))
    assert site.kinds() == [REQUESTED]
    site.write("Operation 'reboot' targeting node3 by node1 for x@node2: OK (complete)")
    site.past = past(entry("success", stamp(time.time())))
    assert site.kinds() == [FENCED]
    site.past = past(entry("success", stamp(time.time() + 9)), entry("success", stamp(time.time())))
    assert site.kinds() == [FENCED]
    site.write("Operation 'reboot' targeting node3 by node1 for x@node2: OK (complete)")
    assert site.kinds() == []


def stamp(when: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment as Pacemaker writes it."""
    return time.strftime(form, time.gmtime(when)) + "Z"


def test_fractions_of_seconds_are_kept_and_whole_seconds_are_no_time(site: Site) -> None:
    exact = time.time()
    text = stamp(exact)[:-1] + f"{exact % 1:.6f}"[1:] + "Z"
    site.past = past(entry("success", text))
    (found,) = site.pacemaker.look()
    assert found.when == pytest.approx(exact, abs=1e-5)
    before = time.time()
    site.past = past(entry("failed", stamp(exact)))
    (found,) = site.pacemaker.look()
    assert (found.kind, found.when >= before) == (FAILED, True)


def test_an_old_entry_that_another_node_brings_back_is_no_news(site: Site) -> None:
    site.past = past(entry("success", "2026-11-22 16:05:22Z"))
    assert site.kinds() == []


def test_a_log_that_is_rotated_is_followed(site: Site) -> None:
    site.write("Requesting peer fencing (reboot) targeting node3 | x")
    assert site.kinds() == [REQUESTED]
    os.rename(site.log, site.log.with_suffix(".1"))
    longer = ["another line"] * 20
    site.write(
        *longer, "Requesting that node1 perform 'reboot' action targeting node3 using kdump | x"
    )
    assert site.kinds() == [ASKED]


def test_a_log_that_is_emptied_is_followed(site: Site) -> None:
    site.write("Requesting peer fencing (reboot) targeting node3 | x")
    assert site.kinds() == [REQUESTED]
    site.log.write_text("Node node3 state is now lost\n")
    assert site.kinds() == [LEFT]


def test_half_a_line_waits_for_the_rest(site: Site) -> None:
    with site.log.open("a") as file:
        file.write("Node node3 state is")
        file.flush()
        assert site.kinds() == []
        file.write(" now lost\n")
    assert site.kinds() == [LEFT]


def test_a_program_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "crm_mon"
    program.write_text("#!/bin/sh\necho 'crm_mon: Connection to cluster failed' >&2\nexit 102\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unknown, match="Connection to cluster failed"):
        drill_pacemaker.ask_status()
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unknown, match="crm_mon: No such file"):
        drill_pacemaker.ask_status()
