# SPDX-License-Identifier: LGPL-2.1-or-later
"""The loop: send what is due, take in what happened, wait; until it is enough, or a signal came.

When a message is due is the core's to say (its schedule). May not be here: how a message gets out
(lanes.pxi), or how a name becomes an address (names.pxi).
"""

cdef int wait_on(pollfd *fds, int count, int64_t left, const sigset_t *signals) noexcept nogil:
    """ppoll(2), so many nanoseconds."""
    cdef timespec timeout
    timeout.tv_sec = left // SECOND
    timeout.tv_nsec = left % SECOND
    return ppoll(fds, count, &timeout, signals)


cdef int wait_for_news(Sender *sender, int64_t left) noexcept nogil:
    """Whether there is some of what was sent within so many nanoseconds."""
    cdef pollfd fds[SOCKETS]
    return left > 0 and wait_on(fds, add_sockets(sender, fds, 0), left, NULL) > 0


cdef void wait_for(Sender *sender, int64_t until, int questions) noexcept nogil:
    """Until something happens; `until`: CLOCK_MONOTONIC, or -1. `questions`: be it one of those."""
    cdef pollfd fds[2 + SOCKETS]
    cdef int i, count = 0
    cdef int[2] others = [sender.read_end, sender.network]
    cdef int64_t left = NAMES_SLICE if names_waiting(sender, 0) else SLICE
    for i in range(2):
        if others[i] >= 0:
            fds[count].fd = others[i]
            fds[count].events = <short>POLLIN
            count += 1
    count += add_sockets(sender, fds + count, POLLIN if questions else 0)
    if until >= 0:
        left = min(left, max(0, until - monotonic_ns()))
    if wait_on(fds, count, left, &sender.signals) < 0 and errno != EINTR:
        usleep(50000)           # out of memory, say: it goes on all the same


cdef void hurry(Sender *sender) noexcept nogil:
    """The network has changed: what is under way may have been dropped."""
    cdef int waiting
    hear(sender)
    waiting = held(sender)
    # Exactly as many as asked for; or else as far as there is room for more.
    schedule_hurry(&sender.schedule, monotonic_ns(),
                 waiting == 0 if sender.options.values[COUNT] else waiting < HELD_AT_MOST)


cdef int send_through(
    Sender *sender, Channel *channel, uint32_t *numbers, uint32_t ready
) noexcept nogil:
    """Send these, the trusted ones of which come first; -1 without memory."""
    cdef uint32_t i, trusted = 0, kept = 0
    cdef int64_t ends
    cdef int code = open_lane(channel) if channel.count == 0 else 0
    if code:
        for i in range(ready):
            cannot_send(sender, numbers[i], code)
        return 0
    while trusted < ready and destination_trusted(&sender.schedule, &sender.schedule.destinations[numbers[trusted]]):
        trusted += 1
    if trusted and pass_on(sender, channel, numbers, <int>trusted, 0) < 0:
        return -1
    for i in range(trusted, ready):
        code = why_useless(sender, numbers[i])
        if code:
            cannot_send(sender, numbers[i], code)
        else:
            numbers[kept] = numbers[i]
            kept += 1
    i = 0
    while i < kept:
        ends = monotonic_ns() + ANSWERS_NS
        if pass_on(sender, channel, numbers + i, min(<int>(kept - i), <int>AT_A_TIME), channel.told) < 0:
            return -1
        i += AT_A_TIME
        # So that neighbours that answer, or a gateway, have done so before the next ones.
        while i < kept and sender.schedule.under_way and wait_for_news(sender, ends - monotonic_ns()):
            hear(sender)
    return 0


cdef int send_due(Sender *sender) noexcept nogil:
    """Send what is due; -1 without memory."""
    cdef Channel *channel
    cdef uint32_t i, ready, number
    cdef uint32_t due = schedule_due(&sender.schedule, monotonic_ns())
    cdef uint32_t *numbers
    cdef int family, result = 0
    if due == 0:
        return 0
    numbers = <uint32_t *>malloc(due * sizeof(uint32_t))
    if numbers == NULL:
        return -1
    if sender.options.packets:
        make_status(sender, NULL, sender.status)
    for family in range(2):
        channel = &sender.channels[family]
        ready = 0
        for i in range(due):
            number = sender.schedule.ready[i]
            if channel_of(sender, &sender.peers[number].address) == channel:
                numbers[ready] = number
                ready += 1
        if ready and result == 0:
            result = send_through(sender, channel, numbers, ready)
    free(numbers)
    return result


cdef int result(Sender *sender) noexcept nogil:
    """The exit status; says who was not reached."""
    cdef uint32_t i, reached = schedule_reached(&sender.schedule)
    cdef Text text
    for i in range(sender.options.node_count):
        if not sender.schedule.reached[i]:
            begin_name(&text, b"node ", sender.nodes[i].name)
            put(&text, b" was never reached")
            say(ERROR, &text)
    return 0 if reached else 1


cdef int run(Sender *sender) noexcept nogil:
    """Send until it is enough, or a signal came; the exit status, or -1."""
    cdef int64_t now, until, names, linger_ends = -1
    cdef int changed
    name_files_changed(sender)
    while ended_by == 0:
        changed = names_waiting(sender, 0) and name_files_changed(sender)
        if network_changed(sender):
            changed = 1
            hurry(sender)
        if sender.network < 0:  # nobody would tell of changes
            schedule_doubt(&sender.schedule)
        if changed:
            hurry_names(sender, monotonic_ns())
        if step_names(sender) < 0 or send_due(sender) < 0:
            return no_memory()
        hear(sender)
        now = monotonic_ns()
        if schedule_finished(&sender.schedule, now):
            # Done if all that the kernel took is on its way and none of it came back.
            if linger_ends < 0:
                linger_ends = now + 5 * <int64_t>SECOND
            if now >= linger_ends or held(sender) == 0:
                hear(sender)
                if schedule_finished(&sender.schedule, monotonic_ns()):
                    return result(sender)
            else:
                wait_for(sender, min(now + 10000000, linger_ends), 0)
            continue
        linger_ends = -1
        # Only now: no first message waits for it.
        open_ports(sender)
        answer_questions(sender)
        until = schedule_next(&sender.schedule, now)
        names = names_next(sender, now)
        if names >= 0 and (until < 0 or names < until):
            until = names
        # It would wake up half a second later at most; strangers have waited long enough.
        if sender.narrowed and (until < 0 or sender.narrowed < until):
            until = sender.narrowed
        wait_for(sender, until, 1)
    return -1
