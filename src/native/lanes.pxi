# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sockets of each family, what goes through them, and what became of it.

A message that the kernel took may wait for a neighbour that never answers; so what left is learnt
from the error queue, and what is to leave keeps away from what waits. May not be here: which
messages are due (the core's schedule, loop.pxi).
"""

cdef int open_lane(Channel *channel) noexcept nogil:
    """One more socket, the last of channel.lanes then; 0, or an errno."""
    cdef int one = 1, fd
    cdef int family = channel.transmitter.family
    if channel.count == MOST_LANES:
        return EAGAIN
    fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP)
    if fd < 0:
        return errno
    # With this the kernel also tells what it could not deliver after all.
    if family == AF_INET:
        setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one))
    else:
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof(one))
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))
    one = transmitter_watch(fd, family)
    if channel.count == 0:
        channel.told = one
    channel.lanes[channel.count].fd = fd
    channel.lanes[channel.count].trusting = -1
    channel.lanes[channel.count].narrow = -1
    channel.count += 1
    return 0


cdef int add_sockets(Sender *sender, pollfd *fds, int events) noexcept nogil:
    """These events of all sockets, and POLLERR, which comes unasked; how many they are."""
    cdef Lane *lane
    cdef int at, count = 0
    for at in range(SOCKETS):
        lane = socket_at(sender, at)
        if lane != NULL:
            fds[count].fd = lane.fd
            fds[count].events = <short>events
            fds[count].revents = 0
            count += 1
    return count


cdef int held(Sender *sender) noexcept nogil:
    """Bytes of messages that the kernel took and that have not left."""
    cdef int family, at, total = 0
    for family in range(2):
        for at in range(sender.channels[family].count):
            total += transmitter_pending(sender.channels[family].lanes[at].fd)
    return total


cdef void say_why(Sender *sender, uint32_t number, int code) noexcept nogil:
    """Why no message leaves for there: each reason once."""
    cdef Peer *peer = &sender.peers[number]
    cdef Text text
    cdef int bit = code & 127
    if peer.told[bit >> 3] & (1 << (bit & 7)):
        return
    peer.told[bit >> 3] |= <uint8_t>(1 << (bit & 7))
    begin_where(sender, &text, b"", number)
    put(&text, b": %s; will try again", strerror(code))
    say(ERROR, &text)


cdef void cannot_send(Sender *sender, uint32_t number, int code) noexcept nogil:
    schedule_failed(&sender.schedule, number, monotonic_ns())
    say_why(sender, number, code)


cdef void lost(Sender *sender, uint32_t number, int code) noexcept nogil:
    if schedule_lost(&sender.schedule, number, monotonic_ns()):
        say_why(sender, number, code)


cdef void message_left(Sender *sender, uint32_t number) noexcept nogil:
    cdef Text text
    schedule_left(&sender.schedule, number, monotonic_ns())
    if sender.options.verbose:
        begin_where(sender, &text, b"message sent to ", number)
        put(&text, b", number %lld", <long long>sender.schedule.destinations[number].left)
        say(DEBUG, &text)


cdef inline int is_under_way(Sender *sender, Channel *channel, uint32_t number, int lane) noexcept nogil:
    cdef Peer *peer = &sender.peers[number]
    return (sender.schedule.destinations[number].asked >= 0 and peer.lane == lane
            and channel_of(sender, &peer.address) == channel)


cdef void take_news(Sender *sender, Channel *channel, News *news) noexcept nogil:
    """What became of one message."""
    cdef Address address
    cdef int64_t number
    if news.error:
        if news.error != EHOSTUNREACH and news.error != ENETUNREACH:
            return
        # From another machine it means that the message did leave this one.
        if news.by_length and not is_own(channel.transmitter.family, news.by, 0):
            return
    set_address(&address, 4 if channel.transmitter.family == AF_INET else 16, news.packed, news.scope)
    number = number_of(sender, &address)
    if number < 0:
        # It has got another destination on its way (a tunnel, a translated address).
        channel.told &= news.error != 0
    elif news.error:
        lost(sender, <uint32_t>number, news.error)
    elif sender.schedule.destinations[number].asked >= 0:
        message_left(sender, <uint32_t>number)


cdef void settle(Sender *sender, Channel *channel, int lane, int just_sent) noexcept nogil:
    """Take in the news of one lane. Where nothing waits, what did not leave never will."""
    cdef News news
    cdef int64_t now
    cdef int fd = channel.lanes[lane].fd, error
    cdef int empty = transmitter_pending(fd) == 0
    cdef uint32_t number
    cdef socklen_t length = sizeof(error)
    while transmitter_news(fd, channel.transmitter.family, &news):
        take_news(sender, channel, &news)
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)
    if not empty and channel.told:
        return
    if just_sent:
        for number in range(sender.schedule.destination_count):
            if is_under_way(sender, channel, number, lane):
                channel.told = 0        # nobody was waited for, and yet nothing is told of it
    now = monotonic_ns()
    for number in range(sender.schedule.destination_count):
        if not is_under_way(sender, channel, number, lane):
            continue
        if not channel.told:
            message_left(sender, number)        # for all that is known
        elif now - sender.schedule.destinations[number].asked >= GIVES_UP_NS:
            lost(sender, number, EHOSTUNREACH)
        else:                   # pushed out of a queue, or gone with its interface
            schedule_failed(&sender.schedule, number, now)


cdef void hear(Sender *sender) noexcept nogil:
    """Take in what became of the messages that the kernel took."""
    cdef Lane *lane
    cdef int family, at
    cdef uint32_t number
    cdef int64_t now
    for family in range(2):
        for at in range(sender.channels[family].count):
            settle(sender, &sender.channels[family], at, 0)
    now = monotonic_ns()
    for number in range(sender.schedule.destination_count):
        if destination_overdue(&sender.schedule.destinations[number], now):
            lost(sender, number, EHOSTUNREACH)
    for family in range(2):
        for at in range(sender.channels[family].count):
            lane = &sender.channels[family].lanes[at]
            if lane.trusting >= 0 and now - lane.trusting >= TRUST_NS:
                lane.trusting = -1
                if transmitter_pending(lane.fd):
                    schedule_doubt(&sender.schedule)


cdef int pass_on(
    Sender *sender, Channel *channel, const uint32_t *numbers, int count, int told
) noexcept nogil:
    """Hand messages to the kernel, through as many sockets as it takes; -1 without memory."""
    cdef CTransmitter *transmitter = &channel.transmitter
    cdef int busy[MOST_LANES]
    cdef int i, lane, turn, at = 0
    cdef int64_t now
    if transmitter_reserve(transmitter, count) < 0:
        return -1
    for i in range(count):
        transmitter_choose(transmitter, i, sender.peers[numbers[i]].index, told)
    for lane in range(MOST_LANES):
        busy[lane] = lane < channel.count and transmitter_pending(channel.lanes[lane].fd) > 0
    for turn in range(2 * MOST_LANES):
        if at == count:
            break
        lane = turn % MOST_LANES
        # What may have to wait joins what waits; what is known to leave keeps away from it.
        if (busy[lane] == told) != (turn < MOST_LANES):
            continue
        if lane > channel.count or (lane == channel.count and open_lane(channel) != 0):
            continue
        send_all(channel.lanes[lane].fd, transmitter.chosen + at, count - at, transmitter.outcomes + at,
                 0 if told else PATIENCE_NS)
        # Only now has it got a port. The filter is for floods, and the first message need not wait for it.
        if channel.lanes[lane].narrow < 0:
            let_in(channel.lanes[lane].fd, 0, 0)
            channel.lanes[lane].narrow = 0
        now = monotonic_ns()
        while at < count and transmitter.outcomes[at] != EAGAIN and transmitter.outcomes[at] != EINTR:
            if transmitter.outcomes[at]:
                cannot_send(sender, numbers[at], transmitter.outcomes[at])
            elif told:
                schedule_taken(&sender.schedule, numbers[at], now)
                sender.peers[numbers[at]].lane = <uint8_t>lane
            else:
                message_left(sender, numbers[at])
            at += 1
        if told:
            settle(sender, channel, lane, 1)
        elif channel.lanes[lane].trusting < 0:
            channel.lanes[lane].trusting = now
    while at < count:
        cannot_send(sender, numbers[at], EAGAIN)
        at += 1
    return 0
