# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several listeners hear of a node becomes its dumps, whenever they hand it on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kdumpfence.database.connection import connect
from tests.daemon.running import until
from tests.database.handing import Listener, event
from tests.support.postgres import Database

pytestmark = pytest.mark.slow

NODE = "node1"
HOUR = 3600.0


@pytest.fixture
def one(memory: Database) -> Iterator[Listener]:
    with Listener(memory.url, "one") as made:
        yield made


@pytest.fixture
def two(memory: Database) -> Iterator[Listener]:
    with Listener(memory.url, "two") as made:
        yield made


def kinds(memory: Database, node: str = NODE) -> list[str]:
    return memory.sql(
        "SELECT kind FROM kdumpfence.event WHERE node = :'node' ORDER BY number", node=node
    ).split()


def dumps(memory: Database, base: float, node: str = NODE) -> list[str]:
    """Began, lasted, how, by whom; seconds after `base`."""
    return memory.sql(
        "SELECT round(extract(epoch FROM began) - :base), round(extract(epoch FROM last - began)), "
        "how, array_to_string(listeners, '+') FROM kdumpfence.dumps WHERE node = :'node' "
        "ORDER BY began",
        base=str(base),
        node=node,
    ).splitlines()


def whole(base: float, lasts: float, end: str = "silent", node: str = NODE) -> list[dict[str, Any]]:
    """All that an outbox says of a dump."""
    return [event("began", node, base), event(end, node, base, lasts)]


def vanish(memory: Database, *names: str) -> None:
    """These have not come for a minute, while others did."""
    memory.sql(
        "UPDATE kdumpfence.listener SET seen = now() - interval '1 minute' WHERE name = ANY "
        "(string_to_array(:'names', ',')); "
        "UPDATE kdumpfence.meta SET watched_since = now() - interval '1 hour', "
        "watched_until = now()",
        names=",".join(names),
    )


def test_what_is_handed_on_late_is_of_the_dump_that_others_told_of(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 2 * HOUR
    one.hand_on(*whole(base, 100))
    two.hand_on(*whole(base - 3, 99))
    assert dumps(memory, base) == ["-3|103|silent|one+two"]
    assert kinds(memory) == ["began", "silent"]


def test_a_listener_that_heard_it_longer_says_that_it_was_not_over(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 2 * HOUR
    one.hand_on(*whole(base, 100))
    two.hand_on(event("began", NODE, base), event("dumping", NODE, base, 500))
    assert dumps(memory, base) == ["0|500||one+two"]
    two.hand_on(event("silent", NODE, base, 600))
    assert dumps(memory, base) == ["0|600|silent|one+two"]
    assert kinds(memory) == ["began", "silent", "resumed", "silent"]


def test_two_dumps_that_another_heard_as_one_are_one(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 2 * HOUR
    one.hand_on(*whole(base, 10), *whole(base + 100, 10))
    assert len(dumps(memory, base)) == 2
    two.hand_on(event("began", NODE, base), event("silent", NODE, base, 120))
    assert dumps(memory, base) == ["0|120|silent|one+two"]
    assert kinds(memory)[:4] == ["began", "silent", "began", "silent"]
    assert "merged" in kinds(memory)


def test_clocks_may_differ_as_much_as_is_known(memory: Database, one: Listener) -> None:
    base = time.time() - 2 * HOUR
    one.hand_on(*whole(base, 100))
    with Listener(memory.url, "two", offset=-HOUR) as two:
        two.hand_on(*whole(base + HOUR, 90))
    assert dumps(memory, base) == ["0|100|silent|one+two"]
    ended = "SELECT round(extract(epoch FROM ended) - :base) FROM kdumpfence.dump"
    assert memory.sql(ended, base=str(base)) == "130"


def test_what_the_node_says_of_its_end_counts_for_all(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 300
    one.hand_on(event("began", NODE, base))
    two.hand_on(event("began", NODE, base))
    one.hand_on(event("finished", NODE, base, 60))
    assert dumps(memory, base) == ["0|60|finished|one+two"]
    two.hand_on(event("silent", NODE, base, 55))
    assert dumps(memory, base) == ["0|60|finished|one+two"]
    # A second try, which both hear.
    for listener in (one, two):
        listener.hand_on(event("failed", NODE, base, 62))
    assert dumps(memory, base) == ["0|62|failed|one+two"]
    assert kinds(memory) == ["began", "finished", "failed"]


def test_a_crash_soon_after_an_end_that_was_told_is_another_dump(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 300
    for listener in (one, two):
        listener.hand_on(*whole(base, 60, "finished"))
        listener.hand_on(*whole(base + 75, 50))
    assert dumps(memory, base) == ["0|60|finished|one+two", "75|50|silent|one+two"]
    assert kinds(memory) == ["began", "finished", "began", "silent"]
    # However soon: the listener itself said that it is another one.
    one.hand_on(*whole(base, 60, "finished", "node2"), *whole(base + 63, 50, node="node2"))
    assert len(dumps(memory, base, "node2")) == 2


def test_what_comes_twice_changes_nothing(memory: Database, one: Listener) -> None:
    base = time.time() - 300
    numbered = [{"seq": at + 1, **what} for at, what in enumerate(whole(base, 60))]
    assert one.send(numbered) == one.send(numbered) == one.send(numbered[:1]) == 2
    # Nor does it undo what came after it.
    assert one.send([{"seq": 3, **event("failed", NODE, base, 61)}]) == 3
    assert one.send(numbered) == 3
    assert dumps(memory, base) == ["0|61|failed|one"]
    # Not even under new numbers, as from a file that was put back.
    one.seq = 3
    one.hand_on(event("failed", NODE, base, 61))
    assert kinds(memory) == ["began", "silent", "failed"]
    assert dumps(memory, base) == ["0|61|failed|one"]


def test_a_listener_that_is_gone_does_not_end_what_it_alone_heard(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 100
    one.hand_on(event("began", NODE, base))
    vanish(memory, "one")
    two.beat()
    assert memory.sql("SELECT how, observed FROM kdumpfence.dump") == "|f"
    one.beat()
    assert memory.sql("SELECT how, observed FROM kdumpfence.dump") == "|t"
    one.hand_on(event("silent", NODE, base, 50))
    assert kinds(memory) == ["began", "unobserved", "observed", "silent"]


def test_who_hears_silence_after_another_is_gone_ends_the_dump(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 90
    for listener in (one, two):
        listener.hand_on(event("began", NODE, base))
    vanish(memory, "one")
    two.beat()
    assert memory.sql("SELECT how, observed FROM kdumpfence.dump") == "|t"
    # That one was not seen for a minute, and the silence was decided 30 s ago.
    two.hand_on(event("silent", NODE, base, 30))
    assert dumps(memory, base) == ["0|30|silent|one+two"]
    assert kinds(memory) == ["began", "silent"]


def test_who_heard_silence_before_another_was_gone_knows_nothing_of_its_dump(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 600
    for listener in (one, two):
        listener.hand_on(event("began", NODE, base))
    two.hand_on(event("silent", NODE, base, 30))
    one.hand_on(event("dumping", NODE, base, 500))
    vanish(memory, "one")
    two.beat()
    assert memory.sql("SELECT how, observed FROM kdumpfence.dump") == "|f"
    assert kinds(memory) == ["began", "unobserved"]


def test_while_the_database_was_away_nobody_is_missed(
    memory: Database, one: Listener, two: Listener
) -> None:
    one.hand_on(event("began", NODE))
    memory.sql(
        "UPDATE kdumpfence.listener SET seen = now() - interval '1 hour'; "
        "UPDATE kdumpfence.meta SET watched_since = now() - interval '1 day', "
        "watched_until = now() - interval '1 hour'"
    )
    two.beat()
    assert kinds(memory) == ["began"]


def test_what_nobody_saw_for_a_day_is_over_and_a_new_crash_ends_it_at_once(
    memory: Database, one: Listener, two: Listener
) -> None:
    base = time.time() - 25 * HOUR
    one.hand_on(event("began", NODE, base), event("began", "node2", base + 20 * HOUR))
    memory.sql("UPDATE kdumpfence.listener SET horizon = '-infinity' WHERE name = 'one'")
    vanish(memory, "one")
    two.beat()
    assert kinds(memory) == ["began", "unobserved", "silent"]
    assert kinds(memory, "node2") == ["began", "unobserved"]
    two.hand_on(event("began", "node2"))
    assert kinds(memory, "node2") == ["began", "unobserved", "began", "silent"]
    assert [one.split("|")[2] for one in dumps(memory, base, "node2")] == ["silent", ""]


def test_old_dumps_and_those_of_strangers_go_first(memory: Database, one: Listener) -> None:
    base = time.time()
    for at in range(6):
        what = whole(base - (6 - at) * 100 * HOUR, 10, node=f"node{at}")
        one.hand_on(*({**part, "named": at % 2 == 0} for part in what))
    one.hand_on(event("began", "node9", base))
    memory.sql("UPDATE kdumpfence.meta SET keep_days = 22, most_dumps = 4")
    assert one.refused("SELECT kdumpfence.trim_history()") is None
    found = memory.sql("SELECT node FROM kdumpfence.dump ORDER BY began").split()
    assert found == ["node2", "node4", "node5", "node9"]
    memory.sql("UPDATE kdumpfence.meta SET most_dumps = 1")
    one.refused("SELECT kdumpfence.trim_history()")
    assert memory.sql("SELECT node FROM kdumpfence.dump") == "node9"


def test_who_reads_sees_no_event_before_a_lower_one(memory: Database) -> None:
    ended = threading.Event()
    seen: list[int] = []

    def read() -> None:
        with connect(memory.url) as connection:
            while True:
                last = ended.is_set()
                rows = connection.execute(
                    "SELECT number FROM kdumpfence.event WHERE number > %s ORDER BY number",
                    (seen[-1] if seen else 0,),
                ).fetchall()
                seen.extend(number for (number,) in rows)
                if last:
                    return

    def write(name: str) -> None:
        with Listener(memory.url, name) as listener:
            for at in range(25):
                listener.hand_on(*(event("began", f"node{at}-{one}") for one in range(8)))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(name,)) for name in ("one", "two", "three")]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    # And what several say at the same time of a node is one dump.
    assert seen == list(range(1, 25 * 8 + 1))
    assert memory.sql("SELECT count(*), count(DISTINCT node) FROM kdumpfence.dump") == "200|200"


def test_what_two_say_at_the_same_moment_of_a_node_is_one_dump(
    memory: Database, one: Listener, two: Listener
) -> None:
    second = threading.Thread(target=lambda: two.hand_on(event("began", NODE)))
    with one.connection.transaction():
        one.hand_on(event("began", NODE))
        second.start()
        # It waits for the first one, wherever.
        until(
            lambda: (
                memory.sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND wait_event_type = 'Lock'"
                )
                == "1"
            )
        )
    second.join()
    assert kinds(memory) == ["began"]
    assert memory.sql("SELECT listeners FROM kdumpfence.dumps") == "{one,two}"


def test_whatever_the_order_in_which_it_comes_the_dumps_are_the_same(memory: Database) -> None:
    """What three listeners heard of a node's dumps, each a part of it, handed on in any order."""
    dice = random.Random(7)
    base = time.time() - 20 * HOUR
    listeners = [Listener(memory.url, name) for name in ("one", "two", "three")]
    wanted: dict[str, list[str]] = {}
    waiting: list[list[dict[str, Any]]] = [[] for _ in listeners]
    for number in range(40):
        node = f"node{number}"
        begin, expected = base, []
        for _ in range(dice.randint(1, 3)):
            lasts = dice.randint(20, 400)
            end = dice.choice(["silent", "finished", "failed"])
            who = dice.sample(range(3), dice.randint(1, 3))
            late = {at: dice.randint(0, 15) for at in who}
            late[who[0]] = 0
            for at in who:
                since = begin + late[at]
                took = lasts - late[at]
                waiting[at].append(event("began", node, since))
                if dice.random() < 0.5:
                    waiting[at].append(event("dumping", node, since, took * dice.random()))
                waiting[at].append(event(end, node, since, took))
            names = "+".join(sorted(listeners[at].name for at in who))
            expected.append(f"{round(begin - base)}|{lasts}|{end}|{names}")
            begin += lasts + dice.randint(100, 1000)
        wanted[node] = expected
    while any(waiting):
        at = dice.choice([at for at, left in enumerate(waiting) if left])
        size = dice.randint(1, 40)
        batch, waiting[at] = waiting[at][:size], waiting[at][size:]
        listeners[at].hand_on(*batch, waiting=len(waiting[at]))
    for listener in listeners:
        listener.connection.close()
    assert {node: dumps(memory, base, node) for node in wanted} == wanted
    # Each dump began once, and what was said of it last is how it ended.
    told = memory.sql(
        "SELECT e.node, kind FROM kdumpfence.event e JOIN kdumpfence.dump d ON d.id = e.dump "
        "ORDER BY number"
    ).splitlines()
    assert sum(line.endswith("|began") for line in told) == sum(map(len, wanted.values()))
    last = {node: kind for node, _, kind in (line.partition("|") for line in told)}
    assert set(last.values()) <= {"silent", "finished", "failed"}
