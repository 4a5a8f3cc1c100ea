# SPDX-License-Identifier: GPL-2.0-or-later
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, binding=False
"""The compiled core: turns bytes into messages and moves datagrams.

Built as ``kdumpfence._kdumpwire``; `kdumpfence._purewire` is its twin in plain
Python and documents the interface. Only `kdumpfence.wire` may import either.

What may be in this file: mechanism. What may not: Pacemaker, argv, logging,
files, or any decision about a node.

The first half is C without Python objects (``noexcept nogil``): the codec, the
table of known sources, the receive loop, the send loop, the rhythm of the messages,
and the question to the kernel about a route. Nothing there allocates per datagram.
`native/fence_kdump_send.pyx` takes this half, and becomes a program without Python.
So no value may be given to a variable outside a function: only an import would run it.

The second half is thin classes over the first. They are guarded by plain counters,
which the GIL makes sound: so this module must not declare itself compatible with
free-threaded Python, which then keeps the GIL for it.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int32_t, intptr_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/ioctl.h>
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #include <linux/errqueue.h>
    #include <linux/filter.h>
    #include <linux/net_tstamp.h>
    #include <linux/netlink.h>
    #include <linux/rtnetlink.h>
    #include <net/if.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sys/mman.h>
    #include <time.h>
    #include <unistd.h>
    #include <errno.h>
    #ifndef SO_MEMINFO
    #define SO_MEMINFO 55
    #endif
    #ifndef TIOCOUTQ
    #define TIOCOUTQ 0x5411
    #endif

    /* Magic and version, in both byte orders. */
    static const unsigned char LITTLE[8] = {0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0};
    static const unsigned char BIG[8] = {0x1b, 0x30, 0x2a, 0x40, 0, 0, 0, 1};

    static inline void prefetch(const void *at) { __builtin_prefetch(at); }
    """
    const uint8_t *LITTLE
    const uint8_t *BIG
    void prefetch(const void *at) nogil
    ctypedef unsigned int socklen_t
    ctypedef long time_t
    ctypedef struct pthread_mutex_t:
        pass
    void *mmap(void *at, size_t length, int rights, int flags, int fd, long offset) nogil
    int munmap(void *memory, size_t length) nogil
    int madvise(void *memory, size_t length, int advice) nogil
    int MADV_HUGEPAGE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attributes) nogil
    int pthread_mutex_destroy(pthread_mutex_t *lock) nogil
    int pthread_mutex_lock(pthread_mutex_t *lock) nogil
    int pthread_mutex_unlock(pthread_mutex_t *lock) nogil
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_addr:
        uint32_t s_addr
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct in_pktinfo:
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        uint32_t ipi6_ifindex
    struct sock_extended_err:
        uint32_t ee_errno
        uint8_t ee_origin
    struct pollfd:
        int fd
        short events
        short revents
    struct sock_fprog:
        unsigned short len
        void *filter
    struct timespec:
        time_t tv_sec
        long tv_nsec
    struct nlmsghdr:
        uint32_t nlmsg_len
        uint16_t nlmsg_type
        uint16_t nlmsg_flags
    struct nlmsgerr:
        int error
    struct rtmsg:
        uint8_t rtm_family
        uint8_t rtm_dst_len
        uint8_t rtm_type
    struct ifreq:
        char *ifr_name
        short ifr_flags
    struct rtattr:
        uint16_t rta_len
        uint16_t rta_type
    int AF_NETLINK, SOCK_CLOEXEC, NETLINK_ROUTE
    int NLM_F_REQUEST, NLMSG_ERROR, RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL, RTN_BLACKHOLE
    int RTN_UNREACHABLE, RTN_PROHIBIT
    int RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA
    int ENETUNREACH, EACCES, EINVAL, EPROTO, ETIMEDOUT
    int NLMSG_LENGTH(int length) nogil
    int NLMSG_OK(nlmsghdr *header, int length) nogil
    void *NLMSG_DATA(nlmsghdr *header) nogil
    rtattr *RTM_RTA(rtmsg *message) nogil
    int RTM_PAYLOAD(nlmsghdr *header) nogil
    int RTA_LENGTH(int length) nogil
    int RTA_OK(rtattr *attribute, int length) nogil
    void *RTA_DATA(rtattr *attribute) nogil
    int RTA_PAYLOAD(rtattr *attribute) nogil
    int socket(int family, int kind, int protocol) nogil
    ssize_t send(int fd, const void *data, size_t length, int flags) nogil
    ssize_t recv(int fd, void *data, size_t length, int flags) nogil
    ssize_t write(int fd, const void *data, size_t length) nogil
    int close(int fd) nogil
    char *if_indextoname(unsigned int index, char *name) nogil
    int AF_INET, AF_INET6, SOCK_RAW
    int SOL_SOCKET, SO_TYPE, SO_DOMAIN, SO_MEMINFO, SO_ATTACH_FILTER
    int IPPROTO_IP, IPPROTO_IPV6, IP_RECVERR, IPV6_RECVERR, IP_PKTINFO, IPV6_PKTINFO
    int MSG_DONTWAIT, MSG_TRUNC, MSG_ERRQUEUE, MSG_NOSIGNAL
    int POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL
    int CLOCK_MONOTONIC, CLOCK_REALTIME, TIOCOUTQ, SIOCGIFFLAGS, IFF_RUNNING
    int SO_EE_ORIGIN_LOCAL, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SO_EE_ORIGIN_TIMESTAMPING
    int SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE, SOF_TIMESTAMPING_OPT_CMSG
    int SOF_TIMESTAMPING_TX_SCHED, IPV6_RECVPKTINFO
    int EAGAIN, EWOULDBLOCK, EINTR, EBADF
    int errno
    int recvmmsg(int fd, mmsghdr *vec, unsigned int vlen, int flags, timespec *timeout) nogil
    int sendmmsg(int fd, mmsghdr *vec, unsigned int vlen, int flags) nogil
    ssize_t recvmsg(int fd, msghdr *msg, int flags) nogil
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length) nogil
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length) nogil
    int ppoll(pollfd *fds, unsigned long nfds, const timespec *timeout, const void *sigmask) nogil
    int clock_gettime(int clock, timespec *ts) nogil
    int nanosleep(const timespec *request, timespec *remain) nogil
    int ioctl(int fd, unsigned long request, ...) nogil
    cmsghdr *CMSG_FIRSTHDR(msghdr *msg) nogil
    cmsghdr *CMSG_NXTHDR(msghdr *msg, cmsghdr *cmsg) nogil
    void *CMSG_DATA(cmsghdr *cmsg) nogil
    size_t CMSG_LEN(size_t length) nogil
    size_t CMSG_SPACE(size_t length) nogil
    sockaddr *SO_EE_OFFENDER(sock_extended_err *error) nogil
    uint32_t htonl(uint32_t value) nogil
    uint16_t htons(uint16_t value) nogil
    uint16_t ntohs(uint16_t value) nogil


# ------------------------------------------------------------------ the codec

cdef enum:
    MESSAGE_BYTES = 8

cdef enum:
    # Also the indexes of the counters; the names are in REASONS.
    ACCEPTED = 0
    SHORT = 1
    MAGIC_WRONG = 2
    VERSION_UNKNOWN = 3
    MALFORMED = 4
    CHECKSUM_WRONG = 5
    STRANGER = 6
    CROWDED = 7
    VERDICTS = 8
    # A raw socket may hand over a datagram for another port: not ours to count.
    ELSEWHERE = -1


cdef inline int check_message(const uint8_t *data, size_t length) noexcept nogil:
    """ACCEPTED, or why these bytes do not begin with a message."""
    if length < MESSAGE_BYTES:
        return SHORT
    if memcmp(data, LITTLE, MESSAGE_BYTES) == 0 or memcmp(data, BIG, MESSAGE_BYTES) == 0:
        return ACCEPTED
    if memcmp(data, LITTLE, 4) == 0 or memcmp(data, BIG, 4) == 0:
        return VERSION_UNKNOWN
    return MAGIC_WRONG


cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    /* The words of a message in both byte orders, and what of a word is its magic. */
    static const unsigned char MAGIC_PART[8] = {255, 255, 255, 255, 0, 0, 0, 0};

    #define WORDS_OF_MESSAGES \\
        uint64_t little, big, part; \\
        memcpy(&little, LITTLE, 8); \\
        memcpy(&big, BIG, 8); \\
        memcpy(&part, MAGIC_PART, 8)

    /* Count whole messages, and words that at least begin with a magic. No branch depends
     * on the data: rubbish takes no longer than messages. */
    static void tally_words(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
    {
        WORDS_OF_MESSAGES;
        for (size_t i = 0; i < words; i++) {
            uint64_t word;
            memcpy(&word, data + 8 * i, 8);
            *whole += (word == little) | (word == big);
            word &= part;
            *magic += (word == (little & part)) | (word == (big & part));
        }
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    /* The same four words at a time. Every x86-64 can compare two 32-bit words at once, but
     * 64-bit ones only by detours that cost more than they save: hence AVX2 or nothing. */
    typedef uint64_t four_words __attribute__((vector_size(32)));

    __attribute__((target("avx2")))
    static size_t tally_fours(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
    {
        WORDS_OF_MESSAGES;
        const four_words littles = {little, little, little, little};
        const four_words bigs = {big, big, big, big};
        const four_words parts = {part, part, part, part};
        four_words wholes = {0}, magics = {0};
        size_t i;
        for (i = 0; i + 4 <= words; i += 4) {
            four_words word;
            memcpy(&word, data + 8 * i, 32);
            wholes -= (four_words)((word == littles) | (word == bigs));    /* true is -1 */
            word &= parts;
            magics -= (four_words)((word == (littles & parts)) | (word == (bigs & parts)));
        }
        *whole += wholes[0] + wholes[1] + wholes[2] + wholes[3];
        *magic += magics[0] + magics[1] + magics[2] + magics[3];
        return i;
    }

    /* Whether processor and kernel have AVX2. __builtin_cpu_supports would say so too, but
     * leaves a constructor in every program that this file is linked into. */
    static int has_avx2(void)
    {
        static int known;           /* 1: no, 2: yes; a guest's cpuid takes microseconds */
        unsigned a, b, c, d, low, high;
        if (known == 0) {
            known = 1;
            if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX)) {
                __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
                if ((low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2))
                    known = 2;
            }
        }
        return known == 2;
    }

    static size_t tally_wide(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
    {
        return words >= 16 && has_avx2() ? tally_fours(data, words, whole, magic) : 0;
    }
    #else
    static size_t tally_wide(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
    {
        (void)data, (void)words, (void)whole, (void)magic;
        return 0;
    }
    #endif
    """
    void tally_words(const uint8_t *data, size_t words, uint64_t *whole, uint64_t *magic) nogil
    size_t tally_wide(const uint8_t *data, size_t words, uint64_t *whole, uint64_t *magic) nogil


cdef void check_packed(const uint8_t *data, size_t length, uint64_t *counts) noexcept nogil:
    """Count the verdicts over messages packed one behind the other."""
    cdef size_t messages = length // MESSAGE_BYTES
    cdef uint64_t whole = 0, magic = 0
    cdef size_t done = tally_wide(data, messages, &whole, &magic)
    tally_words(data + done * MESSAGE_BYTES, messages - done, &whole, &magic)
    counts[ACCEPTED] += whole
    counts[VERSION_UNKNOWN] += magic - whole
    counts[MAGIC_WRONG] += messages - magic
    if length % MESSAGE_BYTES:
        counts[SHORT] += 1


# ----------------------------------------------- the UDP header on raw sockets

cdef inline uint32_t add_words(const uint8_t *data, size_t length, uint32_t total) noexcept nogil:
    """One's-complement sum of 16-bit big-endian words (RFC 1071), not yet folded."""
    cdef size_t i = 0
    cdef uint64_t wide = total
    while i + 1 < length:
        wide += (<uint32_t>data[i] << 8) | data[i + 1]
        i += 2
    if length & 1:
        wide += <uint32_t>data[length - 1] << 8
    while wide >> 16:
        wide = (wide & 0xFFFF) + (wide >> 16)
    return <uint32_t>wide


cdef int check_checksum(
    const uint8_t *source, const uint8_t *destination, size_t address_length,
    const uint8_t *udp, size_t udp_length,
) noexcept nogil:
    """Whether the UDP checksum fits; a raw socket's datagrams come unverified.

    Accepted beside the right sum: 0 over IPv4 (RFC 768: not computed), and the bare
    pseudo-header sum, which is what a datagram from this machine or its guests
    carries while the rest is left to a network card that it never meets.
    """
    cdef uint32_t field = (<uint32_t>udp[6] << 8) | udp[7]
    cdef uint32_t pseudo
    if field == 0:
        return address_length == 4
    pseudo = add_words(source, address_length, 17 + <uint32_t>udp_length)
    pseudo = add_words(destination, address_length, pseudo)
    return field == pseudo or add_words(udp, udp_length, pseudo) == 0xFFFF


# ------------------------------------------------- the table of known sources

ctypedef struct Entry:
    uint64_t high       # the address as 16 bytes; IPv4 as ::ffff:a.b.c.d
    uint64_t low
    int64_t first       # when it was heard, first since it was last given out as heard...
    int64_t last        # ...and last: CLOCK_MONOTONIC, nanoseconds
    uint32_t scope      # interface index of a link-local address, else 0
    int32_t node        # the caller's number for it
    uint32_t messages   # since it was last given out as heard
    uint32_t place      # 1 + its place in table.heard, 0 = not there
    uint16_t port
    uint8_t admitted    # not by the caller, but by the receive loop
    uint8_t spare[13]   # 64 bytes in all, a cache line: see take_lines

ctypedef struct Slot:
    uint32_t index      # 1 + index into entries, 0 = free
    uint32_t hash       # of the entry, so that a look past it need not look at it

ctypedef struct Network:
    # Sources in here are admitted by the receive loop.
    uint64_t high
    uint64_t low
    uint64_t high_mask
    uint64_t low_mask
    int32_t node
    int ipv6            # and no IPv4 address is in it, whatever its prefix
    int loopback        # else no loopback address is in it

ctypedef struct Table:
    pthread_mutex_t lock
    Entry *entries      # dense, in order of insertion until something is removed
    Slot *slots         # open addressing
    uint32_t *heard     # a ring of indexes into entries: heard, and not given out yet
    uint32_t heard_at
    uint32_t heard_count
    uint32_t count
    uint32_t room       # of entries and of the ring
    uint32_t mask       # number of slots - 1
    uint64_t seed       # random, so that no sender can choose colliding addresses
    Network *networks
    uint32_t network_count
    uint32_t admitted   # how many entries are
    uint32_t admit_room


cdef enum:
    LARGE_PAGE = 2 << 20


cdef inline uint32_t hash_address(Table *table, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    cdef uint64_t h = (high ^ table.seed) * <uint64_t>0x9E3779B97F4A7C15
    h ^= h >> 32
    h = (h ^ low ^ (<uint64_t>scope << 32)) * <uint64_t>0xD6E8FEB86659FD93
    h ^= h >> 32
    h *= <uint64_t>0xD6E8FEB86659FD93
    return <uint32_t>(h >> 32)


cdef inline int is_address(Entry *entry, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    return entry.low == low and entry.high == high and entry.scope == scope


cdef inline int64_t table_probe(
    Table *table, uint32_t hash, uint64_t high, uint64_t low, uint32_t scope
) noexcept nogil:
    """The slot that holds this address, or -1."""
    cdef uint32_t at
    cdef Slot *slot
    if table.count == 0:
        return -1
    at = hash & table.mask
    while True:
        slot = &table.slots[at]
        if slot.index == 0:
            return -1
        if slot.hash == hash and is_address(&table.entries[slot.index - 1], high, low, scope):
            return at
        at = (at + 1) & table.mask


cdef inline int64_t table_slot(Table *table, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    return table_probe(table, hash_address(table, high, low, scope), high, low, scope)


cdef inline void slot_put(Table *table, uint32_t hash, uint32_t index) noexcept nogil:
    """Let the first free slot for this hash lead to that entry."""
    cdef uint32_t at = hash & table.mask
    while table.slots[at].index:
        at = (at + 1) & table.mask
    table.slots[at].index = index + 1
    table.slots[at].hash = hash


cdef void *take_lines(size_t size) noexcept nogil:
    """Cleared memory that begins with a cache line, for `free_lines`; NULL if there is none.

    What a datagram costs among very many nodes is how many lines its look-up fetches from
    memory, and how many pages they lie in: hence large pages for a large table. Not from
    malloc, which would keep each table that has become too small.
    """
    cdef uint8_t *memory
    cdef size_t before, slack = LARGE_PAGE if size >= LARGE_PAGE else 0
    size = whole_pages(size)
    memory = <uint8_t *>mmap(NULL, size + slack, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == <uint8_t *>MAP_FAILED:
        return NULL
    if slack:
        before = <size_t>-<intptr_t>memory & (LARGE_PAGE - 1)
        if before:
            munmap(memory, before)
        if slack - before:
            munmap(memory + before + size, slack - before)
        memory += before
        madvise(memory, size, MADV_HUGEPAGE)    # a wish; it may be refused
    return memory


cdef inline size_t whole_pages(size_t size) noexcept nogil:
    return (size + 4095) & ~<size_t>4095


cdef inline size_t slot_bytes(size_t slots) noexcept nogil:
    """What so many take. They are looked at in no order at all: half a large page pays as well."""
    cdef size_t size = slots * sizeof(Slot)
    return LARGE_PAGE if size == LARGE_PAGE // 2 else size


cdef void free_lines(void *memory, size_t size) noexcept nogil:
    if memory != NULL:
        munmap(memory, whole_pages(size))


cdef int table_grow(Table *table) noexcept nogil:
    """Room for one more entry; 0, or -1 without memory (the table stays as it was)."""
    cdef uint32_t room, slots, i
    cdef uint32_t *heard
    cdef Entry *entries
    cdef Slot *fresh
    cdef Entry *entry
    if table.count >= table.room:
        room = 64 if table.room == 0 else table.room + (table.room >> 1)
        entries = <Entry *>take_lines(<size_t>room * sizeof(Entry))
        heard = <uint32_t *>take_lines(room * sizeof(uint32_t))
        if entries == NULL or heard == NULL:
            free_lines(entries, <size_t>room * sizeof(Entry))
            free_lines(heard, room * sizeof(uint32_t))
            return -1
        if table.count:
            memcpy(entries, table.entries, table.count * sizeof(Entry))
        free_lines(table.entries, <size_t>table.room * sizeof(Entry))
        table.entries = entries
        for i in range(table.heard_count):
            heard[i] = table.heard[(table.heard_at + i) % table.room]
            table.entries[heard[i]].place = i + 1
        free_lines(table.heard, table.room * sizeof(uint32_t))
        table.heard = heard
        table.heard_at = 0
        table.room = room
    # Kept at most two thirds full, so a look-up meets a free slot soon.
    if table.slots == NULL or 3 * (<uint64_t>table.count + 1) > 2 * (<uint64_t>table.mask + 1):
        slots = 512 if table.slots == NULL else 2 * (table.mask + 1)
        fresh = <Slot *>take_lines(slot_bytes(slots))
        if fresh == NULL:
            return -1
        free_lines(table.slots, slot_bytes(<size_t>table.mask + 1))
        table.slots = fresh
        table.mask = slots - 1
        for i in range(table.count):
            entry = &table.entries[i]
            slot_put(table, hash_address(table, entry.high, entry.low, entry.scope), i)
    return 0


cdef void table_free(Table *table) noexcept nogil:
    free_lines(table.entries, <size_t>table.room * sizeof(Entry))
    free_lines(table.heard, table.room * sizeof(uint32_t))
    free_lines(table.slots, slot_bytes(<size_t>table.mask + 1))


cdef int table_add(Table *table, uint64_t high, uint64_t low, uint32_t scope, int32_t node) noexcept nogil:
    """0 = added or renumbered, -1 = no memory."""
    cdef uint32_t hash = hash_address(table, high, low, scope)
    cdef int64_t found = table_probe(table, hash, high, low, scope)
    cdef Entry *entry
    if found >= 0:
        entry = &table.entries[table.slots[found].index - 1]
        entry.node = node
        table.admitted -= entry.admitted
        entry.admitted = 0
        return 0
    if table_grow(table) < 0:
        return -1
    entry = &table.entries[table.count]
    memset(entry, 0, sizeof(Entry))
    entry.high = high
    entry.low = low
    entry.scope = scope
    entry.node = node
    slot_put(table, hash, table.count)
    table.count += 1
    return 0


cdef int table_remove(Table *table, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    """Whether it was there."""
    cdef int64_t found = table_slot(table, high, low, scope)
    cdef uint32_t at, next, home, index
    cdef Entry *last
    if found < 0:
        return 0
    index = table.slots[found].index - 1
    table.admitted -= table.entries[index].admitted
    if table.entries[index].place:
        # The newest of those heard takes its place.
        table.heard_count -= 1
        next = table.heard[(table.heard_at + table.heard_count) % table.room]
        at = table.entries[index].place - 1
        table.heard[at] = next
        table.entries[next].place = at + 1
    # The last entry moves into the gap, so that entries stay dense.
    last = &table.entries[table.count - 1]
    if index != table.count - 1:
        table.slots[table_slot(table, last.high, last.low, last.scope)].index = index + 1
        table.entries[index] = last[0]
        if last.place:
            table.heard[last.place - 1] = index
    table.count -= 1
    # Close the gap in the probe sequence (Knuth 6.4, algorithm R): no tombstones.
    at = <uint32_t>found
    next = at
    while True:
        next = (next + 1) & table.mask
        if table.slots[next].index == 0:
            break
        home = table.slots[next].hash & table.mask
        if ((next - home) & table.mask) >= ((next - at) & table.mask):
            table.slots[at] = table.slots[next]
            at = next
    table.slots[at].index = 0
    return 1


cdef inline int is_loopback(uint64_t high, uint64_t low) noexcept nogil:
    """Whether this is in 127.0.0.0/8 or is ::1."""
    cdef uint32_t half[2]
    memcpy(half, &low, 8)
    if high:
        return 0
    if half[0] == htonl(0xFFFF):
        return half[1] & htonl(0xFF000000) == htonl(0x7F000000)
    return half[0] == 0 and half[1] == htonl(1)


cdef int table_admit(Table *table, uint64_t high, uint64_t low, uint32_t scope) noexcept nogil:
    """An unknown source sent a message: 0 if it is the last entry now, else the verdict."""
    cdef uint32_t i, half
    cdef int loopback = is_loopback(high, low)
    cdef Network *network
    memcpy(&half, &low, 4)
    for i in range(table.network_count):
        network = &table.networks[i]
        if high & network.high_mask != network.high or low & network.low_mask != network.low:
            continue
        if network.ipv6 and high == 0 and half == htonl(0xFFFF) or loopback and not network.loopback:
            continue
        if table.admitted >= table.admit_room or table_add(table, high, low, scope, network.node) < 0:
            return CROWDED
        table.entries[table.count - 1].admitted = 1
        table.admitted += 1
        return 0
    return STRANGER


cdef inline void table_hear(Table *table, uint32_t index, int64_t now, uint16_t port) noexcept nogil:
    """A message came from this entry's address."""
    cdef Entry *entry = &table.entries[index]
    entry.last = now
    if ~entry.messages:         # it stays at its greatest value
        entry.messages += 1
    if entry.place == 0:
        entry.first = now
        entry.port = port
        entry.place = 1 + (table.heard_at + table.heard_count) % table.room
        table.heard[entry.place - 1] = index
        table.heard_count += 1


cdef uint32_t table_give(Table *table, Entry *given, uint32_t most) noexcept nogil:
    """Copies of the entries heard longest ago, which count as given out; how many."""
    cdef uint32_t i, number = min(most, table.heard_count)
    cdef Entry *entry
    for i in range(number):
        entry = &table.entries[table.heard[table.heard_at]]
        given[i] = entry[0]
        entry.messages = 0
        entry.place = 0
        table.heard_at = (table.heard_at + 1) % table.room
    table.heard_count -= number
    return number


cdef inline void split_address(const uint8_t *address, int length, uint64_t *high, uint64_t *low) noexcept nogil:
    """4 or 16 bytes in network order -> the two words that the table compares."""
    cdef uint32_t half[2]
    if length == 4:
        # By halves: the processor waits for bytes that it has just written to come together.
        half[0] = htonl(0xFFFF)
        memcpy(&half[1], address, 4)
        high[0] = 0
        memcpy(low, half, 8)
        return
    memcpy(high, address, 8)
    memcpy(low, address + 8, 8)


# ------------------------------------------------------------ the receive loop

cdef enum:
    CONTROL_BYTES = 128     # SCM_TIMESTAMPING and IPV6_PKTINFO, with room to spare
    STAMPING = 37           # SO_TIMESTAMPING, and the type of what it brings
    STAMPED = 1 << 3        # SOF_TIMESTAMPING_RX_SOFTWARE

cdef enum:
    # Nanoseconds. A process that is stopped (SIGSTOP, a debugger, a paused guest) sleeps
    # on after SIGCONT for what was left of its poll, however late that makes it; and a
    # signal that came just before the poll, or to another thread, does not end it. So
    # no single poll is long.
    SLICE = 500000000
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

ctypedef struct Endpoint:
    int fd
    int kind
    int stamped         # each datagram comes with the time of its arrival
    uint64_t dropped

ctypedef struct Found:
    # An accepted datagram of the batch in hand.
    uint64_t high
    uint64_t low
    uint32_t scope
    uint32_t interface  # that it came through, if the socket tells, else 0
    uint16_t port
    int32_t node
    uint32_t hash
    uint32_t guess      # 1 + index of the entry with that hash, 0 = none
    int verdict
    const uint8_t *message
    size_t length

ctypedef struct Loop:
    mmsghdr *headers
    iovec *vectors
    sockaddr_in6 *names
    uint8_t *control
    uint8_t *data
    size_t size         # of one datagram's buffer
    size_t stride
    int batch
    int port            # raw sockets: the UDP port that is listened to
    Endpoint *endpoints
    int endpoint_count
    pollfd *fds         # the endpoints, then the descriptors that wake the wait
    int fd_room
    Found *found
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
    Table *sources
    Table *strangers    # NULL: not remembered
    uint32_t stranger_room
    int late            # rounds left to read what lay in the queues at the deadline
    int error


cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec ts
    clock_gettime(clock, &ts)
    return <int64_t>ts.tv_sec * 1000000000 + ts.tv_nsec


cdef inline int64_t monotonic_ns() noexcept nogil:
    return clock_ns(CLOCK_MONOTONIC)


cdef int64_t latest_stamp(Loop *loop) noexcept nogil:
    """The CLOCK_REALTIME of the latest datagram that came before the end; -1: all that is read did.

    Whoever sets the clock, or slows it down, meanwhile does not make a datagram come earlier:
    of the two differences between the clocks, before the end and now, the smaller one counts.
    """
    cdef int64_t ahead, now
    if loop.end < 0:
        return -1
    # In this order: if something comes between the two, a datagram seems later than it was.
    ahead = clock_ns(CLOCK_REALTIME)
    now = monotonic_ns()
    ahead -= now
    if now <= loop.end:
        loop.ahead = ahead
        return -1
    return max(0, loop.end + min(ahead, loop.ahead))


cdef int judge(Loop *loop, Endpoint *endpoint, int i, int64_t latest, Found *found) noexcept nogil:
    """The verdict over datagram i of the batch, but for its source; fills in `found`.

    The order matters: the cheap looks first, the checksum only for what would
    otherwise be believed, the source last (so a stranger's message is a valid one).
    """
    cdef msghdr *header = &loop.headers[i].msg_hdr
    cdef uint8_t *data = loop.data + i * loop.stride
    cdef size_t length = min(<size_t>loop.headers[i].msg_len, loop.size)
    cdef size_t udp_length = 0
    cdef const uint8_t *source
    cdef const uint8_t *destination = NULL
    cdef int address_length
    cdef const uint8_t *udp = NULL
    cdef cmsghdr *cmsg
    cdef const uint8_t *told
    cdef long stamp[2]
    cdef int verdict, kind = endpoint.kind
    cdef sockaddr_in6 *name = &loop.names[i]

    found.interface = 0
    stamp[0] = stamp[1] = 0     # none: it came before the kernel began to stamp, just after the option was set
    cmsg = NULL if header.msg_controllen == 0 else CMSG_FIRSTHDR(header)
    while cmsg != NULL:
        told = <const uint8_t *>CMSG_DATA(cmsg)
        if cmsg.cmsg_level == IPPROTO_IPV6 and cmsg.cmsg_type == IPV6_PKTINFO:
            destination = told
            memcpy(&found.interface, told + 16, 4)
        elif cmsg.cmsg_level == IPPROTO_IP and cmsg.cmsg_type == IP_PKTINFO:
            memcpy(&found.interface, told, 4)
        elif cmsg.cmsg_level == SOL_SOCKET and cmsg.cmsg_type == STAMPING:
            memcpy(stamp, told, sizeof(stamp))
        cmsg = CMSG_NXTHDR(header, cmsg)
    if latest >= 0 and (not endpoint.stamped or <int64_t>stamp[0] * 1000000000 + stamp[1] > latest):
        return ELSEWHERE
    if name.sin6_family == AF_INET:
        source = <const uint8_t *>&(<sockaddr_in *>name).sin_addr
        address_length = 4
        found.scope = 0
    else:
        source = <const uint8_t *>&name.sin6_addr
        address_length = 16
        found.scope = name.sin6_scope_id
        if found.scope and found.interface:
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
        if ((<int>udp[2] << 8) | udp[3]) != loop.port:
            return ELSEWHERE
        found.port = (<uint16_t>udp[0] << 8) | udp[1]
        # What the IP packet carries behind the UDP length is not part of the datagram.
        udp_length = (<size_t>udp[4] << 8) | udp[5]
        if udp_length < 8 or udp_length > length or header.msg_flags & MSG_TRUNC:
            return MALFORMED
        data = <uint8_t *>udp + 8
        length = udp_length - 8

    verdict = check_message(data, length)
    if verdict != ACCEPTED:
        return verdict
    if udp != NULL:
        if destination == NULL or not check_checksum(source, destination, address_length, udp, udp_length):
            return CHECKSUM_WRONG
    split_address(source, address_length, &found.high, &found.low)
    found.message = data
    found.length = length
    return ACCEPTED


cdef int match(Loop *loop, int valid) noexcept nogil:
    """Whether the sources of the first `valid` of loop.found are known: their verdicts, counted.

    A table of 100,000 sources is larger than the processor's caches. So the batch goes
    through it in three steps, and each fetches what the next one looks at; `read_batch` has
    done the first one. Called with the table locked, and unlocks it: whoever is told of a
    source then finds its messages counted. Returns whether there were strangers.
    """
    cdef Table *table = loop.sources
    cdef Found *found
    cdef int64_t known
    cdef uint32_t index, at, heard
    cdef uint64_t one = 1, accepted = 0
    cdef int i, strangers = 0
    heard = table.heard_count
    if table.count:
        for i in range(valid):
            found = &loop.found[i]
            at = found.hash & table.mask
            while table.slots[at].index and table.slots[at].hash != found.hash:
                at = (at + 1) & table.mask
            found.guess = table.slots[at].index
            if found.guess:
                prefetch(&table.entries[found.guess - 1])
    for i in range(valid):
        found = &loop.found[i]
        found.verdict = ACCEPTED
        index = found.guess - 1
        if found.guess == 0 or not is_address(&table.entries[index], found.high, found.low, found.scope):
            # Unknown when the batch came, or one of two addresses with the same hash.
            known = table_probe(table, found.hash, found.high, found.low, found.scope)
            if known >= 0:
                index = table.slots[known].index - 1
            else:
                found.verdict = table_admit(table, found.high, found.low, found.scope)
                if found.verdict != ACCEPTED:
                    strangers |= found.verdict == STRANGER
                    loop.counts[found.verdict] += 1
                    continue
                index = table.count - 1
        accepted += 1
        found.node = table.entries[index].node
        if loop.tally:
            table_hear(table, index, loop.found_at, found.port)
    loop.counts[ACCEPTED] += accepted
    if loop.tally:
        loop.tallied += accepted
    heard = heard == 0 and table.heard_count
    pthread_mutex_unlock(&table.lock)
    if heard and loop.bell >= 0:
        # A bell that is full rings already.
        if write(loop.bell, &one, sizeof(one)) < 0:
            loop.errors += errno != EAGAIN
    return strangers


cdef void remember_strangers(Loop *loop, int valid) noexcept nogil:
    cdef Table *table = loop.strangers
    cdef Found *found
    cdef int i
    pthread_mutex_lock(&table.lock)
    for i in range(valid):
        found = &loop.found[i]
        if found.verdict == STRANGER and table.count < loop.stranger_room:
            table_add(table, found.high, found.low, found.interface or found.scope, 0)
    pthread_mutex_unlock(&table.lock)


cdef int read_batch(Loop *loop, Endpoint *endpoint) noexcept nogil:
    """One recvmmsg on one socket: how many datagrams, or -1 and errno.

    Accepted ones are in loop.found, valid until the next batch; with loop.tally they are
    counted in the table of sources instead.
    """
    cdef int got, i, verdict, valid = 0
    cdef Table *table = loop.sources
    cdef Found *found
    cdef msghdr *header
    # Of a UDP socket mostly nothing is asked for: room for it costs the kernel a look a datagram.
    cdef size_t control = 0 if endpoint.kind == UDP and not endpoint.stamped else CONTROL_BYTES
    cdef int64_t latest
    loop.found_count = 0
    for i in range(loop.batch):
        header = &loop.headers[i].msg_hdr
        header.msg_namelen = sizeof(sockaddr_in6)
        header.msg_controllen = control
    got = recvmmsg(endpoint.fd, loop.headers, loop.batch, MSG_DONTWAIT, NULL)
    if got <= 0:
        return got
    latest = -1 if loop.tally else latest_stamp(loop)
    pthread_mutex_lock(&table.lock)
    for i in range(got):
        found = &loop.found[valid]
        verdict = judge(loop, endpoint, i, latest, found)
        if verdict == ACCEPTED:
            found.hash = hash_address(table, found.high, found.low, found.scope)
            found.guess = 0
            prefetch(&table.slots[found.hash & table.mask])
            valid += 1
        elif verdict != ELSEWHERE:
            loop.counts[verdict] += 1
    if not valid:
        pthread_mutex_unlock(&table.lock)
    else:
        loop.found_at = monotonic_ns()
        if match(loop, valid) and loop.strangers != NULL:
            remember_strangers(loop, valid)
        for i in range(0 if loop.tally else valid):
            if loop.found[i].verdict == ACCEPTED:
                loop.found[loop.found_count] = loop.found[i]
                loop.found_count += 1
    return got


cdef int wait_and_read(Loop *loop, int64_t deadline, int wakers) noexcept nogil:
    """Wait until the deadline (CLOCK_MONOTONIC, ns; negative: none) and read.

    HEARD leaves the rest of the queues for the next call. What already lay in the
    queues at the deadline is still read, in at most loop.late rounds.
    """
    cdef timespec timeout
    cdef int64_t left
    cdef int ready, i, got, progress, full, rounds = 0
    while rounds < 64:
        rounds += 1
        latest_stamp(loop)      # for the look at the clocks
        left = SLICE
        if deadline >= 0:
            left = max(0, min(left, deadline - monotonic_ns()))
        timeout.tv_sec = left // 1000000000
        timeout.tv_nsec = left % 1000000000
        ready = ppoll(loop.fds, loop.endpoint_count + wakers, &timeout, NULL)
        if ready < 0:
            if errno == EINTR:
                return PAUSED
            loop.error = errno
            return FAILED
        if ready == 0:
            return TIMED_OUT if deadline >= 0 and monotonic_ns() >= deadline else PAUSED
        progress = full = 0
        for i in range(loop.endpoint_count):
            if loop.fds[i].revents == 0:
                continue
            if loop.fds[i].revents & POLLNVAL:
                loop.error = EBADF
                return FAILED
            got = read_batch(loop, &loop.endpoints[i])
            if got > 0:
                progress = 1
                full |= got == loop.batch
                if loop.found_count:
                    return HEARD        # never with loop.tally
            elif got < 0 and errno != EAGAIN and errno != EWOULDBLOCK and errno != EINTR:
                # ICMP errors, an interface that went away: the wait goes on.
                loop.errors += 1
        for i in range(loop.endpoint_count, loop.endpoint_count + wakers):
            if loop.fds[i].revents:
                return WOKEN
        if progress and not full and loop.rest and left:
            # A reader that is woken for each datagram costs more than the datagram.
            timeout.tv_sec = 0
            timeout.tv_nsec = min(loop.rest, left)
            ppoll(loop.fds + loop.endpoint_count, wakers, &timeout, NULL)
        if not progress:
            # Only errors: never spin on a socket that keeps failing.
            timeout.tv_sec = 0
            timeout.tv_nsec = 1000000
            nanosleep(&timeout, NULL)
        if deadline >= 0 and left == 0:
            loop.late -= 1
            if loop.late <= 0:
                return TIMED_OUT
    return PAUSED


# --------------------------------------------------------------- the send loop

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


cdef enum:
    SOURCE_BYTES = 48       # IPV6_PKTINFO as control data, with room to spare

ctypedef struct Outlet:
    # One socket, and all whom it sends to.
    int fd
    int family
    iovec payload
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


cdef int outlet_add(Outlet *outlet, const uint8_t *packed, int port, uint32_t scope) noexcept nogil:
    """The index of a new destination, or -1 without memory."""
    cdef int room, i
    cdef void *memory
    cdef sockaddr_in6 *name
    cdef msghdr *header
    if outlet.count == outlet.room:
        room = max(16, outlet.room * 2)
        memory = realloc(outlet.names, room * sizeof(sockaddr_in6))
        if memory == NULL:
            return -1
        outlet.names = <sockaddr_in6 *>memory
        for i in range(outlet.count):
            outlet.headers[i].msg_hdr.msg_name = &outlet.names[i]
        if outlet.sources != NULL and outlet_sources(outlet, room) < 0:
            return -1
        memory = realloc(outlet.headers, room * sizeof(mmsghdr))
        if memory == NULL:
            return -1
        outlet.headers = <mmsghdr *>memory
        outlet.room = room
    name = &outlet.names[outlet.count]
    memset(name, 0, sizeof(sockaddr_in6))
    name.sin6_family = <uint16_t>outlet.family
    name.sin6_port = htons(<uint16_t>port)
    header = &outlet.headers[outlet.count].msg_hdr
    memset(header, 0, sizeof(msghdr))
    if outlet.family == AF_INET:
        memcpy(&(<sockaddr_in *>name).sin_addr, packed, 4)
        header.msg_namelen = sizeof(sockaddr_in)
    else:
        memcpy(&name.sin6_addr, packed, 16)
        name.sin6_scope_id = scope
        header.msg_namelen = sizeof(sockaddr_in6)
    header.msg_name = name
    header.msg_iov = &outlet.payload
    header.msg_iovlen = 1
    outlet.count += 1
    return outlet.count - 1


cdef int outlet_sources(Outlet *outlet, int room) noexcept nogil:
    """Room for so many source addresses; 0, or -1 without memory."""
    cdef int i
    cdef void *memory = realloc(outlet.sources, <size_t>room * SOURCE_BYTES)
    if memory == NULL:
        return -1
    outlet.sources = <uint8_t *>memory
    for i in range(outlet.count):
        if outlet.headers[i].msg_hdr.msg_control != NULL:
            outlet.headers[i].msg_hdr.msg_control = outlet.sources + i * SOURCE_BYTES
    return 0


cdef int outlet_from(Outlet *outlet, int index, const uint8_t *packed) noexcept nogil:
    """What goes there leaves from this address; 0, or -1 without memory."""
    cdef msghdr *header = &outlet.headers[index].msg_hdr
    cdef cmsghdr *cmsg
    cdef in_pktinfo *info
    cdef in6_pktinfo *info6
    if outlet.sources == NULL and outlet_sources(outlet, outlet.room) < 0:
        return -1
    header.msg_control = outlet.sources + index * SOURCE_BYTES
    memset(header.msg_control, 0, SOURCE_BYTES)
    cmsg = <cmsghdr *>header.msg_control
    if outlet.family == AF_INET:
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


cdef int outlet_reserve(Outlet *outlet, int count) noexcept nogil:
    """Room to choose so many; 0, or -1 without memory."""
    cdef void *memory
    if count <= outlet.chosen_room:
        return 0
    memory = realloc(outlet.chosen, count * sizeof(mmsghdr))
    if memory == NULL:
        return -1
    outlet.chosen = <mmsghdr *>memory
    memory = realloc(outlet.outcomes, count * sizeof(int))
    if memory == NULL:
        return -1
    outlet.outcomes = <int *>memory
    outlet.chosen_room = count
    return 0


cdef int outlet_watch(int fd, int family) noexcept nogil:
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


cdef void outlet_choose(Outlet *outlet, int at, int index, int told) noexcept nogil:
    """Destination `index` is number `at` of those that send_all gets."""
    cdef msghdr *header = &outlet.chosen[at].msg_hdr
    cdef cmsghdr *cmsg
    cdef uint32_t flags = SOF_TIMESTAMPING_TX_SCHED
    outlet.chosen[at] = outlet.headers[index]
    if told and header.msg_control == NULL:
        header.msg_control = outlet.tell
        header.msg_controllen = CMSG_SPACE(sizeof(flags))
        cmsg = CMSG_FIRSTHDR(header)
        cmsg.cmsg_len = CMSG_LEN(sizeof(flags))
        cmsg.cmsg_level = SOL_SOCKET
        cmsg.cmsg_type = SO_TIMESTAMPING
        memcpy(CMSG_DATA(cmsg), &flags, sizeof(flags))


cdef int outlet_news(int fd, int family, News *news) noexcept nogil:
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


cdef int outlet_pending(int fd) noexcept nogil:
    """Bytes of memory of datagrams that were taken but have not left the machine."""
    cdef int queued = 0
    if ioctl(fd, TIOCOUTQ, &queued) < 0:
        return 0
    return queued


cdef void outlet_free(Outlet *outlet) noexcept nogil:
    free(outlet.headers)
    free(outlet.names)
    free(outlet.sources)
    free(outlet.chosen)
    free(outlet.outcomes)


# ------------------------------------------------------ the rhythm of the messages

cdef enum:
    EARLY_COUNT = 10
    ASKED_AT_ONCE = 960
    ASKED_AGAIN = 256

cdef enum:              # nanoseconds
    EARLY_NS = 1000000000
    RETRY_FIRST_NS = 100000000
    RETRY_LAST_NS = 1000000000
    SETTLE_NS = 40000000

cdef inline int64_t retry_patience() noexcept nogil:
    return 60 * <int64_t>1000000000     # no enum of C holds it

cdef inline int64_t late_network() noexcept nogil:
    return 60 * <int64_t>1000000000

cdef inline int64_t asking() noexcept nogil:
    return 3200 * <int64_t>1000000

ctypedef struct Goal:
    # One address that is sent messages.
    int64_t due
    int64_t failing     # since when no message could leave; -1: the last one did
    int64_t last        # when the last one left
    int64_t left        # messages that left
    int64_t asked       # since when one waits for its neighbour; -1: none does
    uint8_t answers     # the last one left
    uint8_t silent      # the last one did not, for no neighbour answered
    uint8_t trusted

ctypedef struct Tie:
    # This goal is an address of that node.
    uint32_t goal
    uint32_t node

ctypedef struct Rhythm:
    int64_t count
    int64_t interval
    int64_t started
    Goal *goals
    uint32_t *ready     # of the last rhythm_due
    uint32_t goal_count
    uint32_t goal_room
    uint32_t under_way
    uint32_t turn       # which of those that did not answer comes first
    Tie *ties
    uint32_t tie_count
    uint32_t tie_room
    uint8_t *hopeless   # for each node: it will never have an address
    uint8_t *reached    # for each node: a message left for it (rhythm_reached)
    uint32_t nodes


cdef int rhythm_init(Rhythm *rhythm, uint32_t nodes, int64_t count, int64_t interval, int64_t now) noexcept nogil:
    """0, or -1 without memory."""
    memset(rhythm, 0, sizeof(Rhythm))
    rhythm.count = count
    rhythm.interval = interval
    rhythm.started = now
    rhythm.nodes = nodes
    rhythm.hopeless = <uint8_t *>calloc(nodes + 1, 1)
    rhythm.reached = <uint8_t *>calloc(nodes + 1, 1)
    return 0 if rhythm.hopeless != NULL and rhythm.reached != NULL else -1


cdef void rhythm_free(Rhythm *rhythm) noexcept nogil:
    free(rhythm.goals)
    free(rhythm.ready)
    free(rhythm.ties)
    free(rhythm.hopeless)
    free(rhythm.reached)


cdef int rhythm_tie(Rhythm *rhythm, uint32_t goal, uint32_t node) noexcept nogil:
    """This address is that node's; 0, or -1 without memory."""
    cdef uint32_t room
    cdef Tie *ties
    if rhythm.tie_count == rhythm.tie_room:
        room = max(<uint32_t>16, rhythm.tie_room * 2)
        ties = <Tie *>realloc(rhythm.ties, room * sizeof(Tie))
        if ties == NULL:
            return -1
        rhythm.ties = ties
        rhythm.tie_room = room
    rhythm.ties[rhythm.tie_count].goal = goal
    rhythm.ties[rhythm.tie_count].node = node
    rhythm.tie_count += 1
    return 0


cdef int rhythm_share(Rhythm *rhythm, uint32_t goal, uint32_t node) noexcept nogil:
    """This address is that node's, too; 0, or -1 without memory."""
    cdef uint32_t i
    for i in range(rhythm.tie_count):
        if rhythm.ties[i].goal == goal and rhythm.ties[i].node == node:
            return 0
    return rhythm_tie(rhythm, goal, node)


cdef int rhythm_add(Rhythm *rhythm, uint32_t node, int64_t now) noexcept nogil:
    """The index of a new address of that node, due at once; -1 without memory."""
    cdef uint32_t room
    cdef Goal *goals
    cdef Goal *goal
    cdef uint32_t *ready
    if rhythm.goal_count == rhythm.goal_room:
        room = max(<uint32_t>16, rhythm.goal_room * 2)
        goals = <Goal *>realloc(rhythm.goals, room * sizeof(Goal))
        if goals == NULL:
            return -1
        rhythm.goals = goals
        ready = <uint32_t *>realloc(rhythm.ready, room * sizeof(uint32_t))
        if ready == NULL:
            return -1
        rhythm.ready = ready
        rhythm.goal_room = room
    if rhythm_tie(rhythm, rhythm.goal_count, node) < 0:
        return -1
    goal = &rhythm.goals[rhythm.goal_count]
    goal.due = now
    goal.failing = -1
    goal.last = now
    goal.left = 0
    goal.asked = -1
    goal.answers = goal.silent = goal.trusted = 0
    rhythm.goal_count += 1
    return <int>rhythm.goal_count - 1


cdef inline int goal_done(Rhythm *rhythm, Goal *goal) noexcept nogil:
    return rhythm.count > 0 and goal.left >= rhythm.count


cdef inline int goal_trusted(Rhythm *rhythm, Goal *goal) noexcept nogil:
    return goal.trusted and rhythm.count == 0


cdef uint32_t rhythm_due(Rhythm *rhythm, int64_t now) noexcept nogil:
    """Who is to be sent a message now: so many, in rhythm.ready, in this order.

    Those that are trusted, those that answered, those that were never asked in vain, and those
    that were; but only so many may wait for their neighbours at a time.
    """
    cdef uint32_t i, at, turn, count = 0, waiting = rhythm.under_way
    cdef int kind
    cdef Goal *goal
    for kind in range(4):
        turn = rhythm.turn if kind == 3 and rhythm.turn < rhythm.goal_count else 0
        for at in range(rhythm.goal_count):
            if kind and waiting >= <uint32_t>(ASKED_AGAIN if kind == 3 else ASKED_AT_ONCE):
                break
            i = at + turn
            if i >= rhythm.goal_count:
                i -= rhythm.goal_count
            goal = &rhythm.goals[i]
            if goal.due > now or goal.asked >= 0 or goal_done(rhythm, goal):
                continue
            if kind == (0 if goal_trusted(rhythm, goal) else 3 if goal.silent else 2 - goal.answers):
                rhythm.ready[count] = i
                count += 1
                waiting += kind > 0
    return count


cdef void rhythm_doubt(Rhythm *rhythm) noexcept nogil:
    """Something that was trusted did not leave: trust nobody until the next message did."""
    cdef uint32_t i
    for i in range(rhythm.goal_count):
        rhythm.goals[i].trusted = 0


cdef inline int goal_overdue(Goal *goal, int64_t now) noexcept nogil:
    return goal.asked >= 0 and now - goal.asked >= asking()


cdef inline void goal_ends(Rhythm *rhythm, Goal *goal) noexcept nogil:
    """Nothing is under way to there any more."""
    rhythm.under_way -= goal.asked >= 0
    goal.asked = -1


cdef void rhythm_taken(Rhythm *rhythm, uint32_t index, int64_t now) noexcept nogil:
    """The kernel has a message for there, and may have to ask for the neighbour first."""
    cdef Goal *goal = &rhythm.goals[index]
    goal_ends(rhythm, goal)
    goal.asked = now
    rhythm.under_way += 1
    if goal.silent:
        rhythm.turn = index + 1


cdef void rhythm_left(Rhythm *rhythm, uint32_t index, int64_t now) noexcept nogil:
    cdef Goal *goal = &rhythm.goals[index]
    cdef int64_t gap = rhythm.interval
    goal_ends(rhythm, goal)
    goal.left += 1
    goal.last = now
    goal.failing = -1
    goal.answers = goal.trusted = 1
    goal.silent = 0
    if rhythm.count == 0 and goal.left <= EARLY_COUNT:
        gap = min(gap, <int64_t>EARLY_NS)
    # Counted from when it was due, so that the rhythm does not drift; but what
    # could not be sent in time is not made up for.
    goal.due = max(goal.due + gap, now + gap // 2)


cdef void rhythm_failed(Rhythm *rhythm, uint32_t index, int64_t now) noexcept nogil:
    cdef Goal *goal = &rhythm.goals[index]
    cdef int64_t gap = RETRY_FIRST_NS
    goal_ends(rhythm, goal)
    goal.trusted = 0
    if goal.failing < 0:
        goal.failing = now
    if now - goal.failing >= retry_patience():
        gap = min(<int64_t>RETRY_LAST_NS, rhythm.interval)
    goal.due = now + gap


cdef int rhythm_lost(Rhythm *rhythm, uint32_t index, int64_t now) noexcept nogil:
    """Whether there was one that could have been lost."""
    cdef Goal *goal = &rhythm.goals[index]
    cdef int64_t later = now + min(<int64_t>RETRY_LAST_NS, rhythm.interval)
    if goal.asked >= 0:
        goal_ends(rhythm, goal)
        goal.due = later
    elif goal.left:
        goal.left -= 1
        goal.due = min(goal.due, later)
    else:
        return 0
    goal.answers = goal.trusted = 0
    goal.silent = 1
    if goal.failing < 0:
        goal.failing = now
    return 1


cdef void rhythm_hurry(Rhythm *rhythm, int64_t now, int again) noexcept nogil:
    """The network is not what it was: what failed may work in a moment, and what left may
    have left from an address that nobody knows, or to where nobody hears. What is under way is
    sent once more only if `again`.

    Not at once: an interface that comes up loses in silence what is sent before all of it is
    up, and a question for a neighbour's address is then repeated only after a second.
    """
    cdef uint32_t i
    cdef int64_t soonest
    cdef Goal *goal
    for i in range(rhythm.goal_count):
        goal = &rhythm.goals[i]
        goal.trusted = goal.silent = 0
        soonest = now + SETTLE_NS
        if goal.asked >= 0:
            if again:
                goal_ends(rhythm, goal)
                goal.due = soonest
            continue
        if goal.failing < 0:
            if rhythm.count:
                continue        # as many as asked for, an interval apart
            if goal.left > EARLY_COUNT:
                soonest = max(soonest, goal.last + EARLY_NS)
        goal.due = min(goal.due, soonest)


cdef uint32_t rhythm_reached(Rhythm *rhythm) noexcept nogil:
    """How many nodes were reached; marks them."""
    cdef uint32_t i, total = 0
    cdef Tie *tie
    memset(rhythm.reached, 0, rhythm.nodes)
    for i in range(rhythm.tie_count):
        tie = &rhythm.ties[i]
        if rhythm.goals[tie.goal].left > 0 and not rhythm.reached[tie.node]:
            rhythm.reached[tie.node] = 1
            total += 1
    return total


cdef int64_t patience_ends(Rhythm *rhythm) noexcept nogil:
    """When a node that was not reached is given up (only with a count)."""
    cdef int64_t most = (<int64_t>1 << 62) - rhythm.started
    cdef int64_t patience = most if rhythm.count > most // rhythm.interval else rhythm.count * rhythm.interval
    if rhythm_reached(rhythm) == 0:
        patience = max(patience, late_network())
    return rhythm.started + patience


cdef int64_t rhythm_next(Rhythm *rhythm, int64_t now) noexcept nogil:
    """When something is to be done next; -1: only when an address is added."""
    cdef int64_t soonest = -1, end, at
    cdef uint32_t i, ready = rhythm_due(rhythm, now)
    cdef Goal *goal
    for i in range(ready or rhythm.goal_count):
        goal = &rhythm.goals[rhythm.ready[i] if ready else i]
        if goal.asked >= 0:
            at = goal.asked + asking()
        # Who is due and not ready has no room, until something that is under way ends.
        elif goal_done(rhythm, goal) or (goal.due <= now and not ready):
            continue
        else:
            at = goal.due
        if soonest < 0 or at < soonest:
            soonest = at
    if ready:
        return soonest
    if rhythm.count:
        end = patience_ends(rhythm)
        if end > now and (soonest < 0 or end < soonest):
            soonest = end
    return soonest


cdef int rhythm_finished(Rhythm *rhythm, int64_t now) noexcept nogil:
    cdef uint32_t i
    cdef int64_t end
    cdef int hope = 0, all_reached = 1
    for i in range(rhythm.nodes):
        hope |= not rhythm.hopeless[i]
    if not hope:
        return 1
    if rhythm.count == 0:
        return 0
    for i in range(rhythm.goal_count):
        if 0 < rhythm.goals[i].left < rhythm.count:
            return 0
    end = patience_ends(rhythm)         # marks who was reached
    for i in range(rhythm.nodes):
        all_reached &= rhythm.hopeless[i] or rhythm.reached[i]
    return now >= end or all_reached


# --------------------------------------------------------- which way a datagram goes

ctypedef struct Route:
    uint32_t interface
    int local           # to this machine itself
    int carrier
    int gateway_length  # 0: on the link
    uint8_t gateway[16]
    int source_length   # 0: the kernel names none
    uint8_t source[16]


cdef int read_route(nlmsghdr *header, int length, Route *route) noexcept nogil:
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


cdef int find_way(int family, const uint8_t *packed, uint32_t scope, Route *route) noexcept nogil:
    """Ask the kernel which way a datagram to there would go; 0, or an errno.

    rtnetlink(7): RTM_GETROUTE. Nothing is sent to the network.
    """
    cdef uint8_t request[128]
    cdef uint8_t answer[4096]
    cdef nlmsghdr *header = <nlmsghdr *>request
    cdef rtmsg *message = <rtmsg *>NLMSG_DATA(header)
    cdef rtattr *attribute
    cdef ifreq request_flags
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
        error = errno if got < 0 else read_route(<nlmsghdr *>answer, <int>got, route)
        if error == 0:
            # A route does not tell whether its interface works; /sys need not be there.
            request_flags.ifr_flags = 0
            route.carrier = (
                route.local
                or if_indextoname(route.interface, request_flags.ifr_name) == NULL
                or ioctl(fd, SIOCGIFFLAGS, &request_flags) < 0
                or request_flags.ifr_flags & IFF_RUNNING != 0
            )
    close(fd)
    return error


# ====================================================== thin classes over it all

IMPLEMENTATION = "compiled"
REASONS = ("short", "magic", "version", "malformed", "checksum", "stranger", "crowded")


class Rejected(ValueError):
    """These bytes do not begin with a message; `reason` is one of REASONS."""

    def __init__(self, reason):
        ValueError.__init__(self, f"not a message: {reason}")
        self.reason = reason


cdef class Message:
    """What a datagram said."""

    cdef readonly int version
    cdef readonly str byteorder
    cdef readonly bytes trailer

    def __init__(self, int version, str byteorder not None, bytes trailer not None=b""):
        self.version = version
        self.byteorder = byteorder
        self.trailer = trailer

    def __eq__(self, other):
        if type(other) is not Message:
            return NotImplemented
        cdef Message that = other
        return (self.version == that.version and self.byteorder == that.byteorder
                and self.trailer == that.trailer)

    def __hash__(self):
        return hash((self.version, self.byteorder, self.trailer))

    def __reduce__(self):
        return (Message, (self.version, self.byteorder, self.trailer))

    def __repr__(self):
        return f"Message(version={self.version!r}, byteorder={self.byteorder!r}, trailer={self.trailer!r})"


cdef Message make_message(const uint8_t *data, size_t length):
    cdef Message message = Message.__new__(Message)
    message.version = 1
    message.byteorder = "little" if data[0] == LITTLE[0] else "big"
    message.trailer = PyBytes_FromStringAndSize(<const char *>data + MESSAGE_BYTES, length - MESSAGE_BYTES)
    return message


def encode(str byteorder not None):
    """See `_purewire.encode`."""
    if byteorder == "little":
        return PyBytes_FromStringAndSize(<const char *>LITTLE, MESSAGE_BYTES)
    if byteorder == "big":
        return PyBytes_FromStringAndSize(<const char *>BIG, MESSAGE_BYTES)
    raise ValueError(f"byteorder {byteorder!r}: not 'little' or 'big'")


def decode(data):
    """See `_purewire.decode`."""
    cdef Py_buffer view
    cdef int verdict
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        verdict = check_message(<const uint8_t *>view.buf, view.len)
        if verdict != ACCEPTED:
            raise Rejected(REASONS[verdict - 1])
        return make_message(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef dict count_names(uint64_t *counts):
    result = {"accepted": counts[ACCEPTED]}
    for i, reason in enumerate(REASONS):
        result[reason] = counts[i + 1]
    return result


def validate(data):
    """See `_purewire.validate`."""
    cdef Py_buffer view
    cdef uint64_t counts[VERDICTS]
    memset(counts, 0, sizeof(counts))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            check_packed(<const uint8_t *>view.buf, view.len, counts)
    finally:
        PyBuffer_Release(&view)
    return count_names(counts)


cdef bytes join_address(uint64_t high, uint64_t low):
    cdef uint8_t address[16]
    memcpy(address, &high, 8)
    memcpy(address + 8, &low, 8)
    if memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        return PyBytes_FromStringAndSize(<const char *>address + 12, 4)
    return PyBytes_FromStringAndSize(<const char *>address, 16)


cdef int check_address(bytes packed, uint64_t *high, uint64_t *low) except -1:
    if len(packed) != 4 and len(packed) != 16:
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    split_address(<const uint8_t *>PyBytes_AS_STRING(packed), <int>len(packed), high, low)
    return 0


cdef class Sources:
    """See `_purewire.Sources`."""

    cdef Table table

    def __cinit__(self):
        import posix
        memset(&self.table, 0, sizeof(Table))
        pthread_mutex_init(&self.table.lock, NULL)
        self.table.seed = int.from_bytes(posix.urandom(8), "little")

    def __init__(self, uint32_t room=1 << 17):
        self.table.admit_room = room

    def __dealloc__(self):
        table_free(&self.table)
        free(self.table.networks)
        pthread_mutex_destroy(&self.table.lock)

    def add(self, bytes packed not None, uint32_t scope=0, int32_t node=0):
        cdef uint64_t high, low
        cdef int result
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.table.lock)
        result = table_add(&self.table, high, low, scope, node)
        pthread_mutex_unlock(&self.table.lock)
        if result < 0:
            raise MemoryError

    def discard(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef int result
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.table.lock)
        result = table_remove(&self.table, high, low, scope)
        pthread_mutex_unlock(&self.table.lock)
        return result != 0

    def release(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef int64_t found
        cdef Entry *entry
        cdef int result = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.table.lock)
        found = table_slot(&self.table, high, low, scope)
        if found >= 0:
            entry = &self.table.entries[self.table.slots[found].index - 1]
            if entry.admitted and entry.place == 0:
                result = table_remove(&self.table, high, low, scope)
        pthread_mutex_unlock(&self.table.lock)
        return result != 0

    def find(self, bytes packed not None, uint32_t scope=0):
        cdef uint64_t high, low
        cdef int64_t slot
        cdef int32_t node = 0
        check_address(packed, &high, &low)
        pthread_mutex_lock(&self.table.lock)
        slot = table_slot(&self.table, high, low, scope)
        if slot >= 0:
            node = self.table.entries[self.table.slots[slot].index - 1].node
        pthread_mutex_unlock(&self.table.lock)
        return None if slot < 0 else node

    def admit(self, bytes packed not None, int prefix, int32_t node=0):
        cdef Network network
        cdef Network *grown
        cdef uint8_t mask[16]
        cdef int bits = 8 * <int>len(packed)
        cdef int i
        check_address(packed, &network.high, &network.low)
        if not 0 <= prefix <= bits:
            raise ValueError(f"prefix {prefix}: 0 to {bits} are allowed")
        prefix += 128 - bits
        for i in range(16):
            mask[i] = <uint8_t>((0xFF00 >> max(0, min(8, prefix - 8 * i))) & 0xFF)
        split_address(mask, 16, &network.high_mask, &network.low_mask)
        if network.high & ~network.high_mask or network.low & ~network.low_mask:
            raise ValueError("network with bits set behind its prefix")
        network.node = node
        network.ipv6 = prefix < 96      # any longer one leaves no doubt
        network.loopback = prefix >= 104 and is_loopback(network.high, network.low)
        pthread_mutex_lock(&self.table.lock)
        grown = <Network *>realloc(
            self.table.networks, (self.table.network_count + 1) * sizeof(Network))
        if grown != NULL:
            grown[self.table.network_count] = network
            self.table.networks = grown
            self.table.network_count += 1
        pthread_mutex_unlock(&self.table.lock)
        if grown == NULL:
            raise MemoryError

    def heard(self, int64_t most=65536):
        cdef Entry given[256]
        cdef uint32_t i, number = 1
        cdef list result = []
        while number and <int64_t>len(result) < most:
            # Copied in pieces, so that the receive loop never waits long for the lock.
            pthread_mutex_lock(&self.table.lock)
            number = table_give(&self.table, given, <uint32_t>min(256, most - <int64_t>len(result)))
            pthread_mutex_unlock(&self.table.lock)
            for i in range(number):
                result.append((given[i].node, join_address(given[i].high, given[i].low), given[i].scope,
                               given[i].port, given[i].first, given[i].last, given[i].messages))
        return result

    def __len__(self):
        cdef uint32_t count
        pthread_mutex_lock(&self.table.lock)
        count = self.table.count
        pthread_mutex_unlock(&self.table.lock)
        return count

    def __iter__(self):
        cdef Entry *entries
        cdef uint32_t i, count
        pthread_mutex_lock(&self.table.lock)
        count = self.table.count
        entries = <Entry *>malloc(count * sizeof(Entry) + 1)
        if entries != NULL and count:
            memcpy(entries, self.table.entries, count * sizeof(Entry))
        pthread_mutex_unlock(&self.table.lock)
        if entries == NULL:
            raise MemoryError
        try:
            return iter([(join_address(entries[i].high, entries[i].low), entries[i].scope)
                         for i in range(count)])
        finally:
            free(entries)


cdef class Arrival:
    """An accepted datagram: who sent it, when, and what it said."""

    cdef readonly int node
    cdef readonly bytes packed
    cdef readonly unsigned int scope
    cdef readonly unsigned int interface
    cdef readonly int port
    cdef readonly int64_t when_ns
    cdef readonly Message message

    def __repr__(self):
        return (f"Arrival(node={self.node}, packed={self.packed!r}, scope={self.scope}, "
                f"interface={self.interface}, port={self.port}, when_ns={self.when_ns}, "
                f"message={self.message!r})")


cdef class Receiver:
    """See `_purewire.Receiver`."""

    cdef Loop loop
    cdef Sources sources
    cdef Sources strangers
    cdef list sockets
    cdef int busy

    def __cinit__(self):
        memset(&self.loop, 0, sizeof(Loop))

    def __init__(self, Sources sources not None, Sources strangers=None, *,
                 int port=7410, int batch=32, int size=65535, uint32_t stranger_room=1024):
        cdef Loop *loop = &self.loop
        cdef int i
        cdef msghdr *header
        if loop.data != NULL:
            raise RuntimeError("Receiver is set up once")
        if not 1 <= batch <= 1024:
            raise ValueError(f"batch {batch}: 1 to 1024 are allowed")
        if not 64 <= size <= 65535:
            raise ValueError(f"size {size}: 64 to 65535 are allowed")
        self.sources = sources
        self.strangers = strangers
        self.sockets = []
        loop.sources = &sources.table
        loop.strangers = NULL if strangers is None else &strangers.table
        loop.stranger_room = stranger_room
        loop.port = port
        loop.end = -1
        loop.batch = batch
        loop.size = size
        # An odd number of cache lines apart, so that the datagrams' first bytes do
        # not all fall into the same set of the processor's cache.
        loop.stride = ((size + 63) // 64 | 1) * 64
        loop.headers = <mmsghdr *>calloc(batch, sizeof(mmsghdr))
        loop.vectors = <iovec *>calloc(batch, sizeof(iovec))
        loop.names = <sockaddr_in6 *>calloc(batch, sizeof(sockaddr_in6))
        loop.control = <uint8_t *>calloc(batch, CONTROL_BYTES)
        loop.found = <Found *>calloc(batch, sizeof(Found))
        loop.data = <uint8_t *>malloc(batch * loop.stride)   # untouched pages cost nothing
        if (loop.headers == NULL or loop.vectors == NULL or loop.names == NULL
                or loop.control == NULL or loop.found == NULL or loop.data == NULL):
            raise MemoryError
        for i in range(batch):
            loop.vectors[i].iov_base = loop.data + i * loop.stride
            loop.vectors[i].iov_len = size
            header = &loop.headers[i].msg_hdr
            header.msg_iov = &loop.vectors[i]
            header.msg_iovlen = 1
            header.msg_name = &loop.names[i]
            header.msg_control = loop.control + i * CONTROL_BYTES

    def __dealloc__(self):
        free(self.loop.headers)
        free(self.loop.vectors)
        free(self.loop.names)
        free(self.loop.control)
        free(self.loop.found)
        free(self.loop.data)
        free(self.loop.endpoints)
        free(self.loop.fds)

    cdef int enter(self) except -1:
        """Nobody else may use the buffers until `leave`."""
        cdef int i, fd
        if self.busy:
            raise RuntimeError("this receiver is in use in another thread")
        for i in range(self.loop.endpoint_count):
            # Asked each time: the number of a closed socket may be another's by now.
            fd = self.sockets[i].fileno()
            if fd < 0:
                import posix
                raise OSError(EBADF, posix.strerror(EBADF))
            self.loop.endpoints[i].fd = fd
        self.busy = 1
        self.loop.tally = 0
        self.loop.rest = 0
        self.loop.bell = -1
        return 0

    cdef void leave(self) noexcept:
        self.busy = 0

    cdef int reserve(self, int fds) except -1:
        cdef pollfd *grown
        if fds > self.loop.fd_room:
            grown = <pollfd *>realloc(self.loop.fds, fds * sizeof(pollfd))
            if grown == NULL:
                raise MemoryError
            self.loop.fds = grown
            self.loop.fd_room = fds
        return 0

    def add_socket(self, sock):
        cdef Loop *loop = &self.loop
        cdef int kind = UDP
        cdef int fd = sock.fileno()
        cdef int flags = 0
        cdef socklen_t length = sizeof(flags)
        cdef Endpoint *grown
        if fd < 0:
            raise ValueError("the socket is closed")
        if self.busy:
            raise RuntimeError("this receiver is in use in another thread")
        if sock.type == SOCK_RAW:
            kind = RAW4 if sock.family == AF_INET else RAW6
        self.reserve(loop.endpoint_count + 1)
        grown = <Endpoint *>realloc(loop.endpoints, (loop.endpoint_count + 1) * sizeof(Endpoint))
        if grown == NULL:
            raise MemoryError
        loop.endpoints = grown
        grown[loop.endpoint_count].fd = fd
        grown[loop.endpoint_count].kind = kind
        getsockopt(fd, SOL_SOCKET, STAMPING, &flags, &length)
        grown[loop.endpoint_count].stamped = flags & STAMPED
        grown[loop.endpoint_count].dropped = 0
        loop.endpoint_count += 1
        self.sockets.append(sock)       # kept, so that the descriptor stays ours

    def discard_socket(self, sock):
        cdef Loop *loop = &self.loop
        cdef int i
        if self.busy:
            raise RuntimeError("this receiver is in use in another thread")
        if sock not in self.sockets:
            raise ValueError("not a socket of this receiver")
        self.dropped
        i = self.sockets.index(sock)
        loop.forgotten += loop.endpoints[i].dropped
        del self.sockets[i]
        loop.endpoint_count -= 1
        for i in range(i, loop.endpoint_count):
            loop.endpoints[i] = loop.endpoints[i + 1]

    def end(self, end_ns):
        if self.busy:
            raise RuntimeError("this receiver is in use in another thread")
        self.loop.end = -1 if end_ns is None else max(0, end_ns)
        self.loop.ahead = clock_ns(CLOCK_REALTIME)
        self.loop.ahead -= monotonic_ns()

    cdef list take_found(self):
        cdef int i
        cdef Found *found
        cdef Arrival arrival
        cdef list result = []
        for i in range(self.loop.found_count):
            found = &self.loop.found[i]
            arrival = Arrival.__new__(Arrival)
            arrival.node = found.node
            arrival.packed = join_address(found.high, found.low)
            arrival.scope = found.scope
            arrival.interface = found.interface
            arrival.port = found.port
            arrival.when_ns = self.loop.found_at
            arrival.message = make_message(found.message, found.length)
            result.append(arrival)
        self.loop.found_count = 0
        return result

    cdef int wait(self, deadline_ns, wake) except -1:
        """Wait and read; HEARD, TIMED_OUT or WOKEN."""
        cdef Loop *loop = &self.loop
        cdef int64_t deadline = -1 if deadline_ns is None else max(0, deadline_ns)
        cdef int wakers = <int>len(wake)
        cdef int i, result
        self.reserve(loop.endpoint_count + wakers)
        for i in range(loop.endpoint_count):
            loop.fds[i].fd = loop.endpoints[i].fd
            loop.fds[i].events = <short>POLLIN
        for i in range(wakers):
            loop.fds[loop.endpoint_count + i].fd = wake[i]
            loop.fds[loop.endpoint_count + i].events = <short>POLLIN
        loop.late = LATE_ROUNDS
        while True:
            with nogil:
                result = wait_and_read(loop, deadline, wakers)
                while result == PAUSED and loop.bell >= 0:
                    result = wait_and_read(loop, deadline, wakers)
            if result == FAILED:
                import posix
                raise OSError(loop.error, posix.strerror(loop.error))
            if result != PAUSED:
                return result
            PyErr_CheckSignals()

    def receive(self, deadline_ns, wake=()):
        self.enter()
        try:
            return self.take_found() if self.wait(deadline_ns, wake) == HEARD else []
        finally:
            self.leave()

    def count(self, deadline_ns, wake=(), int bell=-1, int64_t rest_ns=0):
        if not 0 <= rest_ns < 1000000000:
            raise ValueError(f"rest of {rest_ns} ns: 0 to 999999999 are allowed")
        self.enter()
        self.loop.rest = rest_ns
        self.loop.tally = 1
        self.loop.tallied = 0
        self.loop.bell = bell
        try:
            self.wait(deadline_ns, wake)
            return self.loop.tallied
        finally:
            self.leave()

    def take(self, int batches=1):
        cdef Loop *loop = &self.loop
        cdef int i, _batch, got, error
        cdef list result = []
        self.enter()
        try:
            for i in range(loop.endpoint_count):
                for _batch in range(batches):
                    with nogil:
                        got = read_batch(loop, &loop.endpoints[i])
                        error = errno
                    if got < 0 and error != EAGAIN and error != EWOULDBLOCK and error != EINTR:
                        loop.errors += 1
                    if got <= 0:
                        break
                    if loop.found_count:
                        result += self.take_found()
                    if got < loop.batch:
                        break
        finally:
            self.leave()
        return result

    @property
    def counts(self):
        cdef uint64_t counts[VERDICTS]
        # Another thread may be reading, and where 64 bits are two words it writes them one by one.
        pthread_mutex_lock(&self.sources.table.lock)
        memcpy(counts, self.loop.counts, sizeof(counts))
        pthread_mutex_unlock(&self.sources.table.lock)
        return count_names(counts)

    @property
    def errors(self):
        return self.loop.errors

    @property
    def dropped(self):
        cdef uint32_t info[16]
        cdef uint32_t more
        cdef socklen_t length
        cdef Endpoint *endpoint
        cdef int i
        cdef uint64_t total = self.loop.forgotten
        for i in range(self.loop.endpoint_count):
            # See `_purewire.Receiver.dropped`. Its field 8 is SK_MEMINFO_DROPS.
            endpoint = &self.loop.endpoints[i]
            length = sizeof(info)
            memset(info, 0, sizeof(info))
            if (getsockopt(self.sockets[i].fileno(), SOL_SOCKET, SO_MEMINFO, info, &length) == 0
                    and length >= 9 * sizeof(uint32_t)):
                more = info[8] - <uint32_t>endpoint.dropped
                if more < <uint32_t>1 << 31 or endpoint.dropped == 0:
                    endpoint.dropped += more
            total += endpoint.dropped
        return total


def attach_filter(sock, bytes code not None):
    """See `_purewire.attach_filter`."""
    cdef sock_fprog program
    if len(code) % 8:
        raise ValueError(f"filter of {len(code)} bytes: not a multiple of 8")
    program.len = <unsigned short>(len(code) // 8)
    program.filter = <void *>PyBytes_AS_STRING(code)
    if setsockopt(sock.fileno(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0:
        import posix
        raise OSError(errno, posix.strerror(errno))


cdef class Transmitter:
    """See `_purewire.Transmitter`."""

    cdef object sock
    cdef Outlet outlet
    cdef dict vectors       # payload -> its struct iovec, as bytes
    cdef int busy

    cdef int check_idle(self) except -1:
        if self.busy:
            raise RuntimeError("this transmitter is in use in another thread")
        return 0

    def __cinit__(self):
        memset(&self.outlet, 0, sizeof(Outlet))

    def __init__(self, sock, bytes payload not None):
        if self.sock is not None:
            raise RuntimeError("Transmitter is set up once")
        self.sock = sock
        self.outlet.fd = sock.fileno()
        self.outlet.family = sock.family
        if self.outlet.fd < 0:
            raise ValueError("the socket is closed")
        self.vectors = {}
        self.outlet.payload = self.vector(payload)[0]

    def __dealloc__(self):
        outlet_free(&self.outlet)

    cdef iovec *vector(self, bytes payload) except NULL:
        """Where this payload lies, for as long as the transmitter lives."""
        cdef iovec *at
        cdef bytes held = self.vectors.get(payload)
        if held is None:
            held = PyBytes_FromStringAndSize(NULL, sizeof(iovec))
            at = <iovec *>PyBytes_AS_STRING(held)
            at.iov_base = PyBytes_AS_STRING(payload)
            at.iov_len = len(payload)
            self.vectors[payload] = held    # and with it the payload itself
        return <iovec *>PyBytes_AS_STRING(held)

    def add(self, bytes packed not None, int port, uint32_t scope=0, bytes source not None=b"",
            bytes payload=None):
        cdef int length = 4 if self.outlet.family == AF_INET else 16
        cdef int index
        cdef iovec *vector = &self.outlet.payload
        if len(packed) != length:
            raise ValueError(f"address of {len(packed)} bytes: this socket's family has {length}")
        if source and len(source) != length:
            raise ValueError(f"source of {len(source)} bytes: this socket's family has {length}")
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port}: 1 to 65535 are allowed")
        self.check_idle()
        if payload is not None:
            vector = self.vector(payload)
        index = outlet_add(&self.outlet, <const uint8_t *>PyBytes_AS_STRING(packed), port, scope)
        if index < 0:
            raise MemoryError
        self.outlet.headers[index].msg_hdr.msg_iov = vector
        if source and outlet_from(&self.outlet, index, <const uint8_t *>PyBytes_AS_STRING(source)) < 0:
            self.outlet.count -= 1
            raise MemoryError
        return index

    def __len__(self):
        return self.outlet.count

    def watch(self):
        return outlet_watch(self.outlet.fd, self.outlet.family) != 0

    def send(self, which=None, patience_ns=20_000_000, bint told=False):
        cdef Outlet *outlet = &self.outlet
        cdef int i, index, count
        cdef int64_t patience = patience_ns
        cdef mmsghdr *headers = outlet.headers
        if which is not None:
            which = list(which)     # whatever an iterator does, it does it before the look
        self.check_idle()
        if told and which is None:
            which = list(range(outlet.count))
        count = outlet.count if which is None else <int>len(which)
        if outlet_reserve(outlet, count) < 0:
            raise MemoryError
        if which is not None:
            # Checked in full before anything is sent.
            for i in range(count):
                index = which[i]
                if not 0 <= index < outlet.count:
                    raise IndexError(f"destination {index}: 0 to {outlet.count - 1} are allowed")
                outlet_choose(outlet, i, index, told)
            headers = outlet.chosen
        self.busy = 1
        with nogil:
            i = send_all(outlet.fd, headers, count, outlet.outcomes, patience)
        self.busy = 0
        result = [outlet.outcomes[index] for index in range(count)]
        if i:
            PyErr_CheckSignals()
        return result

    def news(self, int most=1024):
        cdef News news
        cdef int length = 4 if self.outlet.family == AF_INET else 16
        cdef list result = []
        cdef bytes by
        while len(result) < most and outlet_news(self.outlet.fd, self.outlet.family, &news):
            by = None
            if news.by_length:
                by = PyBytes_FromStringAndSize(<const char *>news.by, news.by_length)
            result.append((PyBytes_FromStringAndSize(<const char *>news.packed, length),
                           news.scope, news.error, by))
        return result

    @property
    def pending(self):
        return outlet_pending(self.outlet.fd)


EARLY_MESSAGES = EARLY_COUNT
EARLY_GAP_NS = EARLY_NS
RETRY_NS = RETRY_FIRST_NS
RETRY_PATIENCE_NS = retry_patience()
RETRY_LATER_NS = RETRY_LAST_NS
SETTLING_NS = SETTLE_NS
LATE_NETWORK_NS = late_network()
ASKING_NS = asking()
MOST_ASKED = ASKED_AT_ONCE
MOST_ASKED_AGAIN = ASKED_AGAIN


cdef class Schedule:
    """See `_purewire.Schedule`."""

    cdef Rhythm rhythm

    def __cinit__(self):
        memset(&self.rhythm, 0, sizeof(Rhythm))

    def __init__(self, uint32_t nodes, int64_t count, int64_t interval_ns, int64_t now_ns):
        if self.rhythm.reached != NULL:
            raise RuntimeError("Schedule is set up once")
        if count < 0:
            raise ValueError(f"count {count}: 0 or more is allowed")
        if interval_ns <= 0:
            raise ValueError(f"interval of {interval_ns} ns: 1 or more is allowed")
        if rhythm_init(&self.rhythm, nodes, count, interval_ns, now_ns) < 0:
            raise MemoryError

    def __dealloc__(self):
        rhythm_free(&self.rhythm)

    cdef int check_goal(self, int64_t goal) except -1:
        if not 0 <= goal < self.rhythm.goal_count:
            raise IndexError(f"destination {goal}: 0 to {<int64_t>self.rhythm.goal_count - 1} are allowed")
        return 0

    cdef int check_node(self, int64_t node) except -1:
        if not 0 <= node < self.rhythm.nodes:
            raise IndexError(f"node {node}: 0 to {<int64_t>self.rhythm.nodes - 1} are allowed")
        return 0

    def give_up(self, int64_t node):
        self.check_node(node)
        self.rhythm.hopeless[node] = 1

    def add(self, int64_t node, int64_t now_ns):
        cdef int index
        self.check_node(node)
        index = rhythm_add(&self.rhythm, <uint32_t>node, now_ns)
        if index < 0:
            raise MemoryError
        return index

    def share(self, int64_t destination, int64_t node):
        self.check_goal(destination)
        self.check_node(node)
        if rhythm_share(&self.rhythm, <uint32_t>destination, <uint32_t>node) < 0:
            raise MemoryError

    def __len__(self):
        return self.rhythm.goal_count

    def due(self, int64_t now_ns):
        cdef uint32_t i
        cdef uint32_t count = rhythm_due(&self.rhythm, now_ns)
        return [self.rhythm.ready[i] for i in range(count)]

    def trusted(self, int64_t destination):
        self.check_goal(destination)
        return goal_trusted(&self.rhythm, &self.rhythm.goals[destination]) != 0

    def doubt(self):
        rhythm_doubt(&self.rhythm)

    def asked(self, int64_t destination):
        self.check_goal(destination)
        return None if self.rhythm.goals[destination].asked < 0 else self.rhythm.goals[destination].asked

    def overdue(self, int64_t now_ns):
        cdef uint32_t i
        return [i for i in range(self.rhythm.goal_count)
                if goal_overdue(&self.rhythm.goals[i], now_ns)]

    def taken(self, int64_t destination, int64_t now_ns):
        self.check_goal(destination)
        rhythm_taken(&self.rhythm, <uint32_t>destination, now_ns)

    def when(self, int64_t destination):
        self.check_goal(destination)
        return self.rhythm.goals[destination].due

    def sent(self, int64_t destination):
        self.check_goal(destination)
        return self.rhythm.goals[destination].left

    def nodes(self, int64_t destination):
        cdef uint32_t i
        self.check_goal(destination)
        return [self.rhythm.ties[i].node for i in range(self.rhythm.tie_count)
                if self.rhythm.ties[i].goal == destination]

    def left(self, int64_t destination, int64_t now_ns):
        self.check_goal(destination)
        rhythm_left(&self.rhythm, <uint32_t>destination, now_ns)

    def failed(self, int64_t destination, int64_t now_ns):
        self.check_goal(destination)
        rhythm_failed(&self.rhythm, <uint32_t>destination, now_ns)

    def lost(self, int64_t destination, int64_t now_ns):
        self.check_goal(destination)
        return rhythm_lost(&self.rhythm, <uint32_t>destination, now_ns) != 0

    def hurry(self, int64_t now_ns, bint again=True):
        rhythm_hurry(&self.rhythm, now_ns, again)

    @property
    def reached(self):
        cdef uint32_t i
        rhythm_reached(&self.rhythm)
        return {i for i in range(self.rhythm.nodes) if self.rhythm.reached[i]}

    def next_due(self, int64_t now_ns):
        cdef int64_t soonest = rhythm_next(&self.rhythm, now_ns)
        return None if soonest < 0 else soonest

    def finished(self, int64_t now_ns):
        return rhythm_finished(&self.rhythm, now_ns) != 0


def find_route(bytes packed not None, uint32_t scope=0):
    """See `_purewire.find_route`."""
    cdef Route route
    cdef int family = AF_INET if len(packed) == 4 else AF_INET6
    cdef int error
    if len(packed) != 4 and len(packed) != 16:
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    error = find_way(family, <const uint8_t *>PyBytes_AS_STRING(packed), scope, &route)
    if error:
        import posix
        raise OSError(error, posix.strerror(error))
    return (
        route.interface,
        PyBytes_FromStringAndSize(<const char *>route.source, route.source_length),
        PyBytes_FromStringAndSize(<const char *>route.gateway, route.gateway_length),
        route.local != 0,
        route.carrier != 0,
    )
