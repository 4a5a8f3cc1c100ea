# SPDX-License-Identifier: LGPL-2.1-or-later
"""The send loop: messages to any number of destinations, and what became of them.

C without Python; the twin of `_purewire.Transmitter`. May be here: sockets to send with, and what
the kernel tells of them. May not: who is sent a message when, which is the schedule's.
"""

cdef enum:
    SOURCE_BYTES = 48       # IPV6_PKTINFO as control data, with room to spare

ctypedef struct CTransmitter:
    # One socket, and all whom it sends to.
    int fd
    int family
    iovec payload       # of all that have none of their own
    mmsghdr *headers
    sockaddr_in6 *names
    uint8_t *sources    # control data that names the source address; NULL until one has one
    mmsghdr *chosen
    int *outcomes       # of the last send_all
    uint8_t tell[SOURCE_BYTES]  # control data that asks to be told when the message leaves
    int count
    int room
    int chosen_room

ctypedef struct News:
    # What became of one datagram.
    uint8_t packed[16]
    uint32_t scope
    int error           # 0: it left this machine
    int by_length       # 0: no host said so
    uint8_t by[16]


cdef int transmitter_add(
    CTransmitter *transmitter, const uint8_t *packed, int port, uint32_t scope
) noexcept nogil:
    """The index of a new destination, or -1 without memory."""
    cdef int room, i
    cdef void *memory
    cdef sockaddr_in6 *name
    cdef msghdr *header
    if transmitter.count == transmitter.room:
        room = max(16, transmitter.room * 2)
        memory = realloc(transmitter.names, room * sizeof(sockaddr_in6))
        if memory == NULL:
            return -1
        transmitter.names = <sockaddr_in6 *>memory
        for i in range(transmitter.count):
            transmitter.headers[i].msg_hdr.msg_name = &transmitter.names[i]
        if transmitter.sources != NULL and transmitter_reserve_sources(transmitter, room) < 0:
            return -1
        memory = realloc(transmitter.headers, room * sizeof(mmsghdr))
        if memory == NULL:
            return -1
        transmitter.headers = <mmsghdr *>memory
        transmitter.room = room
    name = &transmitter.names[transmitter.count]
    memset(name, 0, sizeof(sockaddr_in6))
    name.sin6_family = <uint16_t>transmitter.family
    name.sin6_port = htons(<uint16_t>port)
    header = &transmitter.headers[transmitter.count].msg_hdr
    memset(header, 0, sizeof(msghdr))
    if transmitter.family == AF_INET:
        memcpy(&(<sockaddr_in *>name).sin_addr, packed, 4)
        header.msg_namelen = sizeof(sockaddr_in)
    else:
        memcpy(&name.sin6_addr, packed, 16)
        name.sin6_scope_id = scope
        header.msg_namelen = sizeof(sockaddr_in6)
    header.msg_name = name
    header.msg_iov = &transmitter.payload
    header.msg_iovlen = 1
    transmitter.count += 1
    return transmitter.count - 1


cdef int transmitter_reserve_sources(CTransmitter *transmitter, int room) noexcept nogil:
    """Room for so many source addresses; 0, or -1 without memory."""
    cdef int i
    cdef void *memory = realloc(transmitter.sources, <size_t>room * SOURCE_BYTES)
    if memory == NULL:
        return -1
    transmitter.sources = <uint8_t *>memory
    for i in range(transmitter.count):
        if transmitter.headers[i].msg_hdr.msg_control != NULL:
            transmitter.headers[i].msg_hdr.msg_control = transmitter.sources + i * SOURCE_BYTES
    return 0


cdef int transmitter_set_source(CTransmitter *transmitter, int index, const uint8_t *packed) noexcept nogil:
    """What goes there leaves from this address; 0, or -1 without memory."""
    cdef msghdr *header = &transmitter.headers[index].msg_hdr
    cdef cmsghdr *cmsg
    cdef in_pktinfo *info
    cdef in6_pktinfo *info6
    if transmitter.sources == NULL and transmitter_reserve_sources(transmitter, transmitter.room) < 0:
        return -1
    header.msg_control = transmitter.sources + index * SOURCE_BYTES
    memset(header.msg_control, 0, SOURCE_BYTES)
    cmsg = <cmsghdr *>header.msg_control
    if transmitter.family == AF_INET:
        header.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo))
        cmsg.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
        cmsg.cmsg_level = IPPROTO_IP
        cmsg.cmsg_type = IP_PKTINFO
        info = <in_pktinfo *>CMSG_DATA(cmsg)
        memcpy(&info.ipi_spec_dst, packed, 4)
    else:
        header.msg_controllen = CMSG_SPACE(sizeof(in6_pktinfo))
        cmsg.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
        cmsg.cmsg_level = IPPROTO_IPV6
        cmsg.cmsg_type = IPV6_PKTINFO
        info6 = <in6_pktinfo *>CMSG_DATA(cmsg)
        memcpy(&info6.ipi6_addr, packed, 16)
    return 0


cdef int transmitter_reserve(CTransmitter *transmitter, int count) noexcept nogil:
    """Room to choose so many; 0, or -1 without memory."""
    cdef void *memory
    if count <= transmitter.chosen_room:
        return 0
    memory = realloc(transmitter.chosen, count * sizeof(mmsghdr))
    if memory == NULL:
        return -1
    transmitter.chosen = <mmsghdr *>memory
    memory = realloc(transmitter.outcomes, count * sizeof(int))
    if memory == NULL:
        return -1
    transmitter.outcomes = <int *>memory
    transmitter.chosen_room = count
    return 0


cdef int transmitter_watch(int fd, int family) noexcept nogil:
    """Let the kernel tell what becomes of messages; whether it can tell which ones left."""
    cdef int one = 1, flags = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_CMSG
    # OPT_PKTINFO does nothing here, but is refused by kernels (before 4.13) some of which would
    # refuse the messages that ask to be told of.
    flags |= 1 << 13
    return (
        setsockopt(fd, IPPROTO_IP if family == AF_INET else IPPROTO_IPV6,
                   IP_PKTINFO if family == AF_INET else IPV6_RECVPKTINFO, &one, sizeof(one)) == 0
        and setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof(flags)) == 0
    )


cdef void transmitter_choose(CTransmitter *transmitter, int at, int index, int told) noexcept nogil:
    """Destination `index` is number `at` of those that send_all gets."""
    cdef msghdr *header = &transmitter.chosen[at].msg_hdr
    cdef cmsghdr *cmsg
    cdef uint32_t flags = SOF_TIMESTAMPING_TX_SCHED
    transmitter.chosen[at] = transmitter.headers[index]
    if told and header.msg_control == NULL:
        header.msg_control = transmitter.tell
        header.msg_controllen = CMSG_SPACE(sizeof(flags))
        cmsg = CMSG_FIRSTHDR(header)
        cmsg.cmsg_len = CMSG_LEN(sizeof(flags))
        cmsg.cmsg_level = SOL_SOCKET
        cmsg.cmsg_type = SO_TIMESTAMPING
        memcpy(CMSG_DATA(cmsg), &flags, sizeof(flags))


cdef int send_all(
    int fd, mmsghdr *headers, int count, int *outcomes, int64_t patience
) noexcept nogil:
    """sendmmsg over all of them; outcomes[i] is 0 or the errno of destination i.

    A full send buffer is waited for, `patience` nanoseconds in all. Returns 0, or
    EINTR if a signal came (the rest then has EINTR as its outcome).
    """
    cdef int at = 0, sent, tries = 0, i, error
    cdef int64_t until = -1, left
    cdef pollfd waiter
    cdef timespec timeout
    while at < count:
        sent = sendmmsg(fd, headers + at, min(count - at, 1024), MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            for i in range(at, at + sent):
                outcomes[i] = 0
            at += sent
            tries = 0
            continue
        error = errno
        if error == EINTR or error == EAGAIN or error == EWOULDBLOCK:
            if until < 0:
                until = monotonic_ns() + patience
            left = until - monotonic_ns()
            if left > 0 and error != EINTR:
                waiter.fd = fd
                waiter.events = <short>POLLOUT
                timeout.tv_sec = left // 1000000000
                timeout.tv_nsec = left % 1000000000
                if ppoll(&waiter, 1, &timeout, NULL) > 0:
                    continue
            if error == EINTR or left <= 0 or errno == EINTR:
                for i in range(at, count):
                    outcomes[i] = error
                return EINTR if error == EINTR else 0
            continue
        # The error may be an older datagram's, reported on this occasion (IP_RECVERR):
        # only one that comes again belongs to this destination.
        tries += 1
        if tries < 3:
            continue
        outcomes[at] = error
        at += 1
        tries = 0
    return 0


cdef int transmitter_news(int fd, int family, News *news) noexcept nogil:
    """What became known of one datagram that had been taken; 0 if there is nothing more."""
    cdef msghdr header
    cdef sockaddr_in6 name
    cdef uint8_t control[512]
    cdef uint8_t data[64]
    cdef uint8_t destination[16]
    cdef iovec vector
    cdef cmsghdr *cmsg
    cdef sock_extended_err error
    cdef sockaddr *offender
    cdef in_pktinfo info
    cdef in6_pktinfo info6
    cdef int told, addressed
    while True:
        vector.iov_base = data
        vector.iov_len = sizeof(data)
        memset(&header, 0, sizeof(header))
        memset(&name, 0, sizeof(name))
        header.msg_name = &name
        header.msg_namelen = sizeof(name)
        header.msg_iov = &vector
        header.msg_iovlen = 1
        header.msg_control = control
        header.msg_controllen = sizeof(control)
        if recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0:
            if errno == EINTR:
                continue
            return 0
        told = addressed = 0
        news.by_length = 0
        cmsg = CMSG_FIRSTHDR(&header)
        while cmsg != NULL:
            if cmsg.cmsg_level == IPPROTO_IP and cmsg.cmsg_type == IP_PKTINFO:
                memcpy(&info, CMSG_DATA(cmsg), sizeof(info))
                memcpy(destination, &info.ipi_addr, 4)
                addressed = 1
            elif cmsg.cmsg_level == IPPROTO_IPV6 and cmsg.cmsg_type == IPV6_PKTINFO:
                memcpy(&info6, CMSG_DATA(cmsg), sizeof(info6))
                memcpy(destination, &info6.ipi6_addr, 16)
                addressed = 1
            elif ((cmsg.cmsg_level == IPPROTO_IP and cmsg.cmsg_type == IP_RECVERR)
                    or (cmsg.cmsg_level == IPPROTO_IPV6 and cmsg.cmsg_type == IPV6_RECVERR)):
                memcpy(&error, CMSG_DATA(cmsg), sizeof(error))
                told = 1
                if error.ee_origin == SO_EE_ORIGIN_ICMP or error.ee_origin == SO_EE_ORIGIN_ICMP6:
                    offender = SO_EE_OFFENDER(<sock_extended_err *>CMSG_DATA(cmsg))
                    news.by_length = copy_address(offender, news.by)
            cmsg = CMSG_NXTHDR(&header, cmsg)
        if not told:
            continue
        if error.ee_origin != SO_EE_ORIGIN_TIMESTAMPING:
            news.error = <int>error.ee_errno
            news.scope = name.sin6_scope_id if family == AF_INET6 else 0
            if copy_address(<sockaddr *>&name, news.packed):
                return 1
        elif addressed:
            news.error = 0
            news.scope = info6.ipi6_ifindex if family == AF_INET6 else 0
            memcpy(news.packed, destination, 4 if family == AF_INET else 16)
            return 1


cdef int copy_address(sockaddr *name, uint8_t *packed) noexcept nogil:
    """Its length: 4, 16, or 0 if it is of another family."""
    if name.sa_family == AF_INET:
        memcpy(packed, &(<sockaddr_in *>name).sin_addr, 4)
        return 4
    if name.sa_family == AF_INET6:
        memcpy(packed, &(<sockaddr_in6 *>name).sin6_addr, 16)
        return 16
    return 0


cdef int transmitter_pending(int fd) noexcept nogil:
    """Bytes of memory of datagrams that were taken but have not left the machine."""
    cdef int queued = 0
    if ioctl(fd, TIOCOUTQ, &queued) < 0:
        return 0
    return queued


cdef void transmitter_free(CTransmitter *transmitter) noexcept nogil:
    free(transmitter.headers)
    free(transmitter.names)
    free(transmitter.sources)
    free(transmitter.chosen)
    free(transmitter.outcomes)
