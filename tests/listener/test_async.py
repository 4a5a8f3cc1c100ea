# SPDX-License-Identifier: GPL-2.0-or-later
"""`async for` over a Listener, in asyncio's own loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from kdumpfence.listener import event_queue
from kdumpfence.listener.dumps import Event
from kdumpfence.listener.listener import Listener
from tests.listener.conftest import PATIENCE, MakeListener, in_use, kinds, say, wait_for

A, B, C = "127.7.4.1", "127.7.4.2", "127.7.4.3"


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, PATIENCE)

    return asyncio.run(limited())


async def collect(listening: Listener, most: int) -> list[Event]:
    events: list[Event] = []
    async for event in listening:
        events.append(event)
        if len(events) == most:
            break
    return events


def test_events_come_as_they_happen_while_the_loop_runs(listen: MakeListener) -> None:
    listening = listen([A], silence=1.5, repeat=0.0)

    async def play() -> tuple[list[Event], int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        task = asyncio.create_task(count())
        events: list[Event] = []
        for _ in range(3):  # the next when the last was told, or two might be told in one
            say(A, listening.port)
            events += await collect(listening, 1)
        events += await collect(listening, 1)
        task.cancel()
        return events, turns

    events, turns = run(play())
    assert kinds(events) == ["began", "dumping", "dumping", "silent"]
    assert turns > 5, "the loop was not held up"


def test_closing_ends_it_and_leaves_nothing(listen: MakeListener) -> None:
    before = in_use()

    async def play() -> list[Event]:
        listening = listen([A])
        say(A, listening.port)
        events = await collect(listening, 1)
        asyncio.get_running_loop().call_later(0.1, listening.close)
        return [*events, *[event async for event in listening]]

    assert kinds(run(play())) == ["began"]
    wait_for(lambda: in_use() == before)


def test_breaking_out_of_it_loses_nothing_and_leaves_nothing(listen: MakeListener) -> None:
    before = in_use()
    with listen([A, B, C]) as listening:

        async def play() -> list[Event]:
            for host in (A, B, C):
                say(host, listening.port)
            return [*await collect(listening, 1), *await collect(listening, 2)]

        assert sorted(event.node for event in run(play())) == [A, B, C]
    gc.collect()
    assert in_use() == before


def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing(listen: MakeListener) -> None:
    listening = listen([A])
    before = in_use()

    async def play() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(collect(listening, 1), 0.2)

    run(play())
    assert in_use() == before
    say(A, listening.port)
    assert next(listening).kind == "began"


def test_several_tasks_share_the_events(listen: MakeListener) -> None:
    hosts = [f"127.7.5.{last}" for last in range(1, 31)]
    listening = listen(hosts)

    async def play() -> list[Event]:
        found: list[Event] = []

        async def take() -> None:
            async for event in listening:
                found.append(event)
                if len(found) == len(hosts):
                    listening.close()

        tasks = [asyncio.create_task(take()) for _ in range(3)]
        for host in hosts:
            await asyncio.sleep(0.002)
            say(host, listening.port)
        await asyncio.gather(*tasks)
        return found

    assert sorted(event.node for event in run(play())) == sorted(hosts)


def test_a_flood_of_events_does_not_hold_up_the_loop_for_long(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST", 50)
    listening = listen(networks=["127.0.0.0/8"])
    hosts = [f"127.7.{third}.{last}" for third in range(5) for last in range(1, 201)]
    for host in hosts:
        say(host, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == len(hosts))

    async def play() -> tuple[int, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        events = await collect(listening, len(hosts))
        task.cancel()
        return len(events), turns

    events, turns = run(play())
    assert events == len(hosts)
    assert turns >= len(hosts) / 50
