/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The limit of validating: memcpy(3) of the same buffer, as one call. Loaded by
 * bench/cases/validate.py through ctypes.
 */
#include <string.h>

void bare_copy(void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
    /* Whatever the compiler thinks of it, the copy is wanted. */
    __asm__ volatile("" : : "r"(to) : "memory");
}
