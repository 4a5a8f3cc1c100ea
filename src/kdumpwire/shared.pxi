# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sources whose messages the kernel counts: the table that its program and the sources share.

C without Python; the twin of what `_purewire.Sources` has for it. `kdumpfence.listener.kernel.program`
is the other side, and says what an entry is and who writes what of it. May be here: entries, and
what they have to do with the sources. May not: how the program and the memory came about.

A source has an entry since a message of it was read, until it is discarded, falls silent, or is
quiet for so long that its next message is news anyway while another source wants the place. Whether
it has one makes no difference but to the cost, and to who looks after its silence: whoever has an
entry is given out when it loses it.

A look goes through all entries in their order, which costs a fraction of going from source to
source; only what is to be done for one of them touches that.
"""

cdef extern from "kdumpwire/shared.h" nogil:
    uint32_t look_32(const uint32_t *at)
    int64_t look_64(const int64_t *at)
    void publish_64(int64_t *at, int64_t value)
    void fence()

cdef enum:
    BUCKET = 4      # entries
    # Messages of a dump after which they are taken out of the entry, well before that begins again.
    PLENTY = 1 << 31
    FIGURES = 32    # bytes


# The time in an entry that nobody has: not 0, for the clock begins there.
cdef int64_t NEVER_HEARD = -<int64_t>0x7FFFFFFFFFFFFFFF - 1


cdef inline size_t shared_entries(Shared *shared) noexcept nogil:
    return <size_t>shared.buckets * BUCKET


cdef inline void shared_place(
    Shared *shared, uint64_t high, uint64_t low, uint32_t scope, uint32_t *buckets
) noexcept nogil:
    """The two buckets in which this address may be."""
    # Only its upper half depends on all of the address.
    cdef uint64_t h = mix_address(shared.seed, high, low, scope) >> 32
    buckets[0] = <uint32_t>(h * shared.buckets >> 32)
    buckets[1] = <uint32_t>((h * <uint64_t>0x9E3779B97F4A7C15 >> 32) * shared.buckets >> 32)


cdef void shared_fold(CSources *sources, Source *source) noexcept nogil:
    """What the kernel counted since the last time was heard of this source, which has an entry."""
    cdef Entry *entry = &sources.shared.entries[source.entry - 1]
    cdef uint32_t counted = look_32(&entry.messages)
    cdef uint32_t more = counted - source.seen
    cdef int64_t before = source.last
    if more == 0 and (source.place or source.messages == 0):
        return      # else it has moved, with what was counted where it was before
    source.seen = counted
    # Nobody wrote down when the first of these came: as soon after the one before as may be. No
    # gap between any two of them was one that makes a difference.
    sources_hear_more(sources, <uint32_t>(source - sources.known), before,
                      max(before, look_64(&entry.last)), more, source.port)


cdef inline void shared_hide(Entry *entry) noexcept nogil:
    """Nobody's message is counted there from now on."""
    # The time comes first: whoever finds half of an address there has no message counted for it.
    publish_64(&entry.last, NEVER_HEARD)
    fence()
    entry.low = 0
    entry.high = 0
    fence()


cdef void shared_forget(CSources *sources, Source *source) noexcept nogil:
    """This source has an entry: no more. Its number stays: it is part of the sum."""
    cdef Shared *shared = sources.shared
    shared_hide(&shared.entries[source.entry - 1])
    shared.holders[source.entry - 1].source = 0
    source.entry = 0
    shared.count -= 1


cdef void shared_dismiss(CSources *sources, Source *source) noexcept nogil:
    """As `shared_forget`, and the source is given out: with what was counted, if anything was."""
    shared_fold(sources, source)
    shared_forget(sources, source)
    if source.place == 0:
        source.first = source.last
        sources_line_up(sources, <uint32_t>(source - sources.known))


cdef inline void shared_fold_or_dismiss(CSources *sources, Source *source) noexcept nogil:
    """Have heard what was counted of this source; if it is silent by now, it loses its entry."""
    cdef Shared *shared = sources.shared
    if monotonic_ns() - look_64(&shared.entries[source.entry - 1].last) >= shared.silent:
        shared_dismiss(sources, source)
    else:
        shared_fold(sources, source)


cdef int shared_room(Shared *shared, uint32_t bucket, size_t *at) noexcept nogil:
    """How many entries of that bucket are free, and which is one of them."""
    cdef size_t first = <size_t>bucket * BUCKET, i
    cdef int room = 0
    for i in range(first, first + BUCKET):
        if shared.holders[i].source == 0:
            at[0] = i
            room += 1
    return room


cdef void shared_take(CSources *sources, size_t at, uint32_t index, int64_t last) noexcept nogil:
    """Give a free entry to that source, which was heard last then."""
    cdef Shared *shared = sources.shared
    cdef Entry *entry = &shared.entries[at]
    cdef Source *source = &sources.known[index]
    shared.count += 1
    shared.holders[at].source = index + 1
    shared.holders[at].zero = source.seen = look_32(&entry.messages)
    source.entry = <uint32_t>at + 1
    # The time comes last: without one the kernel counts nothing there.
    publish_64(&entry.last, NEVER_HEARD)
    fence()
    entry.scope = source.scope
    entry.high = source.high
    entry.low = source.low
    publish_64(&entry.last, last)


cdef int shared_move(CSources *sources, size_t at) noexcept nogil:
    """Let the source that has this entry have one in its other bucket; whether there was room."""
    cdef Shared *shared = sources.shared
    cdef uint32_t index = shared.holders[at].source - 1
    cdef Source *source = &sources.known[index]
    cdef uint32_t buckets[2]
    cdef uint32_t counted, seen = source.seen, zero = shared.holders[at].zero
    cdef int64_t last
    cdef size_t other = 0
    shared_place(shared, source.high, source.low, source.scope, buckets)
    if not shared_room(shared, buckets[buckets[0] == at // BUCKET], &other):
        return 0
    # It has both for a moment: no message of it comes to be read because of this.
    shared_take(sources, other, index, look_64(&shared.entries[at].last))
    source.entry = <uint32_t>at + 1
    last = look_64(&shared.entries[at].last)
    shared_hide(&shared.entries[at])
    last = max(last, look_64(&shared.entries[at].last))
    counted = look_32(&shared.entries[at].messages)
    shared_forget(sources, source)
    source.entry = <uint32_t>other + 1
    if look_64(&shared.entries[other].last) < last:
        publish_64(&shared.entries[other].last, last)
    source.messages += min(counted - seen, ~source.messages)
    shared.holders[other].zero -= counted - zero
    return 1


cdef int shared_make_room(
    CSources *sources, uint32_t *buckets, int64_t now, size_t *at
) noexcept nogil:
    """Have an entry of these two full buckets free; whether that could be."""
    cdef Shared *shared = sources.shared
    cdef size_t i
    cdef int number
    for number in range(2 * BUCKET):
        i = <size_t>buckets[number // BUCKET] * BUCKET + number % BUCKET
        if now - look_64(&shared.entries[i].last) > shared.quiet:
            shared_dismiss(sources, &sources.known[shared.holders[i].source - 1])
            at[0] = i
            return 1
    for number in range(2 * BUCKET):
        i = <size_t>buckets[number // BUCKET] * BUCKET + number % BUCKET
        if shared_move(sources, i):
            at[0] = i
            return 1
    return 0


cdef void shared_hear(CSources *sources, uint32_t index, int64_t now) noexcept nogil:
    """A message of this source has been read: the kernel may count those that repeat it."""
    cdef Shared *shared = sources.shared
    cdef Source *source = &sources.known[index]
    cdef Entry *entry
    cdef size_t at = 0, other = 0
    cdef uint32_t buckets[2]
    cdef int room, more
    if source.entry:
        entry = &shared.entries[source.entry - 1]
        shared_fold(sources, source)
        if look_64(&entry.last) < now:
            publish_64(&entry.last, now)
        return
    shared_place(shared, source.high, source.low, source.scope, buckets)
    # The emptier one: so a table can be rather full before anybody is in another one's way.
    room = shared_room(shared, buckets[0], &at)
    more = shared_room(shared, buckets[1], &other)
    if more > room:
        at = other
    if not room and not more and not shared_make_room(sources, buckets, now, &at):
        return
    shared_take(sources, at, index, now)


cdef int shared_sweep(CSources *sources, int64_t again) noexcept nogil:
    """Look at all entries; whether there is something to give out now, and was not.

    To be given out is who has been silent for shared.silent nanoseconds; and, unless `again` is
    negative, who has sent something so many nanoseconds after its last message that was given out.
    """
    cdef Shared *shared = sources.shared
    cdef Entry *entry
    cdef Source *source
    cdef size_t i, all = shared_entries(shared)
    cdef uint32_t index, messages, total = 0, before = sources.heard_count
    cdef int64_t last, now = monotonic_ns()
    cdef int64_t earliest = now
    for i in range(all):
        entry = &shared.entries[i]
        messages = look_32(&entry.messages)
        total += messages
        index = shared.holders[i].source
        if index == 0:
            continue
        source = &sources.known[index - 1]
        if again >= 0 and i + AHEAD < all and shared.holders[i + AHEAD].source:
            prefetch(&sources.known[shared.holders[i + AHEAD].source - 1])
        last = look_64(&entry.last)
        if now - last >= shared.silent:
            shared_dismiss(sources, source)
            continue
        earliest = min(earliest, last)
        if messages - shared.holders[i].zero >= <uint32_t>PLENTY:
            shared_fold(sources, source)
            shared.holders[i].zero = source.seen
        elif again >= 0 and source.place == 0 and last - source.last >= again:
            shared_fold(sources, source)
    shared.earliest = earliest
    shared_add_up(sources, total)
    return before == 0 and sources.heard_count != 0


cdef inline void shared_add_up(CSources *sources, uint32_t total) noexcept nogil:
    """This is the sum of all entries now. Since the last look it has not grown by 2**32."""
    sources.counted += <uint32_t>(total - sources.shared.sum)
    sources.shared.sum = total


cdef void shared_count(CSources *sources) noexcept nogil:
    """How many messages the kernel has counted by now."""
    cdef Shared *shared = sources.shared
    cdef size_t i
    cdef uint32_t total = 0
    for i in range(shared_entries(shared)):
        total += look_32(&shared.entries[i].messages)
    shared_add_up(sources, total)


cdef size_t shared_figures(CSources *sources, uint8_t *figures, size_t most, double base) noexcept nogil:
    """What is known of those that have entries, FIGURES bytes each, `most` of them; how many."""
    cdef Shared *shared = sources.shared
    cdef Entry *entry
    cdef uint32_t messages
    cdef double last
    cdef size_t i, number = 0
    for i in range(shared_entries(shared)):
        if shared.holders[i].source == 0 or number == most:
            continue
        entry = &shared.entries[i]
        messages = look_32(&entry.messages) - shared.holders[i].zero
        last = <double>look_64(&entry.last) * 1e-9 + base
        memcpy(figures, entry, 16)
        memcpy(figures + 16, &entry.scope, 4)
        memcpy(figures + 20, &messages, 4)
        memcpy(figures + 24, &last, 8)
        figures += FIGURES
        number += 1
    return number
