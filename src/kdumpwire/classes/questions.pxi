# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Questions`, over questions.pxi."""

cdef class Questions:
    """See `_purewire.Questions`."""

    cdef CQuestions c

    def __cinit__(self):
        memset(&self.c, 0, sizeof(CQuestions))
        pthread_mutex_init(&self.c.lock, NULL)

    def __init__(self, int bell=-1):
        self.c.bell = bell

    def __dealloc__(self):
        pthread_mutex_destroy(&self.c.lock)

    def know(self, uint32_t key_id, bytes key not None):
        if key_id:
            check_key(key)
        pthread_mutex_lock(&self.c.lock)
        self.c.key_id = key_id if SIGNING else 0
        if self.c.key_id:
            mac_prepare(&self.c.key, <const uint8_t *>PyBytes_AS_STRING(key), KEY_BYTES)
        pthread_mutex_unlock(&self.c.lock)

    def take(self):
        cdef CQuestion question
        cdef list result = []
        while len(result) < 2 * MOST_WAITING and questions_take(&self.c, &question):
            result.append((
                question.sock,
                join_address(question.high, question.low),
                question.scope,
                question.port,
                PyBytes_FromStringAndSize(<const char *>question.destination, question.destination_length),
                question.interface,
                PyBytes_FromStringAndSize(<const char *>question.data, PACKET_LENGTH),
            ))
        return result

    @property
    def dropped(self):
        cdef uint64_t dropped
        pthread_mutex_lock(&self.c.lock)
        dropped = self.c.dropped
        pthread_mutex_unlock(&self.c.lock)
        return dropped
