/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The limit of verifying: HMAC-SHA256 of the same library over as many packets that lie in memory, with
 * keys that are prepared, and the comparison. Loaded by bench/cases/signed.py through ctypes.
 */
#include <stdint.h>
#include <stdlib.h>

#include <kdumpwire/mac.h>

enum { PACKET = 152, SIGNED = 120, KEY = 32 };

/* Prepared keys, NULL without memory; free(3) ends them. */
void *bare_prepare(const uint8_t *keys, size_t count)
{
    MacKey *prepared = malloc(count * sizeof(MacKey));
    for (size_t i = 0; prepared && i < count; i++)
        mac_prepare(&prepared[i], keys + i * KEY, KEY);
    return prepared;
}

/* How many of these packets fit; `of` has the number of each one's key. */
long bare_verify(const void *prepared, const uint8_t *packets, const uint32_t *of, size_t count)
{
    const MacKey *keys = prepared;
    uint8_t right[KEY];
    long fit = 0;
    for (size_t i = 0; i < count; i++) {
        mac_by(&keys[of[i]], packets + i * PACKET, SIGNED, right);
        fit += mac_same(right, packets + i * PACKET + SIGNED);
    }
    return fit;
}
