# SPDX-License-Identifier: GPL-2.0-or-later
"""What is derived from a cluster's key: docs/protocol.md, Keys. Over mac.pxi.

C without Python, for programs without it; the others have kdumpfence/keys.py.
"""


cdef void key_derive(
    const uint8_t *key, const char *info, const uint8_t *name, size_t length, uint8_t *out,
) noexcept nogil:
    """HKDF-SHA256 (RFC 5869) without a salt, KEY_BYTES, for `info` and a name behind it."""
    cdef uint8_t none[MAC_BYTES]
    cdef uint8_t text[32 + NAME_BYTES]
    cdef size_t begin = strlen(info)
    memset(none, 0, MAC_BYTES)
    mac_compute(none, key, KEY_BYTES, out)
    memcpy(text, info, begin)
    memcpy(text + begin, name, length)
    text[begin + length] = 1
    mac_compute(out, text, begin + length + 1, out)


cdef uint32_t key_id_of(const uint8_t *key) noexcept nogil:
    """The key id of a cluster's key."""
    cdef uint8_t made[KEY_BYTES]
    cdef uint32_t number
    key_derive(key, b"kdumpfence key id", b"", 0, made)
    number = <uint32_t>packet_number(made, 4)
    return number if number else 1


cdef void key_of_node(
    const uint8_t *key, const uint8_t *name, size_t length, uint8_t *out,
) noexcept nogil:
    """The key of a node, of the cluster's; its name is one that a packet can carry."""
    key_derive(key, b"kdumpfence node key ", name, length, out)
