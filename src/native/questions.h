/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What of a socket's datagrams the kernel lets in: questions (docs/protocol.md), by a classic BPF filter.
 *
 * In C since a table of Cython's would have to be filled in by an import. May not be here: what becomes of
 * a question. */
#ifndef KDUMPFENCE_QUESTIONS_H
#define KDUMPFENCE_QUESTIONS_H

#include <linux/filter.h>
#include <stdint.h>
#include <sys/socket.h>

/* Offset 0 is the UDP header, 8 bytes, whose length counts itself. `narrow`: only those that are signed
 * with this key; none if it is 0. As setsockopt(2). */
static int let_in(int fd, int narrow, uint32_t key_id)
{
    /* The two long numbers are "KDFQUEST". */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 8 + 152, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x4B444651, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x55455354, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, key_id, 0, narrow),
        BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    if (narrow && key_id == 0) {
        program.len = 1;
        program.filter = &code[9];
    }
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

#endif
