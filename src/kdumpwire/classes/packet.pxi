# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Packet`, its bytes and its MAC, over packet.pxi."""

from sys import byteorder as OWN_BYTEORDER

cdef tuple KINDS = ("status", "question", "alive")


cdef class Packet:
    """See `_purewire.Packet`."""

    cdef readonly str kind
    cdef readonly str name
    cdef readonly str state
    cdef readonly object key_id
    cdef readonly object interval
    cdef readonly object session
    cdef readonly object sequence
    cdef readonly bytes nonce

    def __init__(self, str kind not None, str name not None, *, str state not None="", key_id=0,
                 interval=0, session=0, sequence=0, bytes nonce not None=bytes(16)):
        cdef bint stateless = state == ""
        cdef bint status = kind == "status"
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}: not 'status', 'question' or 'alive'")
        if state not in STATES or stateless == status:
            raise ValueError(f"state {state!r}: not one of a packet of kind {kind!r}")
        if not is_packet_name(name):
            raise ValueError(f"name {name!r}: not 1 to 64 ASCII characters without blanks")
        for what, number, bits in (
            ("key_id", key_id, 32),
            ("interval", interval, 32),
            ("session", session, 64),
            ("sequence", sequence, 64),
        ):
            if not 0 <= number < 1 << bits:
                raise ValueError(f"{what} {number}: not a number of {bits} bits")
            if number and not status and what != "key_id":
                raise ValueError(f"{what} {number}: only a status has one")
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"nonce of {len(nonce)} bytes: not 16")
        self.kind = kind
        self.name = name
        self.state = state
        self.key_id = key_id
        self.interval = interval
        self.session = session
        self.sequence = sequence
        self.nonce = nonce

    cdef tuple fields(self):
        return (self.interval, self.key_id, self.kind, self.name, self.nonce, self.sequence,
                self.session, self.state)

    def __eq__(self, other):
        if type(other) is not Packet:
            return NotImplemented
        return self.fields() == (<Packet>other).fields()

    def __hash__(self):
        return hash(self.fields())

    def __repr__(self):
        return (
            f"Packet({self.kind!r}, {self.name!r}, state={self.state!r}, key_id={self.key_id!r}, "
            f"interval={self.interval!r}, session={self.session!r}, "
            f"sequence={self.sequence!r}, nonce={self.nonce!r})"
        )


def is_packet_name(str name not None):
    """See `_purewire.is_packet_name`."""
    return 0 < len(name) <= NAME_BYTES and all("!" <= letter <= "~" for letter in name)


cdef check_key(bytes key):
    if len(key) != KEY_BYTES:
        raise ValueError(f"key of {len(key)} bytes: not {KEY_BYTES}")


def mac(bytes key not None, data):
    """See `_purewire.mac`."""
    cdef uint8_t out[MAC_BYTES]
    cdef Py_buffer view
    check_key(key)
    if not SIGNING:
        from hmac import digest

        return digest(key, memoryview(data).cast("B"), "sha256")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    mac_compute(<const uint8_t *>PyBytes_AS_STRING(key), <const uint8_t *>view.buf, view.len, out)
    PyBuffer_Release(&view)
    return PyBytes_FromStringAndSize(<const char *>out, MAC_BYTES)


def encode_packet(Packet packet not None, bytes key not None=b"", str byteorder not None=OWN_BYTEORDER):
    """See `_purewire.encode_packet`."""
    cdef CPacket c
    cdef uint8_t data[PACKET_LENGTH]
    cdef bytes name = packet.name.encode()
    cdef bytes head = encode(byteorder)
    cdef bytes signed
    cdef bint signs = len(key) != 0
    cdef bint has_id = packet.key_id != 0
    if has_id != signs:
        raise ValueError("a packet has a key id and is signed with a key, or has neither")
    memset(&c, 0, sizeof(c))
    c.kind = KINDS.index(packet.kind)
    c.state = STATES.index(packet.state)
    c.key_id = packet.key_id
    c.interval = packet.interval
    c.session = packet.session
    c.sequence = packet.sequence
    memcpy(c.nonce, PyBytes_AS_STRING(packet.nonce), NONCE_BYTES)
    c.name_length = <int>len(name)
    memcpy(c.name, PyBytes_AS_STRING(name), len(name))
    packet_write(&c, <const uint8_t *>PyBytes_AS_STRING(head), data)
    if not signs:
        return PyBytes_FromStringAndSize(<const char *>data, PACKET_LENGTH)
    signed = PyBytes_FromStringAndSize(<const char *>data, SIGNED_BYTES)
    return signed + mac(key, signed)


def decode_packet(data):
    """See `_purewire.decode_packet`."""
    cdef Py_buffer view
    cdef CPacket c
    cdef int fits
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    fits = packet_read(<const uint8_t *>view.buf, view.len, &c)
    PyBuffer_Release(&view)
    if not fits:
        return None
    return Packet(
        KINDS[c.kind],
        PyBytes_FromStringAndSize(<const char *>c.name, c.name_length).decode("ascii"),
        state=STATES[c.state],
        key_id=c.key_id,
        interval=c.interval,
        session=c.session,
        sequence=c.sequence,
        nonce=PyBytes_FromStringAndSize(<const char *>c.nonce, NONCE_BYTES),
    )


def packet_fits(data, bytes key not None):
    """See `_purewire.packet_fits`."""
    cdef Py_buffer view
    cdef CPacket c
    cdef MacKey prepared
    cdef int fits
    check_key(key)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    fits = packet_read(<const uint8_t *>view.buf, view.len, &c) and c.key_id != 0
    if fits and SIGNING:
        mac_prepare(&prepared, <const uint8_t *>PyBytes_AS_STRING(key), KEY_BYTES)
        fits = mac_fits(&prepared, <const uint8_t *>view.buf)
    PyBuffer_Release(&view)
    if fits and not SIGNING:
        from hmac import compare_digest

        packed = bytes(memoryview(data).cast("B"))
        return compare_digest(mac(key, packed[:SIGNED_BYTES]), packed[SIGNED_BYTES:])
    return fits != 0
