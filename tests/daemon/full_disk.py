# SPDX-License-Identifier: GPL-2.0-or-later
"""Fills a small file system of its own while a history on it is written to.

    unshare --mount python -m tests.daemon.full_disk DIRECTORY

Prints what happened as JSON: the complaints, whether trying again was said to be of use, and
what was in the history in the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.listener.dumps import Event


def main() -> None:
    place = sys.argv[1]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", place], check=True)
    path = os.path.join(place, "history")
    history = History(path)
    ballast = os.path.join(place, "ballast")
    recorded, complaints, again = 0, [], set()
    number = 0
    for fill in (False, True, False, True, False):
        if fill:
            with open(ballast, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        elif os.path.exists(ballast):
            os.unlink(ballast)
        for _ in range(5):
            events = [
                Event("began", f"node{number + at}", 1e9, 1e9 + number, 1e9, 1, ("192.0.2.1",))
                for at in range(300)
            ]
            try:
                history.record(events)
            except HistoryError as error:
                complaints.append(str(error))
                again.add(error.again)
                continue  # the same ones again, next time
            number += len(events)
            recorded += len(events)
    history.close()
    with History(path) as opened:
        found = len(opened.past(most=1_000_000))
    print(json.dumps([recorded, found, complaints, sorted(again)]))


if __name__ == "__main__":
    main()
