# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks kdumpfenced which nodes are dumping; the public interface, and nothing else.

>>> from kdumpfence.client import Client
>>> with Client("unix:/run/kdumpfenced/control") as client:  # doctest: +SKIP
...     dump = client.dump("node1")  # None: it is not dumping; an error: nobody can tell

docs/sidecar.md explains it. It needs the standard library alone.
"""

from __future__ import annotations

from kdumpfence.client.client import Client, Followed, Node
from kdumpfence.client.errors import CannotTell, ClientError, Refused, Unexpected, Unreachable
from kdumpfence.client.following import Events, Missed
from kdumpfence.daemon.status import MOST, PATH, Status
from kdumpfence.listener.events import Dump, Event

__all__ = [
    "MOST",
    "PATH",
    "CannotTell",
    "Client",
    "ClientError",
    "Dump",
    "Event",
    "Events",
    "Followed",
    "Missed",
    "Node",
    "Refused",
    "Status",
    "Unexpected",
    "Unreachable",
]
