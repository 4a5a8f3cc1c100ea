/* SPDX-License-Identifier: GPL-2.0-or-later */
/* io_uring's recvmsg multishot into a ring of provided buffers, by raw system calls. */
#include <linux/io_uring.h>
#include <sys/syscall.h>

#define URING_BUFFER 128        /* io_uring_recvmsg_out (16), the name (16), 64 of payload */

struct uring {
    int ring, fd, armed;
    unsigned entries, mask, tail;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    struct io_uring_buf_ring *buffers;
    char *data;
    struct msghdr header;
    long rearmed;
};

static inline void uring_give(struct uring *uring, unsigned id)
{
    struct io_uring_buf *buffer = &uring->buffers->bufs[uring->tail++ & uring->mask];
    buffer->addr = (uintptr_t)(uring->data + (size_t)id * URING_BUFFER);
    buffer->len = URING_BUFFER;
    buffer->bid = id;
}

static inline void uring_open(struct uring *uring, int fd, unsigned entries, int deferred)
{
    struct io_uring_params params = {.cq_entries = 2 * entries};
    memset(uring, 0, sizeof *uring);
    params.flags = IORING_SETUP_CQSIZE;
    if (deferred)
        params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    uring->fd = fd;
    uring->ring = syscall(SYS_io_uring_setup, 8, &params);
    if (uring->ring < 0)
        refused("io_uring_setup");
    size_t length = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *rings = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring->ring,
                       IORING_OFF_SQ_RING);     /* one mapping holds both (IORING_FEAT_SINGLE_MMAP) */
    uring->sqes = mmap(NULL, params.sq_entries * sizeof *uring->sqes, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_POPULATE, uring->ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || uring->sqes == MAP_FAILED)
        refused("mmap of the rings");
    uring->sq_tail = (unsigned *)(rings + params.sq_off.tail);
    uring->sq_mask = (unsigned *)(rings + params.sq_off.ring_mask);
    uring->sq_array = (unsigned *)(rings + params.sq_off.array);
    uring->cq_head = (unsigned *)(rings + params.cq_off.head);
    uring->cq_tail = (unsigned *)(rings + params.cq_off.tail);
    uring->cq_mask = (unsigned *)(rings + params.cq_off.ring_mask);
    uring->cqes = (struct io_uring_cqe *)(rings + params.cq_off.cqes);

    uring->entries = entries;
    uring->mask = entries - 1;
    uring->data = mmap(NULL, (size_t)entries * URING_BUFFER, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uring->buffers = mmap(NULL, entries * sizeof(struct io_uring_buf), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    struct io_uring_buf_reg group = {.ring_addr = (uintptr_t)uring->buffers,
                                      .ring_entries = entries};
    if (syscall(SYS_io_uring_register, uring->ring, IORING_REGISTER_PBUF_RING, &group, 1) < 0)
        refused("IORING_REGISTER_PBUF_RING");
    for (unsigned id = 0; id < entries; id++)
        uring_give(uring, id);
    __atomic_store_n(&uring->buffers->tail, uring->tail, __ATOMIC_RELEASE);
    uring->header.msg_namelen = sizeof(struct sockaddr_in);
}

/* What has arrived by now, waiting at most `timeout_ns` for `least` datagrams; -1: nothing. */
static inline long uring_read(struct uring *uring, unsigned least, int64_t timeout_ns, long *messages)
{
    unsigned submit = 0, head = *uring->cq_head, got;
    if (!uring->armed) {
        unsigned tail = *uring->sq_tail, slot = tail & *uring->sq_mask;
        struct io_uring_sqe *sqe = &uring->sqes[slot];
        memset(sqe, 0, sizeof *sqe);
        sqe->opcode = IORING_OP_RECVMSG;
        sqe->fd = uring->fd;
        sqe->addr = (uintptr_t)&uring->header;
        sqe->len = 1;
        sqe->ioprio = IORING_RECV_MULTISHOT;
        sqe->flags = IOSQE_BUFFER_SELECT;
        uring->sq_array[slot] = slot;
        __atomic_store_n(uring->sq_tail, tail + 1, __ATOMIC_RELEASE);
        uring->armed = submit = 1;
        uring->rearmed++;
    }
    if (submit || __atomic_load_n(uring->cq_tail, __ATOMIC_ACQUIRE) - head < least) {
        struct __kernel_timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        struct io_uring_getevents_arg more = {.ts = (uintptr_t)&time};
        if (syscall(SYS_io_uring_enter, uring->ring, submit, least,
                    IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &more, sizeof more) < 0
            && errno != ETIME && errno != EINTR)
            refused("io_uring_enter");
    }
    unsigned tail = __atomic_load_n(uring->cq_tail, __ATOMIC_ACQUIRE);
    long read = 0;
    for (; head != tail; head++) {
        struct io_uring_cqe *cqe = &uring->cqes[head & *uring->cq_mask];
        if (cqe->res < 0 && cqe->res != -ENOBUFS) {
            errno = -cqe->res;
            refused("recvmsg multishot");
        }
        if (!(cqe->flags & IORING_CQE_F_MORE))
            uring->armed = 0;
        if (cqe->flags & IORING_CQE_F_BUFFER) {
            uring_give(uring, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
            read++;
        }
    }
    got = read;
    __atomic_store_n(&uring->buffers->tail, uring->tail, __ATOMIC_RELEASE);
    __atomic_store_n(uring->cq_head, head, __ATOMIC_RELEASE);
    *messages += got;
    return got ? (long)got : -1;
}
