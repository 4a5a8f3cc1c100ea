# SPDX-License-Identifier: LGPL-2.1-or-later
"""The key file, as kdumpfence/keys.py has it: read, judged, and what is wrong with it.

May not be here: what is done with a key (status.pxi).
"""

cdef enum:
    MOST_KEY_FILE = 65536       # bytes
    SIGNING_KEY = 0
    ACCEPTED_KEY = 1
    KEYS_NODE = 2

ctypedef struct KeyFile:
    int lines[3]                # where SIGNING_KEY, ACCEPTED_KEY and KEYS_NODE stand; 0: nowhere
    uint32_t ids[2]
    uint8_t keys[2][KEY_BYTES]
    char name[NAME_BYTES + 1]   # of the node, if these are not the cluster's

ctypedef struct Piece:
    const char *text
    size_t length


cdef inline int separates(char letter) noexcept nogil:
    """Whether this is a blank, or the end of a line; as Python has it, of ASCII."""
    return 0x09 <= letter <= 0x0D or 0x1C <= letter <= 0x20


cdef int is_word(Piece *piece, const char *word) noexcept nogil:
    return piece.length == strlen(word) and memcmp(piece.text, word, piece.length) == 0


cdef int read_hexadecimal(Piece *piece, uint8_t *bytes, size_t count) noexcept nogil:
    """Whether these are so many bytes."""
    cdef size_t i
    cdef char letter
    if piece.length != 2 * count:
        return 0
    for i in range(piece.length):
        letter = piece.text[i]
        if letter == 0 or strchr(HEXADECIMAL, letter) == NULL:
            return 0
        bytes[i // 2] = <uint8_t>(bytes[i // 2] << 4 | ((letter | 32) - c'a' + 10 if is_letter(letter)
                                                      else letter - c'0'))
    return 1


cdef int read_key_line(KeyFile *file, int number, Piece *pieces, int count, Text *why) noexcept nogil:
    """What these words, up to four of them, say; 0: why not is behind `why`."""
    cdef const char *names[3]
    cdef uint8_t number_of_key[4]
    cdef int which
    names[SIGNING_KEY], names[ACCEPTED_KEY], names[KEYS_NODE] = b"signs", b"accepts", b"node"
    for which in range(3):
        if is_word(pieces, names[which]):
            break
    else:
        which = 3
    if which < 3 and file.lines[which]:
        put(why, b"line %d: '%s' for the second time", number, names[which])
        return 0
    if which == KEYS_NODE and count == 2 and is_packet_name(pieces[1].text, pieces[1].length):
        memcpy(file.name, pieces[1].text, pieces[1].length)
    elif which < KEYS_NODE and count == 3:
        if read_hexadecimal(&pieces[1], number_of_key, 4):
            file.ids[which] = <uint32_t>packet_number(number_of_key, 4)
        if file.ids[which] == 0 or not read_hexadecimal(&pieces[2], file.keys[which], KEY_BYTES):
            put(why, b"line %d: not a key id of 8 and a key of 64 hexadecimal digits", number)
            return 0
    else:
        # Not the line itself: it may be a key.
        put(why, b"line %d: not 'signs ID KEY', 'accepts ID KEY' or 'node NAME'", number)
        return 0
    file.lines[which] = number
    return 1


cdef int read_key_lines(KeyFile *file, const char *text, const char *end, Text *why) noexcept nogil:
    """What stands there; 0: why not is behind `why`."""
    cdef Piece pieces[4]
    cdef int number = 0, count, which, turn
    cdef const char *at = text
    while at < end:
        if at[0] & 0x80:
            put(why, b"not text")
            return 0
        at += 1
    at = text
    while at < end:
        number += 1
        count = 0
        while at < end and at[0] != c'\n':
            if separates(at[0]):
                at += 1
                continue
            text = at
            while at < end and not separates(at[0]):
                at += 1
            if count < 4:
                pieces[count].text = text
                pieces[count].length = <size_t>(at - text)
                count += 1
        at += 1
        if count and pieces[0].text[0] != c'#' and not read_key_line(file, number, pieces, count, why):
            return 0
    if not file.lines[SIGNING_KEY]:
        put(why, b"no line 'signs ID KEY'")
        return 0
    if file.lines[KEYS_NODE]:
        return 1
    for turn in range(2):       # in the order in which they stand there
        which = turn ^ (0 < file.lines[ACCEPTED_KEY] < file.lines[SIGNING_KEY])
        if file.lines[which] and key_id_of(file.keys[which]) != file.ids[which]:
            put(why, b"'%s': the id is not that of the key, one of them is mistyped",
                <const char *>b"accepts" if which else <const char *>b"signs")
            return 0
    return 1


cdef int read_open_key(KeyFile *file, int fd, char *data, Text *why) noexcept nogil:
    """`data`: room for one byte more than there may be."""
    cdef stat_t about
    cdef ssize_t length = 0, part = 1
    if fstat(fd, &about) < 0:
        put(why, b"%s", strerror(errno))
    elif about.st_mode & S_IFMT != S_IFREG:
        put(why, b"not a regular file")
    elif about.st_uid != 0 and about.st_uid != geteuid():
        put(why, b"owned by user %d, must be root's", about.st_uid)
    elif about.st_mode & 0o077:
        put(why, b"mode %04o, others have rights to it: must be 0600", about.st_mode & 0o7777)
    else:
        while part > 0 and length <= MOST_KEY_FILE:
            part = read(fd, data + length, <size_t>(MOST_KEY_FILE + 1 - length))
            length += part
        if part < 0:
            put(why, b"%s", strerror(errno))
        elif length > MOST_KEY_FILE:
            put(why, b"more than %d bytes", MOST_KEY_FILE)
        else:
            return read_key_lines(file, data, data + length, why)
    return 0


cdef int read_key(KeyFile *file, const char *path, Text *why) noexcept nogil:
    """Whether there is a key to be had from this file, which nobody else could read or change; if
    not, `why` has got what is wrong. `file`: zeroes."""
    # Not blocked by a FIFO, whoever put one there.
    cdef int fd = open_path(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
    cdef char *data = <char *>malloc(MOST_KEY_FILE + 1)
    cdef int good = 0
    if fd < 0 or data == NULL:
        put(why, b"%s", strerror(errno))
    else:
        good = read_open_key(file, fd, data, why)
    free(data)
    if fd >= 0:
        close(fd)
    return good
