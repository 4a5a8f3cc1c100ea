# SPDX-License-Identifier: LGPL-2.1-or-later
"""The schedule: who is sent the next message when, and when it is enough.

C without Python; the twin of `_purewire.Schedule`, which says why. May be here: arithmetic on times
that it is given. May not: sockets, and a clock.
"""

cdef extern from "kdumpwire/schedule.h" nogil:
    const uint32_t EARLY_MESSAGES, MOST_ASKED, MOST_ASKED_AGAIN
    const int64_t EARLY_GAP_NS, RETRY_NS, RETRY_PATIENCE_NS, RETRY_LATER_NS
    const int64_t SETTLING_NS, ASKING_NS, LATE_NETWORK_NS

ctypedef struct Destination:
    # One address that is sent messages.
    int64_t due
    int64_t failing     # since when no message could leave; -1: the last one did
    int64_t last        # when the last one left
    int64_t left        # messages that left
    int64_t asked       # since when one waits for its neighbour; -1: none does
    uint8_t answers     # the last one left
    uint8_t silent      # the last one did not, for no neighbour answered
    uint8_t tried       # a message left, failed, or was under way
    uint8_t trusted

ctypedef struct Owner:
    # This destination is an address of that node.
    uint32_t destination
    uint32_t node

ctypedef struct CSchedule:
    int64_t count
    int64_t interval
    int64_t started
    Destination *destinations
    uint32_t *ready     # of the last schedule_due
    uint32_t destination_count
    uint32_t destination_room
    uint32_t under_way
    uint32_t turn       # which of those that did not answer comes first
    Owner *owners
    uint32_t owner_count
    uint32_t owner_room
    uint8_t *hopeless   # for each node: it will never have an address
    uint8_t *reached    # for each node: a message left for it (schedule_reached)
    uint32_t nodes


cdef int schedule_init(
    CSchedule *schedule, uint32_t nodes, int64_t count, int64_t interval, int64_t now
) noexcept nogil:
    """0, or -1 without memory."""
    memset(schedule, 0, sizeof(CSchedule))
    schedule.count = count
    schedule.interval = interval
    schedule.started = now
    schedule.nodes = nodes
    schedule.hopeless = <uint8_t *>calloc(nodes + 1, 1)
    schedule.reached = <uint8_t *>calloc(nodes + 1, 1)
    return 0 if schedule.hopeless != NULL and schedule.reached != NULL else -1


cdef void schedule_free(CSchedule *schedule) noexcept nogil:
    free(schedule.destinations)
    free(schedule.ready)
    free(schedule.owners)
    free(schedule.hopeless)
    free(schedule.reached)


cdef int schedule_own(CSchedule *schedule, uint32_t destination, uint32_t node) noexcept nogil:
    """This address is that node's; 0, or -1 without memory."""
    cdef uint32_t room
    cdef Owner *owners
    if schedule.owner_count == schedule.owner_room:
        room = max(<uint32_t>16, schedule.owner_room * 2)
        owners = <Owner *>realloc(schedule.owners, room * sizeof(Owner))
        if owners == NULL:
            return -1
        schedule.owners = owners
        schedule.owner_room = room
    schedule.owners[schedule.owner_count].destination = destination
    schedule.owners[schedule.owner_count].node = node
    schedule.owner_count += 1
    return 0


cdef int schedule_share(CSchedule *schedule, uint32_t destination, uint32_t node) noexcept nogil:
    """This address is that node's, too; 0, or -1 without memory."""
    cdef uint32_t i
    for i in range(schedule.owner_count):
        if schedule.owners[i].destination == destination and schedule.owners[i].node == node:
            return 0
    return schedule_own(schedule, destination, node)


cdef int schedule_add(CSchedule *schedule, uint32_t node, int64_t now) noexcept nogil:
    """The index of a new address of that node, due at once; -1 without memory."""
    cdef uint32_t room
    cdef Destination *destinations
    cdef Destination *destination
    cdef uint32_t *ready
    if schedule.destination_count == schedule.destination_room:
        room = max(<uint32_t>16, schedule.destination_room * 2)
        destinations = <Destination *>realloc(schedule.destinations, room * sizeof(Destination))
        if destinations == NULL:
            return -1
        schedule.destinations = destinations
        ready = <uint32_t *>realloc(schedule.ready, room * sizeof(uint32_t))
        if ready == NULL:
            return -1
        schedule.ready = ready
        schedule.destination_room = room
    if schedule_own(schedule, schedule.destination_count, node) < 0:
        return -1
    destination = &schedule.destinations[schedule.destination_count]
    destination.due = now
    destination.failing = -1
    destination.last = now
    destination.left = 0
    destination.asked = -1
    destination.answers = destination.silent = destination.tried = destination.trusted = 0
    schedule.destination_count += 1
    return <int>schedule.destination_count - 1


cdef inline int destination_done(CSchedule *schedule, Destination *destination) noexcept nogil:
    return schedule.count > 0 and destination.left >= schedule.count


cdef inline int destination_trusted(CSchedule *schedule, Destination *destination) noexcept nogil:
    return destination.trusted and schedule.count == 0


cdef inline int destination_kind(CSchedule *schedule, Destination *destination) noexcept nogil:
    """0: trusted, 1: it answered, 2: it was never asked in vain, 3: it was."""
    if destination_trusted(schedule, destination):
        return 0
    return 3 if destination.silent else 2 - destination.answers


cdef uint32_t schedule_due(CSchedule *schedule, int64_t now) noexcept nogil:
    """Who is to be sent a message now: so many, in schedule.ready, in this order.

    By their kinds; but only so many may wait for their neighbours at a time.
    """
    cdef uint32_t i, at, turn, count = 0, waiting = schedule.under_way
    cdef int kind
    cdef Destination *destination
    for kind in range(4):
        turn = schedule.turn if kind == 3 and schedule.turn < schedule.destination_count else 0
        for at in range(schedule.destination_count):
            if kind and waiting >= (MOST_ASKED_AGAIN if kind == 3 else MOST_ASKED):
                break
            i = at + turn
            if i >= schedule.destination_count:
                i -= schedule.destination_count
            destination = &schedule.destinations[i]
            if destination.due > now or destination.asked >= 0 or destination_done(schedule, destination):
                continue
            if kind == destination_kind(schedule, destination):
                schedule.ready[count] = i
                count += 1
                waiting += kind > 0
    return count


cdef void schedule_doubt(CSchedule *schedule) noexcept nogil:
    """Something that was trusted did not leave: trust nobody until the next message did."""
    cdef uint32_t i
    for i in range(schedule.destination_count):
        schedule.destinations[i].trusted = 0


cdef inline int destination_overdue(Destination *destination, int64_t now) noexcept nogil:
    return destination.asked >= 0 and now - destination.asked >= ASKING_NS


cdef inline void destination_ends(CSchedule *schedule, Destination *destination) noexcept nogil:
    """Nothing is under way to there any more."""
    schedule.under_way -= destination.asked >= 0
    destination.asked = -1


cdef void schedule_taken(CSchedule *schedule, uint32_t index, int64_t now) noexcept nogil:
    """The kernel has a message for there, and may have to ask for the neighbour first."""
    cdef Destination *destination = &schedule.destinations[index]
    destination_ends(schedule, destination)
    destination.tried = 1
    destination.asked = now
    schedule.under_way += 1
    if destination.silent:
        schedule.turn = index + 1


cdef void schedule_left(CSchedule *schedule, uint32_t index, int64_t now) noexcept nogil:
    cdef Destination *destination = &schedule.destinations[index]
    cdef int64_t gap = schedule.interval
    destination_ends(schedule, destination)
    destination.tried = 1
    destination.left += 1
    destination.last = now
    destination.failing = -1
    destination.answers = destination.trusted = 1
    destination.silent = 0
    if schedule.count == 0 and destination.left <= EARLY_MESSAGES:
        gap = min(gap, EARLY_GAP_NS)
    # Counted from when it was due, so that the schedule does not drift; but what
    # could not be sent in time is not made up for.
    destination.due = max(destination.due + gap, now + gap // 2)


cdef void schedule_failed(CSchedule *schedule, uint32_t index, int64_t now) noexcept nogil:
    cdef Destination *destination = &schedule.destinations[index]
    cdef int64_t gap = RETRY_NS
    destination_ends(schedule, destination)
    destination.tried = 1
    destination.trusted = 0
    if destination.failing < 0:
        destination.failing = now
    if now - destination.failing >= RETRY_PATIENCE_NS:
        gap = min(RETRY_LATER_NS, schedule.interval)
    destination.due = now + gap


cdef int schedule_lost(CSchedule *schedule, uint32_t index, int64_t now) noexcept nogil:
    """Whether there was one that could have been lost."""
    cdef Destination *destination = &schedule.destinations[index]
    cdef int64_t later = now + min(RETRY_LATER_NS, schedule.interval)
    if destination.asked >= 0:
        destination_ends(schedule, destination)
        destination.due = later
    elif destination.left:
        destination.left -= 1
        destination.due = min(destination.due, later)
    else:
        return 0
    destination.answers = destination.trusted = 0
    destination.silent = 1
    if destination.failing < 0:
        destination.failing = now
    return 1


cdef void schedule_hurry(CSchedule *schedule, int64_t now, int again) noexcept nogil:
    """The network is not what it was: what failed may work in a moment, and what left may
    have left from an address that nobody knows, or to where nobody hears. What is under way is
    sent once more only if `again`.

    Not at once: an interface that comes up loses in silence what is sent before all of it is
    up, and a question for a neighbour's address is then repeated only after a second.
    """
    cdef uint32_t i
    cdef int64_t soonest
    cdef Destination *destination
    for i in range(schedule.destination_count):
        destination = &schedule.destinations[i]
        destination.trusted = destination.silent = 0
        soonest = now + SETTLING_NS
        if destination.asked >= 0:
            if again:
                destination_ends(schedule, destination)
                destination.due = soonest
            continue
        if destination.failing < 0:
            if schedule.count:
                continue        # as many as asked for, an interval apart
            if destination.left > EARLY_MESSAGES:
                soonest = max(soonest, destination.last + EARLY_GAP_NS)
        destination.due = min(destination.due, soonest)


cdef uint32_t schedule_reached(CSchedule *schedule) noexcept nogil:
    """How many nodes were reached; marks them."""
    cdef uint32_t i, total = 0
    cdef Owner *owner
    memset(schedule.reached, 0, schedule.nodes)
    for i in range(schedule.owner_count):
        owner = &schedule.owners[i]
        if schedule.destinations[owner.destination].left > 0 and not schedule.reached[owner.node]:
            schedule.reached[owner.node] = 1
            total += 1
    return total


cdef int64_t schedule_patience_ends(CSchedule *schedule) noexcept nogil:
    """When a node that was not reached is given up (only with a count)."""
    cdef int64_t most = (<int64_t>1 << 62) - schedule.started
    cdef int64_t patience = most
    if schedule.count <= most // schedule.interval:
        patience = schedule.count * schedule.interval
    if schedule_reached(schedule) == 0:
        patience = max(patience, LATE_NETWORK_NS)
    return schedule.started + patience


cdef int64_t schedule_next(CSchedule *schedule, int64_t now) noexcept nogil:
    """When something is to be done next; -1: only when an address is added."""
    cdef int64_t soonest = -1, end, at
    cdef uint32_t i, ready = schedule_due(schedule, now)
    cdef Destination *destination
    for i in range(ready or schedule.destination_count):
        destination = &schedule.destinations[schedule.ready[i] if ready else i]
        if destination.asked >= 0:
            at = destination.asked + ASKING_NS
        # Who is due and not ready has no room, until something that is under way ends.
        elif destination_done(schedule, destination) or (destination.due <= now and not ready):
            continue
        else:
            at = destination.due
        if soonest < 0 or at < soonest:
            soonest = at
    if ready:
        return soonest
    if schedule.count:
        end = schedule_patience_ends(schedule)
        if end > now and (soonest < 0 or end < soonest):
            soonest = end
    return soonest


cdef int schedule_finished(CSchedule *schedule, int64_t now) noexcept nogil:
    cdef uint32_t i
    cdef int64_t end
    cdef int hope = 0, all_reached = 1
    for i in range(schedule.nodes):
        hope |= not schedule.hopeless[i]
    if not hope:
        return 1
    if schedule.count == 0:
        return 0
    for i in range(schedule.destination_count):
        if not schedule.destinations[i].tried:
            return 0
        if 0 < schedule.destinations[i].left < schedule.count:
            return 0
    end = schedule_patience_ends(schedule)     # marks who was reached
    for i in range(schedule.nodes):
        all_reached &= schedule.hopeless[i] or schedule.reached[i]
    return now >= end or all_reached
