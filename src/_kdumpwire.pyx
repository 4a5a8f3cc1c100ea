# SPDX-License-Identifier: LGPL-2.1-or-later
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, binding=False
"""The compiled core: turns bytes into messages and moves datagrams.

Built as ``kdumpfence._kdumpwire``; `kdumpfence._purewire` is its twin in plain
Python and documents the interface. Only `kdumpfence.wire` may import either.

What may be in the core: mechanism. What may not: Pacemaker, argv, logging, files, or any
decision about a node. Its parts stand in kdumpwire/:

linux.pxd and *.h: what is C, not Cython. Compilers and editors see it.

*.pxi: C without Python objects (``noexcept nogil``). Nothing there allocates per datagram.
`native/fence_kdump_send.pyx` takes the parts that it needs, and becomes a program without
Python. So no value may be given to a variable outside a function: only an import would run it.

classes/*.pxi: thin Python classes, one over each part. That over `CSources` is called `Sources`,
and has it as `c`. They are guarded by plain counters, which the GIL makes sound: so this module
must not declare itself compatible with free-threaded Python, which then keeps the GIL for it.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from kdumpwire.linux cimport *

include "kdumpwire/codec.pxi"
include "kdumpwire/packet.pxi"
include "kdumpwire/mac.pxi"
include "kdumpwire/derive.pxi"
include "kdumpwire/sources.pxi"
include "kdumpwire/shared.pxi"
include "kdumpwire/signed.pxi"
include "kdumpwire/questions.pxi"
include "kdumpwire/receive.pxi"
include "kdumpwire/send.pxi"
include "kdumpwire/schedule.pxi"
include "kdumpwire/route.pxi"

IMPLEMENTATION = "compiled"
PACKET_BYTES = PACKET_LENGTH
SIGNS = SIGNING != 0
STATES = ("", "started", "dumping", "finished", "failed")
REASONS = ("short", "magic", "version", "malformed", "checksum", "stranger", "crowded",
           "question", "unsigned", "key", "forged", "replayed")


cdef object os_error(int code):
    import posix
    return OSError(code, posix.strerror(code))


include "kdumpwire/classes/message.pxi"
include "kdumpwire/classes/packet.pxi"
include "kdumpwire/classes/sources.pxi"
include "kdumpwire/classes/signed.pxi"
include "kdumpwire/classes/questions.pxi"
include "kdumpwire/classes/receiver.pxi"
include "kdumpwire/classes/transmitter.pxi"
include "kdumpwire/classes/schedule.pxi"


def attach_filter(sock, bytes code not None):
    """See `_purewire.attach_filter`."""
    cdef sock_fprog program
    if len(code) % 8:
        raise ValueError(f"filter of {len(code)} bytes: not a multiple of 8")
    program.len = <unsigned short>(len(code) // 8)
    program.filter = <void *>PyBytes_AS_STRING(code)
    if setsockopt(sock.fileno(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0:
        raise os_error(errno)


def find_route(bytes packed not None, uint32_t scope=0):
    """See `_purewire.find_route`."""
    cdef Route route
    cdef int family = AF_INET if len(packed) == 4 else AF_INET6
    cdef int error
    if len(packed) != 4 and len(packed) != 16:
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    error = route_find(family, <const uint8_t *>PyBytes_AS_STRING(packed), scope, &route)
    if error:
        raise os_error(error)
    return (
        route.interface,
        PyBytes_FromStringAndSize(<const char *>route.source, route.source_length),
        PyBytes_FromStringAndSize(<const char *>route.gateway, route.gateway_length),
        route.local != 0,
        route.carrier != 0,
    )
