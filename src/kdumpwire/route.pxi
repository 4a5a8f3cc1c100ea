# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which way a datagram would go: a question to the kernel by netlink, rtnetlink(7).

C without Python; the twin of `_purewire.find_route`. Nothing here sends to the network.
"""

ctypedef struct Route:
    uint32_t interface
    int local           # to this machine itself
    int carrier
    int gateway_length  # 0: on the link
    uint8_t gateway[16]
    int source_length   # 0: the kernel names none
    uint8_t source[16]


cdef int route_read(nlmsghdr *header, int length, Route *route) noexcept nogil:
    """0 and the route, or an errno."""
    cdef rtmsg *message
    cdef rtattr *attribute
    cdef int left, size
    cdef uint8_t *value
    if not NLMSG_OK(header, length):
        return EPROTO
    if header.nlmsg_type == NLMSG_ERROR:
        return -(<nlmsgerr *>NLMSG_DATA(header)).error or EPROTO
    if header.nlmsg_type != RTM_NEWROUTE:
        return EPROTO
    message = <rtmsg *>NLMSG_DATA(header)
    if message.rtm_type == RTN_UNREACHABLE:
        return ENETUNREACH
    if message.rtm_type == RTN_BLACKHOLE:
        return EINVAL
    if message.rtm_type == RTN_PROHIBIT:
        return EACCES
    route.local = message.rtm_type == RTN_LOCAL
    attribute = RTM_RTA(message)
    left = RTM_PAYLOAD(header)
    while RTA_OK(attribute, left):
        value = <uint8_t *>RTA_DATA(attribute)
        size = RTA_PAYLOAD(attribute)
        if attribute.rta_type == RTA_OIF and size == 4:
            memcpy(&route.interface, value, 4)
        elif attribute.rta_type == RTA_GATEWAY and (size == 4 or size == 16):
            memcpy(route.gateway, value, size)
            route.gateway_length = size
        elif attribute.rta_type == RTA_VIA and (size == 6 or size == 18):
            memcpy(route.gateway, value + 2, size - 2)      # behind its family
            route.gateway_length = size - 2
        elif attribute.rta_type == RTA_PREFSRC and (size == 4 or size == 16):
            memcpy(route.source, value, size)
            route.source_length = size
        size = (attribute.rta_len + 3) & ~3     # as RTA_NEXT, a macro that would change `left` unseen
        left -= size
        attribute = <rtattr *>(<uint8_t *>attribute + size)
    return 0


cdef inline int has_carrier(int fd, uint32_t interface) noexcept nogil:
    """Whether it has one; a route does not tell, and /sys need not be there."""
    cdef ifreq flags
    flags.ifr_flags = 0
    return (
        if_indextoname(interface, flags.ifr_name) == NULL
        or ioctl(fd, SIOCGIFFLAGS, &flags) < 0
        or flags.ifr_flags & IFF_RUNNING != 0
    )


cdef int route_find(int family, const uint8_t *packed, uint32_t scope, Route *route) noexcept nogil:
    """Ask the kernel which way a datagram to there would go; 0, or an errno."""
    cdef uint8_t request[128]
    cdef uint8_t answer[4096]
    cdef nlmsghdr *header = <nlmsghdr *>request
    cdef rtmsg *message = <rtmsg *>NLMSG_DATA(header)
    cdef rtattr *attribute
    cdef int fd, length = 4 if family == AF_INET else 16, error = 0
    cdef ssize_t got
    cdef pollfd waiter
    cdef timespec timeout
    memset(route, 0, sizeof(Route))
    memset(request, 0, sizeof(request))
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    if fd < 0:
        return errno
    header.nlmsg_type = <uint16_t>RTM_GETROUTE
    header.nlmsg_flags = <uint16_t>NLM_F_REQUEST
    message.rtm_family = <uint8_t>family
    message.rtm_dst_len = <uint8_t>(length * 8)
    attribute = RTM_RTA(message)
    attribute.rta_type = <uint16_t>RTA_DST
    attribute.rta_len = <uint16_t>RTA_LENGTH(length)
    memcpy(RTA_DATA(attribute), packed, length)
    header.nlmsg_len = NLMSG_LENGTH(sizeof(rtmsg)) + attribute.rta_len
    if scope:
        attribute = <rtattr *>(<uint8_t *>attribute + attribute.rta_len)
        attribute.rta_type = <uint16_t>RTA_OIF
        attribute.rta_len = <uint16_t>RTA_LENGTH(4)
        memcpy(RTA_DATA(attribute), &scope, 4)
        header.nlmsg_len += attribute.rta_len
    waiter.fd = fd
    waiter.events = <short>POLLIN
    timeout.tv_sec = 1
    timeout.tv_nsec = 0
    if send(fd, request, header.nlmsg_len, MSG_DONTWAIT) < 0:
        error = errno
    elif ppoll(&waiter, 1, &timeout, NULL) <= 0:
        error = ETIMEDOUT
    else:
        got = recv(fd, answer, sizeof(answer), MSG_DONTWAIT)
        error = errno if got < 0 else route_read(<nlmsghdr *>answer, <int>got, route)
        if error == 0:
            route.carrier = route.local or has_carrier(fd, route.interface)
    close(fd)
    return error
