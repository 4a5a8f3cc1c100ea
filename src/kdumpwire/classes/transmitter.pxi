# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Transmitter`, over send.pxi."""

cdef class Transmitter:
    """See `_purewire.Transmitter`."""

    cdef object sock
    cdef CTransmitter c
    cdef bytes own_payload
    cdef dict vectors       # payload of a destination -> its struct iovec, as bytes
    cdef int busy

    def __cinit__(self):
        memset(&self.c, 0, sizeof(CTransmitter))

    def __init__(self, sock, bytes payload not None):
        if self.sock is not None:
            raise RuntimeError("Transmitter is set up once")
        self.sock = sock
        self.c.fd = sock.fileno()
        self.c.family = sock.family
        if self.c.fd < 0:
            raise ValueError("the socket is closed")
        self.vectors = {}
        self.payload = payload

    def __dealloc__(self):
        transmitter_free(&self.c)

    cdef int check_idle(self) except -1:
        if self.busy:
            raise RuntimeError("this transmitter is in use in another thread")
        return 0

    @property
    def payload(self):
        return self.own_payload

    @payload.setter
    def payload(self, bytes payload not None):
        self.check_idle()
        self.own_payload = payload
        self.c.payload.iov_base = PyBytes_AS_STRING(payload)
        self.c.payload.iov_len = len(payload)

    cdef iovec *vector(self, bytes payload) except NULL:
        """Where this payload lies, for as long as the transmitter lives."""
        cdef iovec *at
        cdef bytes held = self.vectors.get(payload)
        if held is None:
            held = PyBytes_FromStringAndSize(NULL, sizeof(iovec))
            at = <iovec *>PyBytes_AS_STRING(held)
            at.iov_base = PyBytes_AS_STRING(payload)
            at.iov_len = len(payload)
            self.vectors[payload] = held    # and with it the payload itself
        return <iovec *>PyBytes_AS_STRING(held)

    def add(self, bytes packed not None, int port, uint32_t scope=0, bytes source not None=b"",
            bytes payload=None):
        cdef int length = 4 if self.c.family == AF_INET else 16
        cdef int index
        cdef iovec *vector = &self.c.payload
        if len(packed) != length:
            raise ValueError(f"address of {len(packed)} bytes: this socket's family has {length}")
        if source and len(source) != length:
            raise ValueError(f"source of {len(source)} bytes: this socket's family has {length}")
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port}: 1 to 65535 are allowed")
        self.check_idle()
        if payload is not None:
            vector = self.vector(payload)
        index = transmitter_add(&self.c, <const uint8_t *>PyBytes_AS_STRING(packed), port, scope)
        if index < 0:
            raise MemoryError
        self.c.headers[index].msg_hdr.msg_iov = vector
        if source and transmitter_set_source(&self.c, index, <const uint8_t *>PyBytes_AS_STRING(source)) < 0:
            self.c.count -= 1
            raise MemoryError
        return index

    def __len__(self):
        return self.c.count

    def watch(self):
        return transmitter_watch(self.c.fd, self.c.family) != 0

    def send(self, which=None, patience_ns=20_000_000, bint told=False):
        cdef int i, index, count
        cdef int64_t patience = patience_ns
        cdef mmsghdr *headers = self.c.headers
        if which is not None:
            which = list(which)     # whatever an iterator does, it does it before the look
        self.check_idle()
        if told and which is None:
            which = list(range(self.c.count))
        count = self.c.count if which is None else <int>len(which)
        if transmitter_reserve(&self.c, count) < 0:
            raise MemoryError
        if which is not None:
            # Checked in full before anything is sent.
            for i in range(count):
                index = which[i]
                if not 0 <= index < self.c.count:
                    raise IndexError(f"destination {index}: 0 to {self.c.count - 1} are allowed")
                transmitter_choose(&self.c, i, index, told)
            headers = self.c.chosen
        self.busy = 1
        with nogil:
            i = send_all(self.c.fd, headers, count, self.c.outcomes, patience)
        self.busy = 0
        result = [self.c.outcomes[index] for index in range(count)]
        if i:
            PyErr_CheckSignals()
        return result

    def news(self, int most=1024):
        cdef News news
        cdef int length = 4 if self.c.family == AF_INET else 16
        cdef list result = []
        cdef bytes by
        while len(result) < most and transmitter_news(self.c.fd, self.c.family, &news):
            by = None
            if news.by_length:
                by = PyBytes_FromStringAndSize(<const char *>news.by, news.by_length)
            result.append((PyBytes_FromStringAndSize(<const char *>news.packed, length),
                           news.scope, news.error, by))
        return result

    @property
    def pending(self):
        return transmitter_pending(self.c.fd)
