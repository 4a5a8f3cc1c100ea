# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packets and keys: the test vectors, through both cores and what the native sender is made of."""

from __future__ import annotations

import array
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kdumpfence
from kdumpfence import keys
from tests.conftest import CORES, cannot_run, load_core
from tests.core import vectors
from tests.support import native_packets, packets
from tests.support.packets import Told

VECTORS = json.loads(vectors.FILE.read_text())
VALID = VECTORS["packets"]
FORGED = [(bytes.fromhex(one["bytes"]), bytes.fromhex(one["key"])) for one in VECTORS["do not fit"]]
NO_PACKETS = [bytes.fromhex(one["bytes"]) for one in VECTORS["no packets"]]
SIGNED = [one for one in VALID if one["key"]]


class OfACore:
    """Packets as a core has them, and keys as keys.py derives them with it."""

    def __init__(self, core: ModuleType) -> None:
        self.core = core

    def read(self, data: bytes, key: bytes = b"") -> tuple[Told | None, bytes]:
        packet = self.core.decode_packet(data)
        if packet is None:
            return None, b""
        byteorder = self.core.decode(data).byteorder if packet.kind == "status" else ""
        fields: dict[str, Any] = {name: getattr(packet, name, byteorder) for name in Told._fields}
        again = self.core.encode_packet(
            packet, key if packet.key_id else b"", byteorder or "little"
        )
        return Told(**fields), again

    def fits(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        return [self.core.packet_fits(data, key) for data, key in pairs]

    def node_key(self, cluster_key: bytes, name: str) -> bytes:
        return keys.node_key(cluster_key, name)

    def key_id(self, cluster_key: bytes) -> int:
        return keys.key_id(cluster_key)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], native_packets.Program]:
    """Each form of the native program, built when first asked for."""
    built: dict[str, native_packets.Program] = {}

    def get(form: str) -> native_packets.Program:
        if form not in built:
            built[form] = native_packets.build(tmp_path_factory.mktemp(form), form)
        return built[form]

    return get


@pytest.fixture(
    params=[
        *CORES,
        pytest.param("native", marks=pytest.mark.native),
        pytest.param("static", marks=pytest.mark.native),
    ]
)
def form(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    programs: Callable[[str], native_packets.Program],
) -> Any:
    """Each implementation."""
    if request.param in ("native", "static"):
        return programs(request.param)
    core = load_core(request.param)
    monkeypatch.setattr(keys, "mac", core.mac)
    return OfACore(core)


def test_the_file_has_what_the_rules_make() -> None:
    assert vectors.FILE.read_text() == vectors.written()


def test_the_rules_agree_with_the_standards() -> None:
    """RFC 4231, test cases 1, 2 and 6; RFC 5869, test cases 1 to 3."""
    for key, data, mac in (
        (b"\x0b" * 20, b"Hi There",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First",
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ):  # fmt: skip
        assert packets.hmac_sha256(key, data).hex() == mac
    basic = bytes.fromhex("000102030405060708090a0b0c"), bytes(range(0xF0, 0xFA))
    assert packets.hkdf_sha256(b"\x0b" * 22, *basic, 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    long = bytes(range(0x60, 0xB0)), bytes(range(0xB0, 0x100))
    assert packets.hkdf_sha256(bytes(range(0x50)), *long, 82).hex() == (
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e"
        "590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    )
    assert packets.hkdf_sha256(b"\x0b" * 22, b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@pytest.mark.parametrize("vector", VALID, ids=lambda one: one["what"])
def test_a_packet_says_what_it_says_and_is_written_as_it_was_read(form: Any, vector: Any) -> None:
    data, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
    told, again = form.read(data, key)
    assert told == vectors.from_json(vector["packet"])
    assert again == data
    assert form.fits([(data, key or bytes(32)), (data, bytes(range(32)))]) == [bool(key), False]


def test_what_deviates_is_no_packet(form: Any) -> None:
    believed = [one["why"] for one, data in zip(VECTORS["no packets"], NO_PACKETS)
                if form.read(data)[0] is not None]  # fmt: skip
    assert believed == []
    # Nor with a MAC that is right for its bytes.
    key = bytes(range(32))
    signed = [(packets.sign(data, key), key) for data in NO_PACKETS if len(data) == packets.LENGTH]
    assert not any(form.fits(signed))


def test_what_deviates_is_a_message_all_the_same_if_it_begins_with_one(core: ModuleType) -> None:
    heads = [head for head, (kind, _) in packets.HEADS.items() if kind == "status"]
    begin = [data for data in NO_PACKETS if data[:8] in heads]
    assert len(begin) > 20
    for data in begin:
        assert core.decode(data).trailer == data[8:]


def test_a_mac_that_is_not_right_does_not_fit(form: Any) -> None:
    fitting = [one["why"] for one, fits in zip(VECTORS["do not fit"], form.fits(FORGED)) if fits]
    assert fitting == []


def test_no_bit_of_a_signed_packet_can_be_another(form: Any) -> None:
    for vector in SIGNED:
        data, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
        number = int.from_bytes(data, "big")
        flipped = [
            ((number ^ 1 << bit).to_bytes(len(data), "big"), key) for bit in range(8 * len(data))
        ]
        assert not any(form.fits(flipped)), vector["what"]


def test_no_bit_of_what_makes_a_packet_can_be_another_even_if_it_is_signed(form: Any) -> None:
    for vector in SIGNED:
        data, key = bytes.fromhex(vector["bytes"]), bytes.fromhex(vector["key"])
        bits = range(8 * (packets.LENGTH - 15), 8 * packets.LENGTH)  # head to auth
        number = int.from_bytes(data, "big")
        flipped = [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in bits]
        assert not any(form.fits([(packets.sign(one, key), key) for one in flipped]))


def test_no_bit_of_the_key_can_be_another(form: Any) -> None:
    data, key = bytes.fromhex(SIGNED[0]["bytes"]), int(SIGNED[0]["key"], 16)
    flipped = [(data, (key ^ 1 << bit).to_bytes(32, "big")) for bit in range(256)]
    assert not any(form.fits(flipped))


def test_nothing_shorter_or_longer_than_a_packet_is_one(form: Any) -> None:
    data, key = bytes.fromhex(SIGNED[0]["bytes"]), bytes.fromhex(SIGNED[0]["key"])
    cut = [(data[:end], key) for end in range(len(data))]
    longer = [(data + bytes(more), key) for more in (1, 8, 32, 152, 1000)]
    assert not any(form.fits(cut + longer))
    assert not any(form.read(each)[0] for each, _ in (*cut[::10], *longer))


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda one: one["key_id"])
def test_keys_are_derived_as_the_standard_says(form: Any, vector: Any) -> None:
    cluster_key = bytes.fromhex(vector["cluster_key"])
    assert f"{form.key_id(cluster_key):08x}" == vector["key_id"]
    for name, key in vector["node_keys"].items():
        assert form.node_key(cluster_key, name).hex() == key


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000])
def test_a_mac_is_hmac_sha256_of_data_of_any_length(core: ModuleType, length: int) -> None:
    data = bytes(byte & 255 for byte in range(length))
    for key in (bytes(32), bytes(range(32)), b"\xff" * 32):
        assert core.mac(key, data) == packets.hmac_sha256(key, data)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_has_32_bytes(core: ModuleType, length: int) -> None:
    wrong = f"^key of {length} bytes: not 32$"
    packet = core.Packet("question", "node1", key_id=1)
    with pytest.raises(ValueError, match=wrong):
        core.mac(bytes(length), b"")
    with pytest.raises(ValueError, match=wrong):
        core.packet_fits(b"", bytes(length))
    if length:
        with pytest.raises(ValueError, match=wrong):
            core.encode_packet(packet, bytes(length))


def test_a_key_id_and_a_key_go_together(core: ModuleType) -> None:
    for number, key in ((1, b""), (0, bytes(32))):
        with pytest.raises(ValueError, match="has a key id and is signed with a key, or has nei"):
            core.encode_packet(core.Packet("question", "node1", key_id=number), key)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "answer"}, "kind 'answer': not 'status', 'question' or 'alive'"),
        ({"state": ""}, "state '': not one of a packet of kind 'status'"),
        ({"state": "dead"}, "state 'dead': not one of a packet of kind 'status'"),
        ({"kind": "alive"}, "state 'dumping': not one of a packet of kind 'alive'"),
        ({"name": ""}, "name '': not 1 to 64 ASCII characters without blanks"),
        ({"name": "a b"}, "name 'a b': not 1 to 64 ASCII characters without blanks"),
        ({"name": "n" * 65}, f"name '{'n' * 65}': not 1 to 64 ASCII characters without blanks"),
        ({"name": "n\u00f6de"}, "name 'n\u00f6de': not 1 to 64 ASCII characters without blanks"),
        ({"key_id": 1 << 32}, "key_id 4294967296: not a number of 32 bits"),
        ({"interval": -1}, "interval -1: not a number of 32 bits"),
        ({"session": 1 << 64}, "session 18446744073709551616: not a number of 64 bits"),
        ({"sequence": -1}, "sequence -1: not a number of 64 bits"),
        ({"nonce": bytes(15)}, "nonce of 15 bytes: not 16"),
        ({"kind": "question", "state": "", "interval": 1}, "interval 1: only a status has one"),
        ({"kind": "alive", "state": "", "session": 2}, "session 2: only a status has one"),
        ({"kind": "alive", "state": "", "sequence": 3}, "sequence 3: only a status has one"),
    ],
)
def test_a_packet_that_could_not_be_written_is_refused(
    core: ModuleType, given: dict[str, Any], complaint: str
) -> None:
    values = {"kind": "status", "name": "node1", "state": "dumping", **given}
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        core.Packet(values.pop("kind"), values.pop("name"), **values)


def test_packets_are_values(core: ModuleType) -> None:
    def one(**more: Any) -> Any:
        return core.Packet("status", "node1", **{"state": "dumping", "session": 5, **more})

    assert one() == one()
    assert hash(one()) == hash(one())
    assert one() != one(session=6)
    assert one() != "node1"
    assert repr(one()) == (
        "Packet('status', 'node1', state='dumping', key_id=0, interval=0, session=5, sequence=0, "
        f"nonce={bytes(16)!r})"
    )


def test_any_buffer_is_read_as_its_bytes(core: ModuleType) -> None:
    data, key = bytes.fromhex(SIGNED[0]["bytes"]), bytes.fromhex(SIGNED[0]["key"])
    for kind in (bytearray, memoryview, lambda one: memoryview(b"x" + one + b"y")[1:-1],
                 lambda one: array.array("H", one)):  # fmt: skip
        assert core.decode_packet(kind(data)) == core.decode_packet(data)
        assert core.packet_fits(kind(data), key)
        assert core.mac(key, kind(data)) == core.mac(key, data)


@pytest.mark.parametrize("what", [None, 152, "text"])
def test_what_is_no_buffer_is_a_type_error(core: ModuleType, what: object) -> None:
    for read in (
        core.decode_packet,
        lambda data: core.packet_fits(data, bytes(32)),
        lambda data: core.mac(bytes(32), data),
    ):
        with pytest.raises(TypeError):
            read(what)


def test_the_compiled_core_signs_without_modules_of_pythons() -> None:
    load_core("compiled")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from kdumpfence import wire\n"
        "before = set(sys.modules)\n"
        "packet = wire.Packet('question', 'node1', key_id=1)\n"
        "assert wire.packet_fits(wire.encode_packet(packet, bytes(32)), bytes(32))\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    path = str(Path(kdumpfence.__file__).parents[1])
    command = [sys.executable, "-I", "-S", "-c", code, path]
    environment = {**os.environ, "KDUMPFENCE_PURE": "0"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    if done.stdout != "\n":
        cannot_run(f"this core was built without BearSSL: it imports {done.stdout}")
