# SPDX-License-Identifier: LGPL-2.1-or-later
"""A listener that hands on what a test wants, with the daemon's own statements."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from typing import Any

import psycopg

from kdumpfence.database.connection import connect


def event(
    kind: str, node: str, since: float | None = None, lasts: float = 0.0, silence: float = 30.0
) -> dict[str, Any]:
    """What the outbox says: since then (Unix time; now), so many seconds from first to last."""
    begun = round((time.time() if since is None else since) * 1e6)
    last = begun + round(lasts * 1e6)
    return {
        "kind": kind,
        "node": node,
        "happened": last + round(silence * 1e6) * (kind == "silent"),
        "since": begun,
        "last_heard": last,
        "messages": 1 + int(lasts) // 10,
        "addresses": "192.0.2.1",
        "took": lasts,
        "sessions": "",
        "named": True,
    }


class Listener:
    """One that is connected and registered; its numbers go on by themselves."""

    def __init__(
        self, url: str, name: str, identity: str | None = None, offset: float = 0.0
    ) -> None:
        self.name = name
        self.identity = identity or str(uuid.uuid4())
        self.life = secrets.token_hex(8)
        self.offset = round(offset * 1e6)
        self.connection = connect(url)
        self.seq = self.register()

    def _ask(self, query: str, *values: object) -> Any:
        row = self.connection.execute(query.encode(), values).fetchone()
        return None if row is None else row[0]

    def register(self) -> int:
        """The last number that is there."""
        return int(
            self._ask(
                "SELECT kdumpfence.register(%s, %s, %s, 'test', '30 s')",
                *(self.identity, self.life, self.name),
            )
        )

    def hand_on(self, *events: dict[str, Any], waiting: int = 0) -> int:
        """The last number that is there then."""
        numbered = []
        for one in events:
            self.seq += 1
            numbered.append({"seq": self.seq, **one})
        return self.send(numbered, waiting)

    def send(self, numbered: list[dict[str, Any]], waiting: int = 0) -> int:
        """Hand on what has numbers already."""
        return int(
            self._ask(
                "SELECT kdumpfence.hand_on(%s, %s, %s, 0, %s, %s)",
                *(
                    self.identity,
                    self.life,
                    self.offset,
                    waiting,
                    json.dumps(numbered, ensure_ascii=False),
                ),
            )
        )

    def beat(self, stopping: bool = False) -> None:
        """Say that it is there."""
        self._ask(
            "SELECT kdumpfence.beat(%s, %s, %s, 0, 0, 0, '', %s)",
            *(self.identity, self.life, self.offset, stopping),
        )

    def refused(self, query: str, *values: object) -> str | None:
        """With which SQLSTATE."""
        try:
            self._ask(query, *values)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    def refused_to_hand_on(self, one: dict[str, Any]) -> str | None:
        return self.refused(
            "SELECT kdumpfence.hand_on(%s, %s, 0, 0, 0, %s)",
            *(self.identity, self.life, json.dumps([{"seq": 99, **one}])),
        )

    def refused_to_register(self) -> str | None:
        return self.refused(
            "SELECT kdumpfence.register(%s, %s, 'x', 'test', '30 s')", self.identity, self.life
        )

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
