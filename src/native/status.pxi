# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this node says of itself: its name and its key, and the packets that are made of them.

May not be here: who gets them (loop.pxi, questions.pxi).
"""

cdef int find_key(Sender *sender, KeyFile *file) noexcept nogil:
    """Whether there is a key; if there should be, a complaint says why there is none."""
    cdef const char *path = sender.options.texts[KEY_FILE - VALUES]
    cdef Text text
    cdef int found = 0
    if path == NULL:
        return 0
    begin(&text, b"key file ")
    put_shown(&text, b"", path)
    put(&text, b": ")
    if not SIGNING:
        put(&text, b"this build cannot sign")
    elif read_key(file, path, &text):
        found = 1
        if file.lines[KEYS_NODE]:
            return found
        put(&text, b"the cluster's key does not belong in a crash image; "
                   b"'kdumpfence key derive' makes the node's own")
    if not found:
        put(&text, b"; not signing")
    complain(&sender.options, &text)
    return found


cdef void know_oneself(Sender *sender) noexcept nogil:
    """The name of this node and what it signs with; what is wrong with that joins the complaints."""
    cdef CPacket *packet = &sender.packet
    cdef const char *name = sender.options.texts[NODE - VALUES]
    cdef KeyFile file
    cdef utsname host
    cdef Text text
    cdef int found
    memset(&file, 0, sizeof(file))
    found = find_key(sender, &file)
    if found and file.lines[KEYS_NODE]:
        if name != NULL and strcmp(name, file.name) != 0:
            begin(&text, b"node ")
            put_shown(&text, b"", name)
            put(&text, b": the key is that of node ")
            put_shown(&text, b"", file.name)
            put(&text, b"; using ")
            put_shown(&text, b"", file.name)
            complain(&sender.options, &text)
        name = file.name
    elif name == NULL:
        uname(&host)
        name = host.nodename
        if not is_packet_name(name, strlen(name)):
            begin(&text, b"host name ")
            put_shown(&text, b"", name)
            put(&text, b": not 1 to 64 ASCII characters without blanks; using unknown")
            if sender.options.packets:
                complain(&sender.options, &text)
            name = b"unknown"
    packet.kind = STATUS
    packet.state = <int>sender.options.values[STATE]
    packet.interval = <uint32_t>min(sender.options.values[INTERVAL] * 1000, <int64_t>0xFFFFFFFF)
    packet.name_length = <int>strlen(name)
    memcpy(packet.name, name, packet.name_length)
    if found:
        packet.key_id = file.ids[SIGNING_KEY]
        if not file.lines[KEYS_NODE]:
            key_of_node(file.keys[SIGNING_KEY], packet.name, packet.name_length, file.keys[SIGNING_KEY])
        mac_prepare(&sender.key, file.keys[SIGNING_KEY], KEY_BYTES)


cdef void say_who(Sender *sender) noexcept nogil:
    cdef CPacket *packet = &sender.packet
    cdef char name[NAME_BYTES + 1]
    cdef Text text
    memcpy(name, packet.name, NAME_BYTES)
    name[packet.name_length] = 0
    begin(&text, b"node ")
    put_shown(&text, b"", name)
    put(&text, b": %s, ", word_for(STATES, packet.state))
    if packet.key_id:
        put(&text, b"signed with key %08x", packet.key_id)
    else:
        put(&text, b"not signed")
    say(DEBUG, &text)


cdef inline const uint8_t *own_message() noexcept nogil:
    """In the host's own byte order, as the stock programs send it."""
    return LITTLE if htons(1) != 1 else BIG


cdef inline uint64_t stirred(uint64_t number) noexcept nogil:
    """Each bit of it is in every bit (the finalizer of SplitMix64)."""
    number = (number ^ number >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    number = (number ^ number >> 27) * <uint64_t>0x94D049BB133111EB
    return number ^ number >> 31


cdef uint64_t new_session() noexcept nogil:
    """Another one at each start, even where the kernel has no randomness yet: never waits for it."""
    cdef uint64_t random = 0, mixed = <uint64_t>getpid()
    getrandom(&random, sizeof(random), GRND_NONBLOCK)
    mixed = stirred(mixed + <uint64_t>clock_ns(CLOCK_REALTIME))
    mixed = stirred(mixed + <uint64_t>monotonic_ns())
    return (random ^ mixed) or 1


cdef void make_status(Sender *sender, const uint8_t *nonce, uint8_t *data) noexcept nogil:
    """The next packet; `nonce`: of a question, or NULL."""
    cdef CPacket *packet = &sender.packet
    if packet.session == 0:
        packet.session = new_session()
    packet.sequence += 1
    memset(packet.nonce, 0, NONCE_BYTES)
    if nonce != NULL:
        memcpy(packet.nonce, nonce, NONCE_BYTES)
    packet_write(packet, own_message(), data)
    if packet.key_id:
        mac_by(&sender.key, data, SIGNED_BYTES, data + SIGNED_BYTES)
