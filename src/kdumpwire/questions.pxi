# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions that wait for an answer: from the receive loop to whoever answers.

C without Python; the twin of `_purewire.Questions`. May be here: which of them are kept, and for
how long. May not: sockets, and what is answered. Nothing is allocated for a question.
"""

cdef enum:
    MOST_WAITING = 32       # of each kind
    ANSWERS = 50            # a second, to each kind at most

cdef enum:
    SECOND = 1000000000

ctypedef struct CQuestion:
    uint64_t high           # who asks
    uint64_t low
    uint32_t scope
    uint32_t interface      # that it came through
    uint16_t port
    uint8_t destination[16]     # where it was sent to
    int destination_length
    int sock                # which of the receiver's sockets it came to
    uint8_t data[PACKET_LENGTH]

ctypedef struct CWaiting:
    CQuestion ring[MOST_WAITING]
    int at
    int count
    int64_t credit          # nanoseconds: an answer costs a second's ANSWERS-th part
    int64_t credited        # when: CLOCK_MONOTONIC

ctypedef struct CQuestions:
    pthread_mutex_t lock
    CWaiting others         # that anybody may have sent
    CWaiting ours           # signed with our key
    uint32_t key_id         # 0: there is none
    MacKey key
    int bell                # written to when there is something to be taken; -1: nothing
    uint64_t dropped


cdef inline int waiting_affords(CWaiting *waiting, int64_t now) noexcept nogil:
    """Whether one more answer is within the limit; it counts as given then."""
    waiting.credit = min(SECOND, waiting.credit + now - waiting.credited)
    waiting.credited = now
    if waiting.credit < SECOND // ANSWERS:
        return 0
    waiting.credit -= SECOND // ANSWERS
    return 1


cdef CQuestion *questions_place(
    CQuestions *questions, const uint8_t *data, int64_t now, int *rings
) noexcept nogil:
    """Where this question is to be put; NULL if it is dropped.

    Called with the lock held. `rings` becomes 1 if the bell is to ring.
    """
    cdef uint32_t key_id = <uint32_t>packet_number(data + 16, 4)
    cdef CWaiting *waiting = &questions.others
    if key_id and key_id == questions.key_id and mac_fits(&questions.key, data):
        waiting = &questions.ours
    if waiting.count == MOST_WAITING or not waiting_affords(waiting, now):
        questions.dropped += 1
        return NULL
    rings[0] = questions.ours.count + questions.others.count == 0
    waiting.count += 1
    return &waiting.ring[(waiting.at + waiting.count - 1) % MOST_WAITING]


cdef int questions_take(CQuestions *questions, CQuestion *question) noexcept nogil:
    """Whether there was one."""
    cdef CWaiting *waiting
    cdef int found = 0
    pthread_mutex_lock(&questions.lock)
    waiting = &questions.ours if questions.ours.count else &questions.others
    if waiting.count:
        question[0] = waiting.ring[waiting.at]
        waiting.at = (waiting.at + 1) % MOST_WAITING
        waiting.count -= 1
        found = 1
    pthread_mutex_unlock(&questions.lock)
    return found
