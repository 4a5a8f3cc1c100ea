/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fill the queues first, then read them empty: what reading alone costs.

   Options, all NAME=number: those of reader_open, and count=, sources=, sockets=, threads=,
   queue= (bytes), core= (of the one reader), filler= (core of the sender, if another), raw= (1: a
   raw socket's copies), connected=, poll= (1: before every batch), uring= (entries; 0: recvmmsg),
   deferred=, segments=, rubbish=.
   Prints one object of JSON; times in nanoseconds: by the clock, of all threads' processor time,
   and of the busiest thread's. */
#include "limits.h"
#include "limits_uring.h"

enum { MOST = 4 };

static struct reader readers[MOST];
static struct uring ring;
static int fds[MOST], sockets, threads;
static long expected, messages[MOST], calls[MOST];
static int64_t began[MOST], ended[MOST], used[MOST];
static pthread_barrier_t start;

static void *drain(void *argument)
{
    long me = (long)argument;
    int entries = option("uring", 0), polls = option("poll", 0);
    pin(threads > 1 ? me : option("core", -1));
    if (entries)
        uring_open(&ring, fds[0], entries, option("deferred", 1));
    pthread_barrier_wait(&start);
    began[me] = wall_ns();
    int64_t before = thread_ns();
    if (entries)
        while (messages[me] < expected && calls[me] < expected) {
            uring_read(&ring, 1, 20000000, &messages[me]);
            calls[me]++;
        }
    else
        for (int i = me; i < sockets || i == me; i += threads) {
            /* More threads than sockets: they share the last one, with buffers of their own. */
            struct reader *reader = &readers[i];
            for (;;) {
                struct pollfd waiter = {reader->fd, POLLIN, 0};
                if (polls && poll(&waiter, 1, 0) == 0)
                    break;
                calls[me]++;
                if (reader_read(reader, &messages[me]) <= 0)
                    break;
            }
        }
    used[me] = thread_ns() - before;
    ended[me] = wall_ns();
    return NULL;
}

int main(int argc, char **argv)
{
    (void)argc;
    arguments = argv;
    long count = option("count", 20000), sent = 0, total = 0, made = 0, lost = 0;
    int64_t first = INT64_MAX, last = 0, processor = 0, longest = 0;
    struct flood flood;
    pthread_t thread[MOST];
    sockets = option("sockets", 1);
    threads = option("threads", 1);
    int bound[MOST], port = 0, raw = option("raw", 0);
    for (int i = 0; i < sockets; i++) {
        bound[i] = udp_socket();
        if (sockets > 1)
            set(bound[i], SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT");
        set_queue(bound[i], raw ? 2048 : option("queue", 64 << 20));
        port = bind_to(bound[i], port);
        fds[i] = bound[i];
    }
    if (raw) {
        struct sock_filter code[] = {
            {BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0},
            {BPF_LD | BPF_H | BPF_IND, 0, 0, 2},
            {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, port},
            {BPF_RET | BPF_K, 0, 0, 0xffffffff},
            {BPF_RET | BPF_K, 0, 0, 0},
        };
        struct sock_fprog program = {5, code};
        fds[0] = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
        if (fds[0] < 0)
            refused("raw socket");
        bind_to(fds[0], 0);     /* others may use the port's number on addresses of their own */
        if (setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
            refused("SO_ATTACH_FILTER");
        set_queue(fds[0], option("queue", 64 << 20));
        while (recv(fds[0], code, sizeof code, MSG_DONTWAIT) >= 0)
            continue;           /* what came before the filter was there */
    }
    for (int i = 0; i < sockets || i < threads; i++)
        reader_open(&readers[i], fds[i < sockets ? i : sockets - 1]);
    pin(option("filler", option("core", -1)));
    flood_open(&flood, port, option("sources", 1000), option("segments", 1), option("rubbish", 0));
    if (option("connected", 0)) {
        struct sockaddr_in from = address_of(first_source, 0);  /* the only one, with sources=1 */
        if (connect(fds[0], (struct sockaddr *)&from, sizeof from) < 0)
            refused("connect");
    }
    while (sent < count)
        sent += flood_send(&flood);
    for (int i = 0; i < sockets && !raw; i++)
        lost += dropped(fds[i]);
    expected = sent - lost;
    pthread_barrier_init(&start, NULL, threads);
    for (long i = 0; i < threads; i++)
        pthread_create(&thread[i], NULL, drain, (void *)i);
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        first = began[i] < first ? began[i] : first;
        last = ended[i] > last ? ended[i] : last;
        processor += used[i];
        longest = used[i] > longest ? used[i] : longest;
        total += messages[i];
        made += calls[i];
    }
    if (total != expected || !total) {
        fprintf(stderr, "%ld sent, %ld lost, %ld read\n", sent, lost, total);
        return 1;
    }
    printf("{\"read\": %ld, \"wall\": %lld, \"readers\": %lld, \"longest\": %lld, \"calls\": %ld}\n",
           total, (long long)(last - first), (long long)processor, (long long)longest, made);
    return 0;
}
