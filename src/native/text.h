/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line of text that is put together piece by piece, as printf(3) would write it.
 *
 * In C since Cython has no words for a function with any number of arguments. May not be here: where
 * the line goes, or what it is about. */
#ifndef KDUMPFENCE_TEXT_H
#define KDUMPFENCE_TEXT_H

#include <stdarg.h>
#include <string.h>

#define MOST_TEXT 3968 /* of a line, in bytes; what is longer is cut */

typedef struct {
    size_t length;
    char data[MOST_TEXT + 1]; /* with a NUL behind it */
} Text;

/* Digits of a number, right before `end`; where they begin. */
static const char *digits(unsigned long long number, unsigned base, int least, char *end)
{
    for (*end = 0; number || least > 0; number /= base, least--)
        *--end = "0123456789abcdef"[number % base];
    return end;
}

/* Add to what is there, as printf(3) would: %s, %c, %02x, %04o and such, and %d and %lld if they are
 * not negative. */
__attribute__((format(printf, 2, 3))) static void put(Text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        char own[24] = {*format};
        char *end = own + sizeof(own) - 1;
        const char *piece = own;
        size_t length;
        if (*format == '%') {
            switch (*++format) {
            case 's': piece = va_arg(arguments, const char *); break;
            case 'c': own[0] = (char) va_arg(arguments, int); break;
            case 'd': piece = digits(va_arg(arguments, unsigned), 10, 1, end); break;
            case 'l': piece = digits(va_arg(arguments, unsigned long long), 10, 1, end); format += 2; break;
            case '0':
                piece = digits(va_arg(arguments, unsigned), format[2] == 'x' ? 16 : 8, format[1] - '0', end);
                format += 2;
                break;
            }
        }
        length = strlen(piece);
        if (length > MOST_TEXT - text->length)
            length = MOST_TEXT - text->length;
        memcpy(text->data + text->length, piece, length);
        text->length += length;
    }
    text->data[text->length] = 0;
    va_end(arguments);
}

/* The same from the beginning; a Text needs no other preparation. */
#define begin(text, ...) ((text)->length = 0, put(text, __VA_ARGS__))

#endif
