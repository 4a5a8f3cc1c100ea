# SPDX-License-Identifier: GPL-2.0-or-later
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
    CWaiting ours           # that name our key
    uint32_t key_id         # 0: there is none
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
    CQuestions *questions, uint32_t key_id, int64_t now, int *rings
) noexcept nogil:
    """Where a question is to be put that names this key; NULL if it is dropped.

    Called with the lock held. `rings` becomes 1 if the bell is to ring.
    """
    cdef int ours = key_id != 0 and key_id == questions.key_id
    cdef CWaiting *waiting = &questions.ours if ours else &questions.others
    if waiting.count == MOST_WAITING or not ours and not waiting_affords(waiting, now):
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
