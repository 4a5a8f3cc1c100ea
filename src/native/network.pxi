# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel says of interfaces, routes and source addresses.

The question for a route itself is the core's (`route_find`). May not be here: what follows from the
answers for messages (lanes.pxi, loop.pxi).
"""

cdef void open_network(Sender *sender) noexcept nogil:
    """Be told of interfaces, addresses and routes that come, go or change (rtnetlink(7))."""
    cdef sockaddr_nl name
    sender.network = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)
    if sender.network < 0:
        return
    memset(&name, 0, sizeof(name))
    name.nl_family = <uint16_t>AF_NETLINK
    name.nl_groups = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
    if bind(sender.network, <void *>&name, sizeof(name)) < 0:
        close_network(sender)


cdef void close_network(Sender *sender) noexcept nogil:
    close(sender.network)
    sender.network = -1


cdef int network_changed(Sender *sender) noexcept nogil:
    cdef char first
    cdef int changes = 0, i
    for i in range(1000):       # however much comes: the rest is for the next call
        if sender.network < 0:
            break
        if recv(sender.network, &first, 1, MSG_DONTWAIT) < 0:
            if errno == EAGAIN or errno == EWOULDBLOCK:
                break
            if errno != EINTR and errno != ENOBUFS:     # ENOBUFS: so many that some were lost
                close_network(sender)
        changes = 1
    return changes


cdef int is_own(int family, const uint8_t *packed, uint32_t scope) noexcept nogil:
    """Whether this machine has that address. The routing table knows; bind() takes any address
    with ip_nonlocal_bind."""
    cdef Route route
    return route_find(family, packed, scope, &route) == 0 and route.local


cdef int is_local_only(Address *address) noexcept nogil:
    cdef uint64_t high, low
    split_address(address.packed, address.length, &high, &low)
    return is_loopback(high, low)


cdef int why_useless(Sender *sender, uint32_t number) noexcept nogil:
    """An errno if a message to there would leave from an address that nobody believes.

    Found out before it is sent: the kernel would take it, and ask for a neighbour by it.
    """
    cdef Address *address = &sender.peers[number].address
    cdef CTransmitter *transmitter = &channel_of(sender, address).transmitter
    cdef msghdr *header = &transmitter.headers[sender.peers[number].index].msg_hdr
    cdef sockaddr_in6 name
    cdef socklen_t length = sizeof(name)
    cdef Address source
    cdef uint8_t packed[16]
    cdef int fd, error = 0, useless
    fd = socket(transmitter.family, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    if fd < 0:
        return 0                # nobody knows
    if connect(fd, header.msg_name, header.msg_namelen) < 0:
        error = errno
        close(fd)
        return error if error == ENETUNREACH or error == EHOSTUNREACH or error == EADDRNOTAVAIL else 0
    error = getsockname(fd, <void *>&name, &length)
    close(fd)
    if error < 0:
        return 0
    copy_address(<sockaddr *>&name, packed)
    set_address(&source, address.length, packed, 1)
    useless = is_zero(&source) or (is_local_only(&source) and not is_local_only(address))
    # A link-local one is for the link. Elsewhere the node's own may just be on its way.
    if is_link_local(&source) and not is_link_local(address) and sender.options.values[COUNT]:
        useless = monotonic_ns() - sender.schedule.started < LATE_NETWORK_NS
    return EADDRNOTAVAIL if useless else 0
