# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program for the survivor: what a Listener with a key hears of the node, an event a line.

python listening.py KEY-FILE NODE ADDRESS
"""

from __future__ import annotations

import sys

from kdumpfence import Listener


def main() -> None:
    key_file, node, address = sys.argv[1:]
    with Listener({node: [address]}, auth="sha256", key_file=key_file) as listener:
        for event in listener:
            print(event.kind, event.node, flush=True)


if __name__ == "__main__":
    main()
