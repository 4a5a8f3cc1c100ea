# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Schedule`, the Python class over the C of schedule.pxi: checks numbers, and nothing else."""

# In C they have these names already.
globals().update(
    EARLY_MESSAGES=EARLY_MESSAGES,
    EARLY_GAP_NS=EARLY_GAP_NS,
    RETRY_NS=RETRY_NS,
    RETRY_PATIENCE_NS=RETRY_PATIENCE_NS,
    RETRY_LATER_NS=RETRY_LATER_NS,
    SETTLING_NS=SETTLING_NS,
    ASKING_NS=ASKING_NS,
    MOST_ASKED=MOST_ASKED,
    MOST_ASKED_AGAIN=MOST_ASKED_AGAIN,
    LATE_NETWORK_NS=LATE_NETWORK_NS,
)


cdef class Schedule:
    """See `_purewire.Schedule`."""

    cdef CSchedule c

    def __cinit__(self):
        memset(&self.c, 0, sizeof(CSchedule))

    def __init__(self, uint32_t nodes, int64_t count, int64_t interval_ns, int64_t now_ns):
        if self.c.reached != NULL:
            raise RuntimeError("Schedule is set up once")
        if count < 0:
            raise ValueError(f"count {count}: 0 or more is allowed")
        if interval_ns <= 0:
            raise ValueError(f"interval of {interval_ns} ns: 1 or more is allowed")
        if schedule_init(&self.c, nodes, count, interval_ns, now_ns) < 0:
            raise MemoryError

    def __dealloc__(self):
        schedule_free(&self.c)

    cdef Destination *destination(self, int64_t index) except NULL:
        if not 0 <= index < self.c.destination_count:
            raise IndexError(f"destination {index}: 0 to {<int64_t>self.c.destination_count - 1} are allowed")
        return &self.c.destinations[index]

    cdef int check_node(self, int64_t node) except -1:
        if not 0 <= node < self.c.nodes:
            raise IndexError(f"node {node}: 0 to {<int64_t>self.c.nodes - 1} are allowed")
        return 0

    def give_up(self, int64_t node):
        self.check_node(node)
        self.c.hopeless[node] = 1

    def add(self, int64_t node, int64_t now_ns):
        cdef int index
        self.check_node(node)
        index = schedule_add(&self.c, <uint32_t>node, now_ns)
        if index < 0:
            raise MemoryError
        return index

    def share(self, int64_t index, int64_t node):
        self.destination(index)
        self.check_node(node)
        if schedule_share(&self.c, <uint32_t>index, <uint32_t>node) < 0:
            raise MemoryError

    def __len__(self):
        return self.c.destination_count

    def due(self, int64_t now_ns):
        cdef uint32_t i
        cdef uint32_t count = schedule_due(&self.c, now_ns)
        return [self.c.ready[i] for i in range(count)]

    def trusted(self, int64_t index):
        return destination_trusted(&self.c, self.destination(index)) != 0

    def doubt(self):
        schedule_doubt(&self.c)

    def asked(self, int64_t index):
        cdef int64_t asked = self.destination(index).asked
        return None if asked < 0 else asked

    def overdue(self, int64_t now_ns):
        cdef uint32_t i
        return [i for i in range(self.c.destination_count)
                if destination_overdue(&self.c.destinations[i], now_ns)]

    def taken(self, int64_t index, int64_t now_ns):
        self.destination(index)
        schedule_taken(&self.c, <uint32_t>index, now_ns)

    def when(self, int64_t index):
        return self.destination(index).due

    def sent(self, int64_t index):
        return self.destination(index).left

    def nodes(self, int64_t index):
        cdef uint32_t i
        self.destination(index)
        return [self.c.owners[i].node for i in range(self.c.owner_count)
                if self.c.owners[i].destination == index]

    def left(self, int64_t index, int64_t now_ns):
        self.destination(index)
        schedule_left(&self.c, <uint32_t>index, now_ns)

    def failed(self, int64_t index, int64_t now_ns):
        self.destination(index)
        schedule_failed(&self.c, <uint32_t>index, now_ns)

    def lost(self, int64_t index, int64_t now_ns):
        self.destination(index)
        return schedule_lost(&self.c, <uint32_t>index, now_ns) != 0

    def hurry(self, int64_t now_ns, bint again=True):
        schedule_hurry(&self.c, now_ns, again)

    @property
    def reached(self):
        cdef uint32_t i
        schedule_reached(&self.c)
        return {i for i in range(self.c.nodes) if self.c.reached[i]}

    def next_due(self, int64_t now_ns):
        cdef int64_t soonest = schedule_next(&self.c, now_ns)
        return None if soonest < 0 else soonest

    def finished(self, int64_t now_ns):
        return schedule_finished(&self.c, now_ns) != 0
