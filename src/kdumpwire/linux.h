/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the compiled core takes from libc and the kernel; linux.pxd tells Cython of it.
 *
 * May be here: #include, what older headers lack, and what Cython has no words for. May not: anything
 * that knows what a message is. */
#ifndef KDUMPWIRE_LINUX_H
#define KDUMPWIRE_LINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef TIOCOUTQ
#define TIOCOUTQ 0x5411
#endif

static inline void prefetch(const void *at) { __builtin_prefetch(at); }

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

#endif
