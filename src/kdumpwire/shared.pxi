# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sources whose messages the kernel counts: the table that its program and the sources share.

C without Python; the twin of what `_purewire.Sources` has for it. `kdumpfence.listener.kernel.program`
is the other side, and says what an entry is and who writes what of it. May be here: entries, and
what they have to do with the sources. May not: how the program and the memory came about.

A source has an entry since a message of it was read, until it is discarded, or its entry is taken
by another one because no message came for so long that the next is news anyway. Whether it has one
makes no difference but to the cost.
"""

cdef extern from "kdumpwire/shared.h" nogil:
    uint32_t look_32(const uint32_t *at)
    int64_t look_64(const int64_t *at)
    void publish_64(int64_t *at, int64_t value)

cdef enum:
    BUCKET = 4      # entries


cdef inline void shared_place(
    Shared *shared, uint64_t high, uint64_t low, uint32_t scope, uint32_t *buckets
) noexcept nogil:
    """The two buckets in which this address may be."""
    # Only its upper half depends on all of the address.
    cdef uint64_t h = mix_address(shared.seed, high, low, scope) >> 32
    buckets[0] = <uint32_t>h & shared.mask
    buckets[1] = <uint32_t>(h * <uint64_t>0x9E3779B97F4A7C15 >> 40) & shared.mask


cdef void shared_fold(CSources *sources, Record *record) noexcept nogil:
    """What the kernel counted since the last time was heard of this source."""
    cdef uint32_t counted = look_32(&record.entry.messages)
    cdef uint32_t more = counted - record.seen
    cdef Source *source = &sources.known[record.source]
    cdef int64_t last, before = source.last
    if more == 0:
        return
    record.seen = counted
    sources.counted += more
    last = max(before, look_64(&record.entry.last))
    # Nobody wrote down when the first of these came: as soon after the one before as may be. No
    # gap between any two of them was one that makes a difference.
    sources_hear_more(sources, record.source, before, last, more, source.port)


cdef void shared_forget(CSources *sources, uint32_t index) noexcept nogil:
    """This source has an entry: no more."""
    cdef Shared *shared = sources.shared
    cdef uint32_t at = sources.known[index].record - 1
    cdef Record *record = &shared.records[at]
    record.entry.high = 0
    record.entry.low = 0
    publish_64(&record.entry.last, 0)
    sources.counted += <uint32_t>(look_32(&record.entry.messages) - record.seen)
    sources.known[index].record = 0
    shared.count -= 1
    if at != shared.count:
        record[0] = shared.records[shared.count]
        sources.known[record.source].record = at + 1


cdef Entry *shared_free(CSources *sources, uint32_t bucket, int64_t now) noexcept nogil:
    """A free entry of that bucket; NULL if there is none."""
    cdef Shared *shared = sources.shared
    cdef Entry *entry
    cdef Source *source
    cdef int i
    for i in range(BUCKET):
        entry = &shared.entries[<size_t>bucket * BUCKET + i]
        if entry.high == 0 and entry.low == 0:
            return entry
        if now - look_64(&entry.last) > shared.quiet:
            source = sources_find(sources, entry.high, entry.low, entry.scope)
            if source != NULL and source.record:
                shared_fold(sources, &shared.records[source.record - 1])
                shared_forget(sources, <uint32_t>(source - sources.known))
                return entry
    return NULL


cdef void shared_hear(CSources *sources, uint32_t index, int64_t now) noexcept nogil:
    """A message of this source has been read: the kernel may count those that repeat it."""
    cdef Shared *shared = sources.shared
    cdef Source *source = &sources.known[index]
    cdef Record *record
    cdef Entry *entry
    cdef uint32_t buckets[2]
    if source.record:
        record = &shared.records[source.record - 1]
        shared_fold(sources, record)
        if look_64(&record.entry.last) < now:
            publish_64(&record.entry.last, now)
        return
    shared_place(shared, source.high, source.low, source.scope, buckets)
    entry = shared_free(sources, buckets[0], now)
    if entry == NULL:
        entry = shared_free(sources, buckets[1], now)
    if entry == NULL:
        return
    record = &shared.records[shared.count]
    shared.count += 1
    record.entry = entry
    record.source = index
    record.seen = look_32(&entry.messages)
    record.given = 0
    source.record = shared.count
    # The time comes last: without one the kernel counts nothing there.
    entry.scope = source.scope
    entry.low = source.low
    entry.high = source.high
    publish_64(&entry.last, now)


cdef int shared_sweep(CSources *sources, int64_t again) noexcept nogil:
    """Have heard what the kernel counted; whether there is something to give out now, and was not.

    Of a source that has sent nothing since `again` nanoseconds after its last message that was
    given out, the rest waits, for half as long at most as makes a message news.
    """
    cdef Shared *shared = sources.shared
    cdef Record *record
    cdef uint32_t i, before = sources.heard_count
    cdef int64_t now = monotonic_ns()
    for i in range(shared.count):
        record = &shared.records[i]
        prefetch(shared.records[min(i + AHEAD, shared.count - 1)].entry)
        if (look_64(&record.entry.last) - record.given >= again
                or now - record.given >= shared.quiet // 2):
            shared_fold(sources, record)
    return before == 0 and sources.heard_count != 0


cdef uint64_t shared_counted(CSources *sources) noexcept nogil:
    """Messages that the kernel has counted by now."""
    cdef Shared *shared = sources.shared
    cdef uint64_t counted = sources.counted
    cdef uint32_t i
    for i in range(shared.count if shared != NULL else 0):
        prefetch(shared.records[min(i + AHEAD, shared.count - 1)].entry)
        counted += <uint32_t>(look_32(&shared.records[i].entry.messages) - shared.records[i].seen)
    return counted
