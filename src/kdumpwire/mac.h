/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* HMAC-SHA256 by BearSSL (https://bearssl.org), where the build found it; mac.pxi takes it.
 *
 * KDUMPFENCE_SIGNING is defined if it did (src/native/build_flags.py). SIGNING says so, too; where it is
 * 0 nothing here may be called. */
#ifndef KDUMPWIRE_MAC_H
#define KDUMPWIRE_MAC_H

#include <stddef.h>
#include <stdint.h>

#ifdef KDUMPFENCE_SIGNING
#if __has_include(<bearssl_hmac.h>)
#include <bearssl_hmac.h>           /* as the sources have it */
#else
#include <bearssl/bearssl_hmac.h>   /* as Debian has it */
#endif

enum { SIGNING = 1 };

typedef br_hmac_key_context MacKey;

static inline void mac_prepare(MacKey *prepared, const uint8_t *key, size_t length)
{
    br_hmac_key_init(prepared, &br_sha256_vtable, key, length);
}

static inline void mac_by(const MacKey *prepared, const uint8_t *data, size_t length, uint8_t *out)
{
    br_hmac_context context;
    br_hmac_init(&context, prepared, 0);
    br_hmac_update(&context, data, length);
    br_hmac_out(&context, out);
}
#else
enum { SIGNING = 0 };

typedef struct { uint8_t nothing; } MacKey;

static inline void mac_prepare(MacKey *prepared, const uint8_t *key, size_t length)
{
    (void) prepared, (void) key, (void) length;
}

static inline void mac_by(const MacKey *prepared, const uint8_t *data, size_t length, uint8_t *out)
{
    (void) prepared, (void) data, (void) length, (void) out;
    __builtin_trap();
}
#endif

/* Whether two MACs are the same, in a time that does not depend on where they differ. */
static inline int mac_same(const uint8_t *one, const uint8_t *other)
{
    const volatile uint8_t *a = one, *b = other;
    unsigned different = 0;
    for (int i = 0; i < 32; i++)
        different |= a[i] ^ b[i];
    return different == 0;
}

#endif
