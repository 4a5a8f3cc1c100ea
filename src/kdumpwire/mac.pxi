# SPDX-License-Identifier: LGPL-2.1-or-later
"""HMAC-SHA256: the MACs of packets, and what derived keys are made with.

C without Python. May be here: what is computed with a key. May not: which key a packet ought to be
signed with. If SIGNING is 0 the build has found no library for it, and nothing here may be called.
"""

cdef extern from "kdumpwire/mac.h" nogil:
    int SIGNING
    ctypedef struct MacKey:
        pass
    # A key that is used more than once: half of the work, done in advance.
    void mac_prepare(MacKey *prepared, const uint8_t *key, size_t length)
    void mac_by(const MacKey *prepared, const uint8_t *data, size_t length, uint8_t *out)
    int mac_same(const uint8_t *one, const uint8_t *other)


cdef void mac_compute(
    const uint8_t *key, const uint8_t *data, size_t length, uint8_t *out,
) noexcept nogil:
    """The MAC of these bytes with a key of KEY_BYTES."""
    cdef MacKey prepared
    mac_prepare(&prepared, key, KEY_BYTES)
    mac_by(&prepared, data, length, out)


cdef int mac_fits(const MacKey *key, const uint8_t *packet) noexcept nogil:
    """Whether the MAC of a packet, PACKET_LENGTH bytes, fits; in the same time if it does not."""
    cdef uint8_t right[MAC_BYTES]
    mac_by(key, packet, SIGNED_BYTES, right)
    return mac_same(right, packet + SIGNED_BYTES)
