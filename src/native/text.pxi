# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts: putting them together (text.h), and looking at letters and words.

May not be here: what a word means, or where a text goes. strspn(3), strcspn(3), strncasecmp(3) and
printf(3) would do, and lead glibc to tables and variants of them that nothing else here needs:
together 280 kB more Rss in the dynamic program.
"""

cdef extern from "native/text.h" nogil:
    int MOST_TEXT
    ctypedef struct Text:
        size_t length
        char *data
    void put(Text *text, const char *format, ...)
    void begin(Text *text, const char *format, ...)

cdef enum:
    MOST_SHOWN = 80


cdef inline int is_digit(char letter) noexcept nogil:
    return c'0' <= letter <= c'9'


cdef inline int is_letter(char letter) noexcept nogil:
    return c'a' <= (letter | 32) <= c'z'


cdef size_t span(const char *text, const char *letters) noexcept nogil:
    """How many of these letters it begins with."""
    cdef size_t length = 0
    while text[length] and strchr(letters, text[length]) != NULL:
        length += 1
    return length


cdef size_t before(const char *text, const char *letters) noexcept nogil:
    """How many others stand before the first of these letters, or before its end."""
    cdef size_t length = 0
    while text[length] and strchr(letters, text[length]) == NULL:
        length += 1
    return length


cdef char *strip(const char *text, size_t *length, const char *letters) noexcept nogil:
    """Without these letters at both ends."""
    while length[0] and strchr(letters, text[0]) != NULL:
        text += 1
        length[0] -= 1
    while length[0] and strchr(letters, text[length[0] - 1]) != NULL:
        length[0] -= 1
    return <char *>text


cdef int same(const char *text, const char *word, size_t length) noexcept nogil:
    """Whether so many letters are the same, if the text may have capitals where the word has none."""
    cdef size_t i
    for i in range(length):
        if (text[i] | 32 if is_letter(text[i]) else text[i]) != word[i]:
            return 0
    return 1


cdef int begins(const char *text, size_t length, const char *word) noexcept nogil:
    return length >= strlen(word) and same(text, word, strlen(word))


cdef int64_t read_digits(const char *text, size_t length) noexcept nogil:
    """The number that these digits are; anything above INT_MAX if it is above that."""
    cdef int64_t value = 0
    cdef size_t i
    for i in range(length):
        if value <= INT_MAX:
            value = 10 * value + (text[i] - c'0')
    return value


cdef void put_shown(Text *text, const char *prefix, const char *given) noexcept nogil:
    """What was given, quoted, and never longer than a glance."""
    cdef size_t i, length = strlen(prefix)
    cdef uint8_t byte
    put(text, b"'")
    for i in range(min(length + strlen(given), <size_t>MOST_SHOWN)):
        byte = <uint8_t>(prefix[i] if i < length else given[i - length])
        put(text, b"%c" if 32 <= byte < 127 and byte != c"'" and byte != c'\\' else b"\\x%02x", byte)
    put(text, b"'")
