/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a library that was compiled for glibc calls, and musl does not have: a distribution's BearSSL is
 * hardened with _FORTIFY_SOURCE. Linked into the static sender alone. */
#include <stdlib.h>
#include <string.h>

void *__memcpy_chk(void *to, const void *from, size_t length, size_t room);
void *__memmove_chk(void *to, const void *from, size_t length, size_t room);
void *__memset_chk(void *to, int byte, size_t length, size_t room);

void *__memcpy_chk(void *to, const void *from, size_t length, size_t room)
{
    if (length > room)
        abort();
    return memcpy(to, from, length);
}

void *__memmove_chk(void *to, const void *from, size_t length, size_t room)
{
    if (length > room)
        abort();
    return memmove(to, from, length);
}

void *__memset_chk(void *to, int byte, size_t length, size_t room)
{
    if (length > room)
        abort();
    return memset(to, byte, length);
}
