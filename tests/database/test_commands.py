# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands say of a database, and of one that cannot be used."""

from __future__ import annotations

import json
import re
import time
import uuid

import pytest

from kdumpfence.cli.main import main
from kdumpfence.database.connection import connect
from kdumpfence.database.schema import READER, WRITER
from tests.cli.commands import complaint, ok
from tests.database.handing import Listener, event
from tests.support.postgres import Cluster, Database, template
from tests.support.programs import ROOT

pytestmark = pytest.mark.slow


def test_a_schema_is_made_checked_and_kept(database: Database) -> None:
    url = f"--database={database.url}"
    for action in ("check", "upgrade", "keep"):
        assert complaint("database", action, url).endswith(
            "it has no schema kdumpfence: run `kdumpfence database init` as its owner"
        )
    assert "made schema kdumpfence, version 1" in ok("database", "init", url)
    assert "is there already" in ok("database", "init", url)
    assert "of version 1 already" in ok("database", "upgrade", url)
    assert "can write and read" in ok("database", "check", url)
    assert "for 400 days" in ok("database", "keep", url)
    assert (
        ok("database", "keep", url, "--days=7.5", "--event-days=3", "--most=1000")
        == "keeps dumps for 7.5 days, at most 1,000, and events for 3 days\n"
    )


def test_writer_and_reader_may_do_their_work_and_nothing_else(memory: Database) -> None:
    writer, reader = memory.user(WRITER), memory.user(READER)
    with Listener(memory.url_of(writer), "one") as listener:
        listener.hand_on(event("began", "node1"))
        for forbidden in (
            "SELECT * FROM kdumpfence.dump",
            "DELETE FROM kdumpfence.dump",
            "SELECT kdumpfence.publish('{}')",
            "SELECT kdumpfence.settle('{}', '{}')",
            "UPDATE kdumpfence.meta SET version = 2",
            "CREATE TABLE kdumpfence.t (a int)",
        ):
            assert listener.refused(forbidden) == "42501"
    shown = ok("status", f"--database={memory.url_of(reader)}")
    assert "node1" in shown
    with connect(memory.url_of(reader)) as connection, pytest.raises(Exception, match="denied"):
        connection.execute("SELECT kdumpfence.trim_history()")
    assert complaint("status", f"--database={memory.url_of(writer)}").endswith(
        "grant this user the role kdumpfence_writer, or kdumpfence_reader to read"
    )
    for action in ("init", "upgrade", "keep", "forget"):
        name = ["--listener=one"] if action == "forget" else []
        assert complaint("database", action, *name, f"--database={memory.url_of(reader)}").endswith(
            "this is for the owner of the schema, who needs CREATE on the database"
        )


def test_status_history_and_events_are_those_of_all_listeners(memory: Database) -> None:
    url = f"--database={memory.url}"
    now = time.time()
    with Listener(memory.url, "one") as one, Listener(memory.url, "two") as two:
        for listener in (one, two):
            listener.hand_on(
                event("began", "node1", now - 100),
                event("dumping", "node1", now - 100, 40),
                event("finished", "node1", now - 100, 50),
                event("began", "node2", now - 10),
            )
        two.hand_on(event("began", "node3", now - 5))
    found = json.loads(ok("status", url, "--json"))
    assert [(one["name"], one["state"]) for one in found["listeners"]] == [
        ("one", "up"), ("two", "up")
    ]  # fmt: skip
    assert [(dump["node"], dump["listeners"]) for dump in found["dumps"]] == [
        ("node3", ["two"]), ("node2", ["one", "two"])
    ]  # fmt: skip
    lines = ok("status", url).splitlines()
    assert "2 listeners up; 2 nodes are dumping" in lines
    assert any("node2" in line and "one two" in line for line in lines)
    past = json.loads(ok("history", url, "--json"))["dumps"]
    assert [(dump["node"], dump["end"]) for dump in past] == [
        ("node3", ""), ("node2", ""), ("node1", "finished")
    ]  # fmt: skip
    (dump,) = json.loads(ok("history", url, "--json", "--node=node1"))["dumps"]
    assert (dump["end"], dump["took"], dump["messages"]) == ("finished", 50.0, 6)
    told = [
        json.loads(line) for line in ok("events", url, "--after=0", "--once", "--json").splitlines()
    ]
    assert [one["number"] for one in told] == [1, 2, 3, 4]
    assert [(one["kind"], one["node"]) for one in told] == [
        ("began", "node1"), ("finished", "node1"), ("began", "node2"), ("began", "node3")
    ]  # fmt: skip
    assert ok("events", url, f"--after={told[-2]['cursor']}", "--once") == (
        f"{told[-1]['cursor']} began node3 (two)\n"
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command fails, in this process."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_what_cannot_be_used_is_said_in_a_line_without_a_password(
    memory: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "not a URL such as postgresql://user@host/database"
    for url, words in {
        memory.url_of("admin", "se%40cret"): "password authentication failed",
        memory.url_of("nobody_there", "se%40cret"): "password authentication failed",
        memory.cluster.url("nothing"): 'database "nothing" does not exist',
        "postgresql://u:secret@127.0.0.1:1/x": "Connection refused",
        "postgresql://u:secret@127.0.0.1:1/x?nothing=1": "not a URL that libpq understands",
        "postgresql://u@127.0.0.1:1/x?sslpassword=secret": "Connection refused",
        "postgresql://u:se%zzcret@127.0.0.1:1/x": "not a URL that libpq understands",
        "postgresql://u:percent@127.0.0.1:1/x%zz": "not a URL that libpq understands",
        # Where libpq would look for a part of the password as if it was a host or a port.
        "postgresql://u:se@cret@127.0.0.1:1/x": rule,
        "postgresql://u:se/cret@127.0.0.1:1/x": rule,
        "postgresql://u:1/cret@127.0.0.1:1/x": rule,
        "postgresql://u:se?cret@127.0.0.1:1/x": rule,
        "postgresql://u:se cret@127.0.0.1:1/x": rule,
        "postgresql://u:secret@[::1/x": rule,
        "mysql://u:secret@h/d": rule,
    }.items():
        line = said(capsys, "database", "check", f"--database={url}")
        assert words in line
        assert "cret" not in line
        assert "not-a-secret" not in line


def test_how_long_ago_has_the_same_limit_as_without_a_database(
    memory: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--database={memory.url}"
    line = said(capsys, "history", "--since=99999999w", where)
    assert line == "kdumpfence: --since '99999999w': too long ago (at most 36500d)\n"
    for since in ("36500d", "0001-01-01", "9999-12-31"):
        assert main(["history", f"--since={since}", where]) == 0
    for days in ("0.000000001", "36500"):
        assert main(["database", "keep", f"--days={days}", f"--event-days={days}", where]) == 0
        memory.sql("SELECT kdumpfence.trim_history()")
    for command in ("history", "database keep"):
        option = "--interval=1e9" if command == "history" else "--days=36501"
        assert main([*command.split(), option, where]) == 1


def test_actions_and_their_options_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    names = "not one of init, upgrade, check, keep, forget; see kdumpfence database --help"
    assert names in said(capsys, "database")
    assert f"'drop': {names}" in said(capsys, "database", "drop")
    assert "--days: not an option of check" in said(capsys, "database", "check", "--days=3")
    assert "give --listener NAME" in said(capsys, "database", "forget")


def test_a_newer_schema_is_left_alone(memory: Database, capsys: pytest.CaptureFixture[str]) -> None:
    memory.sql("UPDATE kdumpfence.meta SET version = 99")
    for action in ("check", "upgrade", "init", "keep"):
        assert "of a newer kdumpfence (version 99, this one knows 1)" in said(
            capsys, "database", action, f"--database={memory.url}"
        )


def test_a_schema_without_data_is_none(
    memory: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    memory.sql("DELETE FROM kdumpfence.meta")
    for action in ("check", "upgrade", "init"):
        line = said(capsys, "database", action, f"--database={memory.url}")
        assert "its schema kdumpfence is empty, as after a restore without data" in line


def test_a_name_has_any_character_whatever_encoding_a_database_or_its_user_has(
    postgres: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "n\u00f6de \u2603"
    for encoding, client in (("SQL_ASCII", ""), ("UTF8", "SQL_ASCII"), ("UTF8", "LATIN1")):
        with postgres.database(encoding) as database:
            monkeypatch.delenv("PGCLIENTENCODING", raising=False)
            if client:
                monkeypatch.setenv("PGCLIENTENCODING", client)
            where = f"--database={database.url}"
            assert main(["database", "init", where]) == 0
            with Listener(database.url, "one") as one:
                one.hand_on(event("began", name))
            capsys.readouterr()
            for command in (["status"], ["history"], ["events", "--after=0", "--once"]):
                assert main([*command, "--json", where]) == 0
                assert json.dumps(name) in capsys.readouterr().out
    with postgres.database("LATIN1") as database:
        line = said(capsys, "database", "init", f"--database={database.url}")
        assert "its encoding is LATIN1" in line
        assert "createdb -E UTF8 -T template0" in line


def test_a_listener_that_is_gone_for_good_can_be_forgotten(memory: Database) -> None:
    with Listener(memory.url, "one") as one:
        one.hand_on(event("began", "node1"))
    url = f"--database={memory.url}"
    assert "no listener 'one' that is gone" in complaint(
        "database", "forget", url, "--listener=one"
    )
    memory.sql("UPDATE kdumpfence.listener SET seen = now() - interval '1 minute'")
    assert "(all gone)" in ok("status", url)
    ok("database", "forget", url, "--listener=one")
    assert memory.sql("SELECT how FROM kdumpfence.dumps") == "silent"


def test_two_daemons_with_one_identity_are_told_apart(memory: Database) -> None:
    identity = str(uuid.uuid4())
    with Listener(memory.url, "one", identity) as one, Listener(memory.url, "one", identity) as two:
        two.hand_on(event("began", "node1"))
        assert one.refused_to_hand_on(event("began", "node2")) == "KD001"
        assert one.refused_to_register() == "KD002"
        two.hand_on(event("began", "node3"))
    assert memory.sql("SELECT node FROM kdumpfence.dump ORDER BY id").split() == ["node1", "node3"]


def test_every_question_of_the_dashboard_is_answered_to_a_reader(memory: Database) -> None:
    with Listener(memory.url, "one") as one:
        one.hand_on(event("began", "node1"), event("began", "node2"))
        one.hand_on(event("finished", "node2", time.time(), 50), event("failed", "node3"))
    board = json.loads(
        (ROOT / "packaging/monitoring/kdumpfence-database.dashboard.json").read_text()
    )
    macros = {
        r"\$__timeFilter\((\w+)\)": r"\1 > now() - interval '7 days'",
        r"\$__timeGroupAlias\((\w+), \$__interval\)": r"date_trunc('hour', \1) AS time",
    }
    places = set()
    with connect(memory.url_of(memory.user(READER))) as connection:
        for panel in board["panels"]:
            (target,) = panel["targets"]
            query = target["rawSql"]
            for macro, sql in macros.items():
                query = re.sub(macro, sql, query)
            assert "$" not in query
            assert connection.execute(query).fetchall(), panel["title"]
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert (x, y) not in places, panel["title"]
                    places.add((x, y))


def test_an_owner_without_rights_is_told_what_has_to_be_there(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster(template(tmp_path_factory)) as cluster:
        cluster.start()
        database = Database(cluster, "postgres")
        owner = database.user()
        cluster.sql(f"GRANT CREATE ON DATABASE postgres TO {owner}")
        where = f"--database={database.url_of(owner)}"
        assert "let somebody who may run CREATE ROLE kdumpfence_writer; CREATE ROLE" in said(
            capsys, "database", "init", where
        )
        cluster.sql(f"ALTER ROLE {owner} CREATEROLE")
        assert main(["database", "init", where]) == 0
        assert "GRANT kdumpfence_writer TO the listeners' user" in capsys.readouterr().out
        assert cluster.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'kdumpfence%'") == "2"
