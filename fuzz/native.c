/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coverage of the compiled core for libFuzzer, with any compiler that has
 * -fsanitize-coverage=trace-pc, GCC for one. Linked into a copy of the core that exists for
 * the fuzzer only, with -Wl,--wrap=memcmp.
 *
 * libFuzzer counts edges with counters that clang would lay out. Here each call that the
 * compiler puts into a basic block counts in a table that is registered as if clang had.
 * libFuzzer itself comes inside a Python extension module, whose symbols nobody else sees;
 * so it is opened by its path, which is in the environment, and asked for them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define OURS __attribute__((visibility("hidden")))

enum { EDGES = 1 << 13 };

static uint8_t counters[EDGES];
static struct {
    uintptr_t pc, flags;
} places[EDGES];

static void (*compared)(void *, const void *, const void *, size_t, int);

OURS void __sanitizer_cov_trace_pc(void)
{
    uint64_t pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
    counters[(pc * 0x9E3779B97F4A7C15u) >> 51]++;
}

/* What the codec looks for in its input: libFuzzer tries it there. */
int __real_memcmp(const void *a, const void *b, size_t length);
OURS int __wrap_memcmp(const void *a, const void *b, size_t length)
{
    int result = __real_memcmp(a, b, length);
    compared(__builtin_return_address(0), a, b, length, result);
    return result;
}

static void *find(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "libFuzzer without %s\n", name);
        abort();
    }
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("KDUMPFENCE_FUZZ_LIBFUZZER");
    void *library = dlopen(path ? path : "", RTLD_NOW);
    void (*counters_init)(uint8_t *, uint8_t *);
    void (*places_init)(const void *, const void *);

    if (library == NULL) {
        fprintf(stderr, "KDUMPFENCE_FUZZ_LIBFUZZER: %s\n", dlerror());
        abort();
    }
    *(void **)&compared = find(library, "__sanitizer_weak_hook_memcmp");
    *(void **)&counters_init = find(library, "__sanitizer_cov_8bit_counters_init");
    *(void **)&places_init = find(library, "__sanitizer_cov_pcs_init");
    for (size_t i = 0; i < EDGES; i++)
        places[i].pc = (uintptr_t)&counters[i];
    counters_init(counters, counters + EDGES);
    places_init(places, places + EDGES);
}
