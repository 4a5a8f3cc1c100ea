# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any command line: the native sender says the same as the Python one, letter for letter.

What would make them send or wait is kept out: every command line has --check or ends by
itself, and its nodes are addresses of this machine, or nothing that can be a name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdumpfence.addresses import LookUpError, literal, why_refused
from kdumpfence.install import native_sender
from kdumpfence.sender.options import sender_from_argv
from kdumpfence.text import shown
from tests.conftest import CORES, cannot_run
from tests.support.refused import REFUSED

SENDER = str(Path(sys.executable).with_name("fence_kdump_send"))


@pytest.fixture(scope="module")
def program() -> str:
    try:
        return native_sender.find()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
        raise


def run(argv: list[str], core: str = "compiled") -> tuple[int, str, list[str]]:
    environment = {**os.environ, "KDUMPFENCE_PURE": "1" if core == "pure" else "0"}
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    # Look-ups of names answer in any order.
    said = done.stderr.splitlines()
    complaints = [line for line in said if line.startswith("[warning]: ")]
    return done.returncode, done.stdout, complaints + sorted(set(said) - set(complaints))


numbers = st.integers(-1, 2**33).map(str) | st.sampled_from(
    ["0", "1", "007", " 5 ", "60s", "60 s", "s", "1.5", "1e3", "", "65535", "65536", "0x10",
     "2min", "1500ms", "0.5h", '10"', "'10", "7410,", "0;", "=", "= 5", "5 -v", "3-a.b", "1.2.3.4"]
)  # fmt: skip
words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
others = [
    "auto",
    "IPv4",
    "ipv6",
    "ip",
    "vv",
    "yes",
    "OFF",
    "9" * 30,
    "started",
    "Failed",
    "finished;",
    "dump",
    "'failed'",
    " node1 ",
    "n\u00f6de",
    "x" * 64,
    "x" * 65,
    "`a",
    "a b",
]
values = numbers | words | st.sampled_from(others)
nodes = st.sampled_from(
    ["127.0.0.1", "127.1", "::1", "::ffff:127.0.0.1", "127.0.0.2", "0.0.0.0", "224.0.0.1", "::",
     "ff02::1", "fe80::1", "a b", "", "-", "x" * 1025, "tab\there", "/'/", "n\u00f6de", "::1%lo"]
)  # fmt: skip
apart = st.sampled_from(
    ["-p", "-f", "-c", "-i", "--ipport", "--fam", "--count", "--int", "--state", "--k", "--node",
     "-node", "-key-file", "--St"]
)  # fmt: skip
joined = st.sampled_from(
    ["-p", "-f", "-c", "-i", "-v", "--ip=", "--f=", "--verb=", "--c=", "--state=", "--key-file=",
     "--n=", "-state="]
)  # fmt: skip
alone = st.sampled_from(
    ["-v", "-vv", "--verbose", "-V", "-h", "--version", "--help", "--ver", "--v", "--check",
     "--che=1", "--bogus", "-x", "--", "--=", "-pv", "-vp7410", "--port", "--PORT=1", "-count",
     "-interval=5", "-x5", "-xi5", '"-p', "-host", "-i 5 -c 0", "--int 5 --check", "-vi5", '"', "5",
     "--key", "--node", "--state"]
)  # fmt: skip
options = st.one_of(
    st.tuples(apart, values).map(list),
    st.tuples(joined, values).map(lambda pair: ["".join(pair)]),
    alone.map(lambda word: [word]),
    nodes.map(lambda node: [node]),
)
lines = st.lists(options, max_size=5).map(lambda parts: [word for part in parts for word in part])


@settings(max_examples=150)
@given(lines)
@example([])
@example(["--help", "--bogus"])
@example(["--version", "-h"])
@example(["-h", "-V"])
@example(["-p"])
@example(["--verbose=loud", "127.0.0.1"])
@example(["--verbose=" + "9" * 30, "127.0.0.1"])
@example(["--verbose=9x", "127.0.0.1"])
@example(["-p", "it's", "127.0.0.1"])
@example(["-f", "ipv6", "127.0.0.1", "::1"])
@example(["127.0.0.1", "--", "--check"])
@example(["-i", "10 ", "127.0.0.1"])
@example(["{127.0.0.1;127.0.0.2}", '"::1","::"', "&", "5;6", ";" * 50])
@example(['"-p', "7410", "-i", '10"', "127.0.0.1"])
@example(["-p 7410 -c 0 -i 10", "127.0.0.1", "--count"])
@example(["-v", "--state", "FAILED;", "--node", '"n1"', "--key-file", "'/nonexistent", "127.0.0.1"])
@example(["-v", "--node", "a b", "--node=", "--state", "127.0.0.1", "--key-file", "-v"])
@example(["-v", "--node", "-1", "--key-file", "", "--state", "=", "started", "127.0.0.1"])
@example(["-v", "--node='a", "--node", "\u00fc", "--node", " ", "127.0.0.1", '--node="b c"'])
@example(["--key-file", "/dev/null", "--state=x", "127.0.0.1"])
@example(["--key-file", "/", "--key-file", "/nonexistent/'\n" + "x" * 99, "127.0.0.1"])
@pytest.mark.slow
def test_the_same_words_make_the_same_lines(program: str, line: list[str]) -> None:
    # At the end something without a value, of which all is said that was taken before.
    line = ["--check", *line, "-p", "?", "-f", "?", "-c", "?", "-i", "?", "--verbose=?",
            "--state=?", "--key-file=", "--node="]  # fmt: skip
    python = run([SENDER, *line])
    compiled = run([program, *line])
    if python[1].startswith("fence_kdump_send "):  # the version
        assert compiled[1].split()[:2] == python[1].split()[:2]
    else:
        assert compiled[1] == python[1]
    assert (compiled[0], compiled[2]) == (python[0], python[2])


ID, KEY = "c814c4b2", "0123456789abcdef" * 4
blanks = st.sampled_from([" ", "  ", "\t", "\x0b", "\x1c", " \x1f\r", "\x85", "\xa0"])
key_words = st.sampled_from(
    ["signs", "accepts", "node", "Signs", "#", "#signs", ID, ID.upper(), "00000000", "0x12ab34",
     "+1234567", "1_2345_6", ID[1:], KEY, KEY.upper(), KEY[2:], KEY[:-1] + "g", "n1", "x" * 64,
     "x" * 65, "a\x7f", "\0", "n\0", "\xfc"]
)  # fmt: skip
key_lines = st.one_of(
    st.sampled_from(
        [f"signs {ID} {KEY}", f"accepts {ID} {KEY}", f"signs 00000001 {KEY}", "node n1", "node n2",
         f"accepts c814c4b3 {KEY.upper()}", "", "# all", "#\0"]
    ),
    st.lists(st.tuples(blanks, key_words).map("".join), max_size=5).map("".join),
)  # fmt: skip
key_texts = st.lists(key_lines, max_size=5).map("\n".join)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "key"


@settings(max_examples=100)
@given(key_texts, st.booleans())
@example(f"signs {ID} {KEY}", False)
@example(f"signs {ID} {KEY}\naccepts {ID} {KEY}\n", True)
@example(f"node n1\nsigns {ID} {KEY}", False)
@example(f"node n1\nsigns {ID} {KEY}", True)
@example(f"accepts 00000001 {KEY}\nsigns 00000002 {KEY}", False)
@example(f"signs 00000001 {KEY}\naccepts 00000002 {KEY}", False)
@example(f"signs 12345678 {KEY}\nnode n1\nnode", False)
@example(f"#{'#' * (65534 - 79)}\nnode n\nsigns {ID} {KEY}", False)
@example("#" * 65536, False)
@example("#" * 65537, False)
@example("#" * 65540 + "\xfc", False)
@pytest.mark.slow
def test_all_forms_make_the_same_of_a_key_file(
    program: str, key_file: Path, text: str, named: bool
) -> None:
    key_file.write_bytes(text.encode("latin-1"))
    key_file.chmod(0o600)
    line = ["--check", "-v", "--key-file", str(key_file), "127.0.0.1"]
    line += ["--node", "n2"] if named else []
    assert run([SENDER, *line]) == run([program, *line])


def test_all_forms_refuse_the_same_key_files(program: str, tmp_path: Path) -> None:
    good, closed, others, foreign = (tmp_path / name for name in ("good", "0000", "4640", "other"))
    for path in (good, closed, others, foreign):
        path.write_text(f"node n1\nsigns {ID} {KEY}\n")
        path.chmod(0o600)
    closed.chmod(0o000)
    others.chmod(0o4640)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "loop").symlink_to("loop")
    names = ["good", "0000", "4640", "fifo", "loop", "good/x", "none", "."]
    if os.geteuid() == 0:
        os.chown(foreign, 4711, 0)
        names.append("other")
    for name in names:
        line = ["--check", "-v", "--key-file", str(tmp_path / name), "127.0.0.1"]
        python, compiled = run([SENDER, *line]), run([program, *line])
        assert python == compiled
        refused = "key file " in "".join(compiled[2])
        assert refused == (name not in ("good", "0000" if os.geteuid() == 0 else "good"))
        assert compiled[0] == int(refused)


@given(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw))
@settings(max_examples=100)
def test_no_bytes_break_it(program: str, raw: bytes) -> None:
    done = subprocess.run(
        [os.fsencode(program), b"--check", b"-f", raw, raw, b"127.0.0.1"],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1)
    for byte in done.stderr.replace(b"\n", b""):
        assert 32 <= byte < 127


def is_looked_up(operand: str) -> bool:
    """Whether a name service would be asked for it."""
    for part in sender_from_argv(["--", "127.0.0.1", operand]).nodes:
        try:
            if literal(part, 0) is None and "%" not in part:
                return True
        except LookUpError:
            continue
    return False


def letter_of(text: str) -> bool:
    return 0 < ord(text) < 0xD800


operands = st.one_of(
    st.sampled_from([text for text in REFUSED if "\0" not in text and "\ud800" not in text]),
    st.text("0123456789abcfxX:.%[]\\-_,@/ ;&|\"'\t", max_size=30),
    st.text(st.characters().filter(letter_of), max_size=10),
    st.from_regex(r"(0[xX])?[0-9a-f]{1,4}([.:](0x)?[0-9a-f]{1,4}){0,7}\.?", fullmatch=True),
    st.sampled_from(
        ["127.0.0.1,::1", "[::1]", r"\:\:1", r"[\:\:1]", "[::1],127.0.0.9", " ::1 ", ",", "",
         "240.0.0.1", "255.255.255.255", "::ffff:127.0.0.3", "fe80::1%lo", "fe80::2%1",
         "fe80::3%nosuch0", "fe80::4%0", "fe80::5%0000000000007", "fe80::6%99999999999",
         "fe80::7%" + "l" * 16, "2001:db8::1%lo", "ff02::1%lo", "0:0:0:0:0:0:0:0", "x" * 300 + ".1"]
    ),
).filter(lambda text: not is_looked_up(text))  # fmt: skip


@settings(max_examples=100)
@given(st.lists(operands, min_size=1, max_size=12), st.sampled_from(["auto", "ipv4", "ipv6"]))
@example(REFUSED[:1], "ipv6")
@pytest.mark.slow
def test_all_forms_judge_names_and_addresses_alike(
    program: str, given_operands: list[str], family: str
) -> None:
    line = ["--check", "-v", "-f", family, "--", "127.0.0.1", "::1", *given_operands]
    said = [run([SENDER, *line], core) for core in CORES] + [run([program, *line])]
    assert said[0] == said[1] == said[2]


def test_another_libc_refuses_the_same(program: str) -> None:
    try:
        static = native_sender.find(static=True)
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
    words = [text for text in REFUSED if "\0" not in text and "\ud800" not in text]
    # Not those in which the sender still finds a node.
    words = [
        text for text in words
        if all(map(why_refused, sender_from_argv(["--", "127.0.0.1", text]).nodes[1:]))
    ]  # fmt: skip
    line = ["--check", "--", "127.0.0.1", *words]
    status, said, wrong = run([static, *line])
    assert status == 1
    assert said.startswith("node '127.0.0.1' (127.0.0.1): is this machine\n")
    for word in (part for text in words for part in text.split()):
        assert any(shown(word) in one for one in wrong)
    assert (status, said, wrong) == run([program, *line])


def test_a_long_list_is_read_to_its_end(program: str) -> None:
    numbers = [f"127.1.{number >> 8}.{number & 255}" for number in range(1, 3000)]
    line = ["--check", ",".join(numbers), ",".join(reversed(numbers)), "127.2.0.1"]
    status, said, wrong = run([program, *line])
    assert (status, wrong) == (0, [])
    assert said.splitlines() == [
        f"node '{number}' ({number}): is this machine" for number in [*numbers, "127.2.0.1"]
    ]
    assert run([SENDER, *line]) == (status, said, wrong)
