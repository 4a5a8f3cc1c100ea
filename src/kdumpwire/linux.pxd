# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the compiled core and the native sender take from libc and the kernel, for Cython.

May be here: declarations, and the one number that everything that waits needs. What has to be
compiled stands in linux.h. Of a structure only those
fields are declared that somebody uses; the C compiler knows the others.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen

cdef extern from "kdumpwire/linux.h" nogil:
    # Memory, locks and clocks.
    int MADV_HUGEPAGE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED
    void *mmap(void *at, size_t length, int rights, int flags, int fd, long offset)
    int munmap(void *memory, size_t length)
    int madvise(void *memory, size_t length, int advice)
    void prefetch(const void *at)

    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)

    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC, CLOCK_REALTIME
    int64_t clock_ns(int clock)     # nanoseconds
    int64_t monotonic_ns()
    int nanosleep(const timespec *request, timespec *remain)

    # Errors.
    int errno
    int EACCES, EAGAIN, EBADF, EINTR, EINVAL, ENETUNREACH, EPROTO, ETIMEDOUT, EWOULDBLOCK

    # Descriptors.
    struct pollfd:
        int fd
        short events
        short revents
    int POLLIN, POLLOUT, POLLERR, POLLNVAL
    int ppoll(pollfd *fds, unsigned long nfds, const timespec *timeout, const void *sigmask)
    ssize_t write(int fd, const void *data, size_t length)
    int close(int fd)
    int TIOCOUTQ
    int ioctl(int fd, unsigned long request, ...)

    # Addresses.
    ctypedef unsigned int socklen_t
    int AF_INET, AF_INET6
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint32_t htonl(uint32_t value)
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)

    # Sockets and their options.
    int SOCK_RAW, SOCK_CLOEXEC
    int SOL_SOCKET, SO_ATTACH_FILTER, SO_MEMINFO, SO_TIMESTAMPING
    int SOF_TIMESTAMPING_SOFTWARE, SOF_TIMESTAMPING_OPT_CMSG, SOF_TIMESTAMPING_TX_SCHED
    int IPPROTO_IP, IP_PKTINFO, IP_RECVERR
    int IPPROTO_IPV6, IPV6_PKTINFO, IPV6_RECVPKTINFO, IPV6_RECVERR
    struct sock_fprog:
        unsigned short len
        void *filter
    int socket(int family, int kind, int protocol)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)

    # Datagrams and their control data.
    int MSG_DONTWAIT, MSG_TRUNC, MSG_ERRQUEUE, MSG_NOSIGNAL
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
    ssize_t send(int fd, const void *data, size_t length, int flags)
    ssize_t sendto(int fd, const void *data, size_t length, int flags, const void *to, socklen_t size)
    ssize_t recv(int fd, void *data, size_t length, int flags)
    ssize_t recvmsg(int fd, msghdr *msg, int flags)
    int recvmmsg(int fd, mmsghdr *vec, unsigned int vlen, int flags, timespec *timeout)
    int sendmmsg(int fd, mmsghdr *vec, unsigned int vlen, int flags)

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        uint32_t ipi6_ifindex
    cmsghdr *CMSG_FIRSTHDR(msghdr *msg)
    cmsghdr *CMSG_NXTHDR(msghdr *msg, cmsghdr *cmsg)
    void *CMSG_DATA(cmsghdr *cmsg)
    size_t CMSG_LEN(size_t length)
    size_t CMSG_SPACE(size_t length)

    int SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SO_EE_ORIGIN_TIMESTAMPING
    struct sock_extended_err:
        uint32_t ee_errno
        uint8_t ee_origin
    sockaddr *SO_EE_OFFENDER(sock_extended_err *error)

    # Routes, by netlink, and interfaces.
    int AF_NETLINK, NETLINK_ROUTE, NLM_F_REQUEST, NLMSG_ERROR
    int RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
    int RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA
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
    struct rtattr:
        uint16_t rta_len
        uint16_t rta_type
    int NLMSG_LENGTH(int length)
    int NLMSG_OK(nlmsghdr *header, int length)
    void *NLMSG_DATA(nlmsghdr *header)
    rtattr *RTM_RTA(rtmsg *message)
    int RTM_PAYLOAD(nlmsghdr *header)
    int RTA_LENGTH(int length)
    int RTA_OK(rtattr *attribute, int length)
    void *RTA_DATA(rtattr *attribute)
    int RTA_PAYLOAD(rtattr *attribute)

    int SIOCGIFFLAGS, IFF_RUNNING
    struct ifreq:
        char *ifr_name
        short ifr_flags
    char *if_indextoname(unsigned int index, char *name)

cdef enum:
    # Nanoseconds. A process that is stopped (SIGSTOP, a debugger, a paused guest) sleeps
    # on after SIGCONT for what was left of its poll, however late that makes it; and a
    # signal that came just before the poll, or to another thread, does not end it. So
    # no single poll is long.
    SLICE = 500000000
