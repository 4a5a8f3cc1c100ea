/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the native sender takes from libc and Linux beside what the core takes; system.pxd tells
 * Cython of it.
 *
 * May be here: #include, and what differs between one libc and another. May not: anything that
 * knows an option, a node or a message. */
#ifndef KDUMPFENCE_SYSTEM_H
#define KDUMPFENCE_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define KMSG makedev(1, 11)
#define PTMX makedev(5, 2)

#ifdef KDUMPFENCE_NUMERIC
#define NAME_SERVICE 0
#define ask_name_service(name, hints, found) EAI_FAIL
#define free_answer(found) ((void) 0)
#define name_service_error(code) ""
#else
#define NAME_SERVICE 1
#define ask_name_service(name, hints, found) getaddrinfo(name, NULL, hints, found)
#define free_answer freeaddrinfo
#define name_service_error gai_strerror
#endif

#if defined(__GLIBC__) && NAME_SERVICE
#include <malloc.h>
/* An arena a thread would cost more memory than all the rest. */
#define limit_arenas() mallopt(M_ARENA_MAX, 1)
#else
#define limit_arenas() ((void) 0)
#endif

#endif
