#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the pictures of kdumpfenced's status page in docs: `make statuspage`.

    .venv/bin/python -m tools.statuspage [FOLDER]

A real daemon on loopback, with a history in which dumps of some weeks and three that are under way
are written down, hears three nodes and what it has to reject; a browser looks at its page. Who
dumped in that history, and for how long, is made up.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from kdumpfence.daemon.history import History
from kdumpfence.listener.events import Event, Kind
from tests.daemon.running import MESSAGE, Kdumpfenced, until
from tests.support.chromium import Browser

DOCS = Path(__file__).resolve().parents[1] / "docs"

#: Name -> address, of nodes in the settings.
NODES = {f"db{number}": f"127.3.1.{number}" for number in range(1, 5)}
NODES |= {f"hv{number:02}": f"127.3.2.{number}" for number in range(1, 13)}

#: Seconds for which those have been dumping that do.
UNDER_WAY = {"hv07": 112.0, "db2": 41.0}

#: Dumps that are over, and the seconds in which they happened.
PAST, SPAN = 58, 45 * 86400.0

SIZE = (1120, 1010)


def fill(history: Path, now: float) -> None:
    """Write down what is past, and what is under way."""
    chance = random.Random(7)  # the same pictures each time
    events = []
    since = now - SPAN
    for _ in range(PAST):
        since += chance.uniform(0.2, 1.6) * SPAN / PAST / 1.0
        since = min(since, now - 7200)
        node = chance.choice(list(NODES))
        took = chance.lognormvariate(4.6 if node.startswith("db") else 3.7, 0.45)
        kind: Kind = chance.choices(("finished", "silent", "failed"), (11, 5, 1))[0]
        messages = int(took / 10) + 8
        events.append(
            Event(kind, node, since + took, since, since + took, messages, (NODES[node],), took)
        )
    for node, took in UNDER_WAY.items():
        messages = int(took / 10) + 8
        what = (now - took, now, messages, (NODES[node],), took)
        events.append(Event("dumping", node, now, *what))
    with History(str(history)) as opened:
        opened.record(events)


def main(arguments: list[str]) -> int:
    """Make the pictures in that folder."""
    folder = Path(arguments[0]) if arguments else DOCS
    with tempfile.TemporaryDirectory() as name:
        daemon = Kdumpfenced(Path(name))
        nodes = "\n".join(f'{node} = ["{address}"]' for node, address in NODES.items())
        daemon.configure('node = "engine1"\nsilence = 86400', nodes)
        fill(daemon.history, time.time())
        daemon.start()
        try:
            daemon.hear(*(NODES[node] for node in (*UNDER_WAY, "hv11")))
            daemon.hear("127.3.9.9", "127.3.9.8", "127.3.9.9")
            daemon.hear(NODES["db1"], data=b"x" * 40)
            daemon.hear(NODES["db3"], data=MESSAGE[:4])
            until(lambda: daemon.status().counts["short"] and len(daemon.dumping()) == 3)
            with Browser(*SIZE) as browser:
                browser.size(*SIZE)
                for scheme in ("light", "dark"):
                    browser.emulate(scheme)
                    browser.open(f"http://127.0.0.1:{daemon.metrics_port}/")
                    browser.until("document.getElementById('live').textContent")
                    browser.screenshot(folder / f"status-page-{scheme}.png")
                assert not browser.complaints, browser.complaints
        finally:
            daemon.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
