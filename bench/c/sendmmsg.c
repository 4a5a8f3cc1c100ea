/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The limit of sending: sendmmsg(2) in a loop over headers that were prepared once, one
 * for each destination of one IP family, with no look at what became of them. Loaded
 * through ctypes, so that it sends from the very socket that ours sends from.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct bare {
    unsigned count;
    struct mmsghdr *headers;
    struct sockaddr_in6 *names; /* or sockaddr_in, which is shorter */
    struct iovec payload;
    unsigned char message[64];
};

void bare_free(struct bare *bare)
{
    if (bare == NULL)
        return;
    free(bare->headers);
    free(bare->names);
    free(bare);
}

/* One datagram of that payload (64 bytes at most) to each of these addresses, which are
 * 4 or 16 bytes each in network order, as the family has it. */
struct bare *bare_make(int family, const unsigned char *addresses, unsigned count,
                       unsigned short port, const void *message, unsigned length)
{
    struct bare *bare = calloc(1, sizeof(*bare));

    if (bare == NULL)
        return NULL;
    bare->count = count;
    bare->headers = calloc(count, sizeof(*bare->headers));
    bare->names = calloc(count, sizeof(*bare->names));
    if (!bare->headers || !bare->names || length > sizeof(bare->message)) {
        bare_free(bare);
        return NULL;
    }
    memcpy(bare->message, message, length);
    bare->payload.iov_base = bare->message;
    bare->payload.iov_len = length;
    for (unsigned i = 0; i < count; i++) {
        if (family == AF_INET) {
            struct sockaddr_in *name = (struct sockaddr_in *)&bare->names[i];
            name->sin_family = AF_INET;
            name->sin_port = htons(port);
            memcpy(&name->sin_addr, addresses + 4 * (size_t)i, 4);
            bare->headers[i].msg_hdr.msg_namelen = sizeof(*name);
        } else {
            bare->names[i].sin6_family = AF_INET6;
            bare->names[i].sin6_port = htons(port);
            memcpy(&bare->names[i].sin6_addr, addresses + 16 * (size_t)i, 16);
            bare->headers[i].msg_hdr.msg_namelen = sizeof(bare->names[i]);
        }
        bare->headers[i].msg_hdr.msg_name = &bare->names[i];
        bare->headers[i].msg_hdr.msg_iov = &bare->payload;
        bare->headers[i].msg_hdr.msg_iovlen = 1;
    }
    return bare;
}

/* Send to all of them, `batch` at a time; how many went out, or -1 and errno. */
long bare_send(struct bare *bare, int fd, unsigned batch)
{
    unsigned done = 0;

    while (done < bare->count) {
        unsigned most = bare->count - done < batch ? bare->count - done : batch;
        int sent = sendmmsg(fd, bare->headers + done, most, 0);
        if (sent <= 0)
            return -1;
        done += (unsigned)sent;
    }
    return done;
}
