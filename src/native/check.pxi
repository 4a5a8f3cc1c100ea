# SPDX-License-Identifier: LGPL-2.1-or-later
"""--check: which way the messages would go, if there is one to every node. Nothing is sent."""

cdef int check(Sender *sender) noexcept nogil:
    """0 if there is a way to every node and the options are right, 1 if not, or -1: a signal."""
    cdef int64_t ends = monotonic_ns() + 10 * <int64_t>SECOND
    cdef uint32_t i
    while ended_by == 0:
        if step_names(sender) < 0:
            return no_memory()
        if names_waiting(sender, 1) == 0 or monotonic_ns() >= ends:
            break
        wait_for(sender, ends, 0)
    if ended_by:
        return -1
    for i in range(sender.options.node_count):
        if sender.nodes[i].waiting and sender.nodes[i].asked:
            unresolved(sender, i, b"name lookup timed out after 10 seconds", 0)
    for i in range(sender.schedule.destination_count):
        sender.schedule.destinations[i].left = check_way(sender, i)
    return 1 if schedule_reached(&sender.schedule) < sender.options.node_count or sender.options.complained else 0


cdef int check_way(Sender *sender, uint32_t number) noexcept nogil:
    """Say it; whether there is one."""
    cdef Address *address = &sender.peers[number].address
    cdef Address other
    cdef Route route
    cdef Text text
    cdef int error = route_find(family_of(address), address.packed, address.scope, &route)
    begin_where(sender, &text, b"", number)
    if error:
        put(&text, b": %s", strerror(error))
        say(ERROR, &text)
        return 0
    if route.local:
        put(&text, b": is this machine")
    else:
        put(&text, b": by ")
        put_interface(&text, route.interface)
        if route.source_length:
            put(&text, b", from ")
            set_address(&other, route.source_length, route.source, 0)
            put_address(&text, &other)
        if route.gateway_length:
            put(&text, b", through ")
            set_address(&other, route.gateway_length, route.gateway, 0)
            put_address(&text, &other)
    put(&text, b"\n")
    write_some(1, text.data, text.length)
    if not route.carrier:
        begin_where(sender, &text, b"", number)
        put(&text, b": the interface has no carrier")
        say(ERROR, &text)
    return route.carrier
