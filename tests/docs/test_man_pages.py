# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages say what the programs do, all of it, and in sound roff."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from kdumpfence import _purewire, cmdline, wire
from kdumpfence.agent import options as agent
from kdumpfence.sender import options as sender
from tests.conftest import cannot_run
from tests.docs import manpage, said

OPTIONS = {
    "fence_kdump": agent.AGENT_OPTIONS,
    "fence_kdump_send": sender.SENDER_OPTIONS,
}
DEFAULTS = {
    "fence_kdump": agent.AgentOptions(),
    "fence_kdump_send": sender.SenderOptions(),
}
SOURCES = {
    "fence_kdump": (
        "agent/main.py",
        "cmdline.py",
        "addresses.py",
        "agent/options.py",
        "agent/sockets.py",
        "sockets.py",
        "agent/crashkernel.py",
    ),
    "fence_kdump_send": (
        "sender/main.py",
        "sender/delivery.py",
        "sender/options.py",
        "cmdline.py",
        "addresses.py",
    ),
}
LINES = "WHAT THE LINES MEAN"

pages = pytest.mark.parametrize("program", OPTIONS)


@pytest.mark.parametrize(
    "checker",
    [("mandoc", "-T", "lint", "-W", "style"), ("groff", "-t", "-man", "-ww", "-z")],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("program", sorted(page.stem for page in manpage.DOCS.glob("*.8")))
def test_the_page_is_sound(program: str, checker: tuple[str, ...]) -> None:
    if shutil.which(checker[0]) is None:
        cannot_run(f"{checker[0]} is missing")
    done = subprocess.run(
        [*checker, f"{program}.8"], cwd=manpage.DOCS, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pages
def test_the_page_has_its_sections_in_their_usual_order(program: str) -> None:
    sections = list(manpage.read(program))
    assert sections[:4] == ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"]
    assert sections[-1] == "SEE ALSO"
    assert {"EXIT STATUS", "TIMING", "TRAPS", LINES, "EXAMPLES", "FILES"} <= set(sections)


@pages
def test_every_option_is_explained_and_no_other(program: str) -> None:
    documented = {}
    for entry in manpage.read(program)["OPTIONS"].entries:
        match = re.match(r"(?:-(\w), )?--([a-z]+)(\[=|=)?", entry.heading)
        assert match is not None, entry.heading
        documented[match[2]] = (match[1] or "", match[3])
    value = {cmdline.NO: None, cmdline.REQUIRED: "=", cmdline.OPTIONAL: "[="}
    real = {name: (short, value[takes]) for short, name, takes, _ in OPTIONS[program]}
    assert documented == real


@pages
def test_every_default_is_the_real_one(program: str) -> None:
    for entry in manpage.read(program)["OPTIONS"].entries:
        name = re.findall(r"--([a-z]+)", entry.heading)[0]
        default = getattr(DEFAULTS[program], name, None)
        if name not in ("verbose", "version", "help") and default is not None:
            text = " ".join(entry.text.split())
            assert re.search(rf"(?<!\w){default}(?!\w)", text), f"--{name}: {default} is missing"


def test_every_parameter_of_stdin_is_explained_and_no_other() -> None:
    table = manpage.read("fence_kdump")["STDIN PARAMETERS"].text
    documented = set(re.findall(r"^([a-z]+)\t", table, re.MULTILINE))
    with_values = {name for _, name, takes, _ in agent.AGENT_OPTIONS if takes}
    assert documented == with_values | set(agent.NODE_PARAMETERS)


def test_every_action_is_explained_and_no_other() -> None:
    headings = [entry.heading for entry in manpage.read("fence_kdump")["ACTIONS"].entries]
    documented = set(re.findall(r"[a-z][a-z-]+", " ".join(headings))) - {"or"}
    assert documented == set(agent.ACTIONS)


def test_the_numbers_of_the_protocol_are_the_real_ones() -> None:
    text = manpage.read("fence_kdump")["DESCRIPTION"].text
    assert f"0x{wire.MAGIC:08X}" in text
    assert f"version {wire.VERSION}," in text
    assert f"the {wire.MESSAGE_SIZE} bytes" in text


def test_the_rhythm_of_the_sender_is_the_real_one() -> None:
    text = " ".join(manpage.read("fence_kdump_send")["TIMING"].text.split())
    assert (_purewire.EARLY_MESSAGES, _purewire.EARLY_GAP_NS) == (10, 10**9)
    assert "The first ten are followed by a pause of one second each" in text
    times = (_purewire.RETRY_NS, _purewire.RETRY_PATIENCE_NS, _purewire.RETRY_LATER_NS)
    assert [time / 1e9 for time in times] == [0.1, 60.0, 1.0]
    assert "every 0.1 seconds; after a minute without success every second" in text
    assert f"within the first {_purewire.LATE_NETWORK_NS // 10**9} seconds" in text
    assert f"it is tried {_purewire.SETTLING_NS / 1e9} seconds later" in text
    assert f"{_purewire.MOST_ASKED_AGAIN} are asked for at a time" in text
    limits = manpage.read("fence_kdump_send")["KNOWN LIMITS"].text
    assert f"More than {_purewire.MOST_ASKED} neighbours that do not answer" in limits


def is_said(piece: str, real: set[str]) -> bool:
    """Whether the source has this text, in one piece or put together from two."""
    words = piece.split(" ")
    cuts = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(len(words))]
    return any(
        all(any(part.strip(" '():;,") in text for text in real) for part in cut) for cut in cuts
    )


@pages
def test_every_line_that_is_explained_can_be_said(program: str) -> None:
    real = said.everything(*SOURCES[program])
    if program == "fence_kdump_send":
        real |= said.native()
    for entry in manpage.read(program)[LINES].entries:
        assert any(len(piece) > 5 for piece in entry.bold), f"nothing fixed in {entry.heading!r}"
        for piece in entry.bold:
            assert is_said(piece, real), f"nobody says {piece!r}: {entry.heading}"


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("fence_kdump", "agent/main.py"),
        ("fence_kdump", "agent/sockets.py"),
        ("fence_kdump", "addresses.py"),
        ("fence_kdump", "agent/options.py"),
        ("fence_kdump", "cmdline.py"),
        ("fence_kdump", "agent/crashkernel.py"),
        ("fence_kdump_send", "sender/main.py"),
    ],
)
def test_every_line_that_can_be_said_is_explained(program: str, module: str) -> None:
    # What the sender alone says of its options stands in its own page.
    text = manpage.read(program)[LINES].text + manpage.read("fence_kdump_send")[LINES].text
    told = " ".join(text.split())
    spoken = (
        said.lines(module) if module != "agent/crashkernel.py" else said.lines(module, {"append"})
    )
    assert spoken, f"{module} says nothing: does the test still look in the right places?"
    missing = {piece for piece in spoken if piece.strip(" '():;,") not in told}
    assert missing == set()


def test_every_reason_for_not_believing_a_datagram_is_explained() -> None:
    entries = manpage.read("fence_kdump")[LINES].entries
    text = next(one.text for one in entries if one.heading.startswith("datagrams to the port"))
    assert {*wire.REASONS, "unread", "none"} - set(re.findall(r"\w+", text)) == set()


def test_the_two_senders_have_the_same_texts() -> None:
    # Those of a line or more; that whole lines are the same, tests/property/test_forms.py shows.
    texts = {text for text in said.native() if not text.startswith("Usage:")}
    native = {text.strip(" ;:") for text in texts if text.count(" ") >= 3}
    assert len(native) > 15
    python = "\n".join(said.everything(*SOURCES["fence_kdump_send"], "log.py", "text.py"))
    python = re.sub(r"\s+", " ", python)
    only_native = {text for text in native if text not in python}
    assert {text for text in only_native if "%" not in text and not re.search(r"\d", text)} <= {
        "this build has no name service, and needs addresses",
    }
