# SPDX-License-Identifier: LGPL-2.1-or-later
"""Command lines are split as GNU getopt_long splits them: util-linux' getopt(1) is the judge."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdumpfence.agent.options import AGENT_OPTIONS, NEWER
from kdumpfence.cmdline import NO, REQUIRED, Option, UsageError, getopt_long
from kdumpfence.sender.options import SENDER_OPTIONS
from tests.conftest import cannot_run

Split = tuple[list[tuple[str, str]], list[str]]

TABLES: dict[str, tuple[Option, ...]] = {
    # Its newer options take no abbreviation away: tests/agent/test_options.py.
    "agent": tuple(one for one in AGENT_OPTIONS if one[1] not in NEWER),
    "sender": SENDER_OPTIONS,
    # What the programs' own tables do not have: names that are each other's beginning.
    "nested": (
        ("a", "all", REQUIRED, ""),
        ("b", "all-of-it", NO, ""),
        ("c", "all-or-none", 2, ""),
        ("", "long-only", 2, ""),
    ),
}


@pytest.fixture(scope="session")
def getopt() -> str:
    program = shutil.which("getopt")
    if program is None or subprocess.run([program, "-T"], check=False).returncode != 4:
        cannot_run("no getopt(1) of util-linux")
    return str(program)


def gnu(program: str, argv: Sequence[str], table: Sequence[Option]) -> Split | None:
    """What GNU getopt_long makes of `argv`; None if it complains."""
    shorts = "".join(short + ":" * takes for short, _, takes, _ in table if short)
    longs = ",".join(name + ":" * takes for _, name, takes, _ in table)
    ran = subprocess.run(
        [program, "-o", shorts, "-l", longs, "-n", "x", "--", *argv],
        capture_output=True,
        check=False,
        env={"LC_ALL": "C"},
        timeout=20,
    )
    assert (ran.returncode == 0) == (ran.stderr == b"")
    if ran.returncode != 0:
        return None
    words = shlex.split(os.fsdecode(ran.stdout))
    names = {f"-{short}": name for short, name, _, _ in table if short}
    names.update({f"--{name}": name for _, name, _, _ in table})
    takes = {name: takes for _, name, takes, _ in table}
    found = []
    while words[0] != "--":
        name = names[words.pop(0)]
        # It writes an empty word for an optional value that is not there.
        found.append((name, words.pop(0) if takes[name] else ""))
    return found, words[1:]


def ours(argv: Sequence[str], table: Sequence[Option]) -> Split | None:
    try:
        found, operands = getopt_long(argv, table)
    except UsageError:
        return None
    return [(name, value or "") for name, value in found], operands


def words_for(table: Sequence[Option]) -> st.SearchStrategy[list[str]]:
    """Command lines in which something looks like options of this table."""
    letters = "".join(short for short, _, _, _ in table) + "-=xW:;?"
    names = st.sampled_from([name for _, name, _, _ in table])
    values = st.sampled_from(["", "3", "v", "vv", "--", "-", "-n", "a b", "it's", "a=b", "\n", "é"])
    abbreviated = st.builds(lambda name, end: name[:end], names, st.integers(0, 14))
    long = st.builds("--{}{}".format, abbreviated, st.just("") | values.map("={}".format))
    short = st.text(letters, max_size=4).map("-{}".format)
    # What an argv can hold: anything but NUL, and no character that is half of another.
    anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    raw = st.binary(max_size=6).filter(lambda word: 0 not in word).map(os.fsdecode)
    return st.lists(st.one_of(long, short, values, anything, raw), max_size=6)


@pytest.mark.parametrize("table", TABLES)
@given(data=st.data())
@pytest.mark.slow
def test_command_lines_are_split_as_gnu_does(getopt: str, table: str, data: st.DataObject) -> None:
    argv = data.draw(words_for(TABLES[table]))
    assert ours(argv, TABLES[table]) == gnu(getopt, argv, TABLES[table])


@pytest.mark.parametrize("table", TABLES)
def test_every_abbreviation_means_what_gnu_takes_it_for(getopt: str, table: str) -> None:
    for _, name, _, _ in TABLES[table]:
        for end in range(1, len(name) + 1):
            for word in (f"--{name[:end]}", f"--{name[:end]}=value"):
                for argv in ([word], [word, "next"], ["before", word]):
                    assert ours(argv, TABLES[table]) == gnu(getopt, argv, TABLES[table])


@given(st.lists(st.text(), max_size=5))
@example(["--"])
@example(["--", "--", "-v"])
def test_behind_two_dashes_all_are_operands(words: list[str]) -> None:
    assert getopt_long(["--", *words], AGENT_OPTIONS) == ([], words)


def test_this_judge_can_say_no(getopt: str) -> None:
    def judged(*argv: str) -> Any:
        return gnu(getopt, argv, AGENT_OPTIONS)

    assert judged("--ver") is None
    assert judged("-n") is None
    assert judged("-v3", "node", "--node=x") == ([("verbose", "3"), ("nodename", "x")], ["node"])
