# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Signed`, over signed.pxi."""

cdef class Signed:
    """See `_purewire.Signed`."""

    cdef CSigned c
    cdef Sources sources

    def __cinit__(self, Sources sources not None, keys):
        import posix
        cdef bytes secret = posix.urandom(KEY_BYTES)
        if not SIGNING:
            raise RuntimeError("this core was built without HMAC-SHA256")
        memset(&self.c, 0, sizeof(CSigned))
        self.sources = sources
        self.c.sources = &sources.c
        mac_prepare(&self.c.secret, <const uint8_t *>PyBytes_AS_STRING(secret), KEY_BYTES)
        self.c.budgets = <int64_t *>calloc(BUDGETS, sizeof(int64_t))
        self.c.asked = <AskedSession *>calloc(ASKED_SESSIONS, sizeof(AskedSession))
        self.c.forgotten = <uint64_t *>calloc(FORGOTTEN, sizeof(uint64_t))
        self.c.questions = <Question *>malloc(QUESTIONS * sizeof(Question))
        if (self.c.budgets == NULL or self.c.asked == NULL or self.c.forgotten == NULL
                or self.c.questions == NULL):
            raise MemoryError
        self.use(keys)

    def __dealloc__(self):
        free_lines(self.c.nodes, self.c.room * sizeof(SignedNode))
        free(self.c.budgets)
        free(self.c.asked)
        free(self.c.forgotten)
        free(self.c.questions)

    def use(self, keys):
        cdef SignedKey made[2]
        cdef bytes key
        cdef int at = 0
        memset(made, 0, sizeof(made))
        if not 1 <= len(keys) <= 2:
            raise ValueError(f"{len(keys)} keys: 1 or 2 are allowed")
        for number, key in keys:
            check_key(key)
            if not 0 < number < 1 << 32:
                raise ValueError(f"key id {number}: 1 to {(1 << 32) - 1} are allowed")
            made[at].number = number
            key_extract(<const uint8_t *>PyBytes_AS_STRING(key), &made[at].by)
            at += 1
        pthread_mutex_lock(&self.sources.c.lock)
        memcpy(self.c.keys, made, sizeof(made))
        self.c.version += 1
        pthread_mutex_unlock(&self.sources.c.lock)

    cdef int check_name(self, str name, uint8_t *padded) except -1:
        if not is_packet_name(name):
            raise ValueError(f"name {name!r}: not 1 to 64 ASCII characters without blanks")
        cdef bytes encoded = name.encode()
        memset(padded, 0, NAME_BYTES)
        memcpy(padded, PyBytes_AS_STRING(encoded), len(encoded))
        return 0

    def add(self, str name not None):
        cdef uint8_t padded[NAME_BYTES]
        cdef int64_t result
        self.check_name(name, padded)
        pthread_mutex_lock(&self.sources.c.lock)
        result = signed_add(&self.c, padded, 0)
        pthread_mutex_unlock(&self.sources.c.lock)
        if result < 0:
            raise MemoryError

    cdef bint leave(self, str name, int released) except -1:
        cdef uint8_t padded[NAME_BYTES]
        cdef int result
        self.check_name(name, padded)
        pthread_mutex_lock(&self.sources.c.lock)
        result = signed_discard(&self.c, padded, released)
        pthread_mutex_unlock(&self.sources.c.lock)
        return result

    def discard(self, str name not None):
        return self.leave(name, 0)

    def release(self, str name not None):
        return self.leave(name, 1)

    def heard(self, int64_t most=65536):
        cdef Source given[256]
        cdef Told told[256 * MOST_TOLD]
        cdef uint8_t names[256 * NAME_BYTES]
        cdef Source *one
        cdef SignedNode *node
        cdef uint32_t i, number = 1
        cdef list result = []
        while number and <int64_t>len(result) < most:
            pthread_mutex_lock(&self.sources.c.lock)
            number = sources_heard(
                &self.sources.c, given, told, <uint32_t>min(256, most - <int64_t>len(result)))
            for i in range(number):
                one = &given[i]
                node = &self.c.nodes[one.node]
                memcpy(names + i * NAME_BYTES, node.name, NAME_BYTES)
                one.high, one.low, one.scope = node.high, node.low, node.scope
            pthread_mutex_unlock(&self.sources.c.lock)
            for i in range(number):
                one = &given[i]
                name = PyBytes_FromStringAndSize(<const char *>names + i * NAME_BYTES, NAME_BYTES)
                result.append((name.rstrip(b"\0").decode("ascii"), join_address(one.high, one.low),
                               one.scope, one.port, one.first, one.last, one.messages,
                               what_was_told(&told[i * MOST_TOLD], one.told)))
        return result
