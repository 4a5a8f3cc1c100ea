# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs say, and that saying it never holds them up."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from kdumpfence import log as report_module
from kdumpfence.log import Report, write


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A syslog daemon of our own."""
    path = tmp_path / "log"
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    daemon.bind(str(path))
    daemon.settimeout(1)
    monkeypatch.setattr(report_module, "_SYSLOG", str(path))
    return daemon


def test_progress_and_errors_go_where_the_stock_agent_writes_them(
    syslog: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    report = Report("fence_kdump")
    report.debug("waiting")
    report.error("broken")
    out, err = capfd.readouterr()
    assert (out, err) == ("[debug]: waiting\n", "[error]: broken\n")
    stamp = r"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d"
    pid = os.getpid()
    assert re.fullmatch(rf"<30>{stamp} fence_kdump\[{pid}\]: waiting\n", syslog.recv(999).decode())
    assert re.fullmatch(rf"<27>{stamp} fence_kdump\[{pid}\]: broken\n", syslog.recv(999).decode())
    syslog.close()


def test_details_are_told_from_their_level_on(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report("x", verbose=1)
    report.debug("one", level=1)
    report.debug("two", level=2)
    assert capfd.readouterr().out == "[debug]: one\n"


def test_closed_and_broken_descriptors_do_no_harm() -> None:
    read, pipe = os.pipe()
    os.close(read)
    write(pipe, b"nobody reads\n")
    os.close(pipe)
    write(pipe, b"closed\n")
    write(-1, b"never open\n")


def test_a_syslog_daemon_that_hangs_costs_the_line_not_the_time(
    syslog: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    report = Report("x")
    for number in range(1000):  # more than a socket's queue takes
        report.debug(str(number))
    assert capfd.readouterr().out.count("\n") == 1000
    syslog.close()


def test_without_a_syslog_daemon_nothing_is_missing_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_module, "_SYSLOG", "/nonexistent/log")
    Report("x").error("said")
    assert capfd.readouterr().err == "[error]: said\n"
