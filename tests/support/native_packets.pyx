# SPDX-License-Identifier: LGPL-2.1-or-later
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Packets, MACs and derived keys as the native sender has them, for native_packets.py.

Reads requests from stdin: a letter, a key, and a length of two bytes with as many behind it. Each
gets an answer of a length that its letter tells.
"""

from kdumpwire.linux cimport *

include "kdumpwire/codec.pxi"
include "kdumpwire/packet.pxi"
include "kdumpwire/mac.pxi"
include "kdumpwire/derive.pxi"

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *data, size_t length)


cdef int read_all(uint8_t *data, size_t length) noexcept nogil:
    cdef ssize_t got
    while length:
        got = read(0, data, length)
        if got <= 0:
            return 0
        data += got
        length -= got
    return 1


cdef size_t answer(const uint8_t *key, uint8_t letter, const uint8_t *data, size_t length,
                   uint8_t *out) noexcept nogil:
    """Write an answer; its length."""
    cdef CPacket packet
    cdef MacKey prepared
    if letter == c"k":
        key_of_node(key, data, length, out)
        return KEY_BYTES
    if letter == c"i":
        packet_put(out, 4, key_id_of(key))
        return 4
    memset(&packet, 0, sizeof(packet))
    out[0] = packet_read(data, length, &packet)
    if letter == c"f":
        mac_prepare(&prepared, key, KEY_BYTES)
        out[0] = out[0] and packet.key_id != 0 and mac_fits(&prepared, data)
        return 1
    packet_put(out + 1, 1, packet.kind)
    packet_put(out + 2, 1, packet.state)
    packet_put(out + 3, 4, packet.key_id)
    packet_put(out + 7, 4, packet.interval)
    packet_put(out + 11, 8, packet.session)
    packet_put(out + 19, 8, packet.sequence)
    memcpy(out + 27, packet.nonce, NONCE_BYTES)
    packet_put(out + 43, 1, packet.name_length)
    memcpy(out + 44, packet.name, NAME_BYTES)
    memset(out + 108, 0, PACKET_LENGTH)
    if out[0]:
        packet_write(&packet, data, out + 108)
        if packet.key_id:
            mac_compute(key, out + 108, SIGNED_BYTES, out + 108 + SIGNED_BYTES)
    return 108 + PACKET_LENGTH


# What src/native/main.c calls.
cdef public int kdumpfence_send(int argc, char **argv) noexcept nogil:
    cdef uint8_t head[1 + KEY_BYTES + 2]
    cdef uint8_t out[108 + PACKET_LENGTH]
    cdef uint8_t *data
    cdef size_t length
    if argc > 1:
        return SIGNING
    while read_all(head, sizeof(head)):
        length = packet_number(head + 1 + KEY_BYTES, 2)
        # Of just that size, for a checker of memory to see what is read behind it.
        data = <uint8_t *>malloc(length)
        if not read_all(data, length):
            return 1
        length = answer(head + 1, head[0], data, length, out)
        free(data)
        if write(1, out, length) != <ssize_t>length:
            return 1
    return 0
