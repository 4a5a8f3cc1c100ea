# SPDX-License-Identifier: LGPL-2.1-or-later
"""Look-ups of names, each in a thread of its own, since a name service may hang for ever.

The loop sees to it that they are started, repeated and taken in; no thread touches anything but
its answer. Addresses on an interface that is not there yet wait here, too. May not be here: what
is an address (addresses.pxi).
"""

cdef void *look_up(void *argument) noexcept nogil:
    """A thread: ask for one name, hand the answer over, end."""
    cdef Answer *answer = <Answer *>argument
    cdef Sender *sender = answer.sender
    cdef addrinfo hints
    memset(&hints, 0, sizeof(hints))
    hints.ai_family = <int>sender.options.values[FAMILY]
    hints.ai_socktype = SOCK_DGRAM
    answer.code = ask_name_service(sender.nodes[answer.node].name, &hints, &answer.found)
    answer.error = errno
    pthread_mutex_lock(&sender.lock)
    answer.next = sender.answers
    sender.answers = answer
    pthread_mutex_unlock(&sender.lock)
    write(sender.write_end, b".", 1)    # if it is full, it can be read: that is all it is for
    return NULL


cdef int start_look_up(Sender *sender, int node) noexcept nogil:
    """Whether there was a thread to be had."""
    cdef pthread_attr_t attributes
    cdef pthread_t thread
    cdef Answer *answer = <Answer *>calloc(1, sizeof(Answer))
    if answer == NULL:
        return 0
    answer.sender = sender
    answer.node = node
    if (pthread_attr_init(&attributes) == 0
            and pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0
            and pthread_attr_setstacksize(&attributes, LOOK_UP_STACK) == 0
            and pthread_create(&thread, &attributes, look_up, answer) == 0):
        return 1
    free(answer)
    return 0


cdef int young_look_ups(Sender *sender, int64_t now) noexcept nogil:
    """One that has hung for a second no longer counts."""
    cdef uint32_t i
    cdef int young = 0
    cdef Node *node
    for i in range(sender.options.node_count):
        node = &sender.nodes[i]
        if node.waiting and node.running > 0 and now - node.asked_at < SECOND:
            young += 1
    return young


cdef int names_waiting(Sender *sender, int only_asked) noexcept nogil:
    """How many are waited for, or of those the ones that nothing has answered yet."""
    cdef uint32_t i
    cdef int count = 0
    for i in range(sender.options.node_count):
        if sender.nodes[i].waiting and (sender.nodes[i].asked or not only_asked):
            count += 1
    return count


cdef void hurry_names(Sender *sender, int64_t now) noexcept nogil:
    """What names mean may have changed: ask again, now."""
    cdef uint32_t i
    cdef Node *node
    for i in range(sender.options.node_count):
        node = &sender.nodes[i]
        node.delay = RETRY_NS
        if node.waiting and node.running < LOOK_UPS_OF_A_NAME:
            node.due = now


cdef int64_t names_next(Sender *sender, int64_t now) noexcept nogil:
    """When `step_names` wants to be called; -1: not before an answer."""
    cdef uint32_t i
    cdef int64_t soonest = -1
    cdef Node *node
    for i in range(sender.options.node_count):
        node = &sender.nodes[i]
        if node.waiting and node.due >= 0 and (soonest < 0 or node.due < soonest):
            soonest = node.due
    if soonest >= 0 and young_look_ups(sender, now) >= LOOK_UPS_AT_ONCE:
        return now + NAMES_SLICE
    return soonest


cdef void ask_later(Sender *sender, Node *node, int64_t now) noexcept nogil:
    cdef int64_t most = max(RETRY_NS, sender.options.values[INTERVAL] * SECOND)
    node.due = now + node.delay
    node.delay = min(2 * node.delay, most)


cdef int step_names(Sender *sender) noexcept nogil:
    """Take in the answers, start what is due; -1 without memory."""
    cdef char drained[64]
    cdef Answer *answer
    cdef Answer *next
    cdef Node *node
    cdef int64_t now
    cdef int room, result = 0
    cdef uint32_t i
    if sender.read_end >= 0:
        while read(sender.read_end, drained, sizeof(drained)) > 0:
            pass
    pthread_mutex_lock(&sender.lock)
    answer = sender.answers
    sender.answers = NULL
    pthread_mutex_unlock(&sender.lock)
    now = monotonic_ns()
    while answer != NULL:
        next = answer.next
        node = &sender.nodes[answer.node]
        if node.waiting:        # else another look-up of this name was quicker
            node.running -= 1
            node.asked = 0
            if take_answer(sender, answer) < 0:
                result = -1
            if node.waiting and node.due < 0 and node.running == 0:
                ask_later(sender, node, now)
        if answer.found != NULL:
            free_answer(answer.found)
        free(answer)
        answer = next
    room = LOOK_UPS_AT_ONCE - young_look_ups(sender, now)
    for i in range(sender.options.node_count):
        node = &sender.nodes[i]
        if not node.waiting or not 0 <= node.due <= now:
            continue
        if strchr(node.name, c'%') != NULL:
            if look_for_interface(sender, i) < 0:
                result = -1
        elif room > 0:
            if start_look_up(sender, i):
                node.running += 1
                node.asked_at = now
                node.due = -1
                room -= 1
            else:
                node.due = now + SECOND
    return result


cdef int look_for_interface(Sender *sender, uint32_t index) noexcept nogil:
    """Of a link-local address; -1 without memory."""
    cdef Node *node = &sender.nodes[index]
    cdef Answers found
    cdef Text why
    node.asked = 0
    read_literal(node.name, <int>sender.options.values[FAMILY], &found.addresses[0])
    if found.addresses[0].length:
        found.count = 1
        return resolved(sender, index, &found)
    begin(&why, b"this machine has no interface '%s'", strchr(node.name, c'%') + 1)
    unresolved(sender, index, why.data, 0)
    ask_later(sender, node, monotonic_ns())
    return 0


cdef void read_answer(addrinfo *info, int family, Answers *found) noexcept nogil:
    """Every address once, of that family."""
    cdef Address address
    cdef uint8_t packed[16]
    cdef int i, length
    found.count = 0
    while info != NULL and found.count < ADDRESSES_OF_A_NAME:
        length = copy_address(<sockaddr *>info.ai_addr, packed)
        if length:
            set_address(&address, length, packed,
                        (<sockaddr_in6 *>info.ai_addr).sin6_scope_id if length == 16 else 0)
            if family == AF_UNSPEC or family == family_of(&address):
                for i in range(found.count):
                    if memcmp(&found.addresses[i], &address, sizeof(Address)) == 0:
                        break
                else:
                    found.addresses[found.count] = address
                    found.count += 1
        info = info.ai_next


cdef void keep_usable(Answers *found, Text *why) noexcept nogil:
    """Keep what a node can have; if nothing is left, `why` says what it was."""
    cdef int i, kept = 0
    cdef const char *first = why_unusable(&found.addresses[0])
    why.length = 0
    for i in range(found.count):
        if why.length:
            put(why, b", ")
        put_address(why, &found.addresses[i])
        if why_unusable(&found.addresses[i]) == NULL:
            found.addresses[kept] = found.addresses[i]
            kept += 1
    found.count = kept
    if kept == 0:
        put(why, b": %s", first)


cdef int take_answer(Sender *sender, Answer *answer) noexcept nogil:
    """-1 without memory."""
    cdef Answers found
    cdef Text why
    found.count = 0
    if answer.code:
        if answer.code == EAI_SYSTEM:
            begin(&why, b"%s", strerror(answer.error))
        else:
            begin(&why, b"%s", name_service_error(answer.code))
    else:
        read_answer(answer.found, <int>sender.options.values[FAMILY], &found)
        if found.count:
            keep_usable(&found, &why)
        else:
            begin(&why, b"no address of the requested family")
    if found.count:
        return resolved(sender, answer.node, &found)
    unresolved(sender, answer.node, why.data, 0)
    return 0


cdef int name_files_changed(Sender *sender) noexcept nogil:
    """Whether one of the files that say what names mean is not what it was."""
    cdef const char *paths[3]
    cdef stat_t about
    cdef stat_t *before
    cdef int i, changes = 0
    paths[0], paths[1], paths[2] = b"/etc/hosts", b"/etc/resolv.conf", b"/etc/nsswitch.conf"
    for i in range(3):
        before = &sender.files[i]
        if stat_path(paths[i], &about) < 0:
            memset(&about, 0, sizeof(about))
        changes |= (about.st_ino != before.st_ino or about.st_size != before.st_size
                    or about.st_mtim.tv_sec != before.st_mtim.tv_sec
                    or about.st_mtim.tv_nsec != before.st_mtim.tv_nsec)
        before[0] = about
    return changes
