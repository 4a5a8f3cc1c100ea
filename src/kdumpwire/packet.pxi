# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packets: the 152 bytes of a status with its trailer, of a question and of an answer "alive".

C without Python; docs/protocol.md has the layout. May be here: what can be said of the bytes
alone. May not: keys and MACs (mac.pxi), and what a packet means for its node.
"""

cdef enum:
    PACKET_LENGTH = 152
    SIGNED_BYTES = 120      # what the MAC is over; it stands behind
    MAC_BYTES = 32
    KEY_BYTES = 32
    NONCE_BYTES = 16
    NAME_BYTES = 64

cdef enum:
    STATUS = 0
    QUESTION = 1
    ALIVE = 2

cdef enum:
    STARTED = 1
    DUMPING = 2
    FINISHED = 3
    FAILED_STATE = 4

ctypedef struct CPacket:
    int kind
    int state               # 0 but in a status
    uint32_t key_id         # 0: not signed
    uint32_t interval       # milliseconds
    uint64_t session
    uint64_t sequence
    uint8_t nonce[NONCE_BYTES]
    uint8_t name[NAME_BYTES]    # padded with zeroes
    int name_length


cdef inline uint64_t packet_number(const uint8_t *data, int length) noexcept nogil:
    """A big-endian number."""
    cdef uint64_t number = 0
    cdef int i
    for i in range(length):
        number = number << 8 | data[i]
    return number


cdef inline void packet_put(uint8_t *data, int length, uint64_t number) noexcept nogil:
    cdef int i
    for i in range(length):
        data[length - 1 - i] = <uint8_t>(number >> (8 * i))


cdef inline int is_end(int state) noexcept nogil:
    """Whether this is the state of a dump that is over."""
    return state >= FINISHED


cdef int packet_read(const uint8_t *data, size_t length, CPacket *packet) noexcept nogil:
    """Whether these bytes are a packet, its MAC aside."""
    cdef int i, signed
    if length != PACKET_LENGTH or memcmp(data + 8, b"kdf1\0\x90", 6) != 0:
        return 0
    if memcmp(data, LITTLE, MESSAGE_BYTES) == 0 or memcmp(data, BIG, MESSAGE_BYTES) == 0:
        packet.kind = STATUS
    elif memcmp(data, b"KDFQUEST", 8) == 0:
        packet.kind = QUESTION
    elif memcmp(data, b"KDFALIVE", 8) == 0:
        packet.kind = ALIVE
    else:
        return 0
    packet.state = data[15]
    packet.key_id = <uint32_t>packet_number(data + 16, 4)
    signed = packet.key_id != 0
    if data[14] != signed or packet.state > FAILED_STATE or (packet.state == 0) == (packet.kind == STATUS):
        return 0
    packet.interval = <uint32_t>packet_number(data + 20, 4)
    packet.session = packet_number(data + 24, 8)
    packet.sequence = packet_number(data + 32, 8)
    if packet.kind != STATUS and (packet.interval or packet.session or packet.sequence):
        return 0
    memcpy(packet.nonce, data + 40, NONCE_BYTES)
    memcpy(packet.name, data + 56, NAME_BYTES)
    i = 0
    while i < NAME_BYTES and 0x21 <= packet.name[i] <= 0x7E:
        i += 1
    packet.name_length = i
    if i == 0:
        return 0
    while i < NAME_BYTES and packet.name[i] == 0:
        i += 1
    if i < NAME_BYTES:
        return 0
    if not signed:
        for i in range(SIGNED_BYTES, PACKET_LENGTH):
            if data[i]:
                return 0
    return 1


cdef void packet_write(const CPacket *packet, const uint8_t *message, uint8_t *data) noexcept nogil:
    """The bytes of a packet but for the MAC, zeroes; `message`: what a status begins with."""
    memset(data, 0, PACKET_LENGTH)
    memcpy(data, message if packet.kind == STATUS else <const uint8_t *>b"KDFQUEST"
           if packet.kind == QUESTION else <const uint8_t *>b"KDFALIVE", MESSAGE_BYTES)
    memcpy(data + 8, b"kdf1\0\x90", 6)
    data[14] = packet.key_id != 0
    data[15] = <uint8_t>packet.state
    packet_put(data + 16, 4, packet.key_id)
    packet_put(data + 20, 4, packet.interval)
    packet_put(data + 24, 8, packet.session)
    packet_put(data + 32, 8, packet.sequence)
    memcpy(data + 40, packet.nonce, NONCE_BYTES)
    memcpy(data + 56, packet.name, packet.name_length)
