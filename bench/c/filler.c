/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fills a listener's queue with datagrams from many nodes, over one socket: each has a source
 * address of its own (IP_PKTINFO, IPV6_PKTINFO), which loopback has plenty of in 127.0.0.0/8.
 * No peer of anything: what it takes is not measured. Loaded through ctypes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 256, CONTROL = CMSG_SPACE(sizeof(struct in6_pktinfo)) };

/* Send the message to `to` once from each of these addresses (4 or 16 bytes each, in network
 * order), over a socket of the same family; how many went out, or -1 and errno. */
long fill(int fd, const unsigned char *sources, unsigned count, int family, const void *to,
          unsigned to_length, void *message, unsigned length)
{
    static struct mmsghdr headers[BATCH];
    static union {
        struct cmsghdr header;
        unsigned char room[CONTROL];
    } control[BATCH];
    struct iovec piece = {message, length};
    unsigned done = 0;

    while (done < count) {
        unsigned most = count - done < BATCH ? count - done : BATCH;
        int sent;

        for (unsigned i = 0; i < most; i++) {
            struct msghdr *header = &headers[i].msg_hdr;
            struct cmsghdr *about;

            memset(header, 0, sizeof(*header));
            memset(&control[i], 0, sizeof(control[i]));
            header->msg_name = (void *)to;
            header->msg_namelen = to_length;
            header->msg_iov = &piece;
            header->msg_iovlen = 1;
            header->msg_control = &control[i];
            if (family == AF_INET) {
                struct in_pktinfo from = {0};
                memcpy(&from.ipi_spec_dst, sources + 4 * (size_t)(done + i), 4);
                header->msg_controllen = CMSG_SPACE(sizeof(from));
                about = CMSG_FIRSTHDR(header);
                about->cmsg_level = IPPROTO_IP;
                about->cmsg_type = IP_PKTINFO;
                about->cmsg_len = CMSG_LEN(sizeof(from));
                memcpy(CMSG_DATA(about), &from, sizeof(from));
            } else {
                struct in6_pktinfo from = {0};
                memcpy(&from.ipi6_addr, sources + 16 * (size_t)(done + i), 16);
                header->msg_controllen = CMSG_SPACE(sizeof(from));
                about = CMSG_FIRSTHDR(header);
                about->cmsg_level = IPPROTO_IPV6;
                about->cmsg_type = IPV6_PKTINFO;
                about->cmsg_len = CMSG_LEN(sizeof(from));
                memcpy(CMSG_DATA(about), &from, sizeof(from));
            }
        }
        sent = sendmmsg(fd, headers, most, 0);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (sent > 0)
            done += (unsigned)sent;
    }
    return done;
}
