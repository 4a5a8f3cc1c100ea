# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dissector for Wireshark sees in the test vectors what the cores see in them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.core import vectors
from tests.support import packets
from tests.support.programs import NOBODY, as_user

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "packaging/wireshark/kdumpfence.lua"
VECTORS = json.loads(vectors.FILE.read_text())
FIELDS = ("kind", "byteorder", "state", "key_id", "interval", "session", "sequence", "nonce",
          "name", "mac")  # fmt: skip
NUMBERS = ("key_id", "interval", "session", "sequence")
RAW_IP = 101  # of a capture file: packets begin with their IP header

LITTLE, BIG = (head for head, (kind, _) in packets.HEADS.items() if kind == "status")


def frame(data: bytes, source: int = 5000, target: int = 7410) -> bytes:
    udp = struct.pack(">HHHH", source, target, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return head + bytes([192, 0, 2, 1, 192, 0, 2, 2]) + udp


def capture(frames: Iterable[bytes]) -> bytes:
    """What tcpdump would write (pcap-savefile(5))."""
    written = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, RAW_IP)
    for seconds, one in enumerate(frames):
        written += struct.pack("<IIII", seconds, 0, len(one), len(one)) + one
    return written


def dissect(tmp_path: Path, frames: Iterable[bytes], *options: str) -> list[dict[str, str]]:
    """What tshark shows of each, by the name of the field; "" for the whole, "!" for complaints."""
    if not shutil.which("tshark"):
        cannot_run("tshark is missing")
    file = tmp_path / "capture.pcap"
    file.write_bytes(capture(frames))
    names = ("", *FIELDS)
    wanted = [f"kdumpfence.{name}".rstrip(".") for name in names] + ["_ws.expert.message"]
    # Newer ones load no scripts for root.
    user = as_user(NOBODY, tmp_path, SCRIPT.parent) if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*user, "tshark", "-n", "-X", f"lua_script:{SCRIPT}", "-r", file, "-T", "fields", *options,
         *(word for name in wanted for word in ("-e", name))],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "Lua" not in done.stderr + done.stdout, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [dict(zip((*names, "!"), row)) for row in rows]


def test_a_packet_is_shown_field_by_field(tmp_path: Path) -> None:
    valid = VECTORS["packets"]
    shown = dissect(tmp_path, [frame(bytes.fromhex(one["bytes"])) for one in valid])
    assert len(shown) == len(valid)
    for vector, row in zip(valid, shown):
        told = vectors.from_json(vector["packet"])
        assert row["kind"] == told.kind
        assert row["byteorder"] == (told.byteorder and f"{told.byteorder}-endian")
        assert packets.STATES[int(row["state"])] == told.state
        for name in NUMBERS:
            assert int(row[name], 0) == getattr(told, name), name
        assert row["nonce"] == told.nonce.hex()
        assert row["name"] == told.name
        assert row["mac"] == vector["bytes"][-64:]
        assert row["!"] == ""
        signed = f"key {vector['packet']['key_id']}" if vector["key"] else "not signed"
        assert row[""].startswith(f"kdumpfence, {told.kind}: {told.name}")
        assert row[""].endswith(signed)
        assert told.state in row[""]
        assert ("answer" in row[""]) == (told.kind == "status" and told.nonce != bytes(16))


def test_what_is_no_packet_is_shown_with_the_reason(tmp_path: Path) -> None:
    deviating = [one for one in VECTORS["no packets"] if one["bytes"]]
    shown = dissect(tmp_path, [frame(bytes.fromhex(one["bytes"])) for one in deviating])
    assert len(shown) == len(deviating)
    for vector, row in zip(deviating, shown):
        data = bytes.fromhex(vector["bytes"])
        if data in (LITTLE, BIG):
            assert (row["kind"], row["!"]) == ("message", "")
        elif data[:8] in (LITTLE, BIG):
            assert row["kind"] == "message", vector["why"]
            assert row["!"].startswith("A message, and nothing more: "), vector["why"]
        else:
            assert row["kind"] == "", vector["why"]
            assert row["!"].startswith(("Not a message: ", "Not a packet: ")), vector["why"]


def test_messages_and_rubbish_are_told_apart(tmp_path: Path) -> None:
    expected = {
        LITTLE: ("message: little-endian", ""),
        BIG: ("message: big-endian", ""),
        BIG + b"trailer": (
            "message: big-endian, and a trailer: 15 bytes, not 152",
            "A message, and nothing more: 15 bytes, not 152",
        ),
        **{
            data: (f"not a {what}", f"Not a {what}")
            for data, what in (
                (BIG[:7], "message: shorter than 8 bytes"),
                (b"x", "message: shorter than 8 bytes"),
                (BIG[:7] + b"\2", "message: version 2"),
                (b"something", "message: the magic is another"),
                (b"KDFQUEST", "packet: 8 bytes, not 152"),
            )
        },
    }
    shown = dissect(tmp_path, map(frame, expected))
    said = [(f"kdumpfence, {about}", complaint) for about, complaint in expected.values()]
    assert [(row[""], row["!"]) for row in shown] == said


def test_on_another_port_what_begins_like_one_is_found(tmp_path: Path) -> None:
    question, alive = (packets.build(vectors.other(kind)) for kind in ("question", "alive"))
    sent = (LITTLE, BIG + b"x", packets.build(vectors.status()), question, alive)
    frames = [frame(data, 40000, 40001) for data in (*sent, b"something", question[:100], b"")]
    kinds = [row["kind"] for row in dissect(tmp_path, frames)]
    assert kinds == ["message", "message", "status", "question", "alive", "", "", ""]


def test_the_port_is_a_setting(tmp_path: Path) -> None:
    frames = [frame(b"something", target=port) for port in (7410, 7411)]
    shown = dissect(tmp_path, frames, "-o", "kdumpfence.port:7411")
    assert ["not a message" in row[""] for row in shown] == [False, True]
