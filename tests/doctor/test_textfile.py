# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file for node_exporter: whole or not at all, and where it was meant to be."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from kdumpfence.doctor.textfile import Textfile, TextfileError


def write(path: Path | str, content: bytes = b"new\n") -> None:
    """Write it once."""
    with Textfile(str(path)) as file:
        file.write(content)


def why_not(path: Path | str) -> str:
    """Why it is not written."""
    with pytest.raises(TextfileError) as error:
        write(path)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where it is to be."""
    return tmp_path / "kdumpfence.prom"


def alone(file: Path) -> bool:
    """Whether nothing else is in its directory."""
    return os.listdir(file.parent) == [file.name]


def test_everyone_may_read_it_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o077)
    try:
        for content in (b"one\n", b"two\n"):
            write(file, content)
            assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (content, 0o644)
            assert alone(file)
    finally:
        os.umask(before)


def test_a_relative_path_is_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    write(file.name)
    assert file.read_bytes() == b"new\n"


@pytest.mark.parametrize("name", ["", "kdumpfence", "kdumpfence.prom.txt", ".prom/", "a.prom\n"])
def test_a_name_that_the_collector_ignores_is_refused(name: str) -> None:
    assert why_not(name).endswith(": node_exporter reads only files whose names end in .prom")


def test_without_the_directory_one_line_says_so(tmp_path: Path) -> None:
    assert why_not(tmp_path / "not/there/x.prom") == (
        f"{tmp_path}/not/there: No such file or directory; "
        "name a file in node_exporter's --collector.textfile.directory"
    )
    (tmp_path / "file").touch()
    assert why_not(tmp_path / "file/x.prom") == f"{tmp_path}/file: Not a directory"


def test_where_nobody_may_write_one_line_says_so() -> None:
    assert why_not("/proc/self/x.prom").startswith("/proc/self/x.prom: ")


def test_a_directory_in_its_place_stays(file: Path) -> None:
    file.mkdir()
    assert why_not(file) == f"{file}: Is a directory"
    assert alone(file)


@pytest.mark.parametrize("at", ["fsync", "rename", "fchmod"])
def test_after_a_failure_the_older_one_is_whole_and_nothing_lies_about(
    at: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, b"old\n")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, at, full)
    assert why_not(file) == f"{file}: No space left on device"
    assert file.read_bytes() == b"old\n"
    assert alone(file)


def test_until_it_is_whole_the_collector_sees_no_part_of_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(os.listdir(file.parent))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write(file)
    assert seen
    assert [name for name in seen if name.endswith(".prom")] == []


def test_runs_at_the_same_time_do_not_disturb_each_other(file: Path) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abcd"]
    write(file, contents[0])

    def repeat(content: bytes) -> None:
        for _ in range(25):
            write(file, content)

    threads = [threading.Thread(target=repeat, args=(one,)) for one in contents]
    for one in threads:
        one.start()
    while any(one.is_alive() for one in threads):
        assert file.read_bytes() in contents
    for one in threads:
        one.join()
    assert alone(file)


# ------------------------------------------------------------------ links


def test_a_link_in_its_place_is_replaced_and_what_it_led_to_stays(
    file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    victim = tmp_path_factory.mktemp("elsewhere") / "victim"
    victim.write_bytes(b"precious\n")
    for target in (victim, victim.with_name("not there")):
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        write(file)
        assert (file.is_symlink(), file.read_bytes()) == (False, b"new\n")
        assert victim.read_bytes() == b"precious\n"
        assert alone(victim)


def test_another_name_of_the_file_keeps_its_content(file: Path) -> None:
    write(file, b"old\n")
    os.link(file, file.with_name("other"))
    write(file)
    assert file.with_name("other").read_bytes() == b"old\n"


@pytest.mark.parametrize("absolute", [True, False])
def test_to_the_directory_links_of_ones_own_may_lead(tmp_path: Path, absolute: bool) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" if absolute else "up/../real/.")
    (tmp_path / "up").mkdir()
    write(tmp_path / "link/x.prom")
    assert (tmp_path / "real/x.prom").read_bytes() == b"new\n"


@pytest.mark.parametrize("link", ["textfiles", "textfiles/below"])
def test_to_the_directory_no_link_of_another_user_leads(
    link: str, tmp_path: Path, root: None
) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    planted = tmp_path / link
    planted.parent.mkdir(exist_ok=True)
    planted.symlink_to(victim)
    os.chown(planted, 65534, 65534, follow_symlinks=False)
    folder = tmp_path / "textfiles/below"
    assert why_not(folder / "x.prom") == (
        f"{folder}: {planted.name} is a symbolic link of user 65534"
    )
    assert [name for _, _, names in os.walk(victim) for name in names] == []


def test_links_that_lead_nowhere_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert why_not(tmp_path / "a/x.prom") == f"{tmp_path}/a: Too many levels of symbolic links"


def test_a_directory_that_is_exchanged_meanwhile_is_not_the_one_that_is_written_to(
    tmp_path: Path,
) -> None:
    (tmp_path / "textfiles").mkdir()
    (tmp_path / "victim").mkdir()
    with Textfile(str(tmp_path / "textfiles/x.prom")) as file:
        (tmp_path / "textfiles").rename(tmp_path / "moved")
        (tmp_path / "textfiles").symlink_to("victim")
        file.write(b"new\n")
    assert (tmp_path / "moved/x.prom").read_bytes() == b"new\n"
    assert not list((tmp_path / "victim").iterdir())


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "loop").symlink_to("loop")
    before = opened()
    write(tmp_path / "x.prom")
    for path in ("loop/x.prom", "not/there/x.prom", "x.prom/x.prom"):
        why_not(tmp_path / path)
    assert opened() == before
