# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a `Listener` has of counting in the kernel: the programs, the table, and the lease.

All that needs a right (CAP_BPF, or CAP_SYS_ADMIN) is done by `load`; a program that gives up its
rights does so before. A table does not grow: a larger one takes its place (`growing`), while there
is the right to make it. Sources for which there is no room are read from the queue as ever. What
may not be in this file: instructions, and when to look into the table.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
import socket
import time
from collections.abc import Iterable

from kdumpfence import filters
from kdumpfence.links import hears_vrfs
from kdumpfence.listener.kernel import CannotCountError, assembler, bpf
from kdumpfence.listener.kernel.program import ENTRIES, ENTRY, Table, text
from kdumpfence.sockets import udp_program
from kdumpfence.wire import Sources

#: Seconds for which the kernel goes on counting if nobody looks: what comes later is queued.
LEASE = 5.0

#: Of the silence that ends a dump: a message after a longer pause is news. Less than all of it, so
#: that none is counted for a dump that is over.
QUIET = 0.9
#: Entries for each source that there may be, and how many there are at least: so nearly all find
#: one, and so do as many again as that leaves room for (`Counting.room`).
SPARE = 1.5
LEAST_ENTRIES = 2048
#: The share of the entries up to which hardly any source finds none.
FULL = 0.9
#: Sources in the table, at most.
MOST_PLACES = 1 << 22

_TIME_OFFSETS = "/proc/self/timens_offsets"


class Counting:
    """Programs that are loaded, and the table in which they count. To be made by `load`."""

    def __init__(
        self,
        programs: dict[bytes, int],
        table: bpf.SharedArray,
        lease: bpf.SharedArray,
        terms: Table,
        silent_ns: int,
        again_ns: int,
    ) -> None:
        self._programs = programs
        self._table = table
        self._lease = lease
        self._until = memoryview(lease.memory).cast("q")
        self._terms = terms
        self._silent_ns = silent_ns
        #: A node that goes on sending is told of every so many nanoseconds.
        self.again_ns = again_ns
        #: For how many sources at a time there is room.
        self.room = int(FULL * ENTRIES * terms.buckets)

    def share(self, sources: Sources) -> None:
        """These are the sources whose messages are counted."""
        self._until[0] = 0
        terms = self._terms
        sources.share(self._table.memory, terms.seed, terms.quiet_ns, self._silent_ns)

    def attach(self, sock: socket.socket, classic: list[filters.Instruction]) -> None:
        """Have messages counted that this filter for the socket keeps. Raises OSError.

        One that was not foreseen does its own work, and nothing is counted.
        """
        program = self._programs.get(filters.packed(classic))
        if program is None:
            filters.attach(sock, classic)
        else:
            bpf.attach(sock, program)

    def renew(self) -> None:
        """Somebody looks: the kernel may count on."""
        self._until[0] = time.monotonic_ns() + round(LEASE * 1e9)

    def revoke(self) -> None:
        """Nobody looks any more: what comes from now on is queued."""
        self._until[0] = 0

    def close(self) -> None:
        """Sockets keep their programs; the sources must not share the table any more."""
        while self._programs:
            os.close(self._programs.popitem()[1])
        self._until.release()
        self._lease.close()
        self._table.close()


def load(sockets: Iterable[socket.socket], places: int, silence: float, repeat: float) -> Counting:
    """Everything for these UDP sockets. Raises CannotCountError.

    `places`: how many sources there may be that send at the same time. `silence`, `repeat`:
    seconds, as in `kdumpfence.listener.dumps.Dumps`.
    """
    _check_clock()
    entries = max(LEAST_ENTRIES, math.ceil(SPARE * min(places, MOST_PLACES)))
    buckets = -(-entries // ENTRIES)
    per_page = mmap.PAGESIZE // (ENTRY * ENTRIES)
    buckets = -(-buckets // per_page) * per_page  # what is mapped is whole pages
    with contextlib.ExitStack() as undo:
        try:
            table = bpf.SharedArray("kdumpfence", ENTRY * ENTRIES, buckets)
            undo.callback(table.close)
            lease = bpf.SharedArray("kdumpfence_due", 8, 1)
            undo.callback(lease.close)
            seed = int.from_bytes(os.urandom(8), "little")
            terms = Table(table.fd, buckets, seed, lease.fd, round(QUIET * silence * 1e9))
            programs: dict[bytes, int] = {}
            for sock in sockets:
                for kind in ((False, False), (True, False), (True, True)):
                    classic = udp_program(sock, *kind)
                    if filters.packed(classic) in programs:
                        continue
                    code = assembler.assembled(text(terms, classic, inside=hears_vrfs(sock)))
                    program = bpf.load("kdumpfence", code)
                    undo.callback(os.close, program)
                    programs[filters.packed(classic)] = program
        except OSError as error:
            raise CannotCountError(why(error), error.errno or errno.EOPNOTSUPP) from None
        undo.pop_all()
    return Counting(programs, table, lease, terms, round(silence * 1e9), round(repeat * 1e9))


def why(error: OSError) -> str:
    """What bpf(2) said, for people."""
    if isinstance(error, bpf.RefusedError):
        lines = [line for line in error.log.splitlines() if line.strip()]
        # Behind the reason comes how much work it was.
        said = [line for line in lines if not line.startswith(("processed ", "verification time"))]
        return f"the kernel refuses the program: {said[-1] if said else error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "no right to load the program: it needs CAP_BPF"
    if error.errno in (errno.ENOSYS, errno.EINVAL):
        return "this kernel cannot do it: it needs Linux 5.8 with CONFIG_BPF_SYSCALL"
    return f"bpf: {error.strerror}"


def _check_clock() -> None:
    """The program and this process have to have one clock."""
    try:
        with open(_TIME_OFFSETS, encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return  # a kernel before 5.6, or without time namespaces
    if any(line[0] == "monotonic" and set(line[1:]) != {"0"} for line in lines if line):
        raise CannotCountError("this time namespace has a monotonic clock of its own")
