# SPDX-License-Identifier: LGPL-2.1-or-later
"""The history's file: whatever happens to it, what was recorded is there, and nobody else's is."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.daemon import history_file
from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.daemon.history_file import APPLICATION, SCHEMA, HistoryFile
from tests.cli.commands import run_program
from tests.daemon.test_history import DAY, START, Clock, a_whole_dump, event, names_of, over, tamper


def shell(path: str, command: str) -> None:
    """What somebody does with the files, whose names begin with "file"."""
    subprocess.run(["sh", "-ec", command], cwd=os.path.dirname(path), check=True)


def nodes_in(path: str) -> list[str]:
    """The nodes of all dumps, as another process finds them."""
    program = (
        "import sys; from kdumpfence.daemon.history import History\n"
        "with History(sys.argv[1], writable=False) as h:\n"
        "    print(*(dump.node for dump in h.past(most=10**6)))\n"
    )
    done = run_program(program, path)
    assert done.stderr == ""
    return sorted(done.stdout.split())


# --- files that are not as they should be ---------------------------------------------------


def filled(path: str) -> None:
    with History(path) as opened:
        opened.record([one for n in range(3000) for one in a_whole_dump(f"node{n}", START + n, 5)])


def text(path: str) -> None:
    Path(path).write_text("this is no database\n" * 300)


def cut_short(path: str) -> None:
    filled(path)
    os.truncate(path, os.path.getsize(path) // 2)


def overwritten(path: str, at: int, size: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * size)


def with_a_broken_page(path: str) -> None:
    filled(path)
    overwritten(path, 4096 * 10, 4096)


def with_a_broken_table(path: str) -> None:
    filled(path)
    overwritten(path, 100, 200)


@pytest.mark.parametrize("damage", [text, cut_short, with_a_broken_page, with_a_broken_table])
def test_a_damaged_file_is_told_of_and_left_as_it_is(
    path: str, damage: Callable[[str], None]
) -> None:
    damage(path)
    before = Path(path).read_bytes()
    with pytest.raises(HistoryError, match=r"damaged .*; left untouched: stop") as caught:
        History(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "what",
    ["messages = 'many'", "since = 'noon'", "last = 9e999", "ended = x'00'", "node = x'ff'",
     "addresses = x'ff'"],
)  # fmt: skip
def test_a_row_that_is_no_dump_is_told_of(path: str, what: str) -> None:
    with History(path) as opened:
        opened.record([event("began", "node1", START)])
    tamper(path, f"UPDATE dump SET {what}")
    with History(path, writable=False) as opened:
        with pytest.raises(HistoryError, match=r"damaged \(a row of it is no dump\)"):
            opened.past()
        if "ended" not in what:
            with pytest.raises(HistoryError, match="damaged"):
                opened.under_way()


def test_a_file_that_is_damaged_while_it_is_in_use_is_told_of(path: str) -> None:
    filled(path)
    with History(path, writable=False) as opened:
        with_a_broken_page(path)
        with pytest.raises(HistoryError, match="damaged"):
            opened.past(most=100_000)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE dump (a)", "a database of another program"),
        (f"PRAGMA user_version = {SCHEMA + 1}", rf"a newer kdumpfence \(form {SCHEMA + 1}"),
    ],
)
def test_a_file_that_is_not_of_this_program_is_left_alone(
    path: str, statement: str, said: str
) -> None:
    if "CREATE" not in statement:
        History(path).close()
    tamper(path, statement)
    before = Path(path).read_bytes()
    for writable in (True, False):
        with pytest.raises(HistoryError, match=said):
            History(path, writable)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("begun", ["nothing", "empty", "without a table"])
def test_a_file_that_was_only_just_begun_is_taken(path: str, begun: str) -> None:
    if begun == "empty":
        Path(path).touch()
    elif begun == "without a table":  # killed between two steps
        tamper(path, "PRAGMA journal_mode = WAL")
    with History(path) as opened:
        opened.record([event("began")])
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION,)


def test_a_reader_that_comes_while_the_daemon_makes_the_file_sees_it_before_or_after(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(path, "PRAGMA journal_mode = WAL")
    connect = HistoryFile._connect
    made: list[str] = []

    def while_it_is_made(file: HistoryFile) -> sqlite3.Connection:
        db = connect(file)

        def make(statement: str) -> None:
            if statement == "PRAGMA user_version" and not made:
                made.append(statement)
                monkeypatch.setattr(HistoryFile, "_connect", connect)
                History(path).close()

        db.set_trace_callback(make)
        return db

    monkeypatch.setattr(HistoryFile, "_connect", while_it_is_made)
    with pytest.raises(HistoryError, match=f"no history at {path}: the file is empty"):
        History(path, writable=False)
    assert made
    with History(path, writable=False) as opened:
        assert opened.past() == []


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, reason in (
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "missing" / "history", "no such directory"),
        (Path("/dev/null"), "not a regular file"),
        (Path("/dev/null/history"), "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(HistoryError, match=reason) as caught:
            History(str(place))
        assert str(place) in str(caught.value)


def test_a_name_with_characters_of_a_uri_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=memory#b%20c d"
    History(str(odd)).close()
    assert [one.name for one in tmp_path.iterdir()] == [odd.name]


def test_there_is_nothing_to_be_read_before_something_was_written(path: str) -> None:
    with pytest.raises(HistoryError, match=f"no history at {path}: kdumpfenced has not written"):
        History(path, writable=False)
    assert not os.path.exists(path)
    Path(path).touch()
    with pytest.raises(HistoryError, match=f"no history at {path}: the file is empty"):
        History(path, writable=False)


def test_a_file_that_was_moved_keeps_what_it_has_and_another_is_begun(path: str) -> None:
    with History(path) as opened:
        opened.record([event("began"), event("began", "node2")])
        shell(path, "for tail in '' -wal -shm; do mv file$tail kept$tail; done")
        opened.record([event("dumping", took=10, messages=2)])
        opened.record([event("silent", took=20, messages=3)])
        assert [(one.node, one.took) for one in opened.past()] == [("node1", 20)]
    with History(os.path.join(os.path.dirname(path), "kept")) as kept:
        assert len(kept.past()) == 2


def test_a_closed_history_says_so(path: str) -> None:
    opened = History(path)
    opened.close()
    opened.close()
    with pytest.raises(HistoryError, match="closed"):
        opened.record([event("began")])


def test_nothing_is_left_open(path: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    text(path)
    for _ in range(20):
        with pytest.raises(HistoryError):
            History(path)
    os.unlink(path)
    for _ in range(20):
        filled_once = History(path)
        filled_once.record([event("began")])
        filled_once.close()
    assert descriptors() == before


# --- files that are taken away --------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "rm file-wal",
        "rm file-shm",
        "rm file-wal file-shm",
        "rm file",
        "rm file file-wal",
        "rm file file-wal file-shm",
        "mv file-wal old",  # which is then no log of anything
        "mv backup file",  # of before the last dump
        "touch new; mv new file",
    ],
)
@pytest.mark.parametrize("then", ["record", "look", "close"])
@pytest.mark.slow
def test_what_was_recorded_is_there_whatever_is_taken_away(
    path: str, command: str, then: str
) -> None:
    opened = History(path)
    opened.record(a_whole_dump("before", START, 5))
    tamper(path, f"VACUUM INTO '{os.path.dirname(path)}/backup'")
    opened.record([*a_whole_dump("over", START + 1, 5), event("began", "node1", START + 2)])
    shell(path, command)
    expected = ["before", "node1", "over"]
    if then == "record":
        opened.record([event("dumping", "node1", START + 2, 7.0, 2), event("began", "new")])
        expected.append("new")
    elif then == "look":
        opened.look()
    else:
        opened.close()
    assert nodes_in(path) == sorted(expected)
    opened.close()
    assert nodes_in(path) == sorted(expected)
    assert not [one.name for one in Path(path).parent.iterdir() if "rescued" in one.name]
    assert os.stat(path).st_mode & 0o777 == 0o600


KILLED = """
import os, signal, sys
from kdumpfence.daemon.history import History
from kdumpfence.listener.dumps import Event
path, tails = sys.argv[1], sys.argv[2].split(",")
opened = History(path)
write = opened._write
def taken_away(*events):
    write(*events)
    for tail in tails:
        os.unlink(path + tail)
opened._write = taken_away
opened.record([Event("silent", "node1", 1e9, 1e9, 1e9, 1, ("192.0.2.1",))])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("tails", ["-wal", ",-wal", ",-wal,-shm"])
@pytest.mark.slow
def test_what_was_taken_away_while_it_was_written_survives_a_kill(path: str, tails: str) -> None:
    done = run_program(KILLED, path, tails)
    assert (done.returncode, done.stderr) == (-9, "")
    assert nodes_in(path) == ["node1"]


def test_what_cannot_be_put_back_yet_is_kept_until_it_can(path: str) -> None:
    opened = History(path)
    opened.record(a_whole_dump("node1", START, 5))
    shell(path, "rm file file-wal file-shm; mkdir file")
    for _ in range(3):
        with pytest.raises(HistoryError, match=r"not a regular file|closed"):
            opened.record([event("began", "node2")])
    opened.close()
    with pytest.raises(HistoryError, match="not a regular file"):
        History(path)
    os.rmdir(path)
    with History(path) as opened:
        assert [dump.node for dump in opened.past()] == ["node1"]


def test_a_copy_that_was_put_in_its_place_gets_what_it_lacks(path: str) -> None:
    opened = History(path)
    opened.record([event("began", "node1"), *a_whole_dump("node2", START + 1, 5)])
    shell(path, "cp file kept; cp file-wal kept-wal")
    opened.record([event("silent", "node1", took=60, messages=7)])
    shell(path, "mv kept file; mv kept-wal file-wal; rm file-shm")
    opened.record(a_whole_dump("node3", START + 2, 5))
    found = {dump.node: dump for dump in opened.past()}
    opened.close()
    assert sorted(found) == ["node1", "node2", "node3"]
    assert (found["node1"].messages, found["node1"].took) == (7, 60)


def test_a_reader_that_keeps_the_log_open_delays_that_it_is_put_back(path: str) -> None:
    opened = History(path)
    opened.record(a_whole_dump("node1", START, 5))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM dump").fetchone() == (1,)
        opened.record(a_whole_dump("node2", START + 1, 5))
        os.unlink(path + "-wal")
        with pytest.raises(HistoryError, match="its log was taken away"):
            opened.record([event("began", "node3")])
        assert not opened.in_place
        reader.execute("ROLLBACK")
    opened.record([event("began", "node3")])
    assert nodes_in(path) == ["node1", "node2", "node3"]
    opened.close()


# --- the disk -------------------------------------------------------------------------------


FAILING_DISK = """
import sys, resource
from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.listener.dumps import Event
history = History(sys.argv[1])
events = [Event('began', f'n{n}', 1.0, 1.0 + n, 1.0, 1, ()) for n in range(1000)]
old = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, old[1]))
try:
    history.record(events)
except HistoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, old)
history.record(events)
print(len(history.past()))
"""


def test_a_disk_that_fails_is_told_of(path: str) -> None:
    done = run_program(FAILING_DISK, path)
    assert done.stderr == ""
    complaint, number = done.stdout.splitlines()
    assert complaint.startswith(f"{path}: ")
    assert number == "1000"


def test_the_log_does_not_grow_while_a_reader_has_the_file_open(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "LOG_PAGES", 200)
    with History(path) as opened:
        opened.record([event("began", f"node{n}") for n in range(2000)])
        with History(path, writable=False) as reader:
            for step in range(30):
                assert len(reader.past(most=10)) == 10
                opened.record([event("dumping", f"node{n}", took=step) for n in range(2000)])
            assert os.path.getsize(path + "-wal") < 2 << 20


# --- two daemons ----------------------------------------------------------------------------

SECOND = """
import sys
from kdumpfence.daemon.history import History, HistoryInUse
try:
    History(sys.argv[1])
except HistoryInUse as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "directory"])
@pytest.mark.slow
def test_a_second_daemon_is_refused_by_whatever_name_it_comes(tmp_path: Path, how: str) -> None:
    (tmp_path / "state").mkdir()
    path, other = tmp_path / "state" / "history", tmp_path / "other"
    with History(str(path)) as opened:
        opened.record(a_whole_dump("node1", START, 5))
        if how == "same":
            other = path
        elif how == "symlink":
            other.symlink_to(path)
        elif how == "hard link":
            os.link(path, other)
        else:
            other.symlink_to(tmp_path / "state")
            other /= "history"
        for _ in range(2):  # what the first try leaves behind changes nothing
            done = run_program(SECOND, str(other))
            assert done.stdout.startswith(f"{other}: in use by another kdumpfenced: ")
        opened.record(a_whole_dump("node2", START + 1, 5))
        assert nodes_in(str(path)) == ["node1", "node2"]


# --- who may --------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_nobody_else_may_open_the_file_or_its_log(path: str, mask: int) -> None:
    before = os.umask(mask)
    try:
        with History(path) as opened:
            opened.record(a_whole_dump("node1", START, 5))
            for tail in ("", "-wal", "-shm"):
                assert os.stat(path + tail).st_mode & 0o777 == 0o600
            assert opened.amended == []
    finally:
        os.umask(before)


def test_what_let_others_in_does_not_any_more_and_is_told_of(path: str) -> None:
    with History(path) as first:
        first.record(a_whole_dump("node1", START, 5))
        shell(path, "for tail in '' -wal -shm; do cp file$tail copy$tail; done; chmod 644 copy*")
    copy = os.path.join(os.path.dirname(path), "copy")
    files = [copy + tail for tail in ("", "-wal", "-shm")]
    with History(copy) as opened:
        assert opened.amended == [f"{one}: mode 0644 was too open; set to 0600" for one in files]
        assert {os.stat(one).st_mode & 0o777 for one in files} == {0o600}
    with History(copy, mode=0o640) as opened:
        assert opened.amended == []
        assert os.stat(copy).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("tail", ["", "-wal", "-shm", "-rescued"])
def test_a_file_that_somebody_else_put_there_is_not_believed(
    path: str, tail: str, root: None
) -> None:
    History(path).close()
    Path(path + tail).touch()
    os.chown(path + tail, 65534, 65534)
    with pytest.raises(HistoryError, match=f"{path}{tail}: owned by user 65534"):
        History(path)
    if tail:
        os.unlink(path + tail)
        History(path).close()


@pytest.mark.parametrize("whose", ["everybody's", "somebody's"])
def test_a_directory_to_which_others_can_write_is_told_of(
    tmp_path: Path, root: None, whose: str
) -> None:
    if whose == "everybody's":
        tmp_path.chmod(0o1777)
    else:
        os.chown(tmp_path, 65534, 65534)
    with History(str(tmp_path / "history")) as opened:
        assert len(opened.amended) == 1
        assert "others can write to its directory" in opened.amended[0]


# --- readers without rights -----------------------------------------------------------------

READER = (
    "import os, sys\n"
    "from kdumpfence.daemon.history import History, HistoryError\n"
    "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    "try:\n    print(len(History(sys.argv[1], writable=False).past()))\n"
    "except HistoryError as error:\n    print(error)\n"
)


def read_as_nobody(path: Path) -> str:
    done = run_program(READER, str(path))
    assert done.stderr == ""
    return done.stdout.strip()


def test_who_may_read_the_file_can_whether_the_daemon_runs_or_not(public: Path, root: None) -> None:
    path = public / "history"
    opened = History(str(path), mode=0o644)
    for number in (1, 2):
        opened.record([event("began", f"node{number}")])
        assert read_as_nobody(path) == str(number)
    opened.close()
    assert read_as_nobody(path) == "2"
    assert sorted(one.name for one in public.iterdir()) == ["history"]
    path.chmod(0o600)
    assert read_as_nobody(path) == f"{path}: permission denied"


# --- files of before ------------------------------------------------------------------------

FORM_1 = """
CREATE TABLE dump (id INTEGER PRIMARY KEY, node TEXT NOT NULL, since REAL NOT NULL,
    last REAL NOT NULL, ended REAL, messages INTEGER NOT NULL, addresses TEXT NOT NULL);
INSERT INTO dump VALUES (1, 'node1', 1000.0, 1060.5, 1090.5, 7, '192.0.2.1 2001:db8::1');
INSERT INTO dump VALUES (2, '192.0.2.9', 2000.0, 2010.0, NULL, 2, '192.0.2.9');
PRAGMA user_version = 1;
PRAGMA application_id = 1801744486;
PRAGMA journal_mode = WAL;
"""


def of_form_1(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(FORM_1)


def test_a_file_of_the_form_before_is_read_as_it_is(path: str) -> None:
    of_form_1(path)
    before = Path(path).read_bytes()
    with History(path, writable=False) as opened:
        over, under_way = sorted(opened.past(), key=lambda dump: dump.since)
        assert (over.node, over.messages, over.took) == ("node1", 7, 0.0)
        assert [dump.node for dump in opened.under_way()] == [under_way.node]
    assert Path(path).read_bytes() == before


def test_a_file_of_the_form_before_is_taken_over_and_nothing_of_it_is_old(path: str) -> None:
    of_form_1(path)
    clock = Clock()
    with History(path, clock=clock) as opened:
        opened.mark({"node1"})
        clock.now += 399 * DAY
        assert opened.trim(400 * DAY, 1000) == 0
        opened.record([event("silent", "192.0.2.9", 2000.0, 30.0, 5)], 2, {"node1"})
        assert [dump.took for dump in opened.past()] == [30.0, 0.0]
        opened.record(over(["node1"], 9000.0), 2, {"node1"})
        assert names_of(opened) == {"node1"}
        clock.now += 2 * DAY
        assert opened.trim(400 * DAY, 1000) == 1 + 1  # and the one that was pushed out
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA,)


FORM_2 = """
ALTER TABLE dump ADD COLUMN took REAL;
ALTER TABLE dump ADD COLUMN age REAL NOT NULL DEFAULT 0;
ALTER TABLE dump ADD COLUMN named INTEGER NOT NULL DEFAULT 1;
CREATE INDEX passing ON dump (id) WHERE named = 0 AND ended IS NOT NULL;
CREATE TABLE file (age REAL NOT NULL);
INSERT INTO file VALUES (1000);
UPDATE dump SET took = 60.5 WHERE id = 1;
PRAGMA user_version = 2;
"""


def of_form_2(path: str) -> None:
    of_form_1(path)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(FORM_2)


def test_dumps_of_the_form_without_ends_ended_in_silence_or_go_on(path: str) -> None:
    of_form_2(path)
    with History(path, writable=False) as opened:
        assert {dump.node: dump.end for dump in opened.past()} == {
            "node1": "silent",
            "192.0.2.9": "",
        }
    with History(path) as opened:
        assert [(dump.node, dump.took, dump.end) for dump in opened.past()] == [
            ("192.0.2.9", 0.0, ""), ("node1", 60.5, "silent")
        ]  # fmt: skip
        end = event("silent", "192.0.2.9", 2000.0, 30.0, 5)
        opened.record([end._replace(kind="failed", sessions=(7,))])
        assert [(dump.end, dump.sessions) for dump in opened.past("192.0.2.9")] == [
            ("failed", (7,))
        ]


def test_what_an_older_daemon_rescued_is_put_back(path: str) -> None:
    of_form_2(path)
    os.rename(path, path + "-rescued")
    for tail in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + tail, path + "-rescued" + tail)
    with History(path) as opened:
        assert [dump.node for dump in opened.past()] == ["192.0.2.9", "node1"]
        assert [dump.end for dump in opened.past()] == ["", "silent"]
    assert not os.path.exists(path + "-rescued")
