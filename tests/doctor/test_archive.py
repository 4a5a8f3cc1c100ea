# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images are read as the kernel unpacks them; what is no image is said to be none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.doctor import cpio, elf
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.cpio import Broken
from kdumpfence.doctor.finding import Unknown
from kdumpfence.install import native_sender
from tests.conftest import cannot_run
from tests.install import roots


def member(
    name: str, content: bytes = b"", mode: int = 0o100644, links: int = 1, serial: int = 1
) -> bytes:
    raw = name.encode() + b"\0"
    numbers = (serial, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + raw
    return b"".join(part + bytes(-len(part) % 4) for part in (head, content))


_END = member("TRAILER!!!", mode=0)
_MICROCODE = member("kernel/x86/microcode/GenuineIntel.bin", b"x" * 100) + _END + bytes(300)
_FILES = (
    member(".", mode=0o40755)
    + member("etc", mode=0o40755)
    + member("etc/nodes", b"node2\n", 0o100600)
    + member("usr", mode=0o40755)
    + member("usr/bin", mode=0o40755)
    + member("usr/bin/tool", b"#!/bin/sh\n", 0o100755)
    + member("bin", b"usr/bin", 0o120777)
    + member("loop", b"loop", 0o120777)
    + member("out", b"../../../etc/nodes", 0o120777)
    + _END
)


def by(program: str, *options: str) -> Callable[[bytes], bytes]:
    def pack(content: bytes) -> bytes:
        if shutil.which(program) is None:
            cannot_run(f"no {program}")
        return subprocess.run(
            [program, *options, "-c"], input=content, capture_output=True, check=True
        ).stdout

    return pack


_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": gzip.compress,
    "xz": lambda content: lzma.compress(content, check=lzma.CHECK_CRC32),
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": by("zstd"),
    "lz4": by("lz4", "-l"),
}


def read(folder: Path, content: bytes, keep: Callable[[str], bool] = lambda path: True) -> Archive:
    path = folder / "image"
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        return cpio.read(file, keep)


@pytest.mark.parametrize("packed", _PACKED)
@pytest.mark.parametrize("before", [b"", _MICROCODE, _MICROCODE + _MICROCODE])
def test_an_image_has_its_files_whatever_it_is_packed_with(
    tmp_path: Path, packed: str, before: bytes
) -> None:
    image = read(tmp_path, before + _PACKED[packed](_FILES))
    assert image.read("/etc/nodes") == b"node2\n"
    assert image.read("/bin/tool") == b"#!/bin/sh\n"
    assert (image.mode("/bin/tool") or 0) & 0o777 == 0o755
    assert image.read("/out") == b"node2\n"
    assert image.read("/loop") is None
    assert image.read("/etc") is None
    assert image.mode("/etc/nodes/x") is None
    assert ("/kernel/x86/microcode/GenuineIntel.bin" in image.paths()) == bool(before)


def test_of_files_that_are_not_to_be_kept_the_rights_alone_are_known(tmp_path: Path) -> None:
    image = read(tmp_path, _FILES, lambda path: path.startswith("/usr"))
    assert image.read("/etc/nodes") is None
    assert image.mode("/etc/nodes") == 0o100600
    assert image.read("/usr/bin/tool") == b"#!/bin/sh\n"


def test_of_hard_links_the_last_has_the_content_of_all(tmp_path: Path) -> None:
    content = (
        member("a", links=3, serial=7)
        + member("b", links=3, serial=7)
        + member("other", b"else", serial=8)
        + member("c", b"content", links=3, serial=7)
        + _END
    )
    image = read(tmp_path, content, lambda path: path == "/b")
    assert image.read("/b") == b"content"


@pytest.mark.parametrize("packed", [name for name in _PACKED if name != "as it is"])
def test_what_is_cut_short_or_damaged_is_broken(tmp_path: Path, packed: str) -> None:
    content = _PACKED[packed](_FILES)
    for length in range(6, len(content) - 8, 29):
        with pytest.raises(Broken):
            read(tmp_path, content[:length])


def test_a_cpio_archive_that_is_cut_short_is_broken_unless_it_ends_with_a_file(
    tmp_path: Path,
) -> None:
    for length in range(1, len(_FILES) - len(_END) - 20, 5):
        try:
            read(tmp_path, _FILES[:length])
        except Broken:
            continue
        assert _FILES[length:].startswith(b"070701") or not _FILES[length - 1]


@pytest.mark.parametrize(
    "content", [b"", bytes(100), b"not an image\n", gzip.compress(b"hello", mtime=0)]
)
def test_what_is_no_image_is_broken(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Broken):
        read(tmp_path, content)


def test_no_image_takes_more_than_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpio, "_MOST_BYTES", 1 << 20)
    with pytest.raises(Unknown, match="when unpacked"):
        read(tmp_path, gzip.compress(member("a", bytes(2 << 20)) + _END))
    monkeypatch.setattr(cpio, "_MOST_FILES", 10)
    with pytest.raises(Unknown, match="more than 10 files"):
        read(tmp_path, b"".join(member(f"f{number}") for number in range(11)))


def test_whatever_is_in_an_image_is_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(200):
        content = bytearray(chance.choice([_FILES, _MICROCODE + gzip.compress(_FILES)]))
        for _ in range(chance.randrange(1, 4)):
            content[chance.randrange(len(content))] = chance.choice(b"\0\xff0F/.\x80")
        try:
            image = read(tmp_path, bytes(content))
        except (Broken, Unknown):
            continue
        for path in list(image.paths()):
            image.read(path)
            image.mode(path)


def test_whatever_a_program_has_in_it_its_needs_are_read_or_refused() -> None:
    try:
        content = Path(native_sender.find()).read_bytes()
    except native_sender.NotBuilt as error:
        cannot_run(str(error))
    found = elf.needs(content)
    assert found.interpreter.startswith("/")
    assert any(name.startswith("libc.") for name in found.libraries)
    assert elf.needs(Path(native_sender.find(static=True)).read_bytes()) == elf.Needs("", ())
    chance = random.Random(2)
    for _ in range(300):
        damaged = bytearray(content[: chance.choice([100, 1000, len(content)])])
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(min(len(damaged), 1000))] = chance.randrange(256)
        try:
            elf.needs(bytes(damaged))
        except elf.NotElf:
            continue


def test_what_dracut_has_put_into_a_squashfs_is_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = roots.debian_package("squashfs-tools") / "usr/bin"
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    content = tmp_path / "content"
    roots.put(content, "/etc/kdumpfence/resolved", "NODES=node2\n")
    roots.put(content, "/usr/bin/tool", "#!/bin/sh\n", 0o755)
    roots.put(content, "/usr/bin/a[b]", "", 0o644)
    (content / "bin").symlink_to("usr/bin")
    subprocess.run(
        ["mksquashfs", str(content), str(tmp_path / "squash"), "-quiet", "-no-progress"], check=True
    )
    nested = (tmp_path / "squash").read_bytes()
    packed = gzip.compress(member("squashfs-root.img", nested) + member("init", b"#!") + _END)
    image = read(tmp_path, packed, lambda path: path.startswith("/etc"))
    assert image.read("/etc/kdumpfence/resolved") == b"NODES=node2\n"
    assert image.mode("/bin/tool") == 0o100755
    assert image.read("/bin/tool") is None
    assert image.mode("/bin/a[b]") == 0o100644
    assert image.mode("/init") == 0o100644
    with pytest.raises(Unknown, match="unsquashfs finds nothing in it"):
        read(tmp_path, member("squash-root.img", b"hsqs" + bytes(200)) + _END)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unknown, match="it holds a squashfs: unsquashfs: No such file"):
        read(tmp_path, packed)


def test_of_an_erofs_it_is_said_that_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="look with lsinitrd"):
        read(tmp_path, member("erofs-root.img", b"x") + _END)
