# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packets as the native sender has them: a program that is made of the same parts."""

from __future__ import annotations

import importlib
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import cannot_run
from tests.support.packets import Told

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_suffix(".pyx")

KINDS = ("status", "question", "alive")
STATES = ("", "started", "dumping", "finished", "failed")
#: Bytes of an answer, by the letter of its request.
ANSWERS = {"p": 260, "f": 1, "k": 32, "i": 4}

Request = tuple[str, bytes, bytes]  # letter, key, data


class Program:
    """Such a program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """The answers to all of them."""
        text = b"".join(
            letter.encode() + key.ljust(32, b"\0") + len(data).to_bytes(2, "big") + data
            for letter, key, data in requests
        )
        done = subprocess.run([self.path], input=text, stdout=subprocess.PIPE, check=True)
        answers, at = [], 0
        for letter, _, _ in requests:
            answers.append(done.stdout[at : at + ANSWERS[letter]])
            at += ANSWERS[letter]
        assert at == len(done.stdout)
        return answers

    def read(self, data: bytes, key: bytes = b"") -> tuple[Told | None, bytes]:
        """What these bytes say, and what is written of that again, signed with the key."""
        (out,) = self.ask([("p", key, data)])
        if not out[0]:
            return None, b""
        kind = KINDS[out[1]]
        key_id, interval, session, sequence = struct.unpack(">IIQQ", out[3:27])
        told = Told(
            kind=kind,
            byteorder={0x40: "little", 0x1B: "big"}.get(data[0], ""),
            state=STATES[out[2]],
            key_id=key_id,
            interval=interval,
            session=session,
            sequence=sequence,
            nonce=out[27:43],
            name=out[44 : 44 + out[43]].decode("ascii"),
        )
        return told, out[108:]

    def fits(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Of each pair of bytes and a key, whether they are a packet that is signed with it."""
        return [answer == b"\1" for answer in self.ask([("f", key, data) for data, key in pairs])]

    def node_key(self, cluster_key: bytes, name: str) -> bytes:
        return self.ask([("k", cluster_key, name.encode())])[0]

    def key_id(self, cluster_key: bytes) -> int:
        return int.from_bytes(self.ask([("i", cluster_key, b"")])[0], "big")


def build(folder: Path, form: str) -> Program:
    """Build it; `form`: "native", or "static" as the native sender's variant."""
    sys.path.insert(0, str(ROOT / "src/native"))
    try:
        builder: Any = importlib.import_module("build_sender")
    finally:
        sys.path.pop(0)
    try:
        signs = builder.signing()
        source = builder.translate(folder, SOURCE)
        if form == "static":
            builder.build_static(source, folder / form, signs)
        else:
            builder.build_dynamic(source, folder / form, signs)
    except builder.BuildError as error:
        cannot_run(str(error))
    if not signs.library:
        cannot_run(signs.said)
    return Program(folder / form)
