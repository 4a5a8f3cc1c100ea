# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the native sender takes from libc and Linux beside what the core takes, for Cython.

May be here: declarations. What has to be compiled stands in system.h. Socket addresses and other
structures of the core's are `void` here: the C compiler knows what they are. Of a structure only
those fields are declared that somebody uses.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memmove, strchr, strcmp, strdup, strerror

cdef extern from "native/system.h" nogil:
    # Text and numbers.
    int INT_MAX

    # Files and descriptors.
    struct moment "timespec":
        long tv_sec
        long tv_nsec
    struct stat_t "stat":
        unsigned int st_mode
        unsigned int st_uid
        unsigned long st_rdev
        unsigned long st_ino
        long st_size
        moment st_mtim
    unsigned long KMSG, PTMX
    int F_OK, O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_WRONLY, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG
    int access(const char *path, int mode)
    int fstat(int fd, stat_t *about)
    int isatty(int fd)
    int open_path "open"(const char *path, int flags)
    int pipe2(int *fds, int flags)
    int poll(void *fds, unsigned long count, int milliseconds)
    ssize_t read(int fd, void *data, size_t length)
    int stat_path "stat"(const char *path, stat_t *about)

    # Sockets and addresses.
    struct addrinfo:
        int ai_family
        int ai_socktype
        void *ai_addr
        addrinfo *ai_next
    struct sockaddr_nl:
        uint16_t nl_family
        uint32_t nl_groups
    struct sockaddr_un:
        uint16_t sun_family
        char sun_path[108]
    int AF_UNIX, AF_UNSPEC, IPPROTO_UDP, IPV6_V6ONLY, SO_DETACH_FILTER, SO_ERROR, SOCK_DGRAM, SOCK_NONBLOCK
    int EADDRNOTAVAIL, EHOSTUNREACH, ENOBUFS, ENOTSOCK
    int bind(int fd, const void *name, unsigned int length)
    int connect(int fd, const void *name, unsigned int length)
    int getsockname(int fd, void *name, unsigned int *length)
    unsigned int if_nametoindex(const char *name)
    const char *inet_ntop(int family, const void *address, char *text, unsigned int length)
    int inet_pton(int family, const char *text, void *address)

    # The name service, and threads to ask it.
    int EAI_SYSTEM, NAME_SERVICE
    int ask_name_service(const char *name, const addrinfo *hints, addrinfo **found)
    void free_answer(addrinfo *found)
    const char *name_service_error(int code)
    void limit_arenas()
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_attr_t:
        pass
    int PTHREAD_CREATE_DETACHED
    int pthread_attr_init(pthread_attr_t *attributes)
    int pthread_attr_setdetachstate(pthread_attr_t *attributes, int state)
    int pthread_attr_setstacksize(pthread_attr_t *attributes, size_t size)
    int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                       void *(*run)(void *) noexcept, void *argument)

    # Signals, processes and the time of day.
    ctypedef struct sigset_t:
        pass
    struct sigaction_t "sigaction":
        void (*sa_handler)(int) noexcept
    struct tm:
        pass
    int SIG_BLOCK, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGTTOU, SIGXFSZ
    void (*SIG_IGN)(int) noexcept
    int sigaction(int number, const sigaction_t *new, sigaction_t *old)
    int sigaddset(sigset_t *signals, int number)
    int sigemptyset(sigset_t *signals)
    int sigprocmask(int how, const sigset_t *signals, sigset_t *old)
    int getpid()
    unsigned int geteuid()
    struct utsname:
        char nodename[65]
    int uname(utsname *host)
    int GRND_NONBLOCK
    ssize_t getrandom(void *data, size_t length, unsigned int flags)
    tm *localtime_r(const long *now, tm *parts)
    size_t strftime(char *text, size_t most, const char *format, const tm *parts)
    long time(long *now)
    int usleep(unsigned int microseconds)
