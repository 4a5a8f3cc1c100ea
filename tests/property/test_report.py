# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever is said is one printable line, on the descriptor and in syslog."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdumpfence import log
from kdumpfence.log import Report
from kdumpfence.text import one_line

#: Also what decodes from bytes that are no UTF-8, and what would turn a terminal around.
texts = st.one_of(
    st.text(),
    st.text(st.characters()),  # with surrogates
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text("\n\r\t\0\x1b\x7f\x85\u2028\u202e\ud800\udcff\U000e0001a \\", max_size=20),
)
long_texts = st.builds(lambda text, times: text * times, texts, st.sampled_from([1, 400, 5000]))


@given(texts)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    line.encode("utf-8")
    if text.isprintable():
        assert line == text


@given(texts, texts)
def test_each_character_is_escaped_by_itself(one: str, two: str) -> None:
    assert one_line(one + two) == one_line(one) + one_line(two)


@pytest.fixture(scope="module")
def syslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    path = Path(tmp_path_factory.mktemp("syslog")) / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "_SYSLOG", str(path))
            yield daemon


@given(texts=st.lists(long_texts, max_size=4))
@example(texts=["\N{PILE OF POO}" * 5000])
@example(texts=["\u00e9" * 4000])
def test_every_text_is_written_as_a_line_of_its_own(
    syslog: socket.socket, texts: list[str]
) -> None:
    written: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "write", lambda fd, data: written.append(data))
        for text in texts:
            Report("program").error(text)
    assert len(written) == len(texts)
    for text, data in zip(texts, written):
        line = data.decode("utf-8")
        assert line.startswith("[error]: ")
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert len(data) <= 4096
        if len(text.encode("utf-8", "backslashreplace")) < 400:
            assert line == f"[error]: {one_line(text)}\n"
        record = syslog.recv(1 << 17).decode("utf-8")
        assert record.startswith("<27>")
        assert record.endswith("\n")
        assert record[:-1].isprintable()
    assert not select.select([syslog], [], [], 0)[0]


@given(st.binary(max_size=300), st.integers(0, 600))
def test_a_pipe_that_nobody_reads_loses_the_line_and_no_time(data: bytes, times: int) -> None:
    reader, writer = os.pipe()
    try:
        for _ in range(times):
            log.write(writer, data)
        os.set_blocking(reader, False)
        got = b""
        while len(got) < len(data) * times:
            try:
                got += os.read(reader, 1 << 16)
            except BlockingIOError:
                break
        assert got == data * (len(got) // max(1, len(data)))
    finally:
        os.close(reader)
        os.close(writer)
