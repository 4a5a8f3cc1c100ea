/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a message, and counting very many of them, with AVX2 where there is one; codec.pxi
 * takes it.
 *
 * May be here: what needs the compiler's vectors or the processor's instructions. */
#ifndef KDUMPWIRE_CODEC_H
#define KDUMPWIRE_CODEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Magic and version, in both byte orders. */
static const unsigned char LITTLE[8] = {0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0};
static const unsigned char BIG[8] = {0x1b, 0x30, 0x2a, 0x40, 0, 0, 0, 1};
/* What of it is the magic. */
static const unsigned char MAGIC_PART[8] = {255, 255, 255, 255, 0, 0, 0, 0};

/* The three as words, as memory has them. */
#define WORDS_OF_MESSAGES \
    uint64_t little, big, part; \
    memcpy(&little, LITTLE, 8); \
    memcpy(&big, BIG, 8); \
    memcpy(&part, MAGIC_PART, 8)

/* Count whole messages, and words that at least begin with a magic. No branch depends
 * on the data: rubbish takes no longer than messages. */
static inline void tally_words(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
{
    WORDS_OF_MESSAGES;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, data + 8 * i, 8);
        *whole += (word == little) | (word == big);
        word &= part;
        *magic += (word == (little & part)) | (word == (big & part));
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
/* The same four words at a time. Every x86-64 can compare two 32-bit words at once, but
 * 64-bit ones only by detours that cost more than they save: hence AVX2 or nothing. */
typedef uint64_t four_words __attribute__((vector_size(32)));

__attribute__((target("avx2")))
static inline size_t tally_fours(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
{
    WORDS_OF_MESSAGES;
    const four_words littles = {little, little, little, little};
    const four_words bigs = {big, big, big, big};
    const four_words parts = {part, part, part, part};
    four_words wholes = {0}, magics = {0};
    size_t i;
    for (i = 0; i + 4 <= words; i += 4) {
        four_words word;
        memcpy(&word, data + 8 * i, 32);
        wholes -= (four_words)((word == littles) | (word == bigs));    /* true is -1 */
        word &= parts;
        magics -= (four_words)((word == (littles & parts)) | (word == (bigs & parts)));
    }
    *whole += wholes[0] + wholes[1] + wholes[2] + wholes[3];
    *magic += magics[0] + magics[1] + magics[2] + magics[3];
    return i;
}

/* Whether processor and kernel have AVX2. __builtin_cpu_supports would say so too, but
 * leaves a constructor in every program that this file is linked into. */
static inline int has_avx2(void)
{
    static int known;           /* 1: no, 2: yes; a guest's cpuid takes microseconds */
    unsigned a, b, c, d, low, high;
    if (known == 0) {
        known = 1;
        if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX)) {
            __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            if ((low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2))
                known = 2;
        }
    }
    return known == 2;
}

/* How many of the words are counted already. */
static inline size_t tally_wide(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
{
    return words >= 16 && has_avx2() ? tally_fours(data, words, whole, magic) : 0;
}
#else
static inline size_t tally_wide(const unsigned char *data, size_t words, uint64_t *whole, uint64_t *magic)
{
    (void)data, (void)words, (void)whole, (void)magic;
    return 0;
}
#endif

#endif
