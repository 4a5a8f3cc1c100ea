# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Arrival` and `Receiver`, over receive.pxi."""

cdef class Arrival:
    """An accepted datagram: who sent it, when, and what it said."""

    cdef readonly int node
    cdef readonly bytes packed
    cdef readonly unsigned int scope
    cdef readonly unsigned int interface
    cdef readonly int port
    cdef readonly int64_t when_ns
    cdef readonly Message message

    def __repr__(self):
        return (f"Arrival(node={self.node}, packed={self.packed!r}, scope={self.scope}, "
                f"interface={self.interface}, port={self.port}, when_ns={self.when_ns}, "
                f"message={self.message!r})")


cdef class Receiver:
    """See `_purewire.Receiver`."""

    cdef CReceiver c
    cdef Sources sources
    cdef Sources strangers
    cdef Signed signed
    cdef Questions questions
    cdef list sockets
    cdef int busy

    def __cinit__(self):
        memset(&self.c, 0, sizeof(CReceiver))

    def __init__(self, Sources sources not None, Sources strangers=None, *, Signed signed=None,
                 int port=7410, int batch=32, int size=65535, uint32_t stranger_room=1024,
                 Questions questions=None):
        cdef int i
        cdef msghdr *header
        if self.c.data != NULL:
            raise RuntimeError("Receiver is set up once")
        if not 1 <= batch <= 1024:
            raise ValueError(f"batch {batch}: 1 to 1024 are allowed")
        least = 64 if signed is None else PACKET_LENGTH + 1
        if not least <= size <= 65535:
            raise ValueError(f"size {size}: {least} to 65535 are allowed")
        if signed is not None and (signed.sources is not sources or signed.c.taken):
            raise ValueError("signed: not of these sources, or another receiver's")
        self.sources = sources
        self.strangers = strangers
        self.signed = signed
        if signed is not None:
            signed.c.taken = 1
            self.c.signed = &signed.c
        self.sockets = []
        self.c.sources = &sources.c
        self.c.strangers = NULL if strangers is None else &strangers.c
        self.c.stranger_room = stranger_room
        self.questions = questions
        self.c.questions = NULL if questions is None else &questions.c
        self.c.port = port
        self.c.end = -1
        self.c.batch = batch
        self.c.size = size
        # An odd number of cache lines apart, so that the datagrams' first bytes do
        # not all fall into the same set of the processor's cache.
        self.c.stride = ((size + 63) // 64 | 1) * 64
        self.c.headers = <mmsghdr *>calloc(batch, sizeof(mmsghdr))
        self.c.vectors = <iovec *>calloc(batch, sizeof(iovec))
        self.c.names = <sockaddr_in6 *>calloc(batch, sizeof(sockaddr_in6))
        self.c.control = <uint8_t *>calloc(batch, CONTROL_BYTES)
        self.c.found = <CArrival *>calloc(batch, sizeof(CArrival))
        self.c.data = <uint8_t *>malloc(batch * self.c.stride)   # untouched pages cost nothing
        if (self.c.headers == NULL or self.c.vectors == NULL or self.c.names == NULL
                or self.c.control == NULL or self.c.found == NULL or self.c.data == NULL):
            raise MemoryError
        for i in range(batch):
            self.c.vectors[i].iov_base = self.c.data + i * self.c.stride
            self.c.vectors[i].iov_len = size
            header = &self.c.headers[i].msg_hdr
            header.msg_iov = &self.c.vectors[i]
            header.msg_iovlen = 1
            header.msg_name = &self.c.names[i]
            header.msg_control = self.c.control + i * CONTROL_BYTES

    def __dealloc__(self):
        free(self.c.headers)
        free(self.c.vectors)
        free(self.c.names)
        free(self.c.control)
        free(self.c.found)
        free(self.c.data)
        free(self.c.sockets)
        free(self.c.fds)

    cdef int check_idle(self) except -1:
        if self.busy:
            raise RuntimeError("this receiver is in use in another thread")
        return 0

    cdef int enter(self) except -1:
        """Nobody else may use the buffers until `leave`."""
        cdef int i, fd
        self.check_idle()
        for i in range(self.c.socket_count):
            # Asked each time: the number of a closed socket may be another's by now.
            fd = self.sockets[i].fileno()
            if fd < 0:
                raise os_error(EBADF)
            self.c.sockets[i].fd = fd
        self.busy = 1
        self.c.tally = 0
        self.c.rest = 0
        self.c.bell = -1
        return 0

    cdef void leave(self) noexcept:
        self.busy = 0

    cdef int reserve(self, int fds) except -1:
        cdef pollfd *grown
        if fds > self.c.fd_room:
            grown = <pollfd *>realloc(self.c.fds, fds * sizeof(pollfd))
            if grown == NULL:
                raise MemoryError
            self.c.fds = grown
            self.c.fd_room = fds
        return 0

    def add_socket(self, sock):
        cdef int kind = UDP
        cdef int fd = sock.fileno()
        cdef int flags = 0, addressed = 0
        cdef socklen_t length = sizeof(flags)
        cdef CSocket *grown
        if fd < 0:
            raise ValueError("the socket is closed")
        self.check_idle()
        if sock.type == SOCK_RAW:
            if self.signed is not None:
                raise ValueError("signed messages are read from UDP sockets alone")
            kind = RAW4 if sock.family == AF_INET else RAW6
        self.reserve(self.c.socket_count + 1)
        grown = <CSocket *>realloc(self.c.sockets, (self.c.socket_count + 1) * sizeof(CSocket))
        if grown == NULL:
            raise MemoryError
        self.c.sockets = grown
        grown[self.c.socket_count].fd = fd
        grown[self.c.socket_count].kind = kind
        grown[self.c.socket_count].port = sock.getsockname()[1]
        getsockopt(fd, SOL_SOCKET, STAMPING, &flags, &length)
        grown[self.c.socket_count].stamped = flags & STAMPED
        if self.questions is not None and kind == UDP:
            length = sizeof(addressed)
            if sock.family == AF_INET:
                getsockopt(fd, IPPROTO_IP, IP_PKTINFO, &addressed, &length)
            else:
                getsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &addressed, &length)
        grown[self.c.socket_count].addressed = addressed
        grown[self.c.socket_count].dropped = 0
        self.c.socket_count += 1
        self.sockets.append(sock)       # kept, so that the descriptor stays ours

    def discard_socket(self, sock):
        cdef int i
        self.check_idle()
        if sock not in self.sockets:
            raise ValueError("not a socket of this receiver")
        self.dropped
        i = self.sockets.index(sock)
        self.c.forgotten += self.c.sockets[i].dropped
        del self.sockets[i]
        self.c.socket_count -= 1
        for i in range(i, self.c.socket_count):
            self.c.sockets[i] = self.c.sockets[i + 1]

    def end(self, end_ns):
        self.check_idle()
        self.c.end = -1 if end_ns is None else max(0, end_ns)
        self.c.ahead = clock_ns(CLOCK_REALTIME)
        self.c.ahead -= monotonic_ns()

    cdef list take_found(self):
        cdef int i
        cdef CArrival *found
        cdef Arrival arrival
        cdef list result = []
        for i in range(self.c.found_count):
            found = &self.c.found[i]
            arrival = Arrival.__new__(Arrival)
            arrival.node = found.node
            arrival.packed = join_address(found.high, found.low)
            arrival.scope = found.scope
            arrival.interface = found.interface
            arrival.port = found.port
            arrival.when_ns = self.c.found_at
            arrival.message = make_message(found.message, found.length)
            result.append(arrival)
        self.c.found_count = 0
        return result

    cdef int wait(self, deadline_ns, wake) except -1:
        """Wait and read; HEARD, TIMED_OUT or WOKEN."""
        cdef int64_t deadline = -1 if deadline_ns is None else max(0, deadline_ns)
        cdef int wakers = <int>len(wake)
        cdef int i, result
        self.reserve(self.c.socket_count + wakers)
        for i in range(self.c.socket_count):
            self.c.fds[i].fd = self.c.sockets[i].fd
            self.c.fds[i].events = <short>POLLIN
        for i in range(wakers):
            self.c.fds[self.c.socket_count + i].fd = wake[i]
            self.c.fds[self.c.socket_count + i].events = <short>POLLIN
        self.c.late = LATE_ROUNDS
        while True:
            with nogil:
                result = receiver_wait_and_read(&self.c, deadline, wakers)
                while result == PAUSED and self.c.bell >= 0:
                    result = receiver_wait_and_read(&self.c, deadline, wakers)
            if result == FAILED:
                raise os_error(self.c.error)
            if result != PAUSED:
                return result
            PyErr_CheckSignals()

    cdef int check_reports(self) except -1:
        if self.signed is not None:
            raise RuntimeError("signed messages are only counted")
        return 0

    def receive(self, deadline_ns, wake=()):
        self.check_reports()
        self.enter()
        try:
            return self.take_found() if self.wait(deadline_ns, wake) == HEARD else []
        finally:
            self.leave()

    def count(self, deadline_ns, wake=(), int bell=-1, int64_t rest_ns=0):
        if not 0 <= rest_ns < 1000000000:
            raise ValueError(f"rest of {rest_ns} ns: 0 to 999999999 are allowed")
        self.enter()
        self.c.rest = rest_ns
        self.c.tally = 1
        self.c.tallied = 0
        self.c.bell = bell
        try:
            self.wait(deadline_ns, wake)
            return self.c.tallied
        finally:
            self.leave()

    def take(self, int batches=1):
        cdef int i, _batch, got, error
        cdef list result = []
        self.check_reports()
        self.enter()
        try:
            for i in range(self.c.socket_count):
                for _batch in range(batches):
                    with nogil:
                        got = receiver_read_batch(&self.c, &self.c.sockets[i])
                        error = errno
                    if got < 0 and error != EAGAIN and error != EWOULDBLOCK and error != EINTR:
                        self.c.errors += 1
                    if got <= 0:
                        break
                    if self.c.found_count:
                        result += self.take_found()
                    if got < self.c.batch:
                        break
        finally:
            self.leave()
        return result

    @property
    def counts(self):
        cdef uint64_t counts[VERDICTS]
        # Another thread may be reading, and where 64 bits are two words it writes them one by one.
        pthread_mutex_lock(&self.sources.c.lock)
        memcpy(counts, self.c.counts, sizeof(counts))
        pthread_mutex_unlock(&self.sources.c.lock)
        return count_names(counts)

    @property
    def errors(self):
        return self.c.errors

    @property
    def dropped(self):
        cdef uint32_t info[16]
        cdef uint32_t more
        cdef socklen_t length
        cdef CSocket *sock
        cdef int i
        cdef uint64_t counted, total = self.c.forgotten
        for i in range(self.c.socket_count):
            # See `_purewire.Receiver.dropped`. Its field 8 is SK_MEMINFO_DROPS.
            sock = &self.c.sockets[i]
            length = sizeof(info)
            memset(info, 0, sizeof(info))
            if (getsockopt(self.sockets[i].fileno(), SOL_SOCKET, SO_MEMINFO, info, &length) == 0
                    and length >= 9 * sizeof(uint32_t)):
                more = info[8] - <uint32_t>sock.dropped
                if more < <uint32_t>1 << 31 or sock.dropped == 0:
                    sock.dropped += more
            total += sock.dropped
        counted = self.sources.count_all()
        if counted:
            # What the kernel has counted it has dropped as well. In this order it never seems more.
            self.c.unread = max(self.c.unread, total - counted if total > counted else 0)
            return self.c.unread
        return total
