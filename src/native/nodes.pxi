# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes and their addresses: which are known, which are not, and how both are told.

May not be here: where an address comes from (options.pxi, names.pxi), or what is sent to it.
"""

cdef inline Channel *channel_of(Sender *sender, Address *address) noexcept nogil:
    return &sender.channels[0 if address.length == 4 else 1]


cdef int64_t number_of(Sender *sender, Address *address) noexcept nogil:
    """Of the destination with this address; -1: there is none."""
    cdef uint64_t high, low
    cdef Source *source
    split_address(address.packed, address.length, &high, &low)
    source = sources_find(&sender.sources, high, low, address.scope)
    return -1 if source == NULL else source.node


cdef int add_peer(Sender *sender, uint32_t node, Address *address) noexcept nogil:
    """A new destination; -1 without memory."""
    cdef uint64_t high, low
    cdef uint32_t room
    cdef int number
    cdef void *memory
    cdef Peer *peer
    if sender.schedule.destination_count == sender.peer_room:
        room = max(<uint32_t>16, 2 * sender.peer_room)
        memory = realloc(sender.peers, room * sizeof(Peer))
        if memory == NULL:
            return -1
        sender.peers = <Peer *>memory
        sender.peer_room = room
    split_address(address.packed, address.length, &high, &low)
    number = schedule_add(&sender.schedule, node, monotonic_ns())
    if number < 0 or sources_add(&sender.sources, high, low, address.scope, number) < 0:
        return -1
    peer = &sender.peers[number]
    memset(peer, 0, sizeof(Peer))
    peer.address = address[0]
    peer.index = transmitter_add(&channel_of(sender, address).transmitter, address.packed,
                            <int>sender.options.values[PORT], address.scope)
    return -1 if peer.index < 0 else 0


cdef int resolved(Sender *sender, uint32_t node, Answers *found) noexcept nogil:
    """The node has these addresses; -1 without memory."""
    cdef int i
    cdef int64_t number
    cdef Address *address
    cdef Text text
    sender.nodes[node].waiting = 0
    for i in range(found.count):
        address = &found.addresses[i]
        number = number_of(sender, address)
        if (add_peer(sender, node, address) if number < 0
                else schedule_share(&sender.schedule, <uint32_t>number, node)) < 0:
            return -1
        if sender.options.verbose:
            begin_name(&text, b"", sender.nodes[node].name)
            put(&text, b" is ")
            put_address(&text, address)
            say(DEBUG, &text)
    return 0


cdef void unresolved(Sender *sender, uint32_t index, const char *why, int permanent) noexcept nogil:
    """Say it once; a name is asked for again unless that cannot help."""
    cdef Node *node = &sender.nodes[index]
    cdef Text text
    if permanent:
        sender.schedule.hopeless[index] = 1
        node.waiting = 0
    if node.told:
        return
    node.told = 1
    begin_name(&text, b"node ", node.name)
    put(&text, b": %s%s", why, <const char *>(b"" if permanent or sender.options.action == CHECK
                                              else b"; will try again"))
    say(ERROR, &text)


cdef void begin_where(Sender *sender, Text *text, const char *words, uint32_t number) noexcept nogil:
    """These words, and which nodes a destination belongs to, with its address."""
    cdef uint32_t i
    cdef const char *separator = b""
    begin(text, b"%snode '", words)
    for i in range(sender.schedule.owner_count):
        if sender.schedule.owners[i].destination == number:
            put(text, b"%s%s", separator, sender.nodes[sender.schedule.owners[i].node].name)
            separator = b","
    put(text, b"' (")
    put_address(text, &sender.peers[number].address)
    put(text, b")")
