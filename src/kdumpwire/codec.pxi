# SPDX-License-Identifier: LGPL-2.1-or-later
"""The codec: whether bytes are a message, and whose checksum fits.

C without Python. May be here: what can be said of bytes alone. May not: sockets, and who is known.
"""

cdef extern from "kdumpwire/codec.h" nogil:
    const uint8_t *LITTLE
    const uint8_t *BIG
    void tally_words(const uint8_t *data, size_t words, uint64_t *whole, uint64_t *magic)
    size_t tally_wide(const uint8_t *data, size_t words, uint64_t *whole, uint64_t *magic)

cdef enum:
    MESSAGE_BYTES = 8

cdef enum:
    # Also the indexes of the counters; the names are in REASONS.
    ACCEPTED = 0
    SHORT = 1
    MAGIC_WRONG = 2
    VERSION_UNKNOWN = 3
    MALFORMED = 4
    CHECKSUM_WRONG = 5
    STRANGER = 6
    CROWDED = 7
    ASKED = 8
    UNSIGNED = 9
    KEY_UNKNOWN = 10
    FORGED = 11
    REPLAYED = 12
    VERDICTS = 13
    # A raw socket may hand over a datagram for another port: not ours to count.
    ELSEWHERE = -1


cdef inline int check_message(const uint8_t *data, size_t length) noexcept nogil:
    """ACCEPTED, or why these bytes do not begin with a message."""
    if length < MESSAGE_BYTES:
        return SHORT
    if memcmp(data, LITTLE, MESSAGE_BYTES) == 0 or memcmp(data, BIG, MESSAGE_BYTES) == 0:
        return ACCEPTED
    if memcmp(data, LITTLE, 4) == 0 or memcmp(data, BIG, 4) == 0:
        return VERSION_UNKNOWN
    return MAGIC_WRONG


cdef void check_packed(const uint8_t *data, size_t length, uint64_t *counts) noexcept nogil:
    """Count the verdicts over messages packed one behind the other."""
    cdef size_t messages = length // MESSAGE_BYTES
    cdef uint64_t whole = 0, magic = 0
    cdef size_t done = tally_wide(data, messages, &whole, &magic)
    tally_words(data + done * MESSAGE_BYTES, messages - done, &whole, &magic)
    counts[ACCEPTED] += whole
    counts[VERSION_UNKNOWN] += magic - whole
    counts[MAGIC_WRONG] += messages - magic
    if length % MESSAGE_BYTES:
        counts[SHORT] += 1


cdef inline uint32_t add_words(const uint8_t *data, size_t length, uint32_t total) noexcept nogil:
    """One's-complement sum of 16-bit big-endian words (RFC 1071), not yet folded."""
    cdef size_t i = 0
    cdef uint64_t wide = total
    while i + 1 < length:
        wide += (<uint32_t>data[i] << 8) | data[i + 1]
        i += 2
    if length & 1:
        wide += <uint32_t>data[length - 1] << 8
    while wide >> 16:
        wide = (wide & 0xFFFF) + (wide >> 16)
    return <uint32_t>wide


cdef int checksum_fits(
    const uint8_t *source, const uint8_t *destination, size_t address_length,
    const uint8_t *udp, size_t udp_length,
) noexcept nogil:
    """Whether the UDP checksum fits; a raw socket's datagrams come unverified.

    Accepted beside the right sum: 0 over IPv4 (RFC 768: not computed), and the bare
    pseudo-header sum, which is what a datagram from this machine or its guests
    carries while the rest is left to a network card that it never meets.
    """
    cdef uint32_t field = (<uint32_t>udp[6] << 8) | udp[7]
    cdef uint32_t pseudo
    if field == 0:
        return address_length == 4
    pseudo = add_words(source, address_length, 17 + <uint32_t>udp_length)
    pseudo = add_words(destination, address_length, pseudo)
    return field == pseudo or add_words(udp, udp_length, pseudo) == 0xFFFF
