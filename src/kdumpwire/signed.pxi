# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed messages: which are believed, and what is to be asked before; docs/protocol.md has the rules.

C without Python; the twin of `_purewire.Signed`. A node is in the table of sources under 16 bytes made
of its name in the place of an address: so what was heard of it is kept there, wherever it spoke from.
May be here: the judgement over a packet, and the questions that follow from it. May not: waiting
and reading. Whoever calls holds the lock of the table of sources. Nothing is allocated for a packet
whose MAC does not fit.
"""

cdef enum:
    SESSIONS = 4            # of a node that are believed at a time
    QUESTIONS = 256         # that a batch may bring about
    # Tables that are found in by a hash. Names that share a place share what is allowed.
    BUDGETS = 1 << 16
    ASKED_SESSIONS = 1 << 12
    FORGOTTEN = 1 << 12

cdef extern from "kdumpwire/signed.h" nogil:
    int64_t SESSION_NS, NONCE_NS, QUESTION_NS, QUESTIONS_AT_ONCE, FIRST_GAP_NS, LAST_GAP_NS

ctypedef struct Session:
    uint64_t number
    uint64_t sequence       # the highest that was heard
    int64_t heard           # when it was believed last, CLOCK_MONOTONIC, nanoseconds; 0: there is none

ctypedef struct SignedNode:
    # What a message needs comes first, in whole cache lines: see take_lines.
    uint8_t name[NAME_BYTES]    # padded with zeroes
    Session sessions[SESSIONS]
    uint64_t high           # where it spoke from last
    uint64_t low
    uint32_t scope
    uint32_t next           # of a free place: 1 + the next free one
    uint32_t made[2]        # of which version of the cluster's keys these are
    MacKey keys[2]          # made when they are needed
    uint8_t spare[48]       # 512 bytes in all

ctypedef struct SignedKey:
    uint32_t number         # 0: there is none
    MacKey by               # what the nodes' keys are derived by

ctypedef struct Question:
    sockaddr_in6 to         # or a sockaddr_in
    int same_port           # as ours, not the one that the message came from
    uint8_t data[PACKET_LENGTH]

ctypedef struct AskedSession:
    uint64_t number         # and its node's name, mixed
    uint64_t sequence       # the highest that was asked about
    uint64_t source         # where that came from, mixed
    int64_t next            # when it may be asked about again
    int64_t gap
    uint32_t times

ctypedef struct CSigned:
    CSources *sources
    SignedKey keys[2]
    uint32_t version        # of the keys, from 1 on
    SignedNode *nodes
    uint32_t count          # of places that are or were taken
    uint32_t room
    uint32_t free           # 1 + the first of those that are free again, 0 = none
    MacKey secret           # what nonces are made with
    int64_t *budgets        # when the questions of names will be paid for
    AskedSession *asked
    uint64_t *forgotten     # how often something was forgotten of names
    Question *questions     # to be sent
    int question_count
    int taken               # by a receiver


cdef void signed_hash(CSigned *signed, const uint8_t *name, uint64_t *high, uint64_t *low) noexcept nogil:
    """What a name, padded with zeroes, has in the place of an address."""
    cdef uint64_t word, h = signed.sources.seed, l = ~signed.sources.seed
    cdef int i
    for i in range(NAME_BYTES // 8):
        memcpy(&word, name + 8 * i, 8)
        h = (h ^ word) * <uint64_t>0x9E3779B97F4A7C15
        h ^= h >> 32
        l = (l ^ word) * <uint64_t>0xD6E8FEB86659FD93
        l ^= l >> 29
    high[0] = h
    low[0] = l


cdef int64_t signed_find(
    CSigned *signed, const uint8_t *name, uint64_t high, uint64_t low, SignedNode **node
) noexcept nogil:
    """The index of a node among the sources, and the node; -1 for a stranger."""
    cdef int64_t slot = sources_slot(signed.sources, high, low, 0)
    cdef uint32_t index
    if slot < 0:
        return -1
    index = signed.sources.slots[slot].index - 1
    node[0] = &signed.nodes[signed.sources.known[index].node]
    # Two names with one hash are hardly to be found, even by who looks for them.
    return index if memcmp(node[0].name, name, NAME_BYTES) == 0 else -1


cdef int64_t signed_add(CSigned *signed, const uint8_t *name, int admitted) noexcept nogil:
    """The index of a node among the sources, added if it is not there; -1 = no memory."""
    cdef uint64_t high, low
    cdef uint32_t at, room
    cdef SignedNode *node
    cdef int64_t index
    signed_hash(signed, name, &high, &low)
    index = signed_find(signed, name, high, low, &node)
    if index >= 0:
        signed.sources.admitted -= signed.sources.known[index].admitted
        signed.sources.known[index].admitted = 0
        return index
    at = signed.free - 1
    if signed.free == 0:
        at = signed.count
        if at == signed.room:
            room = signed.room + (signed.room >> 1) + 16
            node = <SignedNode *>take_lines(room * sizeof(SignedNode))
            if node == NULL:
                return -1
            if signed.count:
                memcpy(node, signed.nodes, signed.count * sizeof(SignedNode))
            free_lines(signed.nodes, signed.room * sizeof(SignedNode))
            signed.nodes = node
            signed.room = room
    if sources_add(signed.sources, high, low, 0, <int32_t>at) < 0:
        return -1
    node = &signed.nodes[at]
    if signed.free:
        signed.free = node.next
    else:
        signed.count += 1
    memset(node, 0, sizeof(SignedNode))
    memcpy(node.name, name, NAME_BYTES)
    index = signed.sources.count - 1
    signed.sources.known[index].admitted = admitted
    signed.sources.admitted += admitted
    return index


cdef int signed_discard(CSigned *signed, const uint8_t *name, int released) noexcept nogil:
    """Whether it was there; `released`: only one that a network admitted, and that was not heard."""
    cdef uint64_t high, low
    cdef SignedNode *node
    cdef Source *source
    cdef int64_t index
    signed_hash(signed, name, &high, &low)
    index = signed_find(signed, name, high, low, &node)
    if index < 0:
        return 0
    source = &signed.sources.known[index]
    if released and (not source.admitted or source.place):
        return 0
    signed_forget(signed, high)
    sources_discard(signed.sources, high, low, 0)
    node.next = signed.free
    signed.free = <uint32_t>(node - signed.nodes) + 1
    return 1


cdef inline void signed_forget(CSigned *signed, uint64_t high) noexcept nogil:
    """A session of this name is forgotten: nobody can tell any more what was heard of it.

    So the answers to all questions that are open are not believed any more: they might be repeated.
    """
    signed.forgotten[high % FORGOTTEN] += 1


cdef const MacKey *signed_key(CSigned *signed, SignedNode *node, int slot) noexcept nogil:
    """The key of a node."""
    cdef uint8_t key[KEY_BYTES]
    cdef size_t length
    if node.made[slot] != signed.version:
        length = 0
        while length < NAME_BYTES and node.name[length]:
            length += 1
        key_of_node_by(&signed.keys[slot].by, node.name, length, key)
        mac_prepare(&node.keys[slot], key, KEY_BYTES)
        node.made[slot] = signed.version
    return &node.keys[slot]


cdef void signed_nonce(CSigned *signed, const CPacket *packet, uint64_t high, int64_t period,
                       uint8_t *nonce) noexcept nogil:
    """What a node is asked with in a period of NONCE_NS: known without being kept."""
    cdef uint8_t text[NAME_BYTES + 16]
    cdef uint8_t made[MAC_BYTES]
    memcpy(text, packet.name, NAME_BYTES)
    memcpy(text + NAME_BYTES, &signed.forgotten[high % FORGOTTEN], 8)
    memcpy(text + NAME_BYTES + 8, &period, 8)
    mac_by(&signed.secret, text, sizeof(text), made)
    memcpy(nonce, made, NONCE_BYTES)


cdef int signed_answers(CSigned *signed, const CPacket *packet, uint64_t high, int64_t now) noexcept nogil:
    """Whether it has the nonce of a question that was sent just now."""
    cdef uint8_t nonce[NONCE_BYTES]
    cdef int64_t age
    memset(nonce, 0, NONCE_BYTES)
    if memcmp(packet.nonce, nonce, NONCE_BYTES) == 0:
        return 0                # what was sent unasked costs no MAC
    for age in range(2):
        signed_nonce(signed, packet, high, now // NONCE_NS - age, nonce)
        if memcmp(packet.nonce, nonce, NONCE_BYTES) == 0:
            return 1
    return 0


cdef AskedSession *signed_asked(CSigned *signed, const CPacket *packet, uint64_t high) noexcept nogil:
    """What was asked about a session, as far as that is remembered."""
    cdef uint64_t number = high ^ packet.session
    cdef AskedSession *asked = &signed.asked[(number * <uint64_t>0x9E3779B97F4A7C15 >> 32) % ASKED_SESSIONS]
    if asked.number != number:
        memset(asked, 0, sizeof(AskedSession))
        asked.number = number
    return asked


cdef void signed_ask(CSigned *signed, const CPacket *packet, uint64_t high, const MacKey *key,
                     const sockaddr_in6 *to, uint64_t source, int64_t now) noexcept nogil:
    """Ask who sent this, if it is worth a question.

    Messages of old crashes that are repeated must not use up what the node is allowed, or whoever
    repeats them keeps its next crash from being believed. So each session is asked about less and
    less often, and only for what is newer: or as new, and came another way.
    """
    cdef int64_t *budget = &signed.budgets[high % BUDGETS]
    cdef AskedSession *asked = signed_asked(signed, packet, high)
    cdef Question *question
    cdef CPacket made
    if asked.times and (now < asked.next or packet.sequence < asked.sequence):
        return
    if asked.times and packet.sequence == asked.sequence and source == asked.source:
        return
    if budget[0] > now + (QUESTIONS_AT_ONCE - 1) * QUESTION_NS or signed.question_count == QUESTIONS:
        return
    budget[0] = max(budget[0], now) + QUESTION_NS
    asked.sequence = packet.sequence
    asked.source = source
    # Two at a time: a node with two networks may hear only one of them.
    if asked.times & 1:
        asked.gap = min(2 * asked.gap, LAST_GAP_NS) if asked.gap else FIRST_GAP_NS
        asked.next = now + asked.gap
    question = &signed.questions[signed.question_count]
    signed.question_count += 1
    question.to = to[0]
    # Never more than one for a message, which would make us an amplifier: so by turns.
    question.same_port = asked.times & 2
    asked.times += 1
    memset(&made, 0, sizeof(made))
    made.kind = QUESTION
    made.key_id = packet.key_id
    signed_nonce(signed, packet, high, now // NONCE_NS, made.nonce)
    memcpy(made.name, packet.name, NAME_BYTES)
    made.name_length = packet.name_length
    packet_write(&made, LITTLE, question.data)
    mac_by(key, question.data, SIGNED_BYTES, question.data + SIGNED_BYTES)


cdef void signed_fetch(
    CSigned *signed, const uint8_t *message, size_t length, int step, uint64_t *found
) noexcept nogil:
    """Fetch what `signed_judge` will look at, in three steps: each of what the one before has fetched.

    The nodes' records are larger than the processor's caches. `found`: kept between the steps.
    """
    cdef CSources *sources = signed.sources
    cdef const uint8_t *line
    cdef uint64_t high, low
    cdef uint32_t at
    if length != PACKET_LENGTH or sources.count == 0:
        return
    if step == 0:
        signed_hash(signed, message + 56, &high, &low)
        found[0] = hash_address(sources, high, low, 0)
        prefetch(&sources.slots[found[0] & sources.mask])
        return
    at = sources.slots[found[0] & sources.mask].index
    if at == 0:
        return
    if step == 1:
        prefetch(&sources.known[at - 1])
        return
    line = <const uint8_t *>&signed.nodes[sources.known[at - 1].node]
    for at in range(0, sizeof(SignedNode), 64):
        prefetch(line + at)


cdef int signed_judge(
    CSigned *signed, const uint8_t *message, size_t length, uint64_t from_high, uint64_t from_low,
    uint32_t scope, const sockaddr_in6 *name, int64_t now, CPacket *packet, uint32_t *index,
) noexcept nogil:
    """The verdict over a message; if it is ACCEPTED, the packet, and its node's index among the sources.

    The cheap looks come first; nothing but a MAC that fits changes anything.
    """
    cdef SignedNode stranger
    cdef SignedNode *node
    cdef Session *session = NULL
    cdef Network *network = NULL
    cdef const MacKey *key
    cdef uint64_t high, low
    cdef int64_t known
    cdef int i, slot
    if not packet_read(message, length, packet) or packet.key_id == 0:
        return UNSIGNED
    slot = 0 if packet.key_id == signed.keys[0].number else 1
    if packet.key_id != signed.keys[slot].number:
        return KEY_UNKNOWN
    signed_hash(signed, packet.name, &high, &low)
    known = signed_find(signed, packet.name, high, low, &node)
    if known < 0:
        network = sources_network(signed.sources, from_high, from_low)
        if network == NULL:
            return STRANGER
        node = &stranger
        memset(node, 0, sizeof(SignedNode))
        memcpy(node.name, packet.name, NAME_BYTES)
    key = signed_key(signed, node, slot)
    if not mac_fits(key, message):
        return FORGED
    for i in range(SESSIONS):
        if node.sessions[i].heard and node.sessions[i].number == packet.session:
            session = &node.sessions[i]
    if session != NULL and packet.sequence <= session.sequence:
        return REPLAYED
    if session == NULL or now - session.heard > SESSION_NS:
        if not signed_answers(signed, packet, high, now):
            signed_ask(signed, packet, high, key, name, from_high * 31 + from_low, now)
            return REPLAYED
        if network != NULL:
            if signed.sources.admitted >= signed.sources.admit_room:
                return CROWDED
            known = signed_add(signed, packet.name, 1)
            if known < 0:
                return CROWDED
            node = &signed.nodes[signed.sources.known[known].node]
        memset(signed_asked(signed, packet, high), 0, sizeof(AskedSession))
        if session == NULL:
            session = &node.sessions[0]
            for i in range(1, SESSIONS):
                if node.sessions[i].heard < session.heard:
                    session = &node.sessions[i]
            if session.heard:
                signed_forget(signed, high)
        session.number = packet.session
    session.sequence = packet.sequence
    session.heard = now
    node.high, node.low, node.scope = from_high, from_low, scope
    index[0] = <uint32_t>known
    return ACCEPTED


cdef void signed_send(CSigned *signed, int fd, int port) noexcept nogil:
    """Send the questions over a socket with that port; what cannot be sent at once is not."""
    cdef Question *question
    cdef int i
    for i in range(signed.question_count):
        question = &signed.questions[i]
        if question.same_port:
            question.to.sin6_port = htons(<uint16_t>port)   # at the same place in both families
        sendto(fd, question.data, PACKET_LENGTH, MSG_DONTWAIT | MSG_NOSIGNAL, &question.to,
               sizeof(sockaddr_in) if question.to.sin6_family == AF_INET else sizeof(sockaddr_in6))
    signed.question_count = 0
