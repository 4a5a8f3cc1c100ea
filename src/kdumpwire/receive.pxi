# SPDX-License-Identifier: LGPL-2.1-or-later
"""The receive loop: from datagrams in the sockets' queues to messages of known sources.

C without Python; the twin of `_purewire.Receiver`. May be here: waiting, reading, judging and
counting. May not: what a message means for its node. Nothing is allocated for a datagram.
"""

cdef enum:
    CONTROL_BYTES = 128     # SCM_TIMESTAMPING and IPV6_PKTINFO, with room to spare
    STAMPING = 37           # SO_TIMESTAMPING, and the type of what it brings
    STAMPED = 1 << 3        # SOF_TIMESTAMPING_RX_SOFTWARE

cdef enum:
    # A flood must not keep the wait alive behind its deadline.
    LATE_ROUNDS = 256

cdef enum:
    UDP = 0
    RAW4 = 1
    RAW6 = 2

cdef enum:
    HEARD = 0
    TIMED_OUT = 1
    WOKEN = 2
    PAUSED = 3          # let Python look for signals
    FAILED = 4

ctypedef struct CSocket:
    int fd
    int kind
    int port
    int stamped         # each datagram comes with the time of its arrival
    int addressed       # and with the address that it was sent to
    uint64_t dropped

ctypedef struct CArrival:
    # An accepted datagram of the batch in hand.
    uint64_t high
    uint64_t low
    uint32_t scope
    uint32_t interface  # that it came through, if the socket tells, else 0
    uint16_t port
    int32_t node
    uint32_t hash
    uint32_t guess      # 1 + index of the source with that hash, 0 = none
    int verdict
    const uint8_t *message
    size_t length
    const uint8_t *destination  # of a question; NULL: not known, or not ours alone
    int destination_length

ctypedef struct CReceiver:
    mmsghdr *headers
    iovec *vectors
    sockaddr_in6 *names
    uint8_t *control
    uint8_t *data
    size_t size         # of one datagram's buffer
    size_t stride
    int batch
    int port            # raw sockets: the UDP port that is listened to
    CSocket *sockets
    int socket_count
    pollfd *fds         # the sockets, then the descriptors that wake the wait
    int fd_room
    CArrival *found
    int found_count
    int64_t rest        # nanoseconds after a batch that was not full
    int tally           # count in the table of sources; do not report each datagram
    uint64_t tallied
    int bell            # written to when the table has something to give out; -1: nothing
    int64_t found_at    # CLOCK_MONOTONIC, nanoseconds
    int64_t end         # what arrived later is passed over; -1: nothing is
    int64_t ahead       # by how much CLOCK_REALTIME was ahead when it was looked at last before
    uint64_t counts[VERDICTS]
    uint64_t errors
    uint64_t forgotten  # dropped, of sockets that were discarded
    uint64_t unread     # dropped and not counted, as was told of last
    CSources *sources
    CSources *strangers # NULL: not remembered
    CSigned *signed     # NULL: messages need not be signed
    uint32_t stranger_room
    CQuestions *questions   # NULL: they are only counted
    int late            # rounds left to read what lay in the queues at the deadline
    int error


cdef int64_t receiver_latest_stamp(CReceiver *receiver) noexcept nogil:
    """The CLOCK_REALTIME of the latest datagram that came before the end; -1: all that is read did.

    Whoever sets the clock, or slows it down, meanwhile does not make a datagram come earlier:
    of the two differences between the clocks, before the end and now, the smaller one counts.
    """
    cdef int64_t ahead, now
    if receiver.end < 0:
        return -1
    # In this order: if something comes between the two, a datagram seems later than it was.
    ahead = clock_ns(CLOCK_REALTIME)
    now = monotonic_ns()
    ahead -= now
    if now <= receiver.end:
        receiver.ahead = ahead
        return -1
    return max(0, receiver.end + min(ahead, receiver.ahead))


cdef int receiver_is_question(CReceiver *receiver, const uint8_t *data) noexcept nogil:
    """Whether these bytes, as many as a packet has, are a question and all that was sent."""
    cdef CPacket packet
    return receiver.size > PACKET_LENGTH and packet_read(data, PACKET_LENGTH, &packet) and packet.kind == QUESTION


cdef void receiver_ask(CReceiver *receiver, int sock, CArrival *found) noexcept nogil:
    """Hand this question on."""
    cdef CQuestions *questions = receiver.questions
    cdef CQuestion *question = NULL
    cdef uint64_t one = 1
    cdef int rings = 0
    pthread_mutex_lock(&questions.lock)
    if found.destination == NULL or found.port == 0:
        questions.dropped += 1
    else:
        question = questions_place(questions, found.message, monotonic_ns(), &rings)
    if question != NULL:
        question.high = found.high
        question.low = found.low
        question.scope = found.scope
        question.interface = found.interface
        question.port = found.port
        question.sock = sock
        memcpy(question.destination, found.destination, found.destination_length)
        question.destination_length = found.destination_length
        memcpy(question.data, found.message, PACKET_LENGTH)
    pthread_mutex_unlock(&questions.lock)
    if rings and questions.bell >= 0 and write(questions.bell, &one, sizeof(one)) < 0:
        receiver.errors += errno != EAGAIN


cdef int receiver_judge(
    CReceiver *receiver, CSocket *sock, int i, int64_t latest, CArrival *found
) noexcept nogil:
    """The verdict over datagram i of the batch, but for its source; fills in `found`.

    The order matters: the cheap looks first, the checksum only for what would
    otherwise be believed, the source last (so a stranger's message is a valid one).
    """
    cdef msghdr *header = &receiver.headers[i].msg_hdr
    cdef uint8_t *data = receiver.data + i * receiver.stride
    cdef size_t length = min(<size_t>receiver.headers[i].msg_len, receiver.size)
    cdef size_t udp_length = 0
    cdef const uint8_t *source
    cdef const uint8_t *destination = NULL
    cdef int address_length
    cdef const uint8_t *udp = NULL
    cdef cmsghdr *cmsg
    cdef const uint8_t *told
    cdef const uint8_t *packet_info = NULL
    cdef long stamp[2]
    cdef int verdict, kind = sock.kind
    cdef sockaddr_in6 *name = &receiver.names[i]

    found.interface = 0
    # Without a stamp it came before the kernel began to stamp, just after the option was set.
    stamp[0] = stamp[1] = 0
    cmsg = NULL if header.msg_controllen == 0 else CMSG_FIRSTHDR(header)
    while cmsg != NULL:
        told = <const uint8_t *>CMSG_DATA(cmsg)
        if cmsg.cmsg_level == IPPROTO_IPV6 and cmsg.cmsg_type == IPV6_PKTINFO:
            destination = told
            memcpy(&found.interface, told + 16, 4)
        elif cmsg.cmsg_level == IPPROTO_IP and cmsg.cmsg_type == IP_PKTINFO:
            packet_info = told
            memcpy(&found.interface, told, 4)
        elif cmsg.cmsg_level == SOL_SOCKET and cmsg.cmsg_type == STAMPING:
            memcpy(stamp, told, sizeof(stamp))
        cmsg = CMSG_NXTHDR(header, cmsg)
    if latest >= 0 and (not sock.stamped or <int64_t>stamp[0] * 1000000000 + stamp[1] > latest):
        return ELSEWHERE
    if name.sin6_family == AF_INET:
        source = <const uint8_t *>&(<sockaddr_in *>name).sin_addr
        address_length = 4
        found.scope = 0
    else:
        source = <const uint8_t *>&name.sin6_addr
        address_length = 16
        found.scope = name.sin6_scope_id
        if found.scope and found.interface and (kind != UDP or sock.stamped):
            found.scope = found.interface   # inside a VRF the name has the VRF's instead
    found.port = ntohs(name.sin6_port)      # at the same place in both families

    if kind != UDP:
        if kind == RAW4:
            if length < 20 or <size_t>(data[0] & 15) * 4 < 20 or length < <size_t>(data[0] & 15) * 4:
                return MALFORMED
            source = data + 12
            destination = data + 16
            udp = data + (data[0] & 15) * 4
        else:
            udp = data
        length -= udp - data
        if length < 8:
            return MALFORMED
        if ((<int>udp[2] << 8) | udp[3]) != receiver.port:
            return ELSEWHERE
        found.port = (<uint16_t>udp[0] << 8) | udp[1]
        # What the IP packet carries behind the UDP length is not part of the datagram.
        udp_length = (<size_t>udp[4] << 8) | udp[5]
        if udp_length < 8 or udp_length > length or header.msg_flags & MSG_TRUNC:
            return MALFORMED
        data = <uint8_t *>udp + 8
        length = udp_length - 8

    verdict = check_message(data, length)
    if verdict == MAGIC_WRONG and length == PACKET_LENGTH and receiver_is_question(receiver, data):
        verdict = ASKED
        found.destination = destination
        found.destination_length = 16
        if packet_info != NULL:
            # struct in_pktinfo: what this host answers from, and then what the header says. They
            # are the same unless it is a multicast or a broadcast.
            found.destination = packet_info + 4 if memcmp(packet_info + 4, packet_info + 8, 4) == 0 else NULL
            found.destination_length = 4
        elif destination != NULL and destination[0] == 0xFF:
            found.destination = NULL
    elif verdict != ACCEPTED:
        return verdict
    elif udp != NULL:
        if destination == NULL or not checksum_fits(source, destination, address_length, udp, udp_length):
            return CHECKSUM_WRONG
    split_address(source, address_length, &found.high, &found.low)
    found.message = data
    found.length = length
    if verdict == ASKED and receiver.questions != NULL:
        receiver_ask(receiver, <int>(sock - receiver.sockets), found)
    return verdict


cdef int receiver_match(CReceiver *receiver, int valid) noexcept nogil:
    """Whether the sources of the first `valid` of receiver.found are known: their verdicts, counted.

    A table of 100,000 sources is larger than the processor's caches. So the batch goes
    through it in three steps, and each fetches what the next one looks at;
    `receiver_read_batch` has done the first one. Called with the table locked, and unlocks it:
    whoever is told of a source then finds its messages counted. Returns whether there were strangers.
    """
    cdef CSources *sources = receiver.sources
    cdef CArrival *found
    cdef int64_t known
    cdef uint32_t index, at, heard
    cdef uint64_t accepted = 0
    cdef int i, strangers = 0
    heard = sources.heard_count
    if sources.count:
        for i in range(valid):
            found = &receiver.found[i]
            at = found.hash & sources.mask
            while sources.slots[at].index and sources.slots[at].hash != found.hash:
                at = (at + 1) & sources.mask
            found.guess = sources.slots[at].index
            if found.guess:
                prefetch(&sources.known[found.guess - 1])
    for i in range(valid):
        found = &receiver.found[i]
        found.verdict = ACCEPTED
        index = found.guess - 1
        if found.guess == 0 or not is_address(&sources.known[index], found.high, found.low, found.scope):
            # Unknown when the batch came, or one of two addresses with the same hash.
            known = sources_probe(sources, found.hash, found.high, found.low, found.scope)
            if known >= 0:
                index = sources.slots[known].index - 1
            else:
                found.verdict = sources_admit_stranger(sources, found.high, found.low, found.scope)
                if found.verdict != ACCEPTED:
                    strangers |= found.verdict == STRANGER
                    receiver.counts[found.verdict] += 1
                    continue
                index = sources.count - 1
        accepted += 1
        found.node = sources.known[index].node
        if receiver.tally:
            if sources.shared != NULL:
                shared_hear(sources, index, receiver.found_at)
            sources_hear(sources, index, receiver.found_at, found.port)
            if found.length == PACKET_LENGTH:
                receiver_tell(receiver, index, found)
    receiver.counts[ACCEPTED] += accepted
    if receiver.tally:
        receiver.tallied += accepted
    heard = heard == 0 and sources.heard_count
    pthread_mutex_unlock(&sources.lock)
    if heard:
        receiver_ring(receiver)
    return strangers


cdef void receiver_match_signed(CReceiver *receiver, CSocket *sock, int got) noexcept nogil:
    """Judge a batch of which only signed messages are believed, and count them for their nodes.

    Called with the table locked, and unlocks it. Then those that have to answer first are asked.
    """
    cdef CSources *sources = receiver.sources
    cdef uint32_t index, heard = sources.heard_count
    cdef int64_t now = monotonic_ns()
    cdef CArrival *found
    cdef CPacket packet
    cdef uint64_t kept[1024]    # as many as a batch has at most
    cdef int i, step, verdict
    for i in range(got):
        found = &receiver.found[i]
        found.verdict = receiver_judge(receiver, sock, i, -1, found)
        if found.verdict != ACCEPTED:
            found.length = 0
    for step in range(3):
        for i in range(got):
            found = &receiver.found[i]
            signed_fetch(receiver.signed, found.message, found.length, step, &kept[i])
    for i in range(got):
        found = &receiver.found[i]
        verdict = found.verdict
        if verdict == ACCEPTED:
            verdict = signed_judge(
                receiver.signed, found.message, found.length, found.high, found.low, found.scope,
                &receiver.names[i], now, &packet, &index,
            )
        receiver.counts[verdict] += 1
        if verdict == ACCEPTED:
            receiver.tallied += 1
            sources_hear(sources, index, now, found.port)
            sources_tell(sources, index, now, packet.session, packet.state, is_end(packet.state))
    heard = heard == 0 and sources.heard_count
    pthread_mutex_unlock(&sources.lock)
    if heard:
        receiver_ring(receiver)
    signed_send(receiver.signed, sock.fd, sock.port)


cdef void receiver_ring(CReceiver *receiver) noexcept nogil:
    cdef uint64_t one = 1
    # A bell that is full rings already.
    if receiver.bell >= 0 and write(receiver.bell, &one, sizeof(one)) < 0:
        receiver.errors += errno != EAGAIN


cdef void receiver_tell(CReceiver *receiver, uint32_t index, CArrival *found) noexcept nogil:
    """What the message that was just counted for this source says beside that, if anything."""
    cdef CPacket packet
    if receiver.size > PACKET_LENGTH and packet_read(found.message, found.length, &packet):
        sources_tell(receiver.sources, index, receiver.found_at, packet.session, packet.state,
                     is_end(packet.state))


cdef void receiver_remember(CReceiver *receiver, int valid) noexcept nogil:
    cdef CSources *strangers = receiver.strangers
    cdef CArrival *found
    cdef int i
    pthread_mutex_lock(&strangers.lock)
    for i in range(valid):
        found = &receiver.found[i]
        if found.verdict == STRANGER and strangers.count < receiver.stranger_room:
            sources_add(strangers, found.high, found.low, found.interface or found.scope, 0)
    pthread_mutex_unlock(&strangers.lock)


cdef int receiver_read_batch(CReceiver *receiver, CSocket *sock) noexcept nogil:
    """One recvmmsg on one socket: how many datagrams, or -1 and errno.

    Accepted ones are in receiver.found, valid until the next batch; with receiver.tally they are
    counted in the table of sources instead.
    """
    cdef int got, i, verdict, valid = 0
    cdef CSources *sources = receiver.sources
    cdef CArrival *found
    cdef msghdr *header
    # Of a UDP socket mostly nothing is asked for: room for it costs the kernel a look a datagram.
    cdef size_t control = CONTROL_BYTES if sock.kind != UDP or sock.stamped or sock.addressed else 0
    cdef int64_t latest
    receiver.found_count = 0
    for i in range(receiver.batch):
        header = &receiver.headers[i].msg_hdr
        header.msg_namelen = sizeof(sockaddr_in6)
        header.msg_controllen = control
    got = recvmmsg(sock.fd, receiver.headers, receiver.batch, MSG_DONTWAIT, NULL)
    if got <= 0:
        return got
    latest = -1 if receiver.tally else receiver_latest_stamp(receiver)
    pthread_mutex_lock(&sources.lock)
    if receiver.signed != NULL:
        receiver_match_signed(receiver, sock, got)
        return got
    for i in range(got):
        found = &receiver.found[valid]
        verdict = receiver_judge(receiver, sock, i, latest, found)
        if verdict == ACCEPTED:
            found.hash = hash_address(sources, found.high, found.low, found.scope)
            found.guess = 0
            prefetch(&sources.slots[found.hash & sources.mask])
            valid += 1
        elif verdict != ELSEWHERE:
            receiver.counts[verdict] += 1
    if not valid:
        pthread_mutex_unlock(&sources.lock)
    else:
        receiver.found_at = monotonic_ns()
        if receiver_match(receiver, valid) and receiver.strangers != NULL:
            receiver_remember(receiver, valid)
        for i in range(0 if receiver.tally else valid):
            if receiver.found[i].verdict == ACCEPTED:
                receiver.found[receiver.found_count] = receiver.found[i]
                receiver.found_count += 1
    return got


cdef int receiver_wait_and_read(CReceiver *receiver, int64_t deadline, int wakers) noexcept nogil:
    """Wait until the deadline (CLOCK_MONOTONIC, ns; negative: none) and read.

    HEARD leaves the rest of the queues for the next call. What already lay in the
    queues at the deadline is still read, in at most receiver.late rounds.
    """
    cdef timespec timeout
    cdef int64_t left
    cdef int ready, i, got, progress, full, rounds = 0
    while rounds < 64:
        rounds += 1
        receiver_latest_stamp(receiver)     # for the look at the clocks
        left = SLICE
        if deadline >= 0:
            left = max(0, min(left, deadline - monotonic_ns()))
        timeout.tv_sec = left // 1000000000
        timeout.tv_nsec = left % 1000000000
        ready = ppoll(receiver.fds, receiver.socket_count + wakers, &timeout, NULL)
        if ready < 0:
            if errno == EINTR:
                return PAUSED
            receiver.error = errno
            return FAILED
        if ready == 0:
            return TIMED_OUT if deadline >= 0 and monotonic_ns() >= deadline else PAUSED
        progress = full = 0
        for i in range(receiver.socket_count):
            if receiver.fds[i].revents == 0:
                continue
            if receiver.fds[i].revents & POLLNVAL:
                receiver.error = EBADF
                return FAILED
            got = receiver_read_batch(receiver, &receiver.sockets[i])
            if got > 0:
                progress = 1
                full |= got == receiver.batch
                if receiver.found_count:
                    return HEARD        # never with receiver.tally
            elif got < 0 and errno != EAGAIN and errno != EWOULDBLOCK and errno != EINTR:
                # ICMP errors, an interface that went away: the wait goes on.
                receiver.errors += 1
        for i in range(receiver.socket_count, receiver.socket_count + wakers):
            if receiver.fds[i].revents:
                return WOKEN
        if progress and not full and receiver.rest and left:
            # A reader that is woken for each datagram costs more than the datagram.
            timeout.tv_sec = 0
            timeout.tv_nsec = min(receiver.rest, left)
            ppoll(receiver.fds + receiver.socket_count, wakers, &timeout, NULL)
        if not progress:
            # Only errors: never spin on a socket that keeps failing.
            timeout.tv_sec = 0
            timeout.tv_nsec = 1000000
            nanosleep(&timeout, NULL)
        if deadline >= 0 and left == 0:
            receiver.late -= 1
            if receiver.late <= 0:
                return TIMED_OUT
    return PAUSED
