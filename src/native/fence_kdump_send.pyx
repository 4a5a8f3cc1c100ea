# SPDX-License-Identifier: GPL-2.0-or-later
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, binding=False
"""fence_kdump_send for crash kernels: a program that needs libc and nothing else.

It takes the core whole, which means: its nogil half, since the linker throws away all
that mentions Python and cannot be reached from `kdumpfence_send`. Codec, send loop, schedule
and routes are the core's. What stands here is what kdumpfence/sender, cmdline.py,
addresses.py and report.py are for the Python front end, and it has to say and do the same:
tests/forms runs all of them.

Macros: KDUMPFENCE_VERSION, a string; KDUMPFENCE_NUMERIC, if there is to be no name service
(a static program of glibc would need its shared libraries for that).
"""

from kdumpwire.linux cimport *

include "../kdumpwire/codec.pxi"
include "../kdumpwire/sources.pxi"
include "../kdumpwire/send.pxi"
include "../kdumpwire/schedule.pxi"
include "../kdumpwire/route.pxi"

cdef extern from *:
    """
    #include <sys/stat.h>
    #include <sys/un.h>
    #include <netdb.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>
    #include <string.h>
    #include <fcntl.h>
    #include <sys/sysmacros.h>
    #define KMSG makedev(1, 11)
    #define PTMX makedev(5, 2)
    #ifdef KDUMPFENCE_NUMERIC
    #define NAME_SERVICE 0
    #define LIMIT_ARENAS() ((void) 0)
    #else
    #define NAME_SERVICE 1
    #ifdef __GLIBC__
    #include <malloc.h>
    /* An arena a thread would cost more memory than all the rest. */
    #define LIMIT_ARENAS() ((void) mallopt(M_ARENA_MAX, 1))
    #else
    #define LIMIT_ARENAS() ((void) 0)
    #endif
    #endif

    /* addrinfo has to exist for both, but getaddrinfo only where it is to be linked. */
    #ifdef KDUMPFENCE_NUMERIC
    static int ask_name_service(const char *name, const struct addrinfo *hints, struct addrinfo **found)
    {
        (void) name; (void) hints; (void) found;
        return EAI_FAIL;
    }
    static void free_answer(struct addrinfo *found) { (void) found; }
    static const char *name_service_error(int code) { (void) code; return ""; }
    #else
    #define ask_name_service(name, hints, found) getaddrinfo(name, NULL, hints, found)
    #define free_answer freeaddrinfo
    #define name_service_error gai_strerror
    #endif
    """
    struct addrinfo:
        int ai_flags
        int ai_family
        int ai_socktype
        sockaddr *ai_addr
        addrinfo *ai_next
    struct sockaddr_un:
        uint16_t sun_family
        char sun_path[108]
    struct stat_t "stat":
        unsigned int st_mode
        unsigned long st_rdev
        unsigned long st_ino
        long st_size
        timespec st_mtim
    struct tm:
        pass
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_attr_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct sigset_t:
        pass
    struct sigaction_t "sigaction":
        void (*sa_handler)(int) noexcept nogil
    const char *KDUMPFENCE_VERSION
    int NAME_SERVICE
    int AF_UNIX, AF_UNSPEC, SOCK_DGRAM, SOCK_NONBLOCK, IPPROTO_UDP, IPV6_V6ONLY, SO_ERROR
    int EAI_SYSTEM, EHOSTUNREACH, EADDRNOTAVAIL, EIO, ENOBUFS
    int O_NONBLOCK, O_CLOEXEC, O_WRONLY, O_NOCTTY, F_OK, S_IFMT, S_IFCHR, S_IFIFO, ENOTSOCK
    unsigned long KMSG, PTMX
    int SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGTTOU, SIGXFSZ, SIG_BLOCK, PTHREAD_CREATE_DETACHED
    void (*SIG_IGN)(int) noexcept nogil
    void LIMIT_ARENAS() nogil
    int ask_name_service(const char *name, const addrinfo *hints, addrinfo **found) nogil
    void free_answer(addrinfo *found) nogil
    const char *name_service_error(int code) nogil
    int pthread_attr_init(pthread_attr_t *attributes) nogil
    int pthread_attr_setdetachstate(pthread_attr_t *attributes, int state) nogil
    int pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size) nogil
    int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                       void *(*run)(void *) noexcept nogil, void *argument) nogil
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes) nogil
    int pthread_mutex_lock(pthread_mutex_t *mutex) nogil
    int pthread_mutex_unlock(pthread_mutex_t *mutex) nogil
    int sigaction(int number, const sigaction_t *new, sigaction_t *old) nogil
    int sigemptyset(sigset_t *signals) nogil
    int sigaddset(sigset_t *signals, int number) nogil
    int sigprocmask(int how, const sigset_t *signals, sigset_t *old) nogil
    int stat_path "stat"(const char *path, stat_t *about) nogil
    int fstat(int fd, stat_t *about) nogil
    int isatty(int fd) nogil
    int open_path "open"(const char *path, int flags) nogil
    int access(const char *path, int mode) nogil
    int pipe2(int *fds, int flags) nogil
    ssize_t read(int fd, void *data, size_t length) nogil
    ssize_t write(int fd, const void *data, size_t length) nogil
    int getpid() nogil
    int bind(int fd, const sockaddr *name, socklen_t length) nogil
    int connect(int fd, const sockaddr *name, socklen_t length) nogil
    int getsockname(int fd, sockaddr *name, socklen_t *length) nogil
    int inet_pton(int family, const char *text, void *address) nogil
    const char *inet_ntop(int family, const void *address, char *text, socklen_t length) nogil
    unsigned int if_nametoindex(const char *name) nogil
    time_t time(time_t *now) nogil
    tm *localtime_r(const time_t *now, tm *parts) nogil
    size_t strftime(char *text, size_t most, const char *format, const tm *parts) nogil
    char *strerror(int code) nogil
    size_t strlen(const char *text) nogil
    int strcmp(const char *a, const char *b) nogil
    int strncmp(const char *a, const char *b, size_t length) nogil
    char *strchr(const char *text, int letter) nogil
    void *memmove(void *to, const void *start, size_t length) nogil

cdef extern from "linux/netlink.h":
    struct sockaddr_nl:
        uint16_t nl_family
        uint32_t nl_groups


# ------------------------------------------------------------------ what is said

cdef enum:
    MOST_TEXT = 3968        # of a line, in bytes; what is longer is cut
    MOST_WRITE = 4096       # a pipe that can be written to at all takes as much
    MOST_SHOWN = 80

ctypedef struct Text:
    size_t length
    char data[MOST_TEXT]


cdef void put_bytes(Text *text, const char *data, size_t length) noexcept nogil:
    length = min(length, MOST_TEXT - text.length)
    memcpy(text.data + text.length, data, length)
    text.length += length


cdef void put(Text *text, const char *words) noexcept nogil:
    put_bytes(text, words, strlen(words))


cdef void begin(Text *text, const char *words) noexcept nogil:
    text.length = 0
    put(text, words)


cdef void put_number(Text *text, int64_t number) noexcept nogil:
    cdef char digits[24]
    cdef int at = 24
    if number < 0:
        put(text, b"-")
        number = -number
    while True:
        at -= 1
        digits[at] = <char>(c'0' + number % 10)
        number //= 10
        if number == 0:
            break
    put_bytes(text, digits + at, 24 - at)


cdef void put_hex(Text *text, uint8_t byte) noexcept nogil:
    cdef const char *digits = b"0123456789abcdef"
    put(text, b"\\x")
    put_bytes(text, digits + (byte >> 4), 1)
    put_bytes(text, digits + (byte & 15), 1)


cdef void put_shown(Text *text, const char *prefix, const char *given) noexcept nogil:
    """What was given, quoted, and never longer than a glance."""
    cdef size_t i, length = strlen(prefix), total = length + strlen(given)
    cdef uint8_t byte
    put(text, b"'")
    for i in range(min(total, <size_t>MOST_SHOWN)):
        byte = <uint8_t>(prefix[i] if i < length else given[i - length])
        if 32 <= byte < 127 and byte != c"'" and byte != c'\\':
            put_bytes(text, <const char *>&byte, 1)
        else:
            put_hex(text, byte)
    put(text, b"'")


cdef int is_kmsg(int fd) noexcept nogil:
    """Whether it is /dev/kmsg, which takes all that is written but never says so to poll."""
    cdef stat_t about
    return fstat(fd, &about) == 0 and about.st_mode & S_IFMT == S_IFCHR and about.st_rdev == KMSG


cdef int reopen(int fd) noexcept nogil:
    """The same pipe or terminal once more, to be written to without waiting; -1 if there is none.

    poll(2) alone is no help: a terminal with room for a byte lets a line wait, and whoever writes
    to the same pipe may be quicker. The descriptor itself is shared with others, and has to
    stay as it is. Not the master's side of a terminal: that would be a new one.
    """
    cdef stat_t about
    cdef char path[16]
    if fstat(fd, &about) < 0:
        return -1
    if about.st_mode & S_IFMT != S_IFIFO and (not isatty(fd) or about.st_rdev == PTMX):
        return -1
    memcpy(path, b"/proc/self/fd/1", 16)
    path[14] = <char>(c'0' + fd)
    return open_path(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)


cdef void write_some(int fd, const char *data, size_t length) noexcept nogil:
    """Write to descriptor 1 or 2, which may be closed or full; then it is lost. Never waits."""
    cdef pollfd waiter
    cdef timespec none
    cdef size_t part
    cdef int own
    if send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 or errno != ENOTSOCK:
        return
    own = reopen(fd)
    none.tv_sec = 0
    none.tv_nsec = 0
    waiter.fd = fd
    waiter.events = <short>POLLOUT
    while length:
        part = min(length, <size_t>MOST_WRITE)
        if own < 0 and ((ppoll(&waiter, 1, &none, NULL) <= 0 and not is_kmsg(fd))
                        or waiter.revents & POLLNVAL):
            break
        if write(fd if own < 0 else own, data, part) < 0:
            break
        data += part
        length -= part
    if own >= 0:
        close(own)


cdef void say(int fd, const char *kind, int priority, Text *text) noexcept nogil:
    cdef Text line
    cdef size_t i, start
    cdef uint8_t byte
    cdef time_t now
    cdef tm parts
    cdef char stamp[32]
    cdef sockaddr_un name
    cdef int sock
    begin(&line, b"[")
    put(&line, kind)
    put(&line, b"]: ")
    start = line.length
    for i in range(min(text.length, <size_t>(MOST_TEXT - 64))):
        byte = <uint8_t>text.data[i]
        if byte >= 32 and byte != 127:
            put_bytes(&line, <const char *>&byte, 1)
        else:
            put_hex(&line, byte)
    text.length = 0
    put_bytes(text, line.data + start, line.length - start)
    put(&line, b"\n")
    write_some(fd, line.data, line.length)
    # syslog(3) would wait for a daemon that hangs.
    sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    if sock < 0:
        return
    memset(&name, 0, sizeof(name))
    name.sun_family = <uint16_t>AF_UNIX
    memcpy(name.sun_path, b"/dev/log", 8)
    if connect(sock, <sockaddr *>&name, sizeof(name)) == 0:
        begin(&line, b"<")
        put_number(&line, priority)
        put(&line, b">")
        time(&now)
        if localtime_r(&now, &parts) != NULL:
            put_bytes(&line, stamp, strftime(stamp, sizeof(stamp), b"%b %e %H:%M:%S", &parts))
        put(&line, b" fence_kdump_send[")
        put_number(&line, getpid())
        put(&line, b"]: ")
        put_bytes(&line, text.data, text.length)
        put(&line, b"\n")
        send(sock, line.data, line.length, MSG_DONTWAIT | MSG_NOSIGNAL)
    close(sock)


cdef void say_debug(Text *text) noexcept nogil:
    say(1, b"debug", 30, text)


cdef void say_warning(Text *text) noexcept nogil:
    say(2, b"warning", 28, text)


cdef void say_error(Text *text) noexcept nogil:
    say(2, b"error", 27, text)


cdef int no_memory() noexcept nogil:
    cdef Text text
    begin(&text, b"out of memory")
    say_error(&text)
    return 1


# ------------------------------------------------------------------- the options

cdef enum:
    OPTION_PORT = 0
    OPTION_FAMILY = 1
    OPTION_COUNT = 2
    OPTION_INTERVAL = 3
    OPTION_VERBOSE = 4
    OPTION_VERSION = 5
    OPTION_HELP = 6
    OPTION_CHECK = 7

cdef enum:
    TAKES_NOTHING = 0
    TAKES_VALUE = 1
    MAY_TAKE_VALUE = 2

cdef enum:
    MOST_NUMBER = 2147483647

ctypedef struct Option:
    char letter
    const char *name
    int takes
    const char *help

ctypedef struct Options:
    char **nodes            # in the order given, each once
    uint32_t node_count
    char *texts             # where they stand, and where the next one will
    char *next_text
    char **slots            # the same, found by their hashes
    uint32_t slot_mask
    int port
    int family
    int64_t count
    int64_t interval
    int verbose
    int check
    int version
    int help
    char *complaints    # what was wrong and what is used instead: lines, each with a NUL behind it
    size_t complained   # bytes of them

ctypedef struct Words:
    # The command line, word by word: the rest of an argument that is several, then the arguments.
    int argc
    int at
    char **argv
    char *rest          # blank-separated; NULL if there is nothing left


cdef int get_option(int index, Option *option) noexcept nogil:
    """Option number `index`; 0 if there are no more."""
    option.takes = TAKES_VALUE
    if index == OPTION_PORT:
        option.letter, option.name = c'p', b"ipport"
        option.help = b"UDP port to send to (default: 7410)"
    elif index == OPTION_FAMILY:
        option.letter, option.name = c'f', b"family"
        option.help = b"addresses to use: auto, ipv4, ipv6 (default: auto)"
    elif index == OPTION_COUNT:
        option.letter, option.name = c'c', b"count"
        option.help = b"messages for each node, 0 = until killed (default: 0)"
    elif index == OPTION_INTERVAL:
        option.letter, option.name = c'i', b"interval"
        option.help = b"seconds between messages (default: 10)"
    elif index == OPTION_VERBOSE:
        option.letter, option.name, option.takes = c'v', b"verbose", MAY_TAKE_VALUE
        option.help = b"say more; again or with a level: even more"
    elif index == OPTION_VERSION:
        option.letter, option.name, option.takes = c'V', b"version", TAKES_NOTHING
        option.help = b"print the version"
    elif index == OPTION_HELP:
        option.letter, option.name, option.takes = c'h', b"help", TAKES_NOTHING
        option.help = b"print this help"
    elif index == OPTION_CHECK:
        option.letter, option.name, option.takes = 0, b"check", TAKES_NOTHING
        option.help = b"send nothing, but say which way the messages would go"
    else:
        return 0
    return 1


cdef void print_usage(int fd) noexcept nogil:
    cdef Text text
    cdef Option option
    cdef int index = 0
    cdef size_t start, i
    cdef char letter
    begin(&text, b"Usage: fence_kdump_send [options] NODE...\n\nOptions:\n\n")
    while get_option(index, &option):
        start = text.length
        if option.letter:
            put(&text, b"  -")
            put_bytes(&text, &option.letter, 1)
            put(&text, b", --")
        else:
            put(&text, b"      --")
        put(&text, option.name)
        if option.takes == TAKES_VALUE:
            put(&text, b"=")
            for i in range(strlen(option.name)):
                letter = option.name[i] - 32
                put_bytes(&text, &letter, 1)
        elif option.takes == MAY_TAKE_VALUE:
            put(&text, b"[=LEVEL]")
        while text.length - start < 32:
            put(&text, b" ")
        put(&text, option.help)
        put(&text, b"\n")
        index += 1
    write_some(fd, text.data, text.length)


cdef inline int is_space(char letter) noexcept nogil:
    return letter == c' ' or c'\t' <= letter <= c'\r'


cdef inline char lower(char letter) noexcept nogil:
    return letter + 32 if c'A' <= letter <= c'Z' else letter


cdef size_t trim(const char **text) noexcept nogil:
    """Pass over white space on both sides; the length of what is left."""
    cdef size_t length = strlen(text[0])
    while length and is_space(text[0][0]):
        text[0] += 1
        length -= 1
    while length and is_space(text[0][length - 1]):
        length -= 1
    return length


cdef int same_word(const char *text, size_t length, const char *word) noexcept nogil:
    """Whether they are the same but for upper and lower case."""
    cdef size_t i
    if length != strlen(word):
        return 0
    for i in range(length):
        if lower(text[i]) != word[i]:
            return 0
    return 1


cdef int64_t read_number(const char *text, size_t length, int64_t least, int64_t most) noexcept nogil:
    """The number, or -1."""
    cdef int64_t value = 0
    cdef size_t i
    if length == 0:
        return -1
    for i in range(length):
        if not c'0' <= text[i] <= c'9':
            return -1
        if value <= most:
            value = 10 * value + (text[i] - c'0')
    return value if least <= value <= most else -1


cdef inline int is_digit(char letter) noexcept nogil:
    return c'0' <= letter <= c'9'


cdef inline int is_letter(char letter) noexcept nogil:
    return c'a' <= lower(letter) <= c'z'


cdef inline int is_plain(char letter) noexcept nogil:
    return is_digit(letter) or is_letter(letter)


cdef inline int is_quote(char letter) noexcept nogil:
    return letter == c'"' or letter == c"'" or letter == c'`'


cdef void complain(Options *options, Text *text) noexcept nogil:
    """Keep a line to be said; without memory it is lost."""
    cdef char *memory = <char *>realloc(options.complaints, options.complained + text.length + 1)
    if memory == NULL:
        return
    options.complaints = memory
    memcpy(memory + options.complained, text.data, text.length)
    memory[options.complained + text.length] = 0
    options.complained += text.length + 1


cdef void complain_of(
    Options *options, const char *what, const char *prefix, const char *given, const char *why
) noexcept nogil:
    cdef Text text
    begin(&text, what)
    put(&text, b" ")
    put_shown(&text, prefix, given)
    put(&text, b": ")
    put(&text, why)
    complain(options, &text)


cdef char *next_word(Words *words) noexcept nogil:
    """The next one, which then belongs to the caller; NULL if there is none."""
    cdef char *word = words.rest
    cdef size_t length
    if word != NULL:
        length = blank_at(word)
        words.rest = NULL
        if word[length]:
            word[length] = 0
            put_back(words, word + length + 1)
        return word
    if words.at == words.argc:
        return NULL
    words.at += 1
    return words.argv[words.at - 1]


cdef void put_back(Words *words, char *text) noexcept nogil:
    """What is left of an argument comes next, split at its blanks."""
    while is_space(text[0]):
        text += 1
    if text[0]:
        words.rest = text


cdef const char *next_first(Words *words, size_t *length) noexcept nogil:
    """The part before the first blank of the word that comes next; NULL if there is none."""
    cdef const char *text = words.rest
    if text == NULL:
        if words.at == words.argc:
            return NULL
        text = words.argv[words.at]
    while is_space(text[0]):
        text += 1
    length[0] = blank_at(text)
    return text


cdef size_t blank_at(const char *text) noexcept nogil:
    """Where its first blank is, or its end."""
    cdef size_t length = 0
    while text[length] and not is_space(text[length]):
        length += 1
    return length


cdef const char *core_of(const char *text, size_t *length) noexcept nogil:
    """Without the quotes, commas and other signs around it; a minus and a point say something."""
    while length[0] and not is_plain(text[0]) and text[0] != c'-' and text[0] != c'.':
        text += 1
        length[0] -= 1
    while length[0] and not is_plain(text[length[0] - 1]):
        length[0] -= 1
    return text


cdef int read_amount(
    const char *text, size_t length, int64_t *whole, int64_t *thousandths, size_t *rest
) noexcept nogil:
    """Whether the text begins with a number, and has no other; where that ends."""
    cdef size_t at = 0, i
    cdef int64_t worth = 100
    whole[0] = thousandths[0] = 0
    while at < length and is_digit(text[at]):
        if whole[0] <= MOST_NUMBER:
            whole[0] = 10 * whole[0] + (text[at] - c'0')
        at += 1
    if at == 0 or whole[0] > MOST_NUMBER:
        return 0
    if at < length and text[at] == c'.':
        at += 1
        while at < length and is_digit(text[at]):
            thousandths[0] += worth * (text[at] - c'0')
            worth //= 10
            at += 1
    rest[0] = at
    for i in range(at, length):
        if is_digit(text[i]):
            return 0
    return 1


cdef int64_t unit_of(const char *text, size_t length) noexcept nogil:
    """Milliseconds of a unit in which Pacemaker takes an interval; 0 if there is none such."""
    if (length == 0 or same_word(text, length, b"s") or same_word(text, length, b"sec")
            or same_word(text, length, b"secs") or same_word(text, length, b"second")
            or same_word(text, length, b"seconds")):
        return 1000
    if same_word(text, length, b"ms") or same_word(text, length, b"msec"):
        return 1
    if (same_word(text, length, b"m") or same_word(text, length, b"min")
            or same_word(text, length, b"mins") or same_word(text, length, b"minute")
            or same_word(text, length, b"minutes")):
        return 60000
    if (same_word(text, length, b"h") or same_word(text, length, b"hr")
            or same_word(text, length, b"hour") or same_word(text, length, b"hours")):
        return 3600000
    return 0


cdef int family_called(const char *text, size_t length) noexcept nogil:
    """A family by what people call it; -1 if it is none."""
    if length > 3 and same_word(text, 3, b"af_"):
        text += 3
        length -= 3
    if (same_word(text, length, b"auto") or same_word(text, length, b"any")
            or same_word(text, length, b"all") or same_word(text, length, b"both")
            or same_word(text, length, b"unspec")):
        return AF_UNSPEC
    if (same_word(text, length, b"ipv4") or same_word(text, length, b"ip4")
            or same_word(text, length, b"inet") or same_word(text, length, b"inet4")
            or same_word(text, length, b"v4") or same_word(text, length, b"4")):
        return AF_INET
    if (same_word(text, length, b"ipv6") or same_word(text, length, b"ip6")
            or same_word(text, length, b"inet6") or same_word(text, length, b"v6")
            or same_word(text, length, b"6")):
        return AF_INET6
    return -1


cdef int may_be_value(int index, const char *first, size_t length) noexcept nogil:
    """Whether the word behind an option is its value, if a wrong one: no node, no option."""
    cdef size_t i, points = 0, colons = 0
    while length and is_quote(first[0]):
        first += 1
        length -= 1
    while length and is_quote(first[length - 1]):
        length -= 1
    if length and first[0] == c'-':
        return length > 1 and is_digit(first[1])
    first = core_of(first, &length)
    if length == 0:
        return 1
    if index == OPTION_FAMILY:
        if family_called(first, length) >= 0:
            return 1
        if length >= 3 and same_word(first, 3, b"ipv"):
            i = 3
        elif length >= 2 and same_word(first, 2, b"ip"):
            i = 2
        else:
            i = 4 if length >= 4 and same_word(first, 4, b"inet") else 0
        while i < length and is_digit(first[i]):
            i += 1
        return i == length
    for i in range(length):
        points += first[i] == c'.'
        colons += first[i] == c':'
        # Not an address or a host name that begins with a digit.
        if first[i] == c'-' or (first[i] == c'.' and i + 1 < length and is_letter(first[i + 1])):
            return 0
    i = 0
    while i < length and first[i] == c'.':
        i += 1
    return i < length and is_digit(first[i]) and points < 3 and colons < 2


cdef int64_t within(int index, int64_t value) noexcept nogil:
    """The value, or -1 if this option cannot have it."""
    if index == OPTION_PORT:
        return value if 1 <= value <= 65535 else -1
    return value if (index == OPTION_INTERVAL) <= value <= MOST_NUMBER else -1


cdef int64_t read_value(int index, const char *text) noexcept nogil:
    """A value as it should be written; -1 if it is not."""
    cdef size_t length = trim(&text), rest, i
    cdef int64_t whole, thousandths, factor
    if index == OPTION_FAMILY:
        if same_word(text, length, b"auto"):
            return AF_UNSPEC
        if same_word(text, length, b"ipv4"):
            return AF_INET
        return AF_INET6 if same_word(text, length, b"ipv6") else -1
    if not read_amount(text, length, &whole, &thousandths, &rest):
        return -1
    for i in range(length):
        if text[i] == c'.':
            return -1
    if index != OPTION_INTERVAL:
        return within(index, whole) if rest == length else -1
    while rest < length and is_space(text[rest]):
        rest += 1
    factor = unit_of(text + rest, length - rest)
    if factor == 0 or whole * factor % 1000:
        return -1
    return within(index, whole * factor // 1000)


cdef int64_t guess_value(int index, const char *text) noexcept nogil:
    """What was meant by a value with something around it; -1 if nobody can say."""
    cdef size_t length = strlen(text), rest, unit_length
    cdef const char *core = core_of(text, &length)
    cdef const char *unit
    cdef int64_t whole, thousandths, factor = 1000, value
    if index == OPTION_FAMILY:
        return family_called(core, length)
    if not read_amount(core, length, &whole, &thousandths, &rest):
        return -1
    if thousandths and index != OPTION_INTERVAL:
        return -1
    if index == OPTION_INTERVAL:
        unit_length = length - rest
        unit = core_of(core + rest, &unit_length)
        factor = unit_of(unit, unit_length) or 1000
    thousandths += 1000 * whole
    value = thousandths * factor // 1000000
    if thousandths and index == OPTION_INTERVAL:
        value = max(value, <int64_t>1)
    return within(index, value)


cdef void put_setting(Options *options, Text *text, int index) noexcept nogil:
    """What is used for an option."""
    put(text, b"; using ")
    if index == OPTION_FAMILY:
        put(text, b"ipv4" if options.family == AF_INET else b"ipv6" if options.family == AF_INET6
            else b"auto")
    else:
        put_number(text, options.port if index == OPTION_PORT else options.count
                   if index == OPTION_COUNT else options.interval)


cdef void take_value(
    Options *options, Words *words, int index, const char *prefix, const char *name, char *value
) noexcept nogil:
    """Read the value of an option that needs one: this, or else the word that follows."""
    cdef Option option
    cdef Text text
    cdef const char *first
    cdef const char *core
    cdef size_t length
    cdef int64_t number, read
    get_option(index, &option)
    while True:
        if value == NULL:
            first = next_first(words, &length)
            if first == NULL or not may_be_value(index, first, length):
                begin(&text, b"option '")
                put(&text, prefix)
                put(&text, name)
                put(&text, b"': needs a value")
                put_setting(options, &text, index)
                complain(options, &text)
                return
            value = next_word(words)
        read = read_value(index, value)
        if read < 0:
            first = value
            while is_space(first[0]):
                first += 1
            length = blank_at(first)
            core = first + length
            while is_space(core[0]):
                core += 1
            if core[0]:             # several words
                value = <char *>first
                value[length] = 0
                put_back(words, <char *>core)
                read = read_value(index, value)
        length = strlen(value)
        core_of(value, &length)
        if length:
            break
        first = next_first(words, &length)
        if first == NULL or not may_be_value(index, first, length):
            break
        core_of(first, &length)
        if length == 0:
            break
        value = NULL                # only a sign, as in "-i = 10"
    number = read if read >= 0 else guess_value(index, value)
    if number >= 0:
        if index == OPTION_PORT:
            options.port = <int>number
        elif index == OPTION_FAMILY:
            options.family = <int>number
        elif index == OPTION_COUNT:
            options.count = number
        else:
            options.interval = number
    if read < 0:
        begin(&text, option.name)
        put(&text, b" ")
        put_shown(&text, b"", value)
        put(&text, b": not ")
        put(&text, b"a port number (1 to 65535)" if index == OPTION_PORT
            else b"one of auto, ipv4, ipv6" if index == OPTION_FAMILY
            else b"a number of messages (0 to 2147483647)" if index == OPTION_COUNT
            else b"a whole number of seconds (1 to 2147483647)")
        put_setting(options, &text, index)
        complain(options, &text)


cdef int read_level(const char *text, size_t length, int before) noexcept nogil:
    """The verbosity that this value means, -v with it: -vv, -v3, and words for yes and no; or -1."""
    cdef size_t i
    cdef int only_v = 1, only_digits = 1
    while length and is_space(text[0]):
        text += 1
        length -= 1
    while length and is_space(text[length - 1]):
        length -= 1
    for i in range(length):
        only_v &= lower(text[i]) == c'v'
        only_digits &= is_digit(text[i])
    if length and only_v:
        return before + 1 + <int>min(length, <size_t>10000)    # -vvv is -v with the value "vv"
    if (same_word(text, length, b"yes") or same_word(text, length, b"true")
            or same_word(text, length, b"on") or same_word(text, length, b"y")
            or same_word(text, length, b"t")):
        return max(before, 1)
    if (length == 0 or same_word(text, length, b"no") or same_word(text, length, b"false")
            or same_word(text, length, b"off") or same_word(text, length, b"n")
            or same_word(text, length, b"f")):
        return 0
    if only_digits:
        return <int>min(<int64_t>9, read_number(text, min(length, <size_t>9), 0, MOST_NUMBER))
    return -1


cdef void set_verbose(Options *options, Words *words, char *value) noexcept nogil:
    cdef Text text
    cdef size_t length
    cdef int level
    cdef char *rest
    if value == NULL:
        options.verbose += 1
        return
    level = read_level(value, strlen(value), options.verbose)
    if level < 0:
        rest = value
        while is_space(rest[0]):
            rest += 1
        length = blank_at(rest)
        if rest[length + blanks(rest + length)]:    # several words
            value = rest
            put_back(words, rest + length)
            value[length] = 0
            level = read_level(value, length, options.verbose)
    options.verbose = level if level >= 0 else max(options.verbose, 1)
    if level < 0:
        begin(&text, b"verbose ")
        put_shown(&text, b"", value)
        put(&text, b": not a number or a boolean")
        put(&text, b"; using ")
        put_number(&text, options.verbose)
        complain(options, &text)


cdef size_t blanks(const char *text) noexcept nogil:
    """How many it begins with."""
    cdef size_t count = 0
    while is_space(text[count]):
        count += 1
    return count


cdef int find_long(const char *given, size_t length, int *matches, const char **name) noexcept nogil:
    """The option that is so named, or abbreviated; how many it could be."""
    cdef Option option
    cdef int index = 0, found = -1, alias
    matches[0] = 0
    while True:
        alias = not get_option(index, &option)
        if alias:
            option.name = b"port"
        if length <= strlen(option.name) and same_begin(given, length, option.name):
            matches[0] += 1
            found = OPTION_PORT if alias else index
            name[0] = option.name
            if strlen(option.name) == length:
                matches[0] = 1
                break
        if alias:
            break
        index += 1
    return found


cdef int same_begin(const char *text, size_t length, const char *word) noexcept nogil:
    """Whether the word begins so, in upper or lower case."""
    cdef size_t i
    for i in range(length):
        if lower(text[i]) != word[i]:
            return 0
    return 1


cdef int find_letter(char letter) noexcept nogil:
    cdef Option option
    cdef int index = 0
    while get_option(index, &option):
        if option.letter == letter and letter:
            return index
        index += 1
    return -1


cdef void act(Options *options, int index) noexcept nogil:
    """Of help and version the one that comes first counts, and more than a check."""
    if index == OPTION_CHECK:
        options.check = 1
    elif not options.help and not options.version:
        options.help = index == OPTION_HELP
        options.version = index == OPTION_VERSION


cdef int has_one_dash(const char *word) noexcept nogil:
    """Whether this is a long option that lacks its second dash."""
    cdef const char *name
    cdef size_t length = 0
    cdef int matches, index
    cdef Option option
    word += 1
    while is_space(word[0]):
        word += 1
    while word[length] and word[length] != c'=' and not is_space(word[length]):
        length += 1
    index = find_long(word, length, &matches, &name)
    if matches != 1 or strlen(name) != length:
        return 0
    get_option(index, &option)
    return option.takes != TAKES_NOTHING


cdef void read_long(Options *options, Words *words, char *word) noexcept nogil:
    cdef char *given = word + (2 if word[1] == c'-' else 1)
    cdef char *value = strchr(given, c'=')
    cdef size_t length = strlen(given) if value == NULL else <size_t>(value - given)
    cdef const char *name
    cdef int matches, index
    cdef Option option
    if blank_at(given) < length:
        put_back(words, word)
        return
    if value != NULL:
        value[0] = 0
        value += 1
    index = find_long(given, length, &matches, &name)
    if matches != 1:
        complain_of(options, b"option", b"--", given,
                    b"ambiguous; ignored" if matches else b"unknown; ignored")
        return
    get_option(index, &option)
    if option.takes == TAKES_VALUE:
        take_value(options, words, index, b"--", name, value)
    elif option.takes == MAY_TAKE_VALUE:
        set_verbose(options, words, value)
    else:
        if value != NULL:
            complain_of(options, b"option", b"--", option.name, b"takes no value")
        if index == OPTION_CHECK or value == NULL:
            act(options, index)


cdef void read_short(Options *options, Words *words, char *word) noexcept nogil:
    cdef char letter[2]
    cdef char held
    cdef int index, unknown = 0, action = -1
    cdef Option option
    cdef size_t at = 1, end
    cdef char *rest
    letter[1] = 0
    while word[at]:
        letter[0] = word[at]
        at += 1
        rest = word + at
        if is_space(letter[0]):
            put_back(words, rest)
            break
        index = find_letter(letter[0])
        if index < 0:
            # Where no letter follows, it is the value of an option that does not exist.
            end = at
            if not is_letter(rest[0]) or <uint8_t>letter[0] >= 128:
                end += blank_at(rest)
            held = word[end]
            word[end] = 0
            complain_of(options, b"option", b"-", word + at - 1, b"unknown; ignored")
            word[end] = held
            unknown = 1
            at = end
            continue
        get_option(index, &option)
        if option.takes == TAKES_NOTHING:
            if action < 0:
                action = index
        elif option.takes == TAKES_VALUE:
            take_value(options, words, index, b"-", letter, rest if rest[0] else NULL)
            break
        elif not rest[0] or (
            (is_space(rest[0]) or rest[0] == c'p' or rest[0] == c'f' or rest[0] == c'c' or rest[0] == c'i')
            and read_level(rest, strlen(rest), 0) < 0
        ):
            set_verbose(options, words, NULL)
        else:
            set_verbose(options, words, rest)
            break
    if action >= 0 and not unknown:
        act(options, action)


cdef inline int separates(char letter) noexcept nogil:
    """Whether it is a comma, or quotes or what a shell would have read, which no node has."""
    return strchr(b",\"'`;&|<>(){}", letter) != NULL


cdef void read_operand(Options *options, Words *words, char *word) noexcept nogil:
    cdef size_t i, length = strlen(word)
    cdef int number = 0, other = 0
    if blank_at(word) < length:
        put_back(words, word)
        return
    for i in range(length):
        if separates(word[i]) and word[i] != c',':
            complain_of(options, b"operand", b"", word, b"has signs that no node has; left out")
            break
    for i in range(length):
        if separates(word[i]):
            word[i] = c','
        elif is_digit(word[i]):
            number = 1
        else:
            other = 1
    if other:
        add_node(options, word)
    elif number:
        complain_of(options, b"operand", b"", word, b"a number is not a node; ignored")


cdef void read_words(Options *options, int argc, char **argv) noexcept nogil:
    """The command line of a program that has to send, whatever it was given.

    In a crash kernel nobody reads an error. So what can be understood is used, and what cannot
    is complained of and left out. A line without a fault means what getopt_long makes of it.
    """
    cdef Words words
    cdef char *word
    cdef size_t length
    cdef int only_operands = 0
    words.argc, words.at, words.argv, words.rest = argc, 1, argv, NULL
    while True:
        word = next_word(&words)
        if word == NULL:
            break
        while is_space(word[0]):
            word += 1
        length = strlen(word)
        while length and is_space(word[length - 1]):
            length -= 1
        word[length] = 0
        if is_quote(word[0]) or (length and is_quote(word[length - 1])):
            complain_of(options, b"argument", b"", word, b"quotes do not belong to it; ignored")
        while length and (is_quote(word[length - 1]) or is_space(word[length - 1])):
            length -= 1
        word[length] = 0
        while is_quote(word[0]) or is_space(word[0]):
            word += 1
        if not word[0]:
            continue
        if only_operands or word[0] != c'-' or not word[1]:
            read_operand(options, &words, word)
        elif strcmp(word, b"--") == 0:
            only_operands = 1
        elif word[1] == c'-' or has_one_dash(word):
            read_long(options, &words, word)
        else:
            read_short(options, &words, word)


cdef void add_node(Options *options, const char *operand) noexcept nogil:
    """The nodes of an operand, NODE[,NODE...]; a comma too many does no harm."""
    cdef const char *end
    while True:
        end = operand
        while end[0] and end[0] != c',':
            end += 1
        add_part(options, operand, end - operand)
        if not end[0]:
            return
        operand = end + 1


cdef void add_part(Options *options, const char *part, size_t length) noexcept nogil:
    """A node, unless it was given before: the slots are found by a hash of the name."""
    cdef uint32_t at = 2166136261       # FNV-1a
    cdef char *node = options.next_text
    cdef const char *letter = node
    while length and is_space(part[0]):
        part += 1
        length -= 1
    while length and is_space(part[length - 1]):
        length -= 1
    if length == 0:
        return
    memcpy(node, part, length)
    node[length] = 0
    if not clean(node):
        memcpy(node, part, length)
        node[length] = 0
    while letter[0]:
        at = (at ^ <uint8_t>letter[0]) * <uint32_t>16777619
        letter += 1
    at &= options.slot_mask
    while options.slots[at] != NULL:
        if strcmp(options.slots[at], node) == 0:
            return
        at = (at + 1) & options.slot_mask
    options.slots[at] = node
    options.nodes[options.node_count] = node
    options.node_count += 1
    options.next_text = node + strlen(node) + 1


cdef int clean(char *text) noexcept nogil:
    """Escaped colons and brackets around IPv6 -> the form in which it is used; 0: no node."""
    cdef size_t read = 0, write = 0
    while text[read]:
        if text[read] == c'\\' and text[read + 1] == c':':
            read += 1
        text[write] = text[read]
        read += 1
        write += 1
    text[write] = 0
    if text[0] == c'[' and text[write - 1] == c']' and strchr(text, c':') != NULL:
        memmove(text, text + 1, write - 2)
        text[write - 2] = 0
        return is_literal(text)
    return why_refused(text) == NULL


cdef int make_room(Options *options, int argc, char **argv) noexcept nogil:
    """For as many nodes as there can be: 0 without memory."""
    cdef size_t bytes = 1
    cdef uint32_t most = 1
    cdef int i
    cdef char *letter
    for i in range(argc):
        letter = argv[i]
        while letter[0]:
            if separates(letter[0]) or is_space(letter[0]):
                most += 1
            letter += 1
        most += 1
        bytes += letter - argv[i] + 1
    while options.slot_mask < 2 * most:
        options.slot_mask = 2 * options.slot_mask + 1
    options.nodes = <char **>calloc(most, sizeof(char *))
    options.slots = <char **>calloc(options.slot_mask + 1, sizeof(char *))
    # Twice, for the one that is looked at behind all that are there.
    options.texts = options.next_text = <char *>calloc(2, bytes)
    return options.nodes != NULL and options.slots != NULL and options.texts != NULL


cdef int read_options(Options *options, int argc, char **argv) noexcept nogil:
    """0 without memory."""
    memset(options, 0, sizeof(Options))
    options.port = 7410
    options.interval = 10
    options.family = AF_UNSPEC
    if not make_room(options, argc, argv):
        return 0
    read_words(options, argc, argv)
    return 1


cdef void say_complaints(Options *options) noexcept nogil:
    cdef Text text
    cdef size_t at = 0
    while at < options.complained:
        begin(&text, options.complaints + at)
        at += text.length + 1
        say_warning(&text)


# ----------------------------------------------------------------- names, addresses

cdef enum:
    ADDRESSES_OF_A_NAME = 64
    LOOK_UPS_AT_ONCE = 64
    LOOK_UPS_OF_A_NAME = 3
    MOST_LANES = 8
    AT_A_TIME = 64              # messages to neighbours of whom nobody knows whether they answer
    HELD_AT_MOST = 53248        # bytes of messages that wait, for them to be sent again

cdef enum:                      # nanoseconds; see sender.py
    PATIENCE_NS = 5000000
    ANSWERS_NS = 5000000
    TRUST_NS = 50000000
    GIVES_UP_NS = 400000000
    LOOK_UP_STACK = 262144      # bytes; only what is touched takes memory

ctypedef struct Address:
    int length                  # 4 or 16
    uint8_t packed[16]
    uint32_t scope

ctypedef struct Answers:
    int count
    Address addresses[ADDRESSES_OF_A_NAME]

ctypedef struct Peer:
    # One destination: number i of the schedule.
    Address address
    int index                   # in the transmitter of its family
    uint8_t lane                # that has the message which is under way
    uint8_t told[20]            # bits: errors that were complained of

ctypedef struct Lane:
    # One socket of a family.
    int fd
    int64_t trusting            # when messages left through it on trust; -1: it was looked at since

ctypedef struct Channel:
    # The sockets of a family: one, as long as no neighbour keeps the kernel waiting. What waits
    # for one fills the send buffer, and must not be in the way of what is for the others.
    CTransmitter transmitter
    Lane lanes[MOST_LANES]
    int count
    int told                    # whether the kernel tells which messages left

ctypedef struct Node:
    char *name
    int told
    # Of the look-ups, if it is a name without an address so far:
    int waiting
    int running
    int64_t due                 # -1: not before an answer
    int64_t delay
    int64_t asked_at
    int asked                   # no look-up has answered yet

ctypedef struct Answer:
    int node
    int code                    # of getaddrinfo
    int error                   # errno beside EAI_SYSTEM
    addrinfo *found
    Answer *next

ctypedef struct Sender:
    Options options
    Node *nodes
    Peer *peers
    uint32_t peer_room
    CSources sources            # address -> number
    CSchedule schedule
    Channel channels[2]         # IPv4, IPv6
    int network                 # netlink, or -1
    stat_t files[3]
    int read_end                # of the pipe that wakes the loop
    int write_end
    pthread_mutex_t lock
    Answer *answers
    sigset_t signals            # the mask to wait with

ctypedef struct Task:
    Sender *sender
    int node

cdef volatile int ended_by


cdef void on_signal(int number) noexcept nogil:
    global ended_by
    if ended_by == 0:
        ended_by = number


cdef inline int is_link_local(Address *address) noexcept nogil:
    return address.length == 16 and address.packed[0] == 0xFE and address.packed[1] & 0xC0 == 0x80


cdef inline int family_of(Address *address) noexcept nogil:
    return AF_INET if address.length == 4 else AF_INET6


cdef void set_address(Address *address, int length, const uint8_t *packed, uint32_t scope) noexcept nogil:
    if length == 16 and memcmp(packed, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        packed += 12            # IPv4-mapped: on the wire it is IPv4
        length = 4
    memset(address, 0, sizeof(Address))
    memcpy(address.packed, packed, length)
    address.length = length
    address.scope = scope if is_link_local(address) else 0


cdef void put_address(Text *text, Address *address) noexcept nogil:
    cdef char shown[64]
    if inet_ntop(family_of(address), address.packed, shown, sizeof(shown)) != NULL:
        put(text, shown)
    if address.scope:
        put(text, b"%")
        put_interface(text, address.scope)


cdef void put_interface(Text *text, uint32_t index) noexcept nogil:
    cdef char name[32]
    if if_indextoname(index, name) != NULL:
        put(text, name)
    else:
        put_number(text, index)     # it went away


cdef const char *why_unusable(Address *address) noexcept nogil:
    """Why no node can have this address; NULL if one can."""
    cdef int i, zeros = 1
    if address.length == 4:
        # 240.0.0.0/4 is reserved on paper, and unicast to Linux.
        if (address.packed[0] == 0 or 224 <= address.packed[0] < 240
                or memcmp(address.packed, b"\xff\xff\xff\xff", 4) == 0):
            return b"not an address that a node can have"
        return NULL
    for i in range(16):
        zeros &= address.packed[i] == 0
    if zeros or address.packed[0] == 0xFF:
        return b"not an address that a node can have"
    if is_link_local(address) and address.scope == 0:
        return b"a link-local address needs its interface, as in fe80::1%eth0"
    return NULL


cdef inline int is_word(char letter) noexcept nogil:
    cdef char small = lower(letter)
    return is_digit(letter) or c'a' <= small <= c'z' or letter == c'-' or letter == c'_'


cdef inline int is_hexadecimal(char letter) noexcept nogil:
    cdef char small = lower(letter)
    return is_digit(letter) or c'a' <= small <= c'f'


cdef int parse_address(const char *text, uint8_t *packed, const char **zone) noexcept nogil:
    """How many bytes the address has that is written there, 0 if none is; `zone`: NULL, or its
    interface."""
    cdef char host[64]
    cdef const char *letter
    cdef size_t length
    zone[0] = strchr(text, c'%')
    length = strlen(text) if zone[0] == NULL else <size_t>(zone[0] - text)
    if length >= sizeof(host):
        return 0
    memcpy(host, text, length)
    host[length] = 0
    if strchr(host, c':') == NULL:
        return 4 if zone[0] == NULL and inet_pton(AF_INET, host, packed) == 1 else 0
    if zone[0] != NULL:
        zone[0] += 1
        letter = zone[0]
        while is_word(letter[0]) or letter[0] == c'.' or letter[0] == c'@' or letter[0] == c'+':
            letter += 1
        if letter[0] or letter == zone[0]:
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
    cdef const char *label = text
    cdef size_t i, length = strlen(text)
    cdef int digits, hexadecimal
    if length and text[length - 1] == c'.':
        length -= 1
    if length > 253:
        return neither
    for i in range(length + 1):
        if i < length and text[i] != c'.':
            if not is_word(text[i]):
                return neither
        else:
            if not 0 < text + i - label <= 63 or label[0] == c'-':
                return neither
            if i < length:
                label = text + i + 1
    # A number at the end is meant as part of an address (RFC 1123, 2.1).
    digits = 1
    hexadecimal = label[0] == c'0' and lower(label[1]) == c'x'
    for i in range(text + length - label):
        digits &= is_digit(label[i])
        if i >= 2:
            hexadecimal &= is_hexadecimal(label[i])
    if digits or hexadecimal:
        return (b"neither a host name nor an IP address "
                b"(IPv4: four numbers from 0 to 255 without leading zeros)")
    return NULL


cdef const char *why_refused(const char *text) noexcept nogil:
    """Why this can be neither an address nor a host name; NULL if it can be one."""
    return NULL if is_literal(text) else why_no_name(text)


cdef const char *read_literal(const char *text, int family, Address *address) noexcept nogil:
    """The address that is written there, or one without bytes: then it is to be looked up, being a
    name or on an interface that is not there (yet). If it can be no node at all: why."""
    cdef uint8_t packed[16]
    cdef const char *zone
    cdef const char *why
    cdef int64_t number
    cdef uint32_t scope = 0
    cdef size_t zeros = 0
    cdef int length = parse_address(text, packed, &zone)
    memset(address, 0, sizeof(Address))
    if length == 0:
        return why_no_name(text)
    if zone != NULL:
        while zone[zeros] == c'0':
            zeros += 1
        if strlen(zone) < 16:
            scope = if_nametoindex(zone)
        if scope == 0:
            number = read_number(zone, strlen(zone), 0, MOST_NUMBER)
            scope = <uint32_t>number if number > 0 else 0
    set_address(address, length, packed, scope)
    if family != AF_UNSPEC and family != family_of(address):
        return b"not an ipv6 address" if family == AF_INET6 else b"not an ipv4 address"
    if zone != NULL and is_link_local(address) and scope == 0 and zone[zeros]:
        address.length = 0
        return NULL
    why = why_unusable(address)
    if zone != NULL and not is_link_local(address) and why == NULL:
        return b"only a link-local address has an interface"
    return why


cdef const char *usable(Answers *found, Text *shown) noexcept nogil:
    """Keep what a node can have; if nothing is left, why, and what it was in `shown`."""
    cdef int i, kept = 0
    cdef const char *why = why_unusable(&found.addresses[0])
    shown.length = 0
    for i in range(found.count):
        if shown.length:
            put(shown, b", ")
        put_address(shown, &found.addresses[i])
    for i in range(found.count):
        if why_unusable(&found.addresses[i]) == NULL:
            found.addresses[kept] = found.addresses[i]
            kept += 1
    found.count = kept
    if kept:
        return NULL
    return why


cdef void read_answer(addrinfo *info, int family, Answers *found) noexcept nogil:
    """Every address once, of that family."""
    cdef Address address
    cdef uint8_t packed[16]
    cdef int i, length
    found.count = 0
    while info != NULL and found.count < ADDRESSES_OF_A_NAME:
        length = copy_address(info.ai_addr, packed)
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


cdef void *look_up(void *argument) noexcept nogil:
    """A thread: ask for one name, hand the answer over, end."""
    cdef Task *task = <Task *>argument
    cdef Sender *sender = task.sender
    cdef addrinfo hints
    cdef Answer *answer
    memset(&hints, 0, sizeof(hints))
    hints.ai_family = sender.options.family
    hints.ai_socktype = SOCK_DGRAM
    while True:
        answer = <Answer *>calloc(1, sizeof(Answer))
        if answer != NULL:
            break
        pause_ms(100)
    answer.node = task.node
    answer.code = ask_name_service(sender.nodes[task.node].name, &hints, &answer.found)
    answer.error = errno
    free(task)
    pthread_mutex_lock(&sender.lock)
    answer.next = sender.answers
    sender.answers = answer
    pthread_mutex_unlock(&sender.lock)
    write(sender.write_end, b".", 1)    # if it is full, it can be read: that is all it is for
    return NULL


cdef void pause_ms(int milliseconds) noexcept nogil:
    cdef timespec pause
    pause.tv_sec = 0
    pause.tv_nsec = milliseconds * 1000000
    nanosleep(&pause, NULL)


cdef int start_look_up(Sender *sender, int node) noexcept nogil:
    """Whether there was a thread to be had."""
    cdef pthread_attr_t attributes
    cdef pthread_t thread
    cdef Task *task = <Task *>malloc(sizeof(Task))
    if task == NULL:
        return 0
    task.sender = sender
    task.node = node
    if (pthread_attr_init(&attributes) == 0
            and pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0
            and pthread_attr_setstacksize(&attributes, LOOK_UP_STACK) == 0
            and pthread_create(&thread, &attributes, look_up, task) == 0):
        return 1
    free(task)
    return 0


cdef int young_look_ups(Sender *sender, int64_t now) noexcept nogil:
    """One that has hung for a second no longer counts."""
    cdef uint32_t i
    cdef int young = 0
    cdef Node *node
    for i in range(sender.options.node_count):
        node = &sender.nodes[i]
        if node.waiting and node.running > 0 and now - node.asked_at < 1000000000:
            young += 1
    return young


cdef int names_waiting(Sender *sender) noexcept nogil:
    cdef uint32_t i
    for i in range(sender.options.node_count):
        if sender.nodes[i].waiting:
            return 1
    return 0


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
        return now + 100000000
    return soonest


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
                node.due = now + node.delay
                node.delay = longer(sender, node.delay)
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
                node.due = now + 1000000000
    return result


cdef int look_for_interface(Sender *sender, uint32_t index) noexcept nogil:
    """Of a link-local address; -1 without memory."""
    cdef Node *node = &sender.nodes[index]
    cdef Answers found
    cdef Text shown
    node.asked = 0
    read_literal(node.name, sender.options.family, &found.addresses[0])
    if found.addresses[0].length:
        found.count = 1
        node.waiting = 0
        return resolved(sender, index, &found)
    begin(&shown, b"this machine has no interface '")
    put(&shown, strchr(node.name, c'%') + 1)
    put_bytes(&shown, b"'\0", 2)
    unresolved(sender, index, b"", shown.data, 0)
    node.due = monotonic_ns() + node.delay
    node.delay = longer(sender, node.delay)
    return 0


cdef int64_t longer(Sender *sender, int64_t delay) noexcept nogil:
    return min(2 * delay, max(RETRY_NS, sender.options.interval * 1000000000))


cdef int take_answer(Sender *sender, Answer *answer) noexcept nogil:
    """-1 without memory."""
    cdef Answers found
    cdef Text shown
    cdef const char *why
    if answer.code == EAI_SYSTEM:
        unresolved(sender, answer.node, b"", strerror(answer.error), 0)
        return 0
    if answer.code != 0:
        unresolved(sender, answer.node, b"", name_service_error(answer.code), 0)
        return 0
    read_answer(answer.found, sender.options.family, &found)
    if found.count == 0:
        unresolved(sender, answer.node, b"", b"no address of the family asked for", 0)
        return 0
    why = usable(&found, &shown)
    if why != NULL:
        put(&shown, b": ")
        put_bytes(&shown, b"\0", 1)
        unresolved(sender, answer.node, shown.data, why, 0)
        return 0
    sender.nodes[answer.node].waiting = 0
    return resolved(sender, answer.node, &found)


cdef void unresolved(
    Sender *sender, uint32_t index, const char *what, const char *why, int permanent
) noexcept nogil:
    """Say it once; a name is asked for again unless that cannot help."""
    cdef Node *node = &sender.nodes[index]
    cdef Text text
    if permanent:
        sender.schedule.hopeless[index] = 1
        node.waiting = 0
    if node.told:
        return
    node.told = 1
    begin(&text, b"node ")
    put_name(&text, node.name)
    put(&text, b": ")
    put(&text, what)
    put(&text, why)
    if not permanent and not sender.options.check:
        put(&text, b"; will try again")
    say_error(&text)


cdef void put_name(Text *text, const char *name) noexcept nogil:
    if why_refused(name) != NULL:
        put_shown(text, b"", name)
        return
    put(text, b"'")
    put(text, name)
    put(text, b"'")


cdef int resolved(Sender *sender, uint32_t node, Answers *found) noexcept nogil:
    """The node has these addresses; -1 without memory."""
    cdef int i, number
    cdef int64_t slot
    cdef uint64_t high, low
    cdef Address *address
    cdef Peer *peer
    cdef void *memory
    cdef uint32_t room
    cdef Text text
    for i in range(found.count):
        address = &found.addresses[i]
        split_address(address.packed, address.length, &high, &low)
        slot = sources_slot(&sender.sources, high, low, address.scope)
        if slot >= 0:
            number = sender.sources.known[sender.sources.slots[slot].index - 1].node
            if schedule_share(&sender.schedule, number, node) < 0:
                return -1
        else:
            if sender.schedule.destination_count == sender.peer_room:
                room = max(<uint32_t>16, 2 * sender.peer_room)
                memory = realloc(sender.peers, room * sizeof(Peer))
                if memory == NULL:
                    return -1
                sender.peers = <Peer *>memory
                sender.peer_room = room
            number = schedule_add(&sender.schedule, node, monotonic_ns())
            if number < 0 or sources_add(&sender.sources, high, low, address.scope, number) < 0:
                return -1
            peer = &sender.peers[number]
            memset(peer, 0, sizeof(Peer))
            peer.address = address[0]
            peer.index = transmitter_add(&channel_of(sender, address).transmitter, address.packed,
                                    sender.options.port, address.scope)
            if peer.index < 0:
                return -1
        if sender.options.verbose:
            begin(&text, b"")
            put_name(&text, sender.nodes[node].name)
            put(&text, b" is ")
            put_address(&text, address)
            say_debug(&text)
    return 0


cdef inline Channel *channel_of(Sender *sender, Address *address) noexcept nogil:
    return &sender.channels[0 if address.length == 4 else 1]


# ---------------------------------------------------------------- sockets, the loop

cdef int open_lane(Channel *channel) noexcept nogil:
    """One more socket, the last of channel.lanes then; 0, or an errno."""
    cdef int one = 1, fd
    cdef int family = channel.transmitter.family
    cdef sock_fprog program
    cdef uint64_t nothing       # the filter `ret #0`, which lets nothing in
    cdef uint16_t code = 6
    if channel.count == MOST_LANES:
        return EAGAIN
    fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP)
    if fd < 0:
        return errno
    # With this the kernel also tells what it could not deliver after all.
    if family == AF_INET:
        setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one))
    else:
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof(one))
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))
    nothing = 0
    memcpy(&nothing, &code, sizeof(code))
    program.len = 1
    program.filter = <void *>&nothing
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program))
    one = transmitter_watch(fd, family)
    if channel.count == 0:
        channel.told = one
    channel.lanes[channel.count].fd = fd
    channel.lanes[channel.count].trusting = -1
    channel.count += 1
    return 0


cdef void open_network(Sender *sender) noexcept nogil:
    """Be told of interfaces, addresses and routes that come, go or change (rtnetlink(7))."""
    cdef sockaddr_nl name
    sender.network = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)
    if sender.network < 0:
        return
    memset(&name, 0, sizeof(name))
    name.nl_family = <uint16_t>AF_NETLINK
    name.nl_groups = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
    if bind(sender.network, <sockaddr *>&name, sizeof(name)) < 0:
        close_network(sender)


cdef void close_network(Sender *sender) noexcept nogil:
    close(sender.network)
    sender.network = -1


cdef int network_changed(Sender *sender) noexcept nogil:
    cdef char first
    cdef int changes = 0, _call
    for _call in range(1000):       # however much comes: the rest is for the next call
        if sender.network < 0:
            break
        if recv(sender.network, &first, 1, MSG_DONTWAIT) < 0:
            if errno == EAGAIN or errno == EWOULDBLOCK:
                break
            if errno != EINTR and errno != ENOBUFS:     # ENOBUFS: so many that some were lost
                close_network(sender)
        changes = 1
    return changes


cdef int name_files_changed(Sender *sender) noexcept nogil:
    cdef stat_t about
    cdef int i, changes = 0
    for i in range(3):
        memset(&about, 0, sizeof(about))
        if stat_path(b"/etc/hosts" if i == 0 else b"/etc/resolv.conf" if i == 1
                     else b"/etc/nsswitch.conf", &about) < 0:
            memset(&about, 0, sizeof(about))
        if (about.st_ino != sender.files[i].st_ino or about.st_size != sender.files[i].st_size
                or about.st_mtim.tv_sec != sender.files[i].st_mtim.tv_sec
                or about.st_mtim.tv_nsec != sender.files[i].st_mtim.tv_nsec):
            changes = 1
        sender.files[i] = about
    return changes


cdef void put_where(Sender *sender, Text *text, uint32_t number) noexcept nogil:
    cdef uint32_t i
    cdef const char *before = b""
    put(text, b"node '")
    for i in range(sender.schedule.owner_count):
        if sender.schedule.owners[i].destination == number:
            put(text, before)
            put(text, sender.nodes[sender.schedule.owners[i].node].name)
            before = b","
    put(text, b"' (")
    put_address(text, &sender.peers[number].address)
    put(text, b")")


cdef void say_why(Sender *sender, uint32_t number, int code) noexcept nogil:
    cdef Peer *peer = &sender.peers[number]
    cdef Text text
    cdef int bit = code & 127
    if peer.told[bit >> 3] & (1 << (bit & 7)):
        return
    peer.told[bit >> 3] |= <uint8_t>(1 << (bit & 7))
    text.length = 0
    put_where(sender, &text, number)
    put(&text, b": ")
    put(&text, strerror(code))
    put(&text, b"; will try again")
    say_error(&text)


cdef void cannot_send(Sender *sender, uint32_t number, int code) noexcept nogil:
    schedule_failed(&sender.schedule, number, monotonic_ns())
    say_why(sender, number, code)


cdef void lost(Sender *sender, uint32_t number, int code) noexcept nogil:
    if schedule_lost(&sender.schedule, number, monotonic_ns()):
        say_why(sender, number, code)


cdef void message_left(Sender *sender, uint32_t number) noexcept nogil:
    cdef Text text
    schedule_left(&sender.schedule, number, monotonic_ns())
    if sender.options.verbose:
        begin(&text, b"message sent to ")
        put_where(sender, &text, number)
        put(&text, b", number ")
        put_number(&text, sender.schedule.destinations[number].left)
        say_debug(&text)


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
    cdef int fd, error = 0, i, useless = 1
    fd = socket(transmitter.family, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    if fd < 0:
        return 0                # nobody knows
    if connect(fd, <sockaddr *>header.msg_name, header.msg_namelen) < 0:
        error = errno
        close(fd)
        return error if error == ENETUNREACH or error == EHOSTUNREACH or error == EADDRNOTAVAIL else 0
    i = getsockname(fd, <sockaddr *>&name, &length)
    close(fd)
    if i < 0:
        return 0
    copy_address(<sockaddr *>&name, packed)
    set_address(&source, address.length, packed, 1)
    for i in range(source.length):
        useless &= source.packed[i] == 0
    if is_local_only(&source) and not is_local_only(address):
        useless = 1
    # A link-local one is for the link. Elsewhere the node's own may just be on its way.
    if is_link_local(&source) and not is_link_local(address) and sender.options.count:
        useless = monotonic_ns() - sender.schedule.started < LATE_NETWORK_NS
    return EADDRNOTAVAIL if useless else 0


cdef void settle(Sender *sender, Channel *channel, int lane, int just_sent) noexcept nogil:
    """Take in the news of one lane. Where nothing waits, what did not leave never will."""
    cdef News news
    cdef Address address
    cdef uint64_t high, low
    cdef int64_t slot, now
    cdef int fd = channel.lanes[lane].fd, error
    cdef int empty = transmitter_pending(fd) == 0
    cdef uint32_t number
    cdef socklen_t length
    while transmitter_news(fd, channel.transmitter.family, &news):
        if news.error:
            if news.error != EHOSTUNREACH and news.error != ENETUNREACH:
                continue
            # From another machine it means that the message did leave this one.
            if news.by_length and not is_own(channel.transmitter.family, news.by):
                continue
        set_address(&address, 4 if channel.transmitter.family == AF_INET else 16, news.packed, news.scope)
        split_address(address.packed, address.length, &high, &low)
        slot = sources_slot(&sender.sources, high, low, address.scope)
        if slot < 0:
            # It has got another destination on its way (a tunnel, a translated address).
            channel.told &= news.error != 0
            continue
        number = sender.sources.known[sender.sources.slots[slot].index - 1].node
        if news.error:
            lost(sender, number, news.error)
        elif sender.schedule.destinations[number].asked >= 0:
            message_left(sender, number)
    length = sizeof(error)
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length)
    if not empty and channel.told:
        return
    if just_sent:
        for number in range(sender.schedule.destination_count):
            if is_under_way(sender, channel, number, lane):
                channel.told = 0        # nobody was waited for, and yet nothing is told of it
    now = monotonic_ns()
    for number in range(sender.schedule.destination_count):
        if not is_under_way(sender, channel, number, lane):
            continue
        if not channel.told:
            message_left(sender, number)        # for all that is known
        elif now - sender.schedule.destinations[number].asked >= GIVES_UP_NS:
            lost(sender, number, EHOSTUNREACH)
        else:                   # pushed out of a queue, or gone with its interface
            schedule_failed(&sender.schedule, number, now)


cdef inline int is_under_way(Sender *sender, Channel *channel, uint32_t number, int lane) noexcept nogil:
    cdef Peer *peer = &sender.peers[number]
    return (sender.schedule.destinations[number].asked >= 0 and peer.lane == lane
            and channel_of(sender, &peer.address) == channel)


cdef void hear(Sender *sender) noexcept nogil:
    """Take in what became of the messages that the kernel took."""
    cdef Channel *channel
    cdef Lane *lane
    cdef int family, at
    cdef uint32_t number
    cdef int64_t now
    for family in range(2):
        for at in range(sender.channels[family].count):
            settle(sender, &sender.channels[family], at, 0)
    now = monotonic_ns()
    for number in range(sender.schedule.destination_count):
        if destination_overdue(&sender.schedule.destinations[number], now):
            lost(sender, number, EHOSTUNREACH)
    for family in range(2):
        channel = &sender.channels[family]
        for at in range(channel.count):
            lane = &channel.lanes[at]
            if lane.trusting >= 0 and now - lane.trusting >= TRUST_NS:
                lane.trusting = -1
                if transmitter_pending(lane.fd):
                    schedule_doubt(&sender.schedule)


cdef int held(Sender *sender) noexcept nogil:
    """Bytes of messages that the kernel took and that have not left."""
    cdef int family, at, total = 0
    for family in range(2):
        for at in range(sender.channels[family].count):
            total += transmitter_pending(sender.channels[family].lanes[at].fd)
    return total


cdef void hurry(Sender *sender) noexcept nogil:
    """The network has changed: what is under way may have been dropped."""
    cdef int waiting
    hear(sender)
    waiting = held(sender)
    # Exactly as many as asked for; or else as far as there is room for more.
    schedule_hurry(&sender.schedule, monotonic_ns(),
                 waiting == 0 if sender.options.count else waiting < HELD_AT_MOST)


cdef int pass_on(
    Sender *sender, Channel *channel, const uint32_t *numbers, int count, int told
) noexcept nogil:
    """Hand messages to the kernel, through as many sockets as it takes; -1 without memory."""
    cdef CTransmitter *transmitter = &channel.transmitter
    cdef int waiting[MOST_LANES]
    cdef int i, lane, turn = 0, at = 0, before = channel.count
    cdef int64_t now
    if transmitter_reserve(transmitter, count) < 0:
        return -1
    for i in range(count):
        transmitter_choose(transmitter, i, sender.peers[numbers[i]].index, told)
    for lane in range(before):
        waiting[lane] = transmitter_pending(channel.lanes[lane].fd) > 0
    # What may have to wait joins what waits; what is known to leave keeps away from it.
    while at < count and turn < 3 * MOST_LANES:
        lane = turn % MOST_LANES
        i = turn // MOST_LANES
        turn += 1
        if told:
            if i == 2 or (lane < before and waiting[lane] != (i == 0)) or (lane >= before and i == 0):
                continue
        elif i == 1 or (lane >= before and i == 2) or (lane < before and waiting[lane] != (i == 2)):
            continue
        if lane > channel.count or (lane == channel.count and open_lane(channel) != 0):
            continue
        send_all(channel.lanes[lane].fd, transmitter.chosen + at, count - at, transmitter.outcomes + at,
                 0 if told else PATIENCE_NS)
        now = monotonic_ns()
        while at < count and transmitter.outcomes[at] != EAGAIN and transmitter.outcomes[at] != EINTR:
            if transmitter.outcomes[at]:
                cannot_send(sender, numbers[at], transmitter.outcomes[at])
            elif told:
                schedule_taken(&sender.schedule, numbers[at], now)
                sender.peers[numbers[at]].lane = <uint8_t>lane
            else:
                message_left(sender, numbers[at])
            at += 1
        if told:
            settle(sender, channel, lane, 1)
        elif channel.lanes[lane].trusting < 0:
            channel.lanes[lane].trusting = now
    while at < count:
        cannot_send(sender, numbers[at], EAGAIN)
        at += 1
    return 0


cdef int wait_for_news(Sender *sender, int64_t left) noexcept nogil:
    """Whether there is some within so many nanoseconds."""
    cdef pollfd fds[2 * MOST_LANES]
    cdef timespec timeout
    cdef int count
    if left <= 0:
        return 0
    timeout.tv_sec = 0
    timeout.tv_nsec = left
    count = add_lanes(sender, fds)
    return ppoll(fds, count, &timeout, NULL) > 0


cdef int add_lanes(Sender *sender, pollfd *fds) noexcept nogil:
    """POLLERR, which comes unasked, of all sockets; how many they are."""
    cdef int family, at, count = 0
    for family in range(2):
        for at in range(sender.channels[family].count):
            fds[count].fd = sender.channels[family].lanes[at].fd
            fds[count].events = 0
            fds[count].revents = 0
            count += 1
    return count


cdef int send_due(Sender *sender) noexcept nogil:
    """Send what is due; -1 without memory."""
    cdef Channel *channel
    cdef uint32_t i, ready, number, kept
    cdef uint32_t due = schedule_due(&sender.schedule, monotonic_ns())
    cdef uint32_t *numbers = NULL
    cdef int family, code, result = 0
    cdef int64_t ends
    if due == 0:
        return 0
    numbers = <uint32_t *>malloc(due * sizeof(uint32_t))
    if numbers == NULL:
        return -1
    for family in range(2):
        channel = &sender.channels[family]
        ready = kept = 0
        # The trusted ones come first.
        for i in range(due):
            number = sender.schedule.ready[i]
            if channel_of(sender, &sender.peers[number].address) == channel:
                numbers[ready] = number
                ready += 1
        if ready == 0:
            continue
        code = open_lane(channel) if channel.count == 0 else 0
        if code:
            for i in range(ready):
                cannot_send(sender, numbers[i], code)
            continue
        i = 0
        while i < ready and destination_trusted(&sender.schedule, &sender.schedule.destinations[numbers[i]]):
            i += 1
        if i and pass_on(sender, channel, numbers, <int>i, 0) < 0:
            result = -1
            break
        while i < ready:
            number = numbers[i]
            code = why_useless(sender, number)
            if code:
                cannot_send(sender, number, code)
            else:
                numbers[kept] = number
                kept += 1
            i += 1
        i = 0
        while i < kept and result == 0:
            ends = monotonic_ns() + ANSWERS_NS
            result = pass_on(sender, channel, numbers + i, min(<int>(kept - i), <int>AT_A_TIME), channel.told)
            i += AT_A_TIME
            # So that neighbours that answer, or a gateway, have done so before the next ones.
            while i < kept and sender.schedule.under_way and wait_for_news(sender, ends - monotonic_ns()):
                hear(sender)
    free(numbers)
    return result


cdef int is_own(int family, const uint8_t *packed) noexcept nogil:
    """Whether this machine has that address. The routing table knows; bind() takes any address
    with ip_nonlocal_bind."""
    cdef Route route
    return route_find(family, packed, 0, &route) == 0 and route.local


cdef void wait_for(Sender *sender, int64_t until) noexcept nogil:
    """Until something happens; `until`: CLOCK_MONOTONIC, or -1."""
    cdef pollfd fds[2 + 2 * MOST_LANES]
    cdef int count = 0
    cdef int64_t left = 100000000 if names_waiting(sender) else SLICE
    cdef timespec timeout
    memset(fds, 0, sizeof(fds))
    if sender.read_end >= 0:
        fds[count].fd = sender.read_end
        fds[count].events = <short>POLLIN
        count += 1
    if sender.network >= 0:
        fds[count].fd = sender.network
        fds[count].events = <short>POLLIN
        count += 1
    count += add_lanes(sender, fds + count)
    if until >= 0:
        left = min(left, max(0, until - monotonic_ns()))
    timeout.tv_sec = left // 1000000000
    timeout.tv_nsec = left % 1000000000
    if ppoll(fds, count, &timeout, &sender.signals) < 0 and errno != EINTR:
        pause_ms(50)            # out of memory, say: it goes on all the same


cdef int run(Sender *sender) noexcept nogil:
    """Send until it is enough, or a signal came; the exit status, or -1."""
    cdef int64_t now, until, names, linger_ends = -1
    cdef int changed
    name_files_changed(sender)
    while ended_by == 0:
        changed = names_waiting(sender) and name_files_changed(sender)
        if network_changed(sender):
            changed = 1
            hurry(sender)
        if sender.network < 0:  # nobody would tell of changes
            schedule_doubt(&sender.schedule)
        if changed:
            hurry_names(sender, monotonic_ns())
        if step_names(sender) < 0 or send_due(sender) < 0:
            return no_memory()
        hear(sender)
        now = monotonic_ns()
        if schedule_finished(&sender.schedule, now):
            # Done if all that the kernel took is on its way and none of it came back.
            if linger_ends < 0:
                linger_ends = now + 5 * <int64_t>1000000000
            if now >= linger_ends or held(sender) == 0:
                hear(sender)
                if schedule_finished(&sender.schedule, monotonic_ns()):
                    return result(sender)
            else:
                wait_for(sender, min(now + 10000000, linger_ends))
            continue
        linger_ends = -1
        until = schedule_next(&sender.schedule, now)
        names = names_next(sender, now)
        if names >= 0 and (until < 0 or names < until):
            until = names
        wait_for(sender, until)
    return -1


cdef int result(Sender *sender) noexcept nogil:
    cdef uint32_t i, reached = schedule_reached(&sender.schedule)
    cdef Text text
    for i in range(sender.options.node_count):
        if not sender.schedule.reached[i]:
            begin(&text, b"node ")
            put_name(&text, sender.nodes[i].name)
            put(&text, b" was never reached")
            say_error(&text)
    return 0 if reached else 1


# ----------------------------------------------------------------------- the check

cdef int check(Sender *sender) noexcept nogil:
    """Say which way messages would go; 0 if there is one to every node and the options are
    right, 1 if not, or -1."""
    cdef int64_t ends = monotonic_ns() + 10 * <int64_t>1000000000
    cdef uint32_t i, asked, reachable = 0
    while ended_by == 0:
        if step_names(sender) < 0:
            return no_memory()
        asked = 0
        for i in range(sender.options.node_count):
            asked += sender.nodes[i].waiting and sender.nodes[i].asked
        if asked == 0 or monotonic_ns() >= ends:
            break
        wait_for(sender, ends)
    if ended_by:
        return -1
    for i in range(sender.options.node_count):
        if sender.nodes[i].waiting and sender.nodes[i].asked:
            unresolved(sender, i, b"", b"the look-up has not answered within 10 seconds", 0)
    memset(sender.schedule.reached, 0, sender.options.node_count)
    for i in range(sender.schedule.destination_count):
        if check_way(sender, i):
            for asked in range(sender.schedule.owner_count):
                if sender.schedule.owners[asked].destination == i:
                    sender.schedule.reached[sender.schedule.owners[asked].node] = 1
    for i in range(sender.options.node_count):
        reachable += sender.schedule.reached[i]
    return 0 if reachable == sender.options.node_count and sender.options.complained == 0 else 1


cdef int check_way(Sender *sender, uint32_t number) noexcept nogil:
    cdef Address *address = &sender.peers[number].address
    cdef Address other
    cdef Route route
    cdef Text text
    cdef int error = route_find(family_of(address), address.packed, address.scope, &route)
    text.length = 0
    put_where(sender, &text, number)
    put(&text, b": ")
    if error:
        put(&text, strerror(error))
        say_error(&text)
        return 0
    if route.local:
        put(&text, b"is this machine itself")
    else:
        put(&text, b"by ")
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
        text.length = 0
        put_where(sender, &text, number)
        put(&text, b": the interface has no carrier")
        say_error(&text)
    return route.carrier


# -------------------------------------------------------------------- the program

cdef void catch_signals(Sender *sender) noexcept nogil:
    """SIGTERM, SIGINT and SIGHUP come only while the loop waits; ignored ones stay so.

    No output ends or stops the program: not one whose reader is gone, or a full file, or a
    terminal that is not to be written to from the background.
    """
    cdef sigaction_t action
    cdef sigset_t caught
    cdef int i, number
    sigemptyset(&caught)
    for i in range(3):
        number = SIGTERM if i == 0 else SIGINT if i == 1 else SIGHUP
        if sigaction(number, NULL, &action) == 0 and action.sa_handler != SIG_IGN:
            memset(&action, 0, sizeof(action))
            action.sa_handler = on_signal
            sigaction(number, &action, NULL)
            sigaddset(&caught, number)
    memset(&action, 0, sizeof(action))
    action.sa_handler = SIG_IGN
    for i in range(3):
        sigaction(SIGPIPE if i == 0 else SIGTTOU if i == 1 else SIGXFSZ, &action, NULL)
    sigprocmask(SIG_BLOCK, &caught, &sender.signals)


cdef int prepare(Sender *sender) noexcept nogil:
    """Sort the operands into addresses and names; -1 without memory or descriptors."""
    cdef uint32_t i
    cdef Node *node
    cdef Answers found
    cdef const char *why
    cdef int ends[2]
    cdef int name_count = 0
    cdef Options *options = &sender.options
    sender.nodes = <Node *>calloc(options.node_count, sizeof(Node))
    if sender.nodes == NULL or schedule_init(
        &sender.schedule, options.node_count, options.count, options.interval * 1000000000, monotonic_ns()
    ) < 0:
        return -1
    sender.sources.seed = <uint64_t>monotonic_ns() * <uint64_t>0x9E3779B97F4A7C15 + <uint64_t>getpid()
    for i in range(2):
        sender.channels[i].transmitter.family = AF_INET if i == 0 else AF_INET6
        # The host's own byte order, as the stock programs send it.
        sender.channels[i].transmitter.payload.iov_base = <void *>(LITTLE if htons(1) != 1 else BIG)
        sender.channels[i].transmitter.payload.iov_len = MESSAGE_BYTES
    sender.network = sender.read_end = sender.write_end = -1
    pthread_mutex_init(&sender.lock, NULL)
    for i in range(options.node_count):
        node = &sender.nodes[i]
        node.name = options.nodes[i]
        why = read_literal(node.name, options.family, &found.addresses[0])
        if why != NULL:
            unresolved(sender, i, b"", why, 1)
        elif found.addresses[0].length:
            found.count = 1
            if resolved(sender, i, &found) < 0:
                return -1
        elif not NAME_SERVICE and strchr(node.name, c'%') == NULL:
            unresolved(sender, i, b"", b"this build has no name service, and needs addresses", 1)
        else:
            node.waiting = node.asked = 1
            node.due = monotonic_ns()
            node.delay = RETRY_NS
            name_count += 1
    if name_count:
        LIMIT_ARENAS()
        if pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0:    # without it, there is the next slice
            sender.read_end, sender.write_end = ends[0], ends[1]
    return 0


cdef public int kdumpfence_send(int argc, char **argv) noexcept nogil:
    """The program; its exit status."""
    cdef Sender *sender = <Sender *>calloc(1, sizeof(Sender))
    cdef Options *options
    cdef Text text
    cdef int status
    if sender == NULL:
        return no_memory()
    options = &sender.options
    catch_signals(sender)
    if not read_options(options, argc, argv):
        return no_memory()
    if options.help:
        print_usage(1)
        return 0
    if options.version:
        begin(&text, b"fence_kdump_send ")
        put(&text, KDUMPFENCE_VERSION)
        put(&text, b" (kdumpfence, native)\n")
        write_some(1, text.data, text.length)
        return 0
    say_complaints(options)
    if options.node_count == 0:
        begin(&text, b"no node given")
        say_error(&text)
        print_usage(2)
        return 1
    if prepare(sender) < 0:
        return no_memory()
    if options.check:
        status = check(sender)
    else:
        if access(b"/proc/vmcore", F_OK) < 0:
            begin(&text, b"no /proc/vmcore here, so nothing has crashed; but other nodes will take "
                         b"this one for dead")
            say_warning(&text)
        open_network(sender)
        status = run(sender)
    if status < 0:
        begin(&text, b"ended by ")
        put(&text, b"SIGTERM" if ended_by == SIGTERM else b"SIGINT" if ended_by == SIGINT else b"SIGHUP")
        say_debug(&text)
        status = 128 + ended_by
    return status
