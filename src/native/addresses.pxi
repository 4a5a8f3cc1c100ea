# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is an address, what may be a host name, and what is neither; how they are written.

The only judge of it in the native sender, as kdumpfence/addresses.py is in Python. Nothing here asks
a name service, and nothing knows the sender. inet_pton(3) reads the addresses: getaddrinfo(3) also
takes "127.1" for one, and is not in every build.
"""

cdef extern from *:
    """
    #define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    #define OF_A_NAME LETTERS "0123456789-_"
    #define OF_AN_INTERFACE OF_A_NAME ".@+"
    #define HEXADECIMAL "0123456789abcdefABCDEF"
    """
    const char *OF_A_NAME
    const char *OF_AN_INTERFACE
    const char *HEXADECIMAL

ctypedef struct Address:
    int length                  # 4 or 16; 0: none, it is to be looked up
    uint8_t packed[16]
    uint32_t scope


cdef inline int is_link_local(Address *address) noexcept nogil:
    return address.length == 16 and address.packed[0] == 0xFE and address.packed[1] & 0xC0 == 0x80


cdef inline int family_of(Address *address) noexcept nogil:
    return AF_INET if address.length == 4 else AF_INET6


cdef inline int is_zero(Address *address) noexcept nogil:
    return memcmp(address.packed, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", address.length) == 0


cdef void set_address(Address *address, int length, const uint8_t *packed, uint32_t scope) noexcept nogil:
    if length == 16 and memcmp(packed, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        packed += 12            # IPv4-mapped: on the wire it is IPv4
        length = 4
    memset(address, 0, sizeof(Address))
    memcpy(address.packed, packed, length)
    address.length = length
    address.scope = scope if is_link_local(address) else 0


cdef void put_interface(Text *text, uint32_t index) noexcept nogil:
    cdef char name[32]
    if if_indextoname(index, name) != NULL:
        put(text, b"%s", name)
    else:
        put(text, b"%d", <int>index)     # it went away


cdef void put_address(Text *text, Address *address) noexcept nogil:
    cdef char shown[64]
    if inet_ntop(family_of(address), address.packed, shown, sizeof(shown)) != NULL:
        put(text, b"%s", shown)
    if address.scope:
        put(text, b"%%")
        put_interface(text, address.scope)


cdef void begin_name(Text *text, const char *words, const char *name) noexcept nogil:
    """These words, and the name of a node, whatever it is."""
    begin(text, b"%s", words)
    if why_refused(name) != NULL:
        put_shown(text, b"", name)
    else:
        put(text, b"'%s'", name)


cdef const char *why_unusable(Address *address) noexcept nogil:
    """Why no node can have this address; NULL if one can."""
    cdef uint8_t first = address.packed[0]
    # 240.0.0.0/4 is reserved on paper, and unicast to Linux.
    if (is_zero(address) or (address.length == 16 and first == 0xFF) or address.length == 4
            and (first == 0 or 224 <= first < 240 or memcmp(address.packed, b"\xff\xff\xff\xff", 4) == 0)):
        return b"no node can have this address"
    if is_link_local(address) and address.scope == 0:
        return b"a link-local address needs its interface, as in fe80::1%eth0"
    return NULL


cdef int parse_address(const char *text, uint8_t *packed, const char **zone) noexcept nogil:
    """How many bytes the address has that is written there, 0 if none is; `zone`: NULL, or its
    interface."""
    cdef char host[64]
    cdef size_t length = before(text, b"%")
    zone[0] = text + length + 1 if text[length] else NULL
    if length >= sizeof(host):
        return 0
    memcpy(host, text, length)
    host[length] = 0
    if strchr(host, c':') == NULL:
        return 4 if zone[0] == NULL and inet_pton(AF_INET, host, packed) == 1 else 0
    if zone[0] != NULL and (not zone[0][0] or zone[0][span(zone[0], OF_AN_INTERFACE)]):
        return 0
    return 16 if inet_pton(AF_INET6, host, packed) == 1 else 0


cdef int is_literal(const char *text) noexcept nogil:
    """Whether an address is written there, be it one that a node can have or not."""
    cdef uint8_t packed[16]
    cdef const char *zone
    return parse_address(text, packed, &zone) != 0


cdef const char *why_no_name(const char *text) noexcept nogil:
    """Why this can be no host name; NULL if it can be one."""
    cdef const char *neither = b"neither a host name nor an IP address"
    cdef size_t length, whole = 0
    while True:                 # label by label
        length = span(text, OF_A_NAME)
        whole += length
        if not 0 < length <= 63 or text[0] == c'-' or whole > 253:
            return neither
        if not text[length] or strcmp(text + length, b".") == 0:
            break
        if text[length] != c'.':
            return neither
        text += length + 1
        whole += 1
    # A number at the end is meant as part of an address (RFC 1123, 2.1).
    if span(text, DIGITS) == length or (
        begins(text, length, b"0x") and 2 + span(text + 2, HEXADECIMAL) == length
    ):
        return (b"neither a host name nor an IP address "
                b"(IPv4: four numbers from 0 to 255 without leading zeros)")
    return NULL


cdef const char *why_refused(const char *text) noexcept nogil:
    """Why this can be neither an address nor a host name; NULL if it can be one."""
    if is_literal(text):
        return NULL
    return why_no_name(text)


cdef uint32_t interface_number(const char *zone) noexcept nogil:
    """The index of an interface that is named or numbered; 0: it is not there."""
    cdef uint32_t scope = if_nametoindex(zone) if strlen(zone) < 16 else 0
    cdef int64_t number
    if scope == 0 and not zone[span(zone, DIGITS)]:
        number = read_digits(zone, strlen(zone))
        scope = <uint32_t>number if number <= INT_MAX else 0
    return scope


cdef const char *read_literal(const char *text, int family, Address *address) noexcept nogil:
    """The address that is written there, or one without bytes: then it is to be looked up, being a
    name or on an interface that is not there (yet). If it can be no node at all: why."""
    cdef uint8_t packed[16]
    cdef const char *zone
    cdef const char *why
    cdef uint32_t scope = 0
    cdef int length = parse_address(text, packed, &zone)
    memset(address, 0, sizeof(Address))
    if length == 0:
        return why_no_name(text)
    if zone != NULL:
        scope = interface_number(zone)
    set_address(address, length, packed, scope)
    if family != AF_UNSPEC and family != family_of(address):
        return b"not an ipv6 address" if family == AF_INET6 else b"not an ipv4 address"
    if zone != NULL and is_link_local(address) and scope == 0 and zone[span(zone, b"0")]:
        address.length = 0
        return NULL
    why = why_unusable(address)
    if zone != NULL and not is_link_local(address) and why == NULL:
        return b"only a link-local address has an interface"
    return why
