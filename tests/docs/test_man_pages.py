# SPDX-License-Identifier: LGPL-2.1-or-later
"""The man pages are sound roff, and their facts are those of the programs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence import _purewire, cmdline, wire
from kdumpfence.agent import options as agent
from kdumpfence.daemon.status import Status, as_object
from kdumpfence.install import layouts
from kdumpfence.sender import options as sender
from tests.conftest import cannot_run
from tests.docs import manpage, said

pages = pytest.mark.parametrize("program", manpage.PAGES)

STOCK = pytest.mark.parametrize(
    ("program", "table", "default"),
    [
        ("fence_kdump", agent.AGENT_OPTIONS, agent.AgentOptions()),
        ("fence_kdump_send", sender.SENDER_OPTIONS, sender.SenderOptions()),
    ],
    ids=["fence_kdump", "fence_kdump_send"],
)


@pytest.mark.parametrize(
    "checker",
    [("mandoc", "-T", "lint", "-W", "style"), ("groff", "-t", "-man", "-ww", "-z")],
    ids=lambda command: command[0],
)
@pages
def test_the_page_is_sound(program: str, checker: tuple[str, ...]) -> None:
    if shutil.which(checker[0]) is None:
        cannot_run(f"{checker[0]} is missing")
    done = subprocess.run(
        [*checker, f"{program}.8"], cwd=manpage.DOCS, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pages
def test_the_page_has_the_usual_sections(program: str) -> None:
    sections = list(manpage.read(program))
    assert sections[:4] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]
    assert sections[-1] == "SEE ALSO"
    assert {"EXIT STATUS", "DIAGNOSTICS", "EXAMPLES", "FILES"} <= set(sections)


def usage(program: str, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name(program)), *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pages
def test_every_option_of_the_help_is_explained_and_no_other(program: str) -> None:
    text = usage(program)
    if program == "kdumpfence":
        commands = re.findall(r"^    ([a-z][a-z-]+)\b", text, re.MULTILINE)
        assert len(commands) > 5
        text += "".join(usage(program, command) for command in commands)
    sections = manpage.read(program)
    entries = sections["OPTIONS"].entries + sections.get("STORM", manpage.Section()).entries
    documented = {name for one in entries for name in re.findall(r"--[a-z-]+", one.heading)}
    assert documented == set(re.findall(r"--[a-z-]+", text))


@STOCK
def test_short_options_and_values_are_the_real_ones(
    program: str, table: tuple[cmdline.Option, ...], default: object
) -> None:
    documented = {}
    for heading, text in manpage.entries(program, "OPTIONS").items():
        match = re.match(r"(?:-(\w), )?--([a-z-]+)(\[=|=)?", heading)
        assert match is not None, heading
        documented[match[2]] = (match[1] or "", match[3])
        value = getattr(default, match[2].replace("-", "_"), None)
        if match[2] not in ("verbose", "version", "help") and value is not None:
            assert re.search(rf"(?<!\w){value}(?!\w)", text), f"{heading}: {value} is missing"
    takes = {cmdline.NO: None, cmdline.REQUIRED: "=", cmdline.OPTIONAL: "[="}
    assert documented == {name: (short, takes[value]) for short, name, value, _ in table}


def test_every_parameter_of_stdin_is_explained_and_no_other() -> None:
    table = manpage.read("fence_kdump")["STDIN PARAMETERS"].text
    documented = set(re.findall(r"^([a-z_]+)\t", table, re.MULTILINE))
    with_values = {name.replace("-", "_") for _, name, takes, _ in agent.AGENT_OPTIONS if takes}
    assert documented == with_values | set(agent.NODE_PARAMETERS)


def test_every_action_is_explained_and_no_other() -> None:
    headings = " ".join(manpage.entries("fence_kdump", "ACTIONS"))
    assert set(re.findall(r"[a-z][a-z-]+", headings)) - {"or"} == set(agent.ACTIONS)


def test_every_reason_for_rejecting_a_datagram_is_explained() -> None:
    (text,) = (
        text
        for heading, text in manpage.entries("fence_kdump", "DIAGNOSTICS").items()
        if heading.startswith("datagrams to the port")
    )
    assert {*wire.REASONS, "unread", "none"} - set(re.findall(r"\w+", text)) == set()


def test_the_numbers_of_the_protocol_are_the_real_ones() -> None:
    text = manpage.whole("fence_kdump")
    assert f"the {wire.MESSAGE_SIZE} bytes" in text
    assert f"0x{wire.MAGIC:08X} and version {wire.VERSION}," in text


SECOND = 10**9


@pytest.mark.parametrize(
    ("real", "told", "sentence"),
    [
        (_purewire.EARLY_MESSAGES, 10, "the first ten are one second apart"),
        (_purewire.EARLY_GAP_NS, SECOND, "the first ten are one second apart"),
        (_purewire.RETRY_NS, SECOND // 10, "every 0.1 seconds, and after a minute"),
        (_purewire.RETRY_PATIENCE_NS, 60 * SECOND, "after a minute without success every second"),
        (_purewire.RETRY_LATER_NS, SECOND, "after a minute without success every second"),
        (_purewire.LATE_NETWORK_NS, 60 * SECOND, "within the first 60 seconds"),
        (_purewire.SETTLING_NS, SECOND // 25, "retried 0.04 seconds later"),
        (_purewire.MOST_ASKED_AGAIN, 256, "256 are asked at a time"),
        (_purewire.MOST_ASKED, 960, "More than 960 neighbours that do not answer"),
    ],
)
def test_the_senders_schedule_is_the_real_one(real: int, told: int, sentence: str) -> None:
    assert real == told
    assert sentence in manpage.whole("fence_kdump_send")


def test_every_distribution_is_explained_and_where_the_sender_goes() -> None:
    assert set(manpage.entries("kdumpfence", "DISTRIBUTIONS")) == set(layouts.LAYOUTS)
    for layout in layouts.LAYOUTS.values():
        for item in layout.items:
            if item.source == layouts.SENDER:
                assert item.path in manpage.whole("kdumpfence")


def test_every_member_of_a_status_is_explained_and_no_other() -> None:
    explained = manpage.entries("kdumpfence", "WHO IS DUMPING")
    names = {name for heading in explained for name in heading.split(", ")}
    assert names == {*as_object(Status("", 0.0, 0.0, 0, (), 0, (), {})), "age"}


@pages
def test_every_message_that_is_explained_exists(program: str) -> None:
    for entry in manpage.read(program)["DIAGNOSTICS"].entries:
        assert any(len(piece) > 5 for piece in entry.bold), f"nothing fixed in {entry.heading!r}"
        for piece in entry.bold:
            assert said.can_be_said(piece), f"nobody says {piece!r}: {entry.heading}"


def test_the_native_sender_has_the_texts_of_the_python_one() -> None:
    # Those of a line or more; that whole lines are the same, tests/property/test_forms.py shows.
    native = {text.strip(" ;:") for text in said.native() if not text.startswith("Usage:")}
    native = {text.removeprefix("not ") for text in native}  # which Python adds to what is allowed
    native = {text for text in native if text.count(" ") >= 3 and not re.search(r"%|\d", text)}
    assert len(native) > 10
    python = re.sub(r"\s+", " ", "\n".join(said.python()))
    assert {text for text in native if text not in python} <= {
        "this build has no name service, and needs addresses",
        "this build cannot sign",
        "one of started, dumping, finished, failed",  # in Python joined from a list
    }
