# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sources and a table that they share with the kernel, which the tests play: both cores."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.core.scene import BIG, LITTLE, Scene, numbered, pack, status

ENTRY = struct.Struct("=16sqII")
FIGURES = struct.Struct("=16sIId")
SECOND = 10**9
SEED = 0x0123456789ABCDEF


class Table:
    """What the program in the kernel sees of it."""

    def __init__(
        self,
        scene: Scene,
        buckets: int = 32,
        quiet_ns: int = 27 * SECOND,
        silent_ns: int = 30 * SECOND,
    ) -> None:
        self.memory = bytearray(128 * buckets)
        self.scene = scene
        scene.sources.share(self.memory, SEED, quiet_ns, silent_ns)

    def entries(self) -> Iterator[tuple[int, bytes, int, int, int]]:
        """Where an entry is, its address, time, messages and scope: of all that are in use."""
        for at in range(0, len(self.memory), ENTRY.size):
            address, last, messages, scope = ENTRY.unpack_from(self.memory, at)
            if address != bytes(16):
                yield at, address, last, messages, scope

    def entry(self, host: str) -> int:
        """Where the entry of that host is."""
        packed = pack(host)
        wanted = bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed
        (at,) = (at for at, address, *_ in self.entries() if address == wanted)
        return at

    def count(self, host: str, messages: int, last: int | None = None) -> int:
        """The kernel counts messages of that host; the time of the last."""
        at = self.entry(host)
        (before,) = struct.unpack_from("=I", self.memory, at + 24)
        struct.pack_into("=I", self.memory, at + 24, (before + messages) & 0xFFFFFFFF)
        when = time.monotonic_ns() if last is None else last
        struct.pack_into("=q", self.memory, at + 16, when)
        return when


@pytest.fixture
def table(scene: Scene) -> Table:
    return Table(scene)


def say(scene: Scene, *hosts: str | int, data: bytes = LITTLE) -> None:
    scene.send(*hosts, data=data)
    scene.receiver.count(0)


def heard(scene: Scene) -> list[tuple[bytes, int]]:
    return [(one[1], one[6]) for one in scene.sources.heard()]


HOST = numbered(1)


def test_whoever_was_heard_has_an_entry_with_the_time_of_it(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST), node=1)
    scene.sources.add(pack("::1"), node=2)
    assert list(table.entries()) == []
    before = time.monotonic_ns()
    say(scene, HOST)
    scene.listen("::1")
    say(scene, "::1")
    assert {one[1] for one in table.entries()} == {
        bytes(10) + b"\xff\xff" + pack(HOST),
        pack("::1"),
    }
    assert scene.sources.shared == 2
    for _, _, last, messages, scope in table.entries():
        assert before <= last <= time.monotonic_ns()
        assert (messages, scope) == (0, 0)


def test_strangers_and_rubbish_have_none(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST))
    say(scene, 2)
    say(scene, HOST, data=b"rubbish!")
    assert scene.sources.shared == 0


def test_what_the_kernel_counted_is_heard(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST), node=7)
    say(scene, HOST)
    ((*_, first, messages, _),) = scene.sources.heard()
    assert messages == 1
    assert not scene.sources.sweep()
    last = table.count(HOST, 5)
    assert scene.sources.sweep()
    assert not scene.sources.sweep()
    ((number, packed, _, port, since, until, messages, told),) = scene.sources.heard()
    assert (number, packed, messages, told) == (7, pack(HOST), 5, ())
    assert (since, until) == (first, last)
    assert port
    assert (scene.counts(), scene.sources.counted) == ({"accepted": 1}, 5)
    assert scene.sources.heard() == []


def test_there_is_news_only_if_nothing_waited(scene: Scene, table: Table) -> None:
    scene.sources.admit(pack("127.1.0.0"), 16)
    say(scene, 1)
    say(scene, 2)
    table.count(HOST, 1)
    assert not scene.sources.sweep()
    assert [messages for _, messages in heard(scene)] == [2, 1]


def test_a_source_that_was_told_of_waits_until_it_has_sent_long_enough(
    scene: Scene, table: Table
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    last = scene.sources.heard()[0][5]
    table.count(HOST, 1, last + SECOND - 1)
    assert not scene.sources.sweep(SECOND)
    assert scene.sources.counted == 1
    table.count(HOST, 1, last + SECOND)
    assert scene.sources.sweep(SECOND)
    assert heard(scene) == [(pack(HOST), 2)]


def test_who_goes_on_sending_is_not_given_out_if_nobody_wants_to_hear_of_that(
    scene: Scene, table: Table
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.heard()
    table.count(HOST, 5)
    assert not scene.sources.sweep(-1)
    assert scene.sources.heard() == []
    assert scene.sources.counted == 5
    scene.sources.fold(pack(HOST))
    assert heard(scene) == [(pack(HOST), 5)]
    scene.sources.fold(pack(HOST))
    assert heard(scene) == []


@pytest.mark.parametrize("counted", [0, 4])
def test_who_is_silent_is_given_out_once_and_has_no_entry_any_more(
    scene: Scene, table: Table, counted: int
) -> None:
    for number in (1, 2):
        scene.sources.add(pack(numbered(number)), node=number)
        say(scene, number)
    scene.sources.heard()
    silent = time.monotonic_ns() - 30 * SECOND
    table.count(numbered(1), counted, silent)
    assert scene.sources.watch(pack(numbered(1)), 0, 1)
    assert scene.sources.sweep(-1)
    ((node, *_, messages, _),) = scene.sources.heard()
    assert (node, messages) == (1, counted)
    assert not scene.sources.watch(pack(numbered(1)), 0, 1)
    assert scene.sources.watch(pack(numbered(2)), 0, 1)
    assert [address[12:] for _, address, *_ in table.entries()] == [pack(numbered(2))]
    assert not scene.sources.sweep(-1)
    say(scene, 1)
    assert heard(scene) == [(pack(numbered(1)), 1)]
    assert scene.sources.watch(pack(numbered(1)), 0, 1)


def test_a_look_says_when_the_next_one_can_be_silent(scene: Scene, table: Table) -> None:
    for number in (1, 2, 3):
        scene.sources.add(pack(numbered(number)))
        say(scene, number)
    now = time.monotonic_ns()
    for number in (1, 2, 3):
        table.count(numbered(number), 1, now - number * SECOND)
    scene.sources.sweep(-1)
    assert scene.sources.next_silence == now + 27 * SECOND


def test_who_is_dismissed_is_given_out_and_not_counted_for_any_more(
    scene: Scene, table: Table
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.dismiss(pack(HOST))
    assert heard(scene) == [(pack(HOST), 1)]
    scene.sources.dismiss(pack(HOST))
    assert (heard(scene), scene.sources.shared) == ([], 0)


def test_a_peek_takes_nothing(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST))
    assert scene.sources.peek(pack(HOST)) == scene.sources.peek(pack(numbered(2))) == (0, 0)
    say(scene, HOST)
    last = table.count(HOST, 3)
    for _ in range(2):
        assert scene.sources.peek(pack(HOST)) == (last, 4)
    assert heard(scene) == [(pack(HOST), 4)]
    assert scene.sources.peek(pack(HOST)) == (last, 0)


def test_figures_are_of_all_that_the_kernel_counts_and_from_the_beginning_of_their_dumps(
    scene: Scene, table: Table
) -> None:
    assert scene.sources.figures() == b""
    lasts = {}
    for number in (1, 2):
        scene.sources.add(pack(numbered(number)))
        say(scene, number)
        scene.sources.heard()
        scene.sources.watch(pack(numbered(number)), 0, 100 * number)
        lasts[number] = table.count(numbered(number), number)
    scene.sources.add(pack(numbered(3)))
    found = {
        address[12:]: (scope, messages, last)
        for address, scope, messages, last in FIGURES.iter_unpack(scene.sources.figures(1000.0))
    }
    assert found == {
        pack(numbered(number)): (0, 101 * number, pytest.approx(lasts[number] * 1e-9 + 1000.0))
        for number in (1, 2)
    }


def test_a_number_is_taken_out_of_an_entry_before_it_can_begin_again(
    scene: Scene, table: Table
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.heard()
    scene.sources.watch(pack(HOST), 0, 1)
    total = 0
    for _ in range(4):
        table.count(HOST, 0x7FFFFFFF)
        scene.sources.sweep(-1)
        total += sum(messages for _, messages in heard(scene))
        assert scene.sources.watch(pack(HOST), 0, 1 + total)
    scene.sources.fold(pack(HOST))
    total += sum(messages for _, messages in heard(scene))
    assert total == scene.sources.counted == 4 * 0x7FFFFFFF


def test_a_number_that_begins_again_is_none_that_went_back(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.heard()
    for _ in range(3):
        table.count(HOST, 0x60000000)
        scene.sources.sweep()
        assert heard(scene) == [(pack(HOST), 0x60000000)]


def test_a_message_that_was_read_counts_with_what_the_kernel_counted_before(
    scene: Scene, table: Table, core: ModuleType
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.heard()
    last = table.count(HOST, 3)
    say(scene, HOST, data=status(core, 9, "finished"))
    ((*_, until, messages, told),) = scene.sources.heard()
    assert messages == 4
    assert until > last
    assert [(session, state, number) for session, state, _, number in told] == [(9, "finished", 4)]
    ((_, _, there, _, _),) = table.entries()
    assert there == until


def test_who_is_discarded_has_no_entry_and_its_messages_stay_counted(
    scene: Scene, table: Table
) -> None:
    for number in (1, 2, 3):
        scene.sources.add(pack(numbered(number)), node=number)
        say(scene, number)
    table.count(numbered(1), 5)
    scene.sources.discard(pack(numbered(1)))
    assert scene.sources.shared == 2
    assert (scene.counts(), scene.sources.counted) == ({"accepted": 3}, 5)
    scene.sources.heard()
    for number in (2, 3):
        table.count(numbered(number), number)
    scene.sources.sweep()
    assert sorted(heard(scene)) == [(pack(numbered(2)), 2), (pack(numbered(3)), 3)]
    scene.sources.discard(pack(numbered(3)))
    assert [address[12:] for _, address, *_ in table.entries()] == [pack(numbered(2))]


def test_what_waits_is_given_out_with_what_the_kernel_counted_meanwhile(
    scene: Scene, table: Table
) -> None:
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    last = table.count(HOST, 4)
    ((*_, until, messages, _),) = scene.sources.heard()
    assert (until, messages) == (last, 5)


def test_a_source_that_is_another_node_s_by_now_is_news(scene: Scene, table: Table) -> None:
    scene.sources.add(pack(HOST), node=1)
    say(scene, HOST)
    scene.sources.heard()
    table.count(HOST, 2)
    scene.sources.add(pack(HOST), node=1)
    assert scene.sources.shared == 1
    scene.sources.add(pack(HOST), node=2)
    assert scene.sources.shared == 0
    assert list(table.entries()) == []
    assert scene.sources.counted == 2
    say(scene, HOST)
    assert [(one[0], one[6]) for one in scene.sources.heard()] == [(2, 1)]


def test_a_machine_of_a_network_that_is_a_node_by_now_takes_along_what_was_counted(
    scene: Scene, table: Table
) -> None:
    scene.sources.admit(pack("127.1.0.0"), 16)
    say(scene, HOST)
    scene.sources.heard()
    last = table.count(HOST, 2)
    scene.sources.add(pack(HOST), node=2)
    assert (scene.sources.shared, scene.sources.counted) == (0, 2)
    assert list(table.entries()) == []
    ((number, *_, until, messages, _),) = scene.sources.heard()
    assert (number, until, messages) == (2, last, 2)


def test_when_nothing_is_shared_any_more_what_was_counted_is_heard(scene: Scene) -> None:
    table = Table(scene)
    scene.sources.add(pack(HOST))
    say(scene, HOST)
    scene.sources.heard()
    table.count(HOST, 2)
    scene.sources.unshare()
    scene.sources.unshare()
    assert (scene.sources.shared, scene.sources.counted) == (0, 2)
    assert heard(scene) == [(pack(HOST), 2)]
    table.memory.append(0)  # which nobody looks into
    say(scene, HOST)
    assert heard(scene) == [(pack(HOST), 1)]
    Table(scene)


def test_who_was_admitted_is_not_released_while_its_messages_wait_in_the_kernel(
    scene: Scene, table: Table
) -> None:
    scene.sources.admit(pack("127.1.0.0"), 16)
    say(scene, HOST)
    scene.sources.heard()
    table.count(HOST, 1)
    assert not scene.sources.release(pack(HOST))
    assert heard(scene) == [(pack(HOST), 1)]
    assert scene.sources.release(pack(HOST))
    assert scene.sources.shared == 0


def test_without_room_a_source_is_heard_as_ever(scene: Scene, core: ModuleType) -> None:
    table = Table(scene, buckets=1)
    hosts = [numbered(number) for number in range(1, 7)]
    for host in hosts:
        scene.sources.add(pack(host))
    say(scene, *hosts, *hosts)
    assert scene.sources.shared == 4
    assert [messages for _, messages in heard(scene)] == [2] * 6
    del table


def test_the_entry_of_one_that_is_silent_goes_to_another(scene: Scene) -> None:
    table = Table(scene, buckets=1, quiet_ns=SECOND // 100)
    hosts = [numbered(number) for number in range(1, 10)]
    for host in hosts:
        scene.sources.add(pack(host))
    say(scene, *hosts[:4])
    scene.sources.heard()
    table.count(hosts[0], 3)
    time.sleep(0.011)
    say(scene, *hosts[4:8])
    # What was counted in the entry that another has now is not lost, and each is told of its loss.
    assert sorted(heard(scene)) == sorted(
        [
            (pack(hosts[0]), 3),
            *((pack(host), 0) for host in hosts[1:4]),
            *((pack(host), 1) for host in hosts[4:8]),
        ]
    )
    assert {address[12:] for _, address, *_ in table.entries()} == {
        pack(host) for host in hosts[4:8]
    }
    table.count(hosts[5], 2)
    scene.sources.sweep()
    assert heard(scene) == [(pack(hosts[5]), 2)]


def test_nearly_all_find_their_entries_where_the_program_looks_for_them(scene: Scene) -> None:
    """As full as a Listener lets a table become, and of a size that is no power of two."""
    table = Table(scene, buckets=277)
    for number in range(1000):
        scene.sources.add(pack(numbered(number)), node=number)
    for start in range(0, 1000, 8):
        say(scene, *range(start, start + 8), data=BIG)
    assert scene.sources.shared >= 980
    there = {address[12:]: at for at, address, *_ in table.entries()}
    assert len(there) == scene.sources.shared
    for packed, at in there.items():
        assert at // 128 in buckets(packed, 277)
    assert [one[6] for one in scene.sources.heard()] == [1] * 1000


def test_who_moves_for_another_takes_its_messages_along(scene: Scene) -> None:
    table = Table(scene, buckets=40)
    moved: set[int] = set()
    places: dict[int, int] = {}
    given = dict.fromkeys(range(200), 0)
    counted = dict.fromkeys(range(200), 0)
    for number in range(200):
        scene.sources.add(pack(numbered(number)), node=number)
        say(scene, number)
        for node, *_, messages, _ in scene.sources.heard():
            given[node] += messages
        counted[number] += 1
        now = {struct.unpack(">I", one[12:])[0]: at for at, one, *_ in table.entries()}
        for host, at in now.items():
            if places.get(host, at) != at:
                moved.add(host)
        places = now
        for other in range(number % 7, number + 1, 7):
            packed = pack(numbered(other))
            if scene.sources.watch(packed, 0, given[other]):
                table.count(numbered(other), other + 1)
                counted[other] += other + 1
    assert moved
    by_address = {pack(numbered(number)): number for number in range(200)}
    for address, _, messages, _ in FIGURES.iter_unpack(scene.sources.figures()):
        assert messages == counted[by_address[address[12:]]]
    scene.sources.sweep(0)
    for node, *_, messages, _ in scene.sources.heard():
        given[node] += messages
    assert given == counted
    assert scene.sources.counted + 200 == sum(counted.values())


def test_whatever_happens_every_message_is_given_out_once_and_every_loss_of_an_entry_is_told(
    scene: Scene,
) -> None:
    """Against a model that keeps a list of what was sent, and of who has an entry."""
    dice = random.Random(7)
    table = Table(scene, buckets=6)
    sent: dict[int, int] = {}
    given: dict[int, int] = {}
    watched: set[int] = set()
    told_of_loss: set[int] = set()

    def take() -> None:
        for node, *_, messages, _ in scene.sources.heard(dice.choice((1, 5, 1000))):
            given[node] = given.get(node, 0) + messages
            told_of_loss.add(node)

    by_address = {pack(numbered(number)): number for number in range(40)}
    for packed, number in by_address.items():
        scene.sources.add(packed, node=number)
    for _ in range(3000):
        number, action = dice.randrange(40), dice.random()
        host, packed = numbered(number), pack(numbered(number))
        has_entry = scene.sources.watch(packed, 0, given.get(number, 0))
        if action < 0.3:
            say(scene, number)
            sent[number] = sent.get(number, 0) + 1
        elif action < 0.6 and has_entry:
            messages = dice.choice((1, 2, 1000))
            # Now, long ago so that its next message is news, or so that it is silent.
            age = dice.choice((0, 0, 0, 28, 31)) * SECOND
            table.count(host, messages, time.monotonic_ns() - age)
            sent[number] = sent.get(number, 0) + messages
        elif action < 0.7:
            scene.sources.sweep(dice.choice((-1, 0, SECOND)))
        elif action < 0.75:
            scene.sources.fold(packed)
        elif action < 0.78:
            scene.sources.dismiss(packed)
        else:
            take()
        # Whoever had an entry and has none any more is given out, sooner or later.
        there = {by_address[address[12:]] for _, address, *_ in table.entries()}
        lost = watched - there
        told_of_loss -= lost
        waiting = lost - told_of_loss
        watched = there
        assert scene.sources.shared == len(there)
        if waiting:
            before = set(told_of_loss)
            for node, *_, messages, _ in scene.sources.heard():
                given[node] = given.get(node, 0) + messages
                before.add(node)
            assert waiting <= before
    scene.sources.unshare()
    for node, *_, messages, _ in scene.sources.heard():
        given[node] = given.get(node, 0) + messages
    assert given == sent
    assert scene.sources.counted + scene.counts()["accepted"] == sum(sent.values())


def buckets(packed: bytes, number: int) -> tuple[int, int]:
    """As the program has it."""
    whole = (1 << 64) - 1
    low = int.from_bytes(b"\0\0\xff\xff" + packed, "little")
    h = SEED * 0x9E3779B97F4A7C15 & whole
    h = ((h ^ h >> 32) ^ low) * 0xD6E8FEB86659FD93 & whole
    h = ((h ^ h >> 32) * 0xD6E8FEB86659FD93 & whole) >> 32
    return h * number >> 32, ((h * 0x9E3779B97F4A7C15 & whole) >> 32) * number >> 32


@pytest.mark.parametrize("size", [0, 64, 127, 129])
def test_a_table_of_another_size_is_refused(core: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match="must be a multiple of 128"):
        core.Sources().share(bytearray(size), 0, SECOND, SECOND)


def test_sources_share_one_table(scene: Scene, table: Table) -> None:
    with pytest.raises(RuntimeError, match="share a table already"):
        Table(scene)
