/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The limit of receiving: recvmmsg(2) in a loop until the queue is empty, with no look at
 * what came. Loaded by bench/cases/receive.py through ctypes, so that it reads the very
 * socket that ours reads. Everything that can be set up once is set up once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

struct bare {
    unsigned batch;
    struct mmsghdr *headers;
    struct iovec *pieces;
    struct sockaddr_in6 *names;
    unsigned char *buffers;
};

void bare_free(struct bare *bare)
{
    if (bare == NULL)
        return;
    free(bare->headers);
    free(bare->pieces);
    free(bare->names);
    free(bare->buffers);
    free(bare);
}

/* Room for that many datagrams at a time, of that many bytes each. With names the kernel
 * writes down who sent them: without these nothing can be matched. */
struct bare *bare_make(unsigned batch, unsigned size, int with_names)
{
    struct bare *bare = calloc(1, sizeof(*bare));

    if (bare == NULL)
        return NULL;
    bare->batch = batch;
    bare->headers = calloc(batch, sizeof(*bare->headers));
    bare->pieces = calloc(batch, sizeof(*bare->pieces));
    bare->names = calloc(batch, sizeof(*bare->names));
    bare->buffers = calloc(batch, size);
    if (!bare->headers || !bare->pieces || !bare->names || !bare->buffers) {
        bare_free(bare);
        return NULL;
    }
    for (unsigned i = 0; i < batch; i++) {
        bare->pieces[i].iov_base = bare->buffers + (size_t)i * size;
        bare->pieces[i].iov_len = size;
        bare->headers[i].msg_hdr.msg_iov = &bare->pieces[i];
        bare->headers[i].msg_hdr.msg_iovlen = 1;
        if (with_names)
            bare->headers[i].msg_hdr.msg_name = &bare->names[i];
    }
    return bare;
}

/* How many datagrams were in the queue; -1 and errno if it could not be read. */
long bare_drain(struct bare *bare, int fd)
{
    long total = 0;
    int got;

    do {
        for (unsigned i = 0; i < bare->batch; i++)
            if (bare->headers[i].msg_hdr.msg_name)
                bare->headers[i].msg_hdr.msg_namelen = sizeof(*bare->names);
        got = recvmmsg(fd, bare->headers, bare->batch, MSG_DONTWAIT, NULL);
        if (got > 0)
            total += got;
    } while (got == (int)bare->batch);
    return got < 0 && errno != EAGAIN ? -1 : total;
}

/* Read whatever comes until `stop` can be read and the queue is empty; how many datagrams came.
 * After a batch that was not full it rests for so many nanoseconds; 0: not at all. */
long bare_follow(struct bare *bare, int fd, int stop, long rest_ns)
{
    struct pollfd both[] = {{.fd = fd, .events = POLLIN}, {.fd = stop, .events = POLLIN}};
    const struct timespec rest = {.tv_nsec = rest_ns};
    long total = 0, got;

    for (;;) {
        both[0].revents = both[1].revents = 0;
        if (poll(both, 2, -1) < 0 && errno != EINTR)
            return -1;
        got = bare_drain(bare, fd);
        if (got < 0)
            return -1;
        total += got;
        if (got == 0 && both[1].revents)
            return total;
        if (rest_ns && got && got < (long)bare->batch)
            nanosleep(&rest, NULL);
    }
}
