# SPDX-License-Identifier: LGPL-2.1-or-later
"""A boot without a panic: the same kernel, image and arguments, but no memory to be saved.

The guest's network is one inside of QEMU, from which nothing gets out. QEMU writes down what the
guest sends, and answers for the survivor's Ethernet address.
"""

from __future__ import annotations

import dataclasses
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import guest
from tests.support.messages import udp_in_frame

OTHER_PORT = 7411  # dump.sh sends to it


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    console: str
    ports: Sequence[int]  # of all UDP datagrams that the guest sent, in their order


def run(
    initramfs: Path, arguments: str, survivor: str, folder: Path, seconds: float = 120
) -> Outcome:
    """Boot until the guest ends. Raises NotAvailable, and AssertionError if it does not end."""
    network = survivor.rpartition(".")[0] + ".0/24"
    heard = folder / "frames"
    command = guest.command(
        *(guest.kernel(), initramfs, arguments),
        *("-netdev", f"user,id=net0,restrict=on,net={network},host={survivor}"),
        *("-device", "virtio-net-pci,netdev=net0,romfile="),
        *("-object", f"filter-dump,id=dump,netdev=net0,queue=rx,file={heard}"),
    )
    try:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", *command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"still running after {seconds} s:\n{late.output}") from None
    sent = [udp_in_frame(frame) for frame in _frames(heard.read_bytes())]
    ports = [datagram[2] for datagram in sent if datagram is not None]
    return Outcome(done.stdout.decode(errors="replace"), ports)


def _frames(recorded: bytes) -> Iterator[bytes]:
    """Take the frames out of a file in tcpdump's format (pcap-savefile(5)), of this machine."""
    at = 24
    while at < len(recorded):
        (length,) = struct.unpack_from("=I", recorded, at + 8)
        yield recorded[at + 16 : at + 16 + length]
        at += 16 + length
