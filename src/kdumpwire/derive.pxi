# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is derived from a cluster's key: docs/protocol.md, Keys. Over mac.pxi.

C without Python. Key files are read by kdumpfence/keys.py, which derives keys for itself.
"""


cdef inline void key_extract(const uint8_t *key, MacKey *made) noexcept nogil:
    """HKDF-SHA256 (RFC 5869) without a salt, its first half: what a cluster's key derives others by."""
    cdef uint8_t none[MAC_BYTES]
    cdef uint8_t extracted[MAC_BYTES]
    memset(none, 0, MAC_BYTES)
    mac_compute(none, key, KEY_BYTES, extracted)
    mac_prepare(made, extracted, MAC_BYTES)


cdef inline void key_expand(
    const MacKey *by, const char *info, const uint8_t *name, size_t length, uint8_t *out,
) noexcept nogil:
    """Its second half: KEY_BYTES, for `info` and a name behind it."""
    cdef uint8_t text[32 + NAME_BYTES]
    cdef size_t begin = strlen(info)
    memcpy(text, info, begin)
    memcpy(text + begin, name, length)
    text[begin + length] = 1
    mac_by(by, text, begin + length + 1, out)


cdef inline uint32_t key_id_of(const uint8_t *key) noexcept nogil:
    """The key id of a cluster's key."""
    cdef MacKey by
    cdef uint8_t made[KEY_BYTES]
    cdef uint32_t number
    key_extract(key, &by)
    key_expand(&by, b"kdumpfence key id", b"", 0, made)
    number = <uint32_t>packet_number(made, 4)
    return number if number else 1


cdef inline void key_of_node_by(
    const MacKey *by, const uint8_t *name, size_t length, uint8_t *out,
) noexcept nogil:
    """The key of a node; its name is one that a packet can carry."""
    key_expand(by, b"kdumpfence node key ", name, length, out)


cdef inline void key_of_node(
    const uint8_t *key, const uint8_t *name, size_t length, uint8_t *out,
) noexcept nogil:
    """The same, of the cluster's key."""
    cdef MacKey by
    key_extract(key, &by)
    key_of_node_by(&by, name, length, out)
