# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: messages that say nothing new are counted where they arrive.

A message of a node that is known to be dumping says only that it still is. It needs no queue, no
wake-up and no copy: an eBPF program on the socket finds its source in a table that the kernel and
this process share, writes down that it came and when, and drops it. What is news goes into the
queue as ever, and is read by the receive loop:

- the first message of a source, and the first after a pause;
- whoever is not in the table: a stranger, a node of a network, one for which there was no room;
- whatever is not exactly one message: statuses, signed messages, questions, rubbish;
- everything, when this process has not renewed its lease: it was stopped, or is dead.

Who falls silent is seen by one look over the table, in the core, which keeps the time of the next
one that can be: as long as all repeat, there is nothing to look for. Python hears of those alone,
and decides as ever, once the queues were read.

So the table is never the judge of who is known. The receive loop puts a source in when it has just
counted a message of it, and the kernel then only repeats what it was told. An entry that is taken
by another source at the very moment at which a message is counted there can lengthen a dump that
has begun by that one message, and can never begin one.

The parts:

bpf.py: the system call bpf(2). assembler.py: instructions, and classic programs as eBPF.
program.py: the program. counting.py: what a `Listener` has of it. growing.py: larger tables. The
table itself is the core's: `kdumpfence.wire.Sources`, as far as it shares one.
"""

from __future__ import annotations

import errno

#: How messages may be counted, as settings say it.
WAYS = ("auto", "kernel", "user")

#: Why the kernel counts nothing where every message has to be looked at.
SIGNED = "messages have to be signed, and only the receive loop checks that"


class CannotCountError(Exception):
    """The kernel cannot count here; one line says why. `errno` is what OSErrors have."""

    def __init__(self, why: str, code: int = errno.EOPNOTSUPP) -> None:
        super().__init__(why)
        self.errno = code
