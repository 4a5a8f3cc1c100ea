# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log: one line an event, never more than was asked for, and nobody waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kdumpfence.daemon.log import Journal, told
from kdumpfence.listener.events import Counter, Event, Kind, Overflow
from tests.conftest import fill


def loss(counter: Counter) -> Overflow:
    return Overflow("overflow", "", 1e9, counter, 7)


def event(kind: Kind = "began", node: str = "n1") -> Event:
    return Event(kind, node, 1e9, 1e9, 1e9 + 182.4, 7, ("192.0.2.1", "2001:db8::1"))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def written(pipe: tuple[int, int]) -> str:
    os.set_blocking(pipe[0], False)
    parts = []
    try:
        while True:
            parts.append(os.read(pipe[0], 65536))
    except BlockingIOError:
        return b"".join(parts).decode()


def test_an_event_is_a_line(pipe: tuple[int, int]) -> None:
    journal = Journal("debug", fd=pipe[1])
    for kind in ("began", "dumping", "silent", "finished", "failed"):
        journal.event(event(kind))
    journal.event(event("silent"), recorded=False)
    journal.flush()
    lines = written(pipe).splitlines()
    assert "began to dump" in lines[0]
    assert "has been dumping for 182 s" in lines[1]
    assert "fell silent: dumped for 182 s" in lines[2]
    assert lines[2].endswith("7 messages from 192.0.2.1, 2001:db8::1")
    assert lines[3] == lines[2].replace("fell silent", "finished its dump")
    assert lines[4] == lines[2].replace("fell silent", "failed to dump")
    assert lines[5] == lines[2] + " (not in the history yet)"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unread", "the kernel dropped 7 datagrams"),
        ("crowded", "the senders of 7 messages"),
        ("untaken", "7 events came faster than they could be recorded"),
    ],
)
def test_losses_say_which(name: Counter, said: str) -> None:
    assert said in told(loss(name))


def test_what_would_break_a_line_is_escaped(pipe: tuple[int, int]) -> None:
    journal = Journal(fd=pipe[1])
    journal.event(event(node="a\nnode 'b' began\x1b[31m\u2028\u202e\udc80"))
    journal.flush()
    text = written(pipe)
    assert text.count("\n") == 1
    assert r"a\nnode 'b' began\x1b[31m\u2028\u202e\udc80" in text
    assert text.rstrip("\n").isprintable()


def test_a_time_that_no_calendar_has_is_told_as_its_number() -> None:
    assert "first message 1000000000000000 from" in told(event()._replace(since=1e15))


def test_a_long_line_is_cut_between_characters(pipe: tuple[int, int]) -> None:
    journal = Journal(fd=pipe[1])
    for more in range(4):
        journal.say("error", "x" * more + "käse" * 2000)
    journal.flush()
    for line in written(pipe).splitlines():
        assert len(line.encode()) < 2100
        assert line.endswith("...")


def test_only_so_many_lines_in_a_second_and_a_sum_of_the_rest(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("kdumpfence.daemon.log.time.monotonic", lambda: now)
    journal = Journal(lines=10, fd=pipe[1])
    for number in range(500):
        journal.event(event(node=f"n{number}"))
        journal.event(event("silent", f"n{number}"))
    journal.flush()
    assert len(written(pipe).splitlines()) == 10
    assert journal.left_out == 990
    journal.say("error", "this is not bounded")
    journal.flush()
    assert written(pipe) == "this is not bounded\n"
    now += 1
    journal.event(event())
    journal.flush()
    assert written(pipe).splitlines()[0] == (
        "too many lines, not shown: 495 dumps that began, 495 dumps that ended in silence"
    )
    now += 1
    journal.flush()
    assert written(pipe) == ""
    for number in range(12):
        journal.event(event(node=f"n{number}"))
    journal.flush()
    assert len(written(pipe).splitlines()) == 10
    journal.flush(last=True)  # the second is not over
    assert written(pipe).endswith(": 2 dumps that began\n")


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_a_level_leaves_out_what_is_below(pipe: tuple[int, int], level: str, shown: int) -> None:
    journal = Journal(level, fd=pipe[1])
    journal.event(event("dumping"))
    journal.event(event("silent"))
    journal.event(loss("unread"))
    journal.say("error", "bad")
    journal.flush()
    assert len(written(pipe).splitlines()) == shown
    assert journal.left_out == 0


@pytest.mark.parametrize("full", [True, False], ids=["nobody reads", "closed"])
def test_lines_that_cannot_be_written_are_counted(full: bool) -> None:
    read, write = os.pipe()
    if full:
        fill(write)
    else:
        os.close(read)
        os.close(write)
    journal = Journal(fd=write)
    for _ in range(100):
        journal.event(event())
    journal.flush()
    assert journal.left_out == 100
    if full:
        os.close(read)
        os.close(write)


def test_under_systemd_each_line_has_its_priority(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
    journal = Journal("debug", fd=pipe[1])
    for level in ("debug", "info", "warning", "error"):
        journal.say(level, "a")
    journal.flush()
    assert written(pipe) == "<7>a\n<6>a\n<4>a\n<3>a\n"
    monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino + 1}")
    journal = Journal(fd=pipe[1])
    journal.say("error", "a")
    journal.flush()
    assert written(pipe) == "a\n"
