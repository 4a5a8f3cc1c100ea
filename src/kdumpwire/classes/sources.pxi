# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Sources`, over sources.pxi."""

cdef bytes join_address(uint64_t high, uint64_t low):
    cdef uint8_t address[16]
    memcpy(address, &high, 8)
    memcpy(address + 8, &low, 8)
    if memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        return PyBytes_FromStringAndSize(<const char *>address + 12, 4)
    return PyBytes_FromStringAndSize(<const char *>address, 16)


cdef int check_address(bytes packed, uint64_t *high, uint64_t *low) except -1:
    if len(packed) != 4 and len(packed) != 16:
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    split_address(<const uint8_t *>PyBytes_AS_STRING(packed), <int>len(packed), high, low)
    return 0


cdef tuple what_was_told(const Told *told, int number):
    cdef tuple said = ()
    cdef int i
    for i in range(number):
        said += ((told[i].session, STATES[told[i].state], told[i].when, told[i].messages),)
    return said


cdef class Sources:
    """See `_purewire.Sources`."""

    cdef CSources c
    cdef Shared shared_table
    cdef Py_buffer table

    def __cinit__(self):
        import posix
        memset(&self.c, 0, sizeof(CSources))
        memset(&self.shared_table, 0, sizeof(Shared))
        pthread_mutex_init(&self.c.lock, NULL)
        self.c.seed = int.from_bytes(posix.urandom(8), "little")

    def __init__(self, uint32_t room=1 << 17):
        self.c.admit_room = room

    def __dealloc__(self):
        self.release_table()
        sources_free(&self.c)
        free(self.c.networks)
        pthread_mutex_destroy(&self.c.lock)

    def add(self, bytes packed not None, uint32_t scope=0, int32_t node=0):
        cdef uint64_t high, low
        cdef int result
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        result = sources_add(&self.c, high, low, scope, node)
        pthread_mutex_unlock(&self.c.lock)
        if result < 0:
            raise MemoryError

    def discard(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef int result
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        result = sources_discard(&self.c, high, low, scope)
        pthread_mutex_unlock(&self.c.lock)
        return result != 0

    def release(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef Source *source
        cdef int result = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL and source.entry:
            shared_fold(&self.c, source)
        if source != NULL and source.admitted and source.place == 0:
            result = sources_discard(&self.c, high, low, scope)
        pthread_mutex_unlock(&self.c.lock)
        return result != 0

    def find(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef Source *source
        cdef int32_t node = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL:
            node = source.node
        pthread_mutex_unlock(&self.c.lock)
        return None if source == NULL else node

    def admit(self, bytes packed not None, int prefix, int32_t node=0):
        cdef Network network
        cdef Network *grown
        cdef uint8_t mask[16]
        cdef int bits = 8 * <int>len(packed)
        cdef int i
        check_address(packed, &network.high, &network.low)
        if not 0 <= prefix <= bits:
            raise ValueError(f"prefix {prefix}: 0 to {bits} are allowed")
        prefix += 128 - bits
        for i in range(16):
            mask[i] = <uint8_t>((0xFF00 >> max(0, min(8, prefix - 8 * i))) & 0xFF)
        split_address(mask, 16, &network.high_mask, &network.low_mask)
        if network.high & ~network.high_mask or network.low & ~network.low_mask:
            raise ValueError("network with bits set behind its prefix")
        network.node = node
        network.ipv6 = prefix < 96      # any longer one leaves no doubt
        network.loopback = prefix >= 104 and is_loopback(network.high, network.low)
        pthread_mutex_lock(&self.c.lock)
        grown = <Network *>realloc(self.c.networks, (self.c.network_count + 1) * sizeof(Network))
        if grown != NULL:
            grown[self.c.network_count] = network
            self.c.networks = grown
            self.c.network_count += 1
        pthread_mutex_unlock(&self.c.lock)
        if grown == NULL:
            raise MemoryError

    def heard(self, int64_t most=65536):
        cdef Source given[256]
        cdef Told told[256 * MOST_TOLD]
        cdef uint32_t i, number = 1
        cdef list result = []
        while number and <int64_t>len(result) < most:
            # Copied in pieces, so that the receive loop never waits long for the lock.
            pthread_mutex_lock(&self.c.lock)
            number = sources_heard(&self.c, given, told, <uint32_t>min(256, most - <int64_t>len(result)))
            pthread_mutex_unlock(&self.c.lock)
            for i in range(number):
                result.append((given[i].node, join_address(given[i].high, given[i].low), given[i].scope,
                               given[i].port, given[i].first, given[i].last, given[i].messages,
                               what_was_told(&told[i * MOST_TOLD], given[i].told)))
        return result

    def share(self, table, uint64_t seed, int64_t quiet_ns, int64_t silent_ns):
        cdef Shared *shared = &self.shared_table
        cdef size_t buckets
        if self.c.shared != NULL:
            raise RuntimeError("these sources share a table already")
        PyObject_GetBuffer(table, &self.table, PyBUF_WRITABLE)
        buckets = self.table.len // (BUCKET * sizeof(Entry))
        if not buckets or buckets >> 31 or self.table.len % (BUCKET * sizeof(Entry)):
            size = self.table.len
            PyBuffer_Release(&self.table)
            raise ValueError(f"table of {size} bytes: must be a multiple of 128")
        shared.entries = <Entry *>self.table.buf
        shared.holders = <Holder *>take_lines(buckets * BUCKET * sizeof(Holder))
        if shared.holders == NULL:
            PyBuffer_Release(&self.table)
            raise MemoryError
        shared.buckets = <uint32_t>buckets
        shared.seed = seed
        shared.quiet = quiet_ns
        shared.silent = silent_ns
        shared.earliest = monotonic_ns()
        pthread_mutex_lock(&self.c.lock)
        self.c.shared = shared
        pthread_mutex_unlock(&self.c.lock)

    cdef void release_table(self):
        cdef Shared *shared = self.c.shared
        if shared != NULL:
            self.c.shared = NULL
            free_lines(shared.holders, shared_entries(shared) * sizeof(Holder))
            memset(shared, 0, sizeof(Shared))
            PyBuffer_Release(&self.table)

    def unshare(self):
        cdef uint32_t i
        pthread_mutex_lock(&self.c.lock)
        if self.c.shared != NULL:
            shared_count(&self.c)
            for i in range(self.c.count):
                if self.c.known[i].entry:
                    shared_dismiss(&self.c, &self.c.known[i])
            self.release_table()
        pthread_mutex_unlock(&self.c.lock)

    def sweep(self, int64_t again_ns=0):
        cdef int news = 0
        with nogil:
            pthread_mutex_lock(&self.c.lock)
            if self.c.shared != NULL:
                news = shared_sweep(&self.c, again_ns)
            pthread_mutex_unlock(&self.c.lock)
        return news != 0

    def fold(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef Source *source
        cdef int waits = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL:
            if source.entry:
                shared_fold_or_dismiss(&self.c, source)
            waits = source.place != 0
        pthread_mutex_unlock(&self.c.lock)
        return waits != 0

    def dismiss(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef Source *source
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL and source.entry:
            shared_dismiss(&self.c, source)
        pthread_mutex_unlock(&self.c.lock)

    def watch(self, bytes packed not None, uint32_t scope, uint64_t messages):
        cdef uint64_t high, low
        cdef Source *source
        cdef int watched = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL and source.entry:
            watched = 1
            self.c.shared.holders[source.entry - 1].zero = (
                source.seen - source.messages - <uint32_t>min(messages, <uint64_t>PLENTY >> 1))
        pthread_mutex_unlock(&self.c.lock)
        return watched != 0

    def peek(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef Source *source
        cdef uint32_t messages = 0
        cdef int64_t last = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.c.lock)
        source = sources_find(&self.c, high, low, scope)
        if source != NULL:
            last = source.last
            messages = source.messages
            if source.entry:
                last = max(last, look_64(&self.c.shared.entries[source.entry - 1].last))
                messages += look_32(&self.c.shared.entries[source.entry - 1].messages) - source.seen
        pthread_mutex_unlock(&self.c.lock)
        return last, messages

    def figures(self, double base=0.0):
        cdef uint32_t most = self.c.shared.count if self.c.shared != NULL else 0
        cdef bytes made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>most * FIGURES)
        cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(made)
        cdef size_t number = 0
        with nogil:
            pthread_mutex_lock(&self.c.lock)
            if self.c.shared != NULL:
                number = shared_figures(&self.c, at, most, base)
            pthread_mutex_unlock(&self.c.lock)
        return made if number == most else made[:number * FIGURES]

    @property
    def shared(self):
        return self.shared_table.count

    @property
    def next_silence(self):
        return self.shared_table.earliest + self.shared_table.silent

    @property
    def held_here(self):
        return False  # Python handles no signal while one of these calls is under way

    @property
    def counted(self):
        return self.count_all()

    cdef uint64_t count_all(self):
        """Messages that the kernel counted."""
        cdef uint64_t counted = 0
        with nogil:
            pthread_mutex_lock(&self.c.lock)
            if self.c.shared != NULL:
                shared_count(&self.c)
            counted = self.c.counted
            pthread_mutex_unlock(&self.c.lock)
        return counted

    def __len__(self):
        cdef uint32_t count
        pthread_mutex_lock(&self.c.lock)
        count = self.c.count
        pthread_mutex_unlock(&self.c.lock)
        return count

    def __iter__(self):
        cdef Source *known
        cdef uint32_t i, count
        pthread_mutex_lock(&self.c.lock)
        count = self.c.count
        known = <Source *>malloc(count * sizeof(Source) + 1)
        if known != NULL and count:
            memcpy(known, self.c.known, count * sizeof(Source))
        pthread_mutex_unlock(&self.c.lock)
        if known == NULL:
            raise MemoryError
        try:
            return iter([(join_address(known[i].high, known[i].low), known[i].scope)
                         for i in range(count)])
        finally:
            free(known)
