# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sender says: a line to stdout or stderr, and to the system log. Never waits for a reader.

What is said stands where it is found out. Neither dprintf(3) nor syslog(3) will do, since both wait
as long as the other side hangs.
"""

cdef enum:                  # syslog(3): the daemon's, and how grave
    ERROR = 27
    WARNING = 28
    DEBUG = 30

cdef enum:
    MOST_WRITE = 4096       # a pipe that can be written to at all takes as much


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
    cdef size_t part
    cdef int own
    if send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 or errno != ENOTSOCK:
        return
    own = reopen(fd)
    waiter.fd = fd
    waiter.events = <short>POLLOUT
    while length:
        part = min(length, <size_t>MOST_WRITE)
        if own < 0 and ((poll(&waiter, 1, 0) <= 0 and not is_kmsg(fd)) or waiter.revents & POLLNVAL):
            break
        if write(fd if own < 0 else own, data, part) < 0:
            break
        data += part
        length -= part
    if own >= 0:
        close(own)


cdef void say(int kind, Text *text) noexcept nogil:
    """A line of its own, and a record; `text` is then as it was said."""
    cdef Text line
    cdef size_t i, start
    cdef uint8_t byte
    cdef long now
    cdef tm parts
    cdef char stamp[32]
    cdef sockaddr_un name
    cdef int sock
    begin(&line, b"[%s]: ", b"debug" if kind == DEBUG else b"warning" if kind == WARNING else b"error")
    start = line.length
    for i in range(min(text.length, <size_t>(MOST_TEXT - 64))):
        byte = <uint8_t>text.data[i]
        put(&line, b"%c" if byte >= 32 and byte != 127 else b"\\x%02x", byte)
    begin(text, b"%s", line.data + start)
    put(&line, b"\n")
    write_some(1 if kind == DEBUG else 2, line.data, line.length)
    # syslog(3) would wait for a daemon that hangs.
    sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    if sock < 0:
        return
    memset(&name, 0, sizeof(name))
    name.sun_family = <uint16_t>AF_UNIX
    memcpy(name.sun_path, b"/dev/log", 8)
    if connect(sock, <void *>&name, sizeof(name)) == 0:
        time(&now)
        stamp[0] = 0
        if localtime_r(&now, &parts) != NULL:
            strftime(stamp, sizeof(stamp), b"%b %e %H:%M:%S", &parts)
        begin(&line, b"<%d>%s fence_kdump_send[%d]: %s\n", kind, stamp, getpid(), text.data)
        send(sock, line.data, line.length, MSG_DONTWAIT | MSG_NOSIGNAL)
    close(sock)


cdef void say_words(int kind, const char *words) noexcept nogil:
    cdef Text text
    begin(&text, b"%s", words)
    say(kind, &text)


cdef int no_memory() noexcept nogil:
    """The exit status."""
    say_words(ERROR, b"out of memory")
    return 1
