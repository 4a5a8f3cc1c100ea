# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages as Python has them, over codec.pxi."""

class Rejected(ValueError):
    """These bytes do not begin with a message; `reason` is one of REASONS."""

    def __init__(self, reason):
        ValueError.__init__(self, f"not a message: {reason}")
        self.reason = reason


cdef class Message:
    """What a datagram said."""

    cdef readonly int version
    cdef readonly str byteorder
    cdef readonly bytes trailer

    def __init__(self, int version, str byteorder not None, bytes trailer not None=b""):
        self.version = version
        self.byteorder = byteorder
        self.trailer = trailer

    def __eq__(self, other):
        if type(other) is not Message:
            return NotImplemented
        cdef Message that = other
        return (self.version == that.version and self.byteorder == that.byteorder
                and self.trailer == that.trailer)

    def __hash__(self):
        return hash((self.version, self.byteorder, self.trailer))

    def __reduce__(self):
        return (Message, (self.version, self.byteorder, self.trailer))

    def __repr__(self):
        return f"Message(version={self.version!r}, byteorder={self.byteorder!r}, trailer={self.trailer!r})"


cdef Message make_message(const uint8_t *data, size_t length):
    cdef Message message = Message.__new__(Message)
    message.version = 1
    message.byteorder = "little" if data[0] == LITTLE[0] else "big"
    message.trailer = PyBytes_FromStringAndSize(<const char *>data + MESSAGE_BYTES, length - MESSAGE_BYTES)
    return message


def encode(str byteorder not None):
    """See `_purewire.encode`."""
    if byteorder == "little":
        return PyBytes_FromStringAndSize(<const char *>LITTLE, MESSAGE_BYTES)
    if byteorder == "big":
        return PyBytes_FromStringAndSize(<const char *>BIG, MESSAGE_BYTES)
    raise ValueError(f"byteorder {byteorder!r}: not 'little' or 'big'")


def decode(data):
    """See `_purewire.decode`."""
    cdef Py_buffer view
    cdef int verdict
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        verdict = check_message(<const uint8_t *>view.buf, view.len)
        if verdict != ACCEPTED:
            raise Rejected(REASONS[verdict - 1])
        return make_message(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef dict count_names(uint64_t *counts):
    result = {"accepted": counts[ACCEPTED]}
    for i, reason in enumerate(REASONS):
        result[reason] = counts[i + 1]
    return result


def validate(data):
    """See `_purewire.validate`."""
    cdef Py_buffer view
    cdef uint64_t counts[VERDICTS]
    memset(counts, 0, sizeof(counts))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            check_packed(<const uint8_t *>view.buf, view.len, counts)
    finally:
        PyBuffer_Release(&view)
    return count_names(counts)
