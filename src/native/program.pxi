# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program, from its arguments to its exit status; main.c calls it."""

cdef void on_signal(int number) noexcept nogil:
    global ended_by
    if ended_by == 0:
        ended_by = number


cdef void catch_signals(Sender *sender) noexcept nogil:
    """SIGTERM, SIGINT and SIGHUP come only while the loop waits; ignored ones stay so.

    No output ends or stops the program: not one whose reader is gone, or a full file, or a
    terminal that is not to be written to from the background.
    """
    cdef sigaction_t action
    cdef sigset_t caught
    cdef int number
    cdef int[3] ending = [SIGTERM, SIGINT, SIGHUP]
    cdef int[3] ignored = [SIGPIPE, SIGTTOU, SIGXFSZ]
    sigemptyset(&caught)
    for number in ending:
        if sigaction(number, NULL, &action) == 0 and action.sa_handler != SIG_IGN:
            memset(&action, 0, sizeof(action))
            action.sa_handler = on_signal
            sigaction(number, &action, NULL)
            sigaddset(&caught, number)
    memset(&action, 0, sizeof(action))
    action.sa_handler = SIG_IGN
    for number in ignored:
        sigaction(number, &action, NULL)
    sigprocmask(SIG_BLOCK, &caught, &sender.signals)


cdef int prepare(Sender *sender) noexcept nogil:
    """Sort the operands into addresses and names; -1 without memory."""
    cdef uint32_t i
    cdef Node *node
    cdef Answers found
    cdef const char *why
    cdef int ends[2]
    cdef int name_count = 0
    cdef Options *options = &sender.options
    cdef int64_t now = monotonic_ns()
    sender.nodes = <Node *>calloc(options.node_count, sizeof(Node))
    if sender.nodes == NULL or schedule_init(
        &sender.schedule, options.node_count, options.values[COUNT], options.values[INTERVAL] * SECOND, now
    ) < 0:
        return -1
    sender.sources.seed = <uint64_t>now * <uint64_t>0x9E3779B97F4A7C15 + <uint64_t>getpid()
    for i in range(2):
        sender.channels[i].transmitter.family = AF_INET if i == 0 else AF_INET6
        sender.channels[i].transmitter.payload.iov_base = sender.status if options.packets else <void *>own_message()
        sender.channels[i].transmitter.payload.iov_len = PACKET_LENGTH if options.packets else MESSAGE_BYTES
        sender.ports[i].fd = -1
    sender.network = sender.read_end = sender.write_end = -1
    pthread_mutex_init(&sender.lock, NULL)
    found.count = 1
    for i in range(options.node_count):
        node = &sender.nodes[i]
        node.name = options.nodes[i]
        why = read_literal(node.name, <int>options.values[FAMILY], &found.addresses[0])
        if why != NULL:
            unresolved(sender, i, why, 1)
        elif found.addresses[0].length:
            if resolved(sender, i, &found) < 0:
                return -1
        elif not NAME_SERVICE and strchr(node.name, c'%') == NULL:
            unresolved(sender, i, b"this build has no name service, and needs addresses", 1)
        else:
            node.waiting = node.asked = 1
            node.due = now
            node.delay = RETRY_NS
            name_count += 1
    if name_count:
        limit_arenas()
        if pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0:    # without it, there is the next slice
            sender.read_end, sender.write_end = ends[0], ends[1]
    return 0


cdef public int kdumpfence_send(int argc, char **argv) noexcept nogil:
    """The program; its exit status."""
    cdef Sender *sender = &the_sender
    cdef Options *options = &sender.options
    cdef int status
    catch_signals(sender)
    if not read_options(options, argc, argv):
        return no_memory()
    if options.action == HELP:
        write_some(1, USAGE, strlen(USAGE))
        return 0
    if options.action == VERSION:
        write_some(1, VERSION_LINE, strlen(VERSION_LINE))
        return 0
    if options.node_count:
        know_oneself(sender)
    say_complaints(options)
    if options.node_count == 0:
        say_words(ERROR, b"no node given")
        write_some(2, USAGE, strlen(USAGE))
        return 1
    if options.packets and options.verbose:
        say_who(sender)
    if prepare(sender) < 0:
        return no_memory()
    if options.action == CHECK:
        status = check(sender)
    else:
        sender.crashed = access(b"/proc/vmcore", F_OK) == 0
        if not sender.crashed:
            say_words(WARNING, b"no /proc/vmcore: this machine has not crashed, but other nodes will "
                               b"take it for dead")
        open_network(sender)
        status = run(sender)
    if status < 0:
        say_words(DEBUG, b"ended by SIGTERM" if ended_by == SIGTERM else b"ended by SIGINT"
                  if ended_by == SIGINT else b"ended by SIGHUP")
        status = 128 + ended_by
    return status
