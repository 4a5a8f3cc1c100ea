# SPDX-License-Identifier: LGPL-2.1-or-later
"""The known sources: a hash table of addresses, with what was heard of each.

C without Python; the twin of what `_purewire.Sources` keeps in dicts and lists. May be here:
looking an address up, and keeping count of it. May not: sockets, and whether a message is one.
Whoever calls holds the lock, where there are threads.
"""

cdef enum:
    MOST_TOLD = 4

ctypedef struct Told:
    # What a status said.
    uint64_t session
    int64_t when        # CLOCK_MONOTONIC, nanoseconds
    uint32_t messages   # of its source since it was last given out, this one included
    int16_t state
    int16_t end         # whether this state is the end of a dump

ctypedef struct Source:
    uint64_t high       # the address as 16 bytes; IPv4 as ::ffff:a.b.c.d
    uint64_t low
    int64_t first       # when it was heard, first since it was last given out as heard...
    int64_t last        # ...and last: CLOCK_MONOTONIC, nanoseconds
    uint32_t scope      # interface index of a link-local address, else 0
    int32_t node        # the caller's number for it
    uint32_t messages   # since it was last given out as heard
    uint32_t place      # 1 + its place in sources.heard, 0 = not there
    uint16_t port
    uint8_t admitted    # not by the caller, but by the receive loop
    uint8_t told        # how many of its places in sources.told are taken
    uint32_t entry      # 1 + its place in sources.shared.entries, 0 = none
    uint32_t seen       # of entry.messages
    uint8_t spare[4]    # 64 bytes in all, a cache line: see take_lines

ctypedef struct Slot:
    uint32_t index      # 1 + index of a known source, 0 = free
    uint32_t hash       # of its address, so that a look past it need not look at the source

ctypedef struct Network:
    # Sources in here are admitted by the receive loop.
    uint64_t high
    uint64_t low
    uint64_t high_mask
    uint64_t low_mask
    int32_t node
    int ipv6            # and no IPv4 address is in it, whatever its prefix
    int loopback        # else no loopback address is in it

ctypedef struct Entry:
    # What the kernel counts of a source; `kdumpfence.listener.kernel.program` has the same.
    uint64_t high       # both halves 0: free
    uint64_t low
    int64_t last        # CLOCK_MONOTONIC, nanoseconds
    uint32_t messages
    uint32_t scope

ctypedef struct Holder:
    # Who has the entry with the same number.
    uint32_t source     # 1 + its index, 0 = nobody
    uint32_t zero       # what entry.messages was when its dump began, as far as is known

ctypedef struct Shared:
    Entry *entries
    Holder *holders       # as many
    uint64_t seed
    int64_t quiet       # nanoseconds without a message that make the next one news...
    int64_t silent      # ...and that have the source given out, and its entry taken from it
    int64_t earliest    # nobody's last message was before that, at the last look
    uint32_t buckets
    uint32_t count      # of entries that somebody has
    uint32_t sum        # of the messages of all entries, at the last look, modulo 2**32

ctypedef struct CSources:
    pthread_mutex_t lock
    Shared *shared      # NULL: the kernel counts nothing
    uint64_t counted    # messages that the kernel had counted at the last look
    Source *known       # dense, in order of insertion until something is removed
    Told *told          # MOST_TOLD for each of them; not touched for who sends bare messages
    Slot *slots         # open addressing
    uint32_t *heard     # a ring of indexes of those heard and not given out yet
    uint32_t heard_at
    uint32_t heard_count
    uint32_t count
    uint32_t room       # of all three
    uint32_t mask       # number of slots - 1
    uint64_t seed       # random, so that no sender can choose colliding addresses
    Network *networks
    uint32_t network_count
    uint32_t admitted   # how many of the known ones are
    uint32_t admit_room


cdef enum:
    LARGE_PAGE = 2 << 20    # bytes
    AHEAD = 32      # entries from the one in hand to the one whose source is fetched


cdef inline void split_address(
    const uint8_t *address, int length, uint64_t *high, uint64_t *low
) noexcept nogil:
    """4 or 16 bytes in network order -> the two words that are compared."""
    cdef uint32_t half[2]
    if length == 4:
        # By halves: the processor waits for bytes that it has just written to come together.
        half[0] = htonl(0xFFFF)
        memcpy(&half[1], address, 4)
        high[0] = 0
        memcpy(low, half, 8)
        return
    memcpy(high, address, 8)
    memcpy(low, address + 8, 8)


cdef inline int is_loopback(uint64_t high, uint64_t low) noexcept nogil:
    """Whether this is in 127.0.0.0/8 or is ::1."""
    cdef uint32_t half[2]
    memcpy(half, &low, 8)
    if high:
        return 0
    if half[0] == htonl(0xFFFF):
        return half[1] & htonl(0xFF000000) == htonl(0x7F000000)
    return half[0] == 0 and half[1] == htonl(1)


cdef inline uint64_t mix_address(
    uint64_t seed, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    cdef uint64_t h = (high ^ seed) * <uint64_t>0x9E3779B97F4A7C15
    h ^= h >> 32
    h = (h ^ low ^ (<uint64_t>scope << 32)) * <uint64_t>0xD6E8FEB86659FD93
    h ^= h >> 32
    return h * <uint64_t>0xD6E8FEB86659FD93


cdef inline uint32_t hash_address(
    CSources *sources, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    return <uint32_t>(mix_address(sources.seed, high, low, scope) >> 32)


cdef inline int is_address(Source *source, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    return source.low == low and source.high == high and source.scope == scope


cdef inline int64_t sources_probe(
    CSources *sources, uint32_t hash, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    """The slot that holds this address, or -1."""
    cdef uint32_t at
    cdef Slot *slot
    if sources.count == 0:
        return -1
    at = hash & sources.mask
    while True:
        slot = &sources.slots[at]
        if slot.index == 0:
            return -1
        if slot.hash == hash and is_address(&sources.known[slot.index - 1], high, low, scope):
            return at
        at = (at + 1) & sources.mask


cdef inline int64_t sources_slot(
    CSources *sources, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    return sources_probe(sources, hash_address(sources, high, low, scope), high, low, scope)


cdef inline Source *sources_find(
    CSources *sources, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    """The source with this address, until something is added or removed; NULL for a stranger."""
    cdef int64_t slot = sources_slot(sources, high, low, scope)
    return NULL if slot < 0 else &sources.known[sources.slots[slot].index - 1]


cdef inline void sources_put(CSources *sources, uint32_t hash, uint32_t index) noexcept nogil:
    """Let the first free slot for this hash lead to that source."""
    cdef uint32_t at = hash & sources.mask
    while sources.slots[at].index:
        at = (at + 1) & sources.mask
    sources.slots[at].index = index + 1
    sources.slots[at].hash = hash


cdef void *take_lines(size_t size) noexcept nogil:
    """Cleared memory that begins with a cache line, for `free_lines`; NULL if there is none.

    What a datagram costs among very many nodes is how many lines its look-up fetches from
    memory, and how many pages they lie in: hence large pages for a large table. Not from
    malloc, which would keep each table that has become too small.
    """
    cdef uint8_t *memory
    cdef size_t before, slack = LARGE_PAGE if size >= LARGE_PAGE else 0
    size = whole_pages(size)
    memory = <uint8_t *>mmap(NULL, size + slack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == <uint8_t *>MAP_FAILED:
        return NULL
    if slack:
        before = <size_t>-<intptr_t>memory & (LARGE_PAGE - 1)
        if before:
            munmap(memory, before)
        if slack - before:
            munmap(memory + before + size, slack - before)
        memory += before
        madvise(memory, size, MADV_HUGEPAGE)    # a wish; it may be refused
    return memory


cdef inline size_t whole_pages(size_t size) noexcept nogil:
    return (size + 4095) & ~<size_t>4095


cdef inline size_t slot_bytes(size_t slots) noexcept nogil:
    """What so many take. They are looked at in no order at all: half a large page pays as well."""
    cdef size_t size = slots * sizeof(Slot)
    return LARGE_PAGE if size == LARGE_PAGE // 2 else size


cdef inline size_t told_bytes(size_t sources) noexcept nogil:
    return sources * MOST_TOLD * sizeof(Told)


cdef void free_lines(void *memory, size_t size) noexcept nogil:
    if memory != NULL:
        munmap(memory, whole_pages(size))


cdef int sources_grow(CSources *sources) noexcept nogil:
    """Room for one more source; 0, or -1 without memory (all stays as it was)."""
    cdef uint32_t room, slots, i
    cdef uint32_t *heard
    cdef Source *known
    cdef Told *told
    cdef Slot *fresh
    cdef Source *source
    if sources.count >= sources.room:
        room = 64 if sources.room == 0 else sources.room + (sources.room >> 1)
        known = <Source *>take_lines(<size_t>room * sizeof(Source))
        told = <Told *>take_lines(told_bytes(room))
        heard = <uint32_t *>take_lines(room * sizeof(uint32_t))
        if known == NULL or told == NULL or heard == NULL:
            free_lines(known, <size_t>room * sizeof(Source))
            free_lines(told, told_bytes(room))
            free_lines(heard, room * sizeof(uint32_t))
            return -1
        if sources.count:
            memcpy(known, sources.known, sources.count * sizeof(Source))
        for i in range(sources.count):
            if known[i].told:
                memcpy(&told[i * MOST_TOLD], &sources.told[i * MOST_TOLD], told_bytes(1))
        free_lines(sources.known, <size_t>sources.room * sizeof(Source))
        free_lines(sources.told, told_bytes(sources.room))
        sources.known = known
        sources.told = told
        for i in range(sources.heard_count):
            heard[i] = sources.heard[(sources.heard_at + i) % sources.room]
            sources.known[heard[i]].place = i + 1
        free_lines(sources.heard, sources.room * sizeof(uint32_t))
        sources.heard = heard
        sources.heard_at = 0
        sources.room = room
    # Kept at most two thirds full, so a look-up meets a free slot soon.
    if sources.slots == NULL or 3 * (<uint64_t>sources.count + 1) > 2 * (<uint64_t>sources.mask + 1):
        slots = 512 if sources.slots == NULL else 2 * (sources.mask + 1)
        fresh = <Slot *>take_lines(slot_bytes(slots))
        if fresh == NULL:
            return -1
        free_lines(sources.slots, slot_bytes(<size_t>sources.mask + 1))
        sources.slots = fresh
        sources.mask = slots - 1
        for i in range(sources.count):
            source = &sources.known[i]
            sources_put(sources, hash_address(sources, source.high, source.low, source.scope), i)
    return 0


cdef void sources_free(CSources *sources) noexcept nogil:
    free_lines(sources.known, <size_t>sources.room * sizeof(Source))
    free_lines(sources.told, told_bytes(sources.room))
    free_lines(sources.heard, sources.room * sizeof(uint32_t))
    free_lines(sources.slots, slot_bytes(<size_t>sources.mask + 1))


cdef int sources_add(
    CSources *sources, uint64_t high, uint64_t low, uint32_t scope, int32_t node
) noexcept nogil:
    """0 = added or renumbered, -1 = no memory."""
    cdef uint32_t hash = hash_address(sources, high, low, scope)
    cdef int64_t found = sources_probe(sources, hash, high, low, scope)
    cdef Source *source
    if found >= 0:
        source = &sources.known[sources.slots[found].index - 1]
        if source.entry and source.node != node:
            if source.admitted:     # what that machine says goes on, as this node's
                shared_fold(sources, source)
            shared_forget(sources, source)      # its next message is news
        source.node = node
        sources.admitted -= source.admitted
        source.admitted = 0
        return 0
    if sources_grow(sources) < 0:
        return -1
    source = &sources.known[sources.count]
    memset(source, 0, sizeof(Source))
    source.high = high
    source.low = low
    source.scope = scope
    source.node = node
    sources_put(sources, hash, sources.count)
    sources.count += 1
    return 0


cdef int sources_discard(CSources *sources, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    """Whether it was there."""
    cdef int64_t found = sources_slot(sources, high, low, scope)
    cdef uint32_t at, next, home, index
    cdef Source *last
    if found < 0:
        return 0
    index = sources.slots[found].index - 1
    if sources.known[index].entry:
        shared_forget(sources, &sources.known[index])
    sources.admitted -= sources.known[index].admitted
    if sources.known[index].place:
        # The newest of those heard takes its place.
        sources.heard_count -= 1
        next = sources.heard[(sources.heard_at + sources.heard_count) % sources.room]
        at = sources.known[index].place - 1
        sources.heard[at] = next
        sources.known[next].place = at + 1
    # The last one moves into the gap, so that they stay dense.
    last = &sources.known[sources.count - 1]
    if index != sources.count - 1:
        sources.slots[sources_slot(sources, last.high, last.low, last.scope)].index = index + 1
        sources.known[index] = last[0]
        if last.told:
            memcpy(&sources.told[index * MOST_TOLD], &sources.told[(sources.count - 1) * MOST_TOLD],
                   told_bytes(1))
        if last.place:
            sources.heard[last.place - 1] = index
        if last.entry:
            sources.shared.holders[last.entry - 1].source = index + 1
    sources.count -= 1
    # Close the gap in the probe sequence (Knuth 6.4, algorithm R): no tombstones.
    at = <uint32_t>found
    next = at
    while True:
        next = (next + 1) & sources.mask
        if sources.slots[next].index == 0:
            break
        home = sources.slots[next].hash & sources.mask
        if ((next - home) & sources.mask) >= ((next - at) & sources.mask):
            sources.slots[at] = sources.slots[next]
            at = next
    sources.slots[at].index = 0
    return 1


cdef Network *sources_network(CSources *sources, uint64_t high, uint64_t low) noexcept nogil:
    """The first network that this address is in; NULL if it is in none."""
    cdef uint32_t i, half
    cdef int loopback = is_loopback(high, low)
    cdef Network *network
    memcpy(&half, &low, 4)
    for i in range(sources.network_count):
        network = &sources.networks[i]
        if high & network.high_mask != network.high or low & network.low_mask != network.low:
            continue
        if network.ipv6 and high == 0 and half == htonl(0xFFFF) or loopback and not network.loopback:
            continue
        return network
    return NULL


cdef int sources_admit_stranger(
    CSources *sources, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    """An unknown source sent a message: 0 if it is the last of the known now, else the verdict."""
    cdef Network *network = sources_network(sources, high, low)
    if network == NULL:
        return STRANGER
    if sources.admitted >= sources.admit_room or sources_add(sources, high, low, scope, network.node) < 0:
        return CROWDED
    sources.known[sources.count - 1].admitted = 1
    sources.admitted += 1
    return 0


cdef inline void sources_hear(CSources *sources, uint32_t index, int64_t now, uint16_t port) noexcept nogil:
    """A message came from this source."""
    sources_hear_more(sources, index, now, now, 1, port)


cdef inline void sources_hear_more(
    CSources *sources, uint32_t index, int64_t first, int64_t last, uint32_t more, uint16_t port
) noexcept nogil:
    """So many messages came from this source, the first and the last of them then."""
    cdef Source *source = &sources.known[index]
    source.last = last
    source.messages += min(more, ~source.messages)  # it stays at its greatest value
    if source.place == 0:
        source.first = first
        source.port = port
        sources_line_up(sources, index)


cdef inline void sources_line_up(CSources *sources, uint32_t index) noexcept nogil:
    """This source is to be given out, and was not."""
    sources.known[index].place = 1 + (sources.heard_at + sources.heard_count) % sources.room
    sources.heard[sources.known[index].place - 1] = index
    sources.heard_count += 1


cdef void sources_tell(
    CSources *sources, uint32_t index, int64_t now, uint64_t session, int state, int end
) noexcept nogil:
    """The message that was just counted for this source is a status of that session.

    Kept is the first of each session, and its first with each end. If there is no room any more,
    an end takes the last place all the same: what happened last counts, and no end is missed.
    """
    cdef Source *source = &sources.known[index]
    cdef Told *told = &sources.told[index * MOST_TOLD]
    cdef int i
    for i in range(source.told):
        if told[i].session == session and (told[i].state == state or not told[i].end and not end):
            return
    i = source.told
    if i == MOST_TOLD:
        if not end:
            return
        i -= 1
    told[i].session = session
    told[i].when = now
    told[i].messages = source.messages
    told[i].state = <int16_t>state
    told[i].end = <int16_t>end
    source.told = i + 1


cdef uint32_t sources_heard(CSources *sources, Source *given, Told *told, uint32_t most) noexcept nogil:
    """Copies of the sources heard longest ago, which count as given out; how many.

    `told`: MOST_TOLD places for each of them.
    """
    cdef uint32_t i, index, number = min(most, sources.heard_count)
    cdef Source *source
    for i in range(number):
        index = sources.heard[sources.heard_at]
        source = &sources.known[index]
        if source.entry:
            shared_fold(sources, source)
        given[i] = source[0]
        if source.told:
            memcpy(&told[i * MOST_TOLD], &sources.told[index * MOST_TOLD], told_bytes(1))
        source.messages = 0
        source.place = 0
        source.told = 0
        sources.heard_at = (sources.heard_at + 1) % sources.room
    sources.heard_count -= number
    return number
