/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A flood from one core, readers on another: what arrives, what is dropped, what each side pays.

   Options, all NAME=number: those of reader_open, and ms= (length) or count= (datagrams),
   segments= (datagrams the kernel cuts one train into, for one destination), sources=, rubbish=,
   filter=, queue= (bytes), sockets=, threads=, core= (of the readers, -1: anywhere), reading=
   (0: nobody reads), pause= (ms before the first read), wait= (below), rest= (us after a batch
   that was not full), busy= (us, SO_BUSY_POLL), prefer= (SO_PREFER_BUSY_POLL), uring= (entries).
   veth= (1: between two namespaces, not over lo), gather= (us, see veth_reader).
   Prints one object of JSON; times in nanoseconds. */
#include "limits.h"
#include "limits_uring.h"
#include "limits_veth.h"

enum { MOST = 4 };
enum wait { POLL_AFTER_SHORT, POLL_ALWAYS, SPIN, BLOCK };

static int fds[MOST], sockets, threads, port;
static volatile int done;
static long messages[MOST], datagrams[MOST], calls[MOST], polls[MOST], sent;
static int64_t used[MOST], last[MOST], flood_used, flood_began, flood_wall;
static pthread_barrier_t start;

static void *send_flood(void *unused)
{
    struct flood flood;
    (void)unused;
    if (option("veth", 0)) {
        veth_send();
        pthread_barrier_wait(&veth_step);               /* the reader's port is known */
    }
    pin(0);
    flood_open(&flood, port, option("sources", 1000), option("segments", 1), option("rubbish", 0));
    long count = option("count", 0);
    pthread_barrier_wait(&start);
    int64_t before = thread_ns(), until = wall_ns() + option("ms", 200) * 1000000;
    flood_began = wall_ns();
    while (count ? sent < count : wall_ns() < until)
        sent += flood_send(&flood);
    flood_wall = wall_ns() - flood_began;
    flood_used = thread_ns() - before;
    done = 1;
    return NULL;
}

static void *read_ring(void *unused)
{
    struct uring ring;
    (void)unused;
    pin(option("core", 1));
    uring_open(&ring, fds[0], option("uring", 4096), option("deferred", 1));
    pthread_barrier_wait(&start);
    int64_t before = thread_ns();
    for (;;) {
        int ended = done;
        long got = uring_read(&ring, 1, 10000000, &messages[0]);
        calls[0]++;
        if (got > 0)
            datagrams[0] += got, last[0] = wall_ns();
        else if (ended)
            break;
    }
    used[0] = thread_ns() - before;
    return NULL;
}

static void *read_sockets(void *argument)
{
    long me = (long)argument, rest = option("rest", 0) * 1000;
    enum wait wait = option("wait", POLL_AFTER_SHORT);
    struct reader readers[MOST];
    struct pollfd waiters[MOST];
    int own = 0;
    pin(option("core", 1));
    for (int i = 0; i < sockets; i++)
        if (i % threads == me % sockets) {
            waiters[own] = (struct pollfd){fds[i], POLLIN, POLLIN};
            reader_open(&readers[own], fds[i]);
            if (wait == BLOCK) {
                struct timeval patience = {0, 10000};
                setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
                readers[own].flags = MSG_WAITFORONE;
            }
            own++;
        }
    pthread_barrier_wait(&start);
    int64_t before = thread_ns();
    if (option("pause", 0))
        rest_ns(option("pause", 0) * 1000000);
    for (;;) {
        int ended = done, full = 0, any = 0;
        for (int i = 0; i < own; i++) {
            if (!waiters[i].revents)
                continue;
            long got = reader_read(&readers[i], &messages[me]);
            calls[me]++;
            if (got > 0)
                datagrams[me] += got, any = 1, last[me] = wall_ns();
            full |= got == readers[i].batch;
        }
        if (ended && !any)
            break;
        if (wait == SPIN || wait == BLOCK || (wait == POLL_AFTER_SHORT && full))
            continue;
        if (rest && !full && any)
            rest_ns(rest);
        polls[me]++;
        if (poll(waiters, own, ended ? 0 : 10) == 0)
            for (int i = 0; i < own; i++)
                waiters[i].revents = ended ? POLLIN : 0;
    }
    used[me] = thread_ns() - before;
    return NULL;
}

static long sum(const long *values)
{
    return values[0] + values[1] + values[2] + values[3];
}

int main(int argc, char **argv)
{
    (void)argc;
    arguments = argv;
    pthread_t sender, reader[MOST];
    sockets = option("sockets", 1);
    threads = option("reading", 1) ? option("threads", 1) : 0;
    long lost = 0;
    int64_t end = 0;
    if (option("veth", 0)) {
        pthread_barrier_init(&veth_step, NULL, 2);
        pthread_create(&sender, NULL, send_flood, NULL);
        veth_reader(option("gather", 0));
    }
    for (int i = 0; i < sockets; i++) {
        fds[i] = udp_socket();
        if (sockets > 1)
            set(fds[i], SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
        if (option("busy", 0))
            set(fds[i], SOL_SOCKET, SO_BUSY_POLL, option("busy", 0), "SO_BUSY_POLL");
        if (option("prefer", 0))
            set(fds[i], SOL_SOCKET, SO_PREFER_BUSY_POLL, 1, "SO_PREFER_BUSY_POLL");
        set_queue(fds[i], option("queue", 4 << 20));
        port = bind_to(fds[i], port);
        if (option("filter", 0))
            keep_messages_only(fds[i]);
    }
    pthread_barrier_init(&start, NULL, threads + 1);
    for (long i = 0; i < threads; i++)
        pthread_create(&reader[i], NULL, option("uring", 0) ? read_ring : read_sockets, (void *)i);
    if (option("veth", 0))
        pthread_barrier_wait(&veth_step);
    else
        pthread_create(&sender, NULL, send_flood, NULL);
    pthread_join(sender, NULL);
    for (int i = 0; i < threads; i++)
        pthread_join(reader[i], NULL);
    for (int i = 0; i < sockets; i++)
        lost += dropped(fds[i]);
    for (int i = 0; i < threads; i++)
        end = last[i] > end ? last[i] : end;
    if (threads && sum(messages) + lost != sent && !option("veth", 0)) {
        fprintf(stderr, "%ld sent, %ld dropped, %ld read\n", sent, lost, sum(messages));
        return 1;
    }
    printf("{\"sent\": %ld, \"read\": %ld, \"datagrams\": %ld, \"dropped\": %ld, \"wall\": %lld,"
           " \"read_wall\": %lld, \"flood\": %lld, \"readers\": %lld, \"calls\": %ld, \"polls\": %ld}\n",
           sent, sum(messages), sum(datagrams), lost, (long long)flood_wall,
           (long long)(end ? end - flood_began : 0), (long long)flood_used,
           (long long)(used[0] + used[1] + used[2] + used[3]), sum(calls), sum(polls));
    return 0;
}
