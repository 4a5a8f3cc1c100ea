# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the value of an option means: as it should be written, and as people write it all the same.

Texts here are a pointer and a length, of a command line that is not to be changed. May not be here:
where a value stands, or what becomes of it.
"""

cdef extern from "native/options.h" nogil:
    int PORT, FAMILY, COUNT, INTERVAL, STATE, VALUES, KEY_FILE, NODE, VERBOSE, VERSION, HELP, CHECK
    int NOTHING, VALUE, MAYBE_VALUE
    int ROWS
    const char *DIGITS
    const char *BLANKS
    const char *QUOTES
    const char *BLANKS_AND_QUOTES "BLANKS QUOTES"
    const char *SIGNS
    const char *ENDS_OF_NODES
    const char *USAGE
    const char *VERSION_LINE
    ctypedef struct Option:
        int index
        char letter
        const char *name
        int takes
    ctypedef struct Limits:
        int least
        int most
        int initial
        const char *what
    ctypedef struct Word:
        const char *name
        int meaning
    const Option *OPTIONS
    const Limits *LIMITS
    const Word *FAMILIES
    const Word *MORE_FAMILIES
    const Word *STATES
    const Word *UNITS
    const Word *BOOLEANS

ctypedef struct Amount:
    int64_t whole
    int64_t thousandths
    const char *unit            # what follows
    size_t unit_length


cdef const char *core_of(const char *text, size_t *length) noexcept nogil:
    """Without the quotes, commas and other signs around it; a minus and a point say something."""
    cdef size_t end = length[0]
    while end and not is_digit(text[end - 1]) and not is_letter(text[end - 1]):
        end -= 1
    while end and not is_digit(text[0]) and not is_letter(text[0]) and text[0] != c'-' and text[0] != c'.':
        text += 1
        end -= 1
    length[0] = end
    return text


cdef int meaning(const Word *word, const char *text, size_t length) noexcept nogil:
    """What the table says of this word, in capitals or not; -1: nothing."""
    while word.meaning >= 0 and not (strlen(word.name) == length and begins(text, length, word.name)):
        word += 1
    return word.meaning


cdef const char *word_for(const Word *word, int64_t value) noexcept nogil:
    """The first of a table that means this, and one does."""
    while word.meaning != value:
        word += 1
    return word.name


cdef int read_amount(const char *text, size_t length, Amount *amount) noexcept nogil:
    """Whether the text begins with a number, and has no other."""
    cdef size_t at = min(length, span(text, DIGITS))
    cdef int64_t worth = 100
    amount.whole = read_digits(text, at)
    amount.thousandths = 0
    if at == 0 or amount.whole > INT_MAX:
        return 0
    if at < length and text[at] == c'.':
        at += 1
        while is_digit(text[at]):
            amount.thousandths += worth * (text[at] - c'0')
            worth //= 10
            at += 1
    amount.unit = text + at
    amount.unit_length = length - at
    return at + before(amount.unit, DIGITS) >= length


cdef int family_called(const char *text, size_t length) noexcept nogil:
    """A family by what people call it; -1 if it is none."""
    cdef int family
    if begins(text, length, b"af_"):
        text += 3
        length -= 3
    family = meaning(FAMILIES, text, length)
    return family if family >= 0 else meaning(MORE_FAMILIES, text, length)


cdef int64_t within(int index, int64_t value) noexcept nogil:
    """The value, or -1 if this option cannot have it."""
    return value if LIMITS[index].least <= value <= LIMITS[index].most else -1


cdef int64_t read_value(int index, const char *text) noexcept nogil:
    """A value as it should be written; -1 if it is not."""
    cdef size_t length = strlen(text)
    cdef Amount amount
    cdef int factor = 1000
    text = strip(text, &length, BLANKS)
    if index == FAMILY or index == STATE:
        return meaning(FAMILIES if index == FAMILY else STATES, text, length)
    if not read_amount(text, length, &amount) or before(text, b".") < length:
        return -1
    if index == INTERVAL:
        amount.unit = strip(amount.unit, &amount.unit_length, BLANKS)
        factor = meaning(UNITS, amount.unit, amount.unit_length)
    elif amount.unit_length:
        return -1
    if factor < 0 or amount.whole * factor % 1000:
        return -1
    return within(index, amount.whole * factor // 1000)


cdef int64_t guess_value(int index, const char *text) noexcept nogil:
    """What was meant by a value with something around it; -1 if nobody can say."""
    cdef size_t length = strlen(text)
    cdef Amount amount
    cdef int64_t value
    cdef int factor = 1000
    text = core_of(text, &length)
    if index == FAMILY:
        return family_called(text, length)
    if index == STATE:
        return meaning(STATES, text, length)
    if not read_amount(text, length, &amount) or (amount.thousandths and index != INTERVAL):
        return -1
    if index == INTERVAL:
        amount.unit = core_of(amount.unit, &amount.unit_length)
        factor = meaning(UNITS, amount.unit, amount.unit_length)
        if factor < 0:
            factor = 1000
    amount.thousandths += 1000 * amount.whole
    value = amount.thousandths * factor // 1000000
    if amount.thousandths and index == INTERVAL:
        value = max(value, <int64_t>1)
    return within(index, value)


cdef int is_packet_name(const char *text, size_t length) noexcept nogil:
    """Whether a packet can carry this node name."""
    cdef size_t i
    for i in range(length):
        if not 0x21 <= text[i] <= 0x7E:
            return 0
    return 0 < length <= NAME_BYTES


cdef char *read_text(int index, char *text, size_t *length, int guess) noexcept nogil:
    """Where a word begins that is the value of an option which takes any, and its length; NULL if it
    is not written as it should be. `guess`: whatever blanks and quotes are around it."""
    cdef char *word
    cdef size_t bare
    length[0] = strlen(text)
    word = strip(text, length, BLANKS)
    bare = length[0]
    text = strip(word, &bare, BLANKS_AND_QUOTES)
    if not guess and bare != length[0]:
        return NULL
    length[0] = bare
    if bare == 0 or before(text, BLANKS) < bare or (index == NODE and not is_packet_name(text, bare)):
        return NULL
    return text


cdef int may_be_number(const char *text, size_t length) noexcept nogil:
    """Whether it could be meant as one: no address, and no host name that begins with a digit."""
    cdef size_t i, points = 0, colons = 0
    for i in range(length):
        points += text[i] == c'.'
        colons += text[i] == c':'
        if text[i] == c'-' or (text[i] == c'.' and i + 1 < length and is_letter(text[i + 1])):
            return 0
    return is_digit(text[span(text, b".")]) and points < 3 and colons < 2


cdef int may_be_family(const char *text, size_t length) noexcept nogil:
    """Whether it could be meant as one: known, or a number with what stands before numbers."""
    cdef size_t start = (3 if begins(text, length, b"ipv") else 2 if begins(text, length, b"ip")
                         else 4 if begins(text, length, b"inet") else 0)
    return family_called(text, length) >= 0 or start + span(text + start, DIGITS) >= length


cdef int read_level(const char *text, int before) noexcept nogil:
    """The verbosity that this value means, -v with it: -vv, -v3, and words for yes and no; or -1."""
    cdef size_t length = strlen(text)
    cdef int level
    text = strip(text, &length, BLANKS)
    if length and span(text, b"vV") >= length:
        return before + 1 + <int>min(length, <size_t>10000)    # -vvv is -v with the value "vv"
    level = meaning(BOOLEANS, text, length)
    if level >= 0:
        return max(before, 1) if level else 0
    if span(text, DIGITS) < length:
        return -1
    return <int>min(read_digits(text, min(length, <size_t>9)), <int64_t>9)
