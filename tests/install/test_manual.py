# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/kdumpfence.8 says what the command does, all of it, and in sound roff."""

from __future__ import annotations

import re

import pytest

from kdumpfence.cli import main as cli
from kdumpfence.install import layouts
from tests.docs import manpage, said

PAGE = "kdumpfence"
LINES = "WHAT THE LINES MEAN"
SPEAKING = (
    *(
        "install/installer.py",
        "install/sender_arguments.py",
        "install/dpkg.py",
        "install/native_sender.py",
        "cli/main.py",
    ),
    *("install/agent_files.py", "install/system_python.py"),
)
OPTIONS = ("OPTIONS", "STORM")
SHOWING = ("cli/window.py", "daemon/status_socket.py", "daemon/history.py")
MODULES = (
    *SPEAKING,
    *SHOWING,
    "install/root_directory.py",
    "install/layouts.py",
    "storm/player.py",
)
_SAYING = {"add", "append", "say", "InstallError", "DpkgError", "NotBuilt", "NoPython"}
_SHOWING = {"WindowError", "ControlError", "NoDaemon", "HistoryError"}
#: What control.py says to the daemon, whose page explains it.
OF_THE_DAEMON = {
    "control socket ",
    ": something else is there; it is left alone",
    ": another kdumpfenced answers there",
}


def test_every_option_is_explained_and_no_other() -> None:
    headings = [
        entry.heading for section in OPTIONS for entry in manpage.read(PAGE)[section].entries
    ]
    documented = {option for one in headings for option in re.findall(r"^--[a-z-]+", one)}
    usage = " ".join(
        [cli._parser().format_help(), *(
            command.format_help()
            for action in cli._parser()._actions
            if isinstance(action.choices, dict)
            for command in action.choices.values()
        )]
    )  # fmt: skip
    assert documented == set(re.findall(r"--[a-z-]+", usage))


def test_every_distribution_is_explained_and_where_the_sender_goes() -> None:
    entries = {entry.heading: entry.text for entry in manpage.read(PAGE)["DISTRIBUTIONS"].entries}
    assert set(entries) == set(layouts.LAYOUTS)
    whole = "".join(section.text for section in manpage.read(PAGE).values())
    for layout in layouts.LAYOUTS.values():
        for item in layout.items:
            if item.source == layouts.SENDER:
                assert item.path in whole


def is_said(piece: str, real: set[str]) -> bool:
    """Whether the source has this text, in one piece or put together from two."""
    words = piece.split(" ")
    cuts = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(len(words))]
    return any(
        all(any(part.strip(" '():;,") in text for text in real) for part in cut) for cut in cuts
    )


def test_every_line_that_is_explained_can_be_said() -> None:
    real = said.everything(*MODULES)
    real.add((said.SOURCE / "install/distributions/common/resolve-nodes").read_text())
    for entry in manpage.read(PAGE)[LINES].entries:
        assert any(len(piece) > 3 for piece in entry.bold), f"nothing fixed in {entry.heading!r}"
        for piece in entry.bold:
            assert is_said(piece, real), f"nobody says {piece!r}: {entry.heading}"


@pytest.mark.parametrize("module", SPEAKING)
def test_every_line_that_can_be_said_is_explained(module: str) -> None:
    told = " ".join(manpage.read(PAGE)[LINES].text.split())
    spoken = said.lines(module, _SAYING)
    assert spoken, f"{module} says nothing: does the test still look in the right places?"
    # What is wrong with the command line speaks for itself.
    speaks = {piece for piece in spoken if "--help" in piece or piece.startswith("--root")}
    missing = {piece for piece in spoken - speaks if not _is_told(piece, told)}
    assert missing == set()


def test_why_a_storm_is_refused_is_explained() -> None:
    told = " ".join(manpage.read(PAGE)[LINES].text.split())
    spoken = said.lines("storm/player.py", {"StormError"})
    assert len(spoken) > 5
    assert {piece for piece in spoken if not _is_told(piece, told)} == set()


@pytest.mark.parametrize("module", SHOWING)
def test_every_line_of_the_commands_that_show_is_explained(module: str) -> None:
    told = " ".join(manpage.read(PAGE)[LINES].text.split())
    spoken = said.lines(module, _SHOWING)
    assert spoken, f"{module} says nothing: does the test still look in the right places?"
    assert {piece for piece in spoken if not _is_told(piece, told)} - OF_THE_DAEMON == set()


def _is_told(piece: str, told: str) -> bool:
    """Whether it is in the page, up to where it gives its advice."""
    piece = piece.split(": ", maxsplit=1)[0] if len(piece) > 40 else piece
    return all(part.strip(" '():;,") in told for part in piece.split("; "))


def test_what_is_said_of_the_nodes_is_explained() -> None:
    told = " ".join(manpage.read(PAGE)[LINES].text.split())
    script = (said.SOURCE / "install/distributions/common/resolve-nodes").read_text()
    spoken = re.findall(r'say "([^"]{12,})"', script)
    assert len(spoken) == 4
    for line in spoken:
        assert re.sub(r"\$\w+", "", line).split("'")[-1].strip(": ") in told
