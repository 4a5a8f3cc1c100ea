/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the programs of bench/limits.py share: options, clocks, sockets, the flood, the reader.

   Nothing is validated here: these programs ask what the kernel can do at all. A program that
   the kernel refuses something prints "refused: WHAT: WHY" and ends with exit status 3. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif

/* ------------------------------------------------------------------ options, clocks, cores */

static char **arguments;

/* The value of NAME=value on the command line, the last one if there are several. */
static inline long option(const char *name, long otherwise)
{
    size_t length = strlen(name);
    for (char **at = arguments; *at; at++)
        if (strncmp(*at, name, length) == 0 && (*at)[length] == '=')
            otherwise = strtol(*at + length + 1, NULL, 10);
    return otherwise;
}

static inline void refused(const char *what)
{
    printf("refused: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(3);
}

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static inline int64_t wall_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline int64_t thread_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

static inline void rest_ns(int64_t ns)
{
    struct timespec time = {ns / 1000000000, ns % 1000000000};
    nanosleep(&time, NULL);
}

/* The calling thread on core 0 or 1 of the two that first= and second= name; negative: anywhere. */
static inline void pin(long core)
{
    cpu_set_t cores;
    if (core < 0)
        return;
    CPU_ZERO(&cores);
    CPU_SET(core == 0 ? option("first", 0) : option("second", 1), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) < 0)
        refused("sched_setaffinity");
}

/* ---------------------------------------------------------------------------- the sockets */

static inline void set(int fd, int level, int name, int value, const char *what)
{
    if (setsockopt(fd, level, name, &value, sizeof value) < 0)
        refused(what);
}

/* 0 leaves the queue as the kernel makes it. */
static inline void set_queue(int fd, long bytes)
{
    int value = bytes;
    if (bytes && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof value) < 0)
        set(fd, SOL_SOCKET, SO_RCVBUF, value, "SO_RCVBUF");
}

/* Where the reader is, and the first of the flood's sources; limits_live moves them to a veth. */
static uint32_t reader_address = INADDR_LOOPBACK, first_source = 0x7f010000;

static inline struct sockaddr_in address_of(uint32_t host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(host);
    return address;
}

/* The port that the socket got; port 0 asks for any. */
static inline int bind_to(int fd, int port)
{
    struct sockaddr_in address = address_of(reader_address, port);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) < 0)
        refused("bind");
    getsockname(fd, (struct sockaddr *)&address, &length);
    return ntohs(address.sin_port);
}

static inline int udp_socket(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        refused("socket");
    return fd;
}

/* Datagrams that the kernel had to drop: queue full, or a filter said so. */
static inline uint32_t dropped(int fd)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0)
        refused("SO_MEMINFO");
    return info[SK_MEMINFO_DROPS];
}

/* Let the kernel drop what does not begin with a message's magic (offset 0: the UDP header). */
static inline void keep_messages_only(int fd)
{
    struct sock_filter code[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, 8},
        {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0x402a301b},
        {BPF_RET | BPF_K, 0, 0, 0},
        {BPF_RET | BPF_K, 0, 0, 0xffffffff},
    };
    struct sock_fprog program = {4, code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
        refused("SO_ATTACH_FILTER");
}

/* ------------------------------------------------------------------------------ the flood */

/* Many senders: 8-byte datagrams from one socket, the sources first_source and on in turns. */
struct flood {
    int fd, batch, sources, next;
    struct sockaddr_in to;
    struct mmsghdr *headers;
    struct iovec vector;
    char (*control)[64];
    char data[128 * 8];
};

static inline void flood_open(struct flood *flood, int port, int sources, int segments, int rubbish)
{
    static const char message[8] = {0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0};
    memset(flood, 0, sizeof *flood);
    flood->fd = udp_socket();
    flood->batch = segments > 1 ? 1 : 64;
    flood->sources = sources;
    flood->to = address_of(reader_address, port);
    flood->headers = calloc(flood->batch, sizeof *flood->headers);
    flood->control = calloc(flood->batch, sizeof *flood->control);
    for (int i = 0; i < 128; i++) {
        memcpy(flood->data + 8 * i, message, 8);
        flood->data[8 * i] ^= rubbish;
    }
    if (segments > 1)
        set(flood->fd, IPPROTO_UDP, UDP_SEGMENT, 8, "UDP_SEGMENT");
    flood->vector.iov_base = flood->data;
    flood->vector.iov_len = 8 * segments;
    for (int i = 0; i < flood->batch; i++) {
        struct msghdr *header = &flood->headers[i].msg_hdr;
        header->msg_name = &flood->to;
        header->msg_namelen = sizeof flood->to;
        header->msg_iov = &flood->vector;
        header->msg_iovlen = 1;
        header->msg_control = flood->control[i];
        header->msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(header);
        cmsg->cmsg_level = IPPROTO_IP;
        cmsg->cmsg_type = IP_PKTINFO;
        cmsg->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    }
}

/* One call of sendmmsg (with segments: of one destination's whole train): datagrams sent. */
static inline long flood_send(struct flood *flood)
{
    for (int i = 0; i < flood->batch; i++) {
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&flood->headers[i].msg_hdr);
        struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(cmsg);
        info->ipi_spec_dst.s_addr = htonl(first_source + flood->next);
        if (++flood->next >= flood->sources)
            flood->next = 0;
    }
    int sent = sendmmsg(flood->fd, flood->headers, flood->batch, 0);
    if (sent < 0)
        refused("sendmmsg");
    return sent * (long)(flood->vector.iov_len / 8);
}

/* ----------------------------------------------------------------------------- the reader */

enum how { RECVMMSG, RECVMSG, RECVFROM, RECV };

struct reader {
    int fd, batch, flags, gro, check;
    enum how how;
    size_t size, stride, control_size;
    struct mmsghdr *headers;
    struct iovec *vectors;
    struct sockaddr_in6 *names;
    char *control, *data;
    long rejected;
};

/* Options: batch=, how=, names=, control= (bytes a datagram), size=, stride=, gro=, check= (the magic). */
static inline void reader_open(struct reader *reader, int fd)
{
    memset(reader, 0, sizeof *reader);
    reader->fd = fd;
    reader->batch = option("batch", 256);
    reader->how = option("how", RECVMMSG);
    reader->gro = option("gro", 0);
    reader->check = option("check", 0);
    reader->flags = MSG_DONTWAIT;
    reader->size = option("size", 64);
    reader->stride = option("stride", reader->size);
    reader->control_size = option("control", 0);
    reader->headers = calloc(reader->batch, sizeof *reader->headers);
    reader->vectors = calloc(reader->batch, sizeof *reader->vectors);
    reader->names = calloc(reader->batch, sizeof *reader->names);
    reader->control = calloc(reader->batch + 1, reader->control_size);
    reader->data = mmap(NULL, reader->batch * reader->stride + reader->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < reader->batch; i++) {
        struct msghdr *header = &reader->headers[i].msg_hdr;
        reader->vectors[i].iov_base = reader->data + i * reader->stride;
        reader->vectors[i].iov_len = reader->size;
        memset(reader->vectors[i].iov_base, 0, 64);      /* page faults are not what is measured */
        header->msg_iov = &reader->vectors[i];
        header->msg_iovlen = 1;
        header->msg_name = option("names", 1) ? &reader->names[i] : NULL;
        header->msg_control = reader->control_size ? reader->control + i * reader->control_size : NULL;
    }
    if (reader->gro)
        set(fd, IPPROTO_UDP, UDP_GRO, 1, "UDP_GRO");
    if (option("pktinfo", 0))
        set(fd, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
    if (option("overflow", 0))
        set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1, "SO_RXQ_OVFL");
    if (option("stamps", 0))
        set(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1, "SO_TIMESTAMPNS");
}

/* What a datagram holds: one message, or as many as the kernel says it put together. */
static inline long messages_in(struct reader *reader, int i)
{
    struct msghdr *header = &reader->headers[i].msg_hdr;
    if (reader->gro)
        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg))
            if (cmsg->cmsg_level == IPPROTO_UDP && cmsg->cmsg_type == UDP_GRO) {
                int segment;
                memcpy(&segment, CMSG_DATA(cmsg), sizeof segment);
                return (reader->headers[i].msg_len + segment - 1) / segment;
            }
    return 1;
}

/* One system call: datagrams read, and how many messages these were; -1 and errno. */
static inline long reader_read(struct reader *reader, long *messages)
{
    struct msghdr *first = &reader->headers[0].msg_hdr;
    socklen_t length = sizeof *reader->names;
    long got = -1;
    switch (reader->how) {
    case RECVMMSG:
        for (int i = 0; i < reader->batch; i++) {
            reader->headers[i].msg_hdr.msg_namelen = first->msg_name ? sizeof *reader->names : 0;
            reader->headers[i].msg_hdr.msg_controllen = reader->control_size;
        }
        got = recvmmsg(reader->fd, reader->headers, reader->batch, reader->flags, NULL);
        break;
    case RECVMSG:
        first->msg_namelen = first->msg_name ? sizeof *reader->names : 0;
        first->msg_controllen = reader->control_size;
        got = recvmsg(reader->fd, first, reader->flags) < 0 ? -1 : 1;
        break;
    case RECVFROM:
        got = recvfrom(reader->fd, reader->data, reader->size, reader->flags,
                       (struct sockaddr *)reader->names, &length) < 0 ? -1 : 1;
        break;
    case RECV:
        got = recv(reader->fd, reader->data, reader->size, reader->flags) < 0 ? -1 : 1;
        break;
    }
    for (int i = 0; reader->check && i < got; i++) {
        uint32_t magic;
        memcpy(&magic, reader->vectors[i].iov_base, sizeof magic);
        reader->rejected += magic != 0x1b302a40 && magic != 0x402a301b;
    }
    if (got > 0 && !reader->gro)
        *messages += got;
    else
        for (int i = 0; i < got; i++)
            *messages += messages_in(reader, i);
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        refused("reading");
    return got;
}
