# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions and their answers: at the port that everybody knows, and where messages leave from.

All of it is hostile until its MAC fits. A question costs a few looks and at most one MAC, a turn has an
end, and so have the answers of a second: in two shares, so that strangers cannot use up what is for
those with the key. May not be here: when there is time for it (loop.pxi).
"""

cdef extern from "native/questions.h" nogil:
    int let_in(int fd, int narrow, uint32_t key_id)

cdef enum:
    READ_AT_A_TIME = 64         # datagrams of one socket in one turn
    ANSWERS = 50                # in a window, of each share
    WAITING_AT_MOST = 16384     # bytes that wait for neighbours in a lane from which answers leave


cdef int open_port(Sender *sender, int family, int *fd) noexcept nogil:
    """The socket that hears questions from everywhere; 0, or an errno."""
    cdef int one = 1, code
    cdef sockaddr_in6 name
    cdef int opened = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP)
    if opened < 0:
        return errno
    memset(&name, 0, sizeof(name))
    name.sin6_family = <uint16_t>family
    name.sin6_port = htons(<uint16_t>sender.options.values[PORT])
    if (setsockopt(opened, IPPROTO_IP if family == AF_INET else IPPROTO_IPV6,
                   IP_PKTINFO if family == AF_INET else IPV6_RECVPKTINFO, &one, sizeof(one)) < 0
            or (family == AF_INET6 and setsockopt(opened, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0)
            or let_in(opened, 0, 0) < 0
            or bind(opened, <void *>&name,
                    sizeof(sockaddr_in) if family == AF_INET else sizeof(sockaddr_in6)) < 0):
        code = errno
        close(opened)
        return code
    fd[0] = opened
    return 0


cdef void open_ports(Sender *sender) noexcept nogil:
    """Where nothing has crashed the port is an agent's or kdumpfenced's."""
    cdef int i, code
    cdef int64_t now = monotonic_ns()
    cdef int64_t before
    cdef Text text
    if not sender.crashed:
        return
    for i in range(2):
        before = sender.port_tried[i]
        if sender.ports[i].fd >= 0 or (before and now - before < SECOND):   # to save work
            continue
        sender.port_tried[i] = now
        code = open_port(sender, sender.channels[i].transmitter.family, &sender.ports[i].fd)
        if code and not before and sender.options.verbose:
            begin(&text, b"port %d/udp (%s): %s; no questions are heard there", <int>sender.options.values[PORT],
                  <const char *>(b"ipv6" if i else b"ipv4"), strerror(code))
            say(DEBUG, &text)


cdef Lane *socket_at(Sender *sender, int at) noexcept nogil:
    """All sockets in turn, SOCKETS at most, IPv4 and IPv6: the ports, then the lanes; or NULL."""
    cdef int lane = at // 2 - 1
    cdef Channel *channel = &sender.channels[at & 1]
    if lane < 0:
        return &sender.ports[at & 1] if sender.ports[at & 1].fd >= 0 else NULL
    return &channel.lanes[lane] if lane < channel.count else NULL


cdef void let_all_in(Sender *sender) noexcept nogil:
    """Take back what was narrowed."""
    cdef int at
    cdef Lane *lane
    for at in range(SOCKETS):
        lane = socket_at(sender, at)
        if lane != NULL and lane.narrow > 0:
            if let_in(lane.fd, 0, 0) < 0:
                setsockopt(lane.fd, SOL_SOCKET, SO_DETACH_FILTER, &at, sizeof(at))
            lane.narrow = 0
    sender.narrowed = 0


cdef int take_share(Sender *sender, Lane *lane, CPacket *question, const uint8_t *data) noexcept nogil:
    """Whether there is an answer left for this question, which is used up then; 2: its MAC fits."""
    cdef int64_t now = monotonic_ns()
    cdef int fits = 0
    if now >= sender.window_ends:
        sender.window_ends = now + SECOND
        sender.shares[0] = sender.shares[1] = ANSWERS
    if question.key_id and question.key_id == sender.packet.key_id:
        if sender.shares[1] == 0:
            return 0
        fits = mac_fits(&sender.key, data)
    if sender.shares[fits] == 0:
        # Once is enough for all of them that lie in the queue.
        if not lane.narrow and let_in(lane.fd, 1, sender.packet.key_id) == 0:
            lane.narrow = 1
            sender.narrowed = sender.window_ends
        return 0
    sender.shares[fits] -= 1
    return 1 + fits


cdef int turn_round(msghdr *header, Address *asker) noexcept nogil:
    """Let what leaves with this header come from the address that was asked; 0 unless that is one
    of this machine alone."""
    cdef in_pktinfo info
    cdef in6_pktinfo info6
    cdef Address asked
    cdef cmsghdr *cmsg = CMSG_FIRSTHDR(header)
    while cmsg != NULL:
        if cmsg.cmsg_level == IPPROTO_IP and cmsg.cmsg_type == IP_PKTINFO:
            memcpy(&info, CMSG_DATA(cmsg), sizeof(info))
            if info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr:
                return 0
            info.ipi_ifindex = 0
            memcpy(CMSG_DATA(cmsg), &info, sizeof(info))
            header.msg_controllen = CMSG_SPACE(sizeof(info))
            break
        if cmsg.cmsg_level == IPPROTO_IPV6 and cmsg.cmsg_type == IPV6_PKTINFO:
            memcpy(&info6, CMSG_DATA(cmsg), sizeof(info6))
            set_address(&asked, 16, info6.ipi6_addr.s6_addr, 1)
            if info6.ipi6_addr.s6_addr[0] == 0xFF:
                return 0
            # Where an interface is named some kernels look for no other way.
            if not is_link_local(&asked) and not is_link_local(asker):
                info6.ipi6_ifindex = 0
            memcpy(CMSG_DATA(cmsg), &info6, sizeof(info6))
            header.msg_controllen = CMSG_SPACE(sizeof(info6))
            break
        cmsg = CMSG_NXTHDR(header, cmsg)
    header.msg_control = cmsg
    return cmsg != NULL


cdef int is_echo(int fd, sockaddr_in6 *name, Address *asker) noexcept nogil:
    """Whether this socket itself was the one that asked."""
    cdef sockaddr_in6 own
    cdef socklen_t length = sizeof(own)
    return (getsockname(fd, <void *>&own, &length) == 0 and own.sin6_port == name.sin6_port
            and is_own(family_of(asker), asker.packed, asker.scope))


cdef int hear_question(Sender *sender, Lane *lane, int is_port) noexcept nogil:
    """Take in a datagram, and answer it if it is a question that is to be answered; 0: there is none."""
    cdef mmsghdr whole
    cdef msghdr *header = &whole.msg_hdr
    cdef iovec vector
    cdef sockaddr_in6 name
    cdef uint64_t control[32]   # its address, and the time stamps that somebody else may have asked for
    cdef uint8_t data[PACKET_LENGTH + 1]
    cdef uint8_t packed[16]
    cdef ssize_t got
    cdef int length, outcome, share
    cdef CPacket question
    cdef Address asker
    cdef Text text
    memset(&whole, 0, sizeof(whole))
    vector.iov_base = data
    vector.iov_len = sizeof(data)
    header.msg_name = &name
    header.msg_namelen = sizeof(name)
    header.msg_iov = &vector
    header.msg_iovlen = 1
    header.msg_control = control
    header.msg_controllen = sizeof(control)
    got = recvmsg(lane.fd, header, MSG_DONTWAIT)
    if got < 0:
        return 0                # be it because of what the lane was told of: the rest is for the next turn
    length = copy_address(<sockaddr *>&name, packed) if got == PACKET_LENGTH else 0
    if length == 0 or name.sin6_port == 0:
        return 1
    set_address(&asker, length, packed, name.sin6_scope_id if length == 16 else 0)
    if (asker.length != length or why_unusable(&asker) != NULL or not turn_round(header, &asker)
            or (not is_port and transmitter_pending(lane.fd) > WAITING_AT_MOST)
            or not packet_read(data, PACKET_LENGTH, &question) or question.kind != QUESTION):
        return 1
    share = take_share(sender, lane, &question, data)
    # An answer to a made-up neighbour would wait in the lane, and hold up the end of a count.
    if (share == 0 or (share == 1 and not is_port and number_of(sender, &asker) < 0)
            or is_echo(lane.fd, &name, &asker)):
        return 1
    make_status(sender, question.nonce, data)
    vector.iov_len = PACKET_LENGTH
    send_all(lane.fd, &whole, 1, &outcome, 0)
    if sender.options.verbose > 1:
        begin(&text, b"question from ")
        put_address(&text, &asker)
        put(&text, b" port %d: %s", ntohs(name.sin6_port),
            strerror(outcome) if outcome else <const char *>b"answered")
        say(DEBUG, &text)
    return 1


cdef void answer_questions(Sender *sender) noexcept nogil:
    """Those that have come, but no more than one turn has time for."""
    cdef Lane *lane
    cdef int at, i
    if sender.narrowed and monotonic_ns() >= sender.narrowed:
        let_all_in(sender)
    for at in range(SOCKETS):
        lane = socket_at(sender, at)
        if lane == NULL:
            continue
        for i in range(READ_AT_A_TIME):
            if not hear_question(sender, lane, at < 2):
                break
