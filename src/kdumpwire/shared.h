/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that a program in the kernel changes meanwhile; shared.pxi tells Cython of it.
 *
 * A 64-bit number may come in two halves where a word has 32 bits: then a time is off, once, by
 * what changed between two messages. */
#ifndef KDUMPWIRE_SHARED_H
#define KDUMPWIRE_SHARED_H

#include <stdint.h>

static inline uint32_t look_32(const uint32_t *at) { return *(const volatile uint32_t *)at; }
static inline int64_t look_64(const int64_t *at) { return *(const volatile int64_t *)at; }

/* What was written before is seen before anything is looked at that comes after this. */
static inline void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* What was written before is to be seen by whoever sees this. */
static inline void publish_64(int64_t *at, int64_t value)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *(volatile int64_t *)at = value;
}

#endif
