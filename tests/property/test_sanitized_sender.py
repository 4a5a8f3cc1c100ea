# SPDX-License-Identifier: LGPL-2.1-or-later
"""What strangers, files and command lines hand to the native sender, under AddressSanitizer and
UBSan: no byte is touched that is not its own, whatever comes.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence.wire import Packet, decode_packet, packet_fits
from tests.conftest import cannot_run, udp
from tests.property.test_forms import key_texts, lines
from tests.support.answerer import NODE, packet
from tests.support.forgeries import ID, KEY, forgeries
from tests.support.programs import ROOT, unwarned

pytestmark = pytest.mark.slow

#: Nothing else in the program ends with it.
FOUND = 99


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    if not shutil.which(os.environ.get("CC") or "cc"):
        cannot_run("no C compiler")
    folder = tmp_path_factory.mktemp("sanitized")
    checks = "-fsanitize=address,undefined"
    # Its list of globals would keep what the linker is to throw away.
    flags = f"-O1 {checks} -fno-sanitize-recover=all --param asan-globals=0"
    script = ROOT / "src" / "native" / "build_sender.py"
    subprocess.run(
        [sys.executable, str(script), str(folder), "--static", "no"],
        env={**os.environ, "CC": "gcc", "CFLAGS": flags, "LDFLAGS": checks},
        check=True,
        capture_output=True,
    )
    return str(folder / "fence_kdump_send")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.touch(0o600)
    return path


ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": f"exitcode={FOUND}:detect_leaks=0",
    "UBSAN_OPTIONS": f"exitcode={FOUND}",
}


def run(*argv: str | bytes) -> None:
    done = subprocess.run(argv, capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr.decode(errors="replace")
    assert b"runtime error" not in done.stderr


@given(lines)
def test_any_command_line(program: str, line: list[str]) -> None:
    run(program, "--check", *line)


@given(key_texts.map(lambda text: text.encode("latin-1")) | st.binary(max_size=200))
def test_any_key_file(program: str, key_file: Path, text: bytes) -> None:
    key_file.write_bytes(text)
    run(program, "--check", "-v", "--key-file", str(key_file), "127.0.0.1")


def questions() -> Iterator[bytes]:
    """What is nearly right; and what is right, but not signed with the node's key."""
    dice = random.Random(7410)
    made = forgeries(dice, lambda _: packet("question", dice.randbytes(16)), {})
    yield from (data for _, data in itertools.islice(made, 12_000))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_any_question(program: str, key_file: Path, host: str) -> None:
    key_file.write_text(f"node {NODE}\nsigns {ID:08x} {KEY.hex()}\n")
    with udp(host) as sock:
        sock.settimeout(20)
        port = str(sock.getsockname()[1])
        argv = [program, "-vv", "-i", "60", "-p", port, "--key-file", str(key_file), host]
        running = subprocess.Popen(
            argv, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _, lane = sock.recvfrom(1000)
        for number, data in enumerate(questions()):
            sock.sendto(data, lane)
            if number % 50 == 0:
                time.sleep(0.01)  # so that most of them are read
        sock.settimeout(0.2)
        for number in itertools.count():
            assert number < 100
            nonce = number.to_bytes(16, "little")
            sock.sendto(packet("question", nonce), lane)
            if any(answer.nonce == nonce for answer in answers(sock)):
                break
        running.terminate()
        _, errors = running.communicate(timeout=20)
        assert (running.returncode, unwarned(errors)) == (143, "")


def answers(sock: socket.socket) -> list[Packet]:
    """All that has come; each is signed."""
    found = []
    try:
        while True:
            data = sock.recv(1000)
            answer = decode_packet(data)
            assert answer is not None
            assert packet_fits(data, KEY)
            found.append(answer)
    except (socket.timeout, TimeoutError):
        return found
