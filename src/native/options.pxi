# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line of a program that has to send, whatever it was given.

In a crash kernel nobody reads an error. So what can be understood is used, and what cannot is
complained of and left out. A line without a fault means what getopt_long(3) makes of it.

That is not called here. It would split what is right already, and take 4.3 KB of a static program for
that; but which word is an option, and where its value ends, is decided by what getopt_long takes for
an error: quotes that were left around words, several words in one argument, a long option with one
dash, a value that is missing before a node. May not be here: what a value means (values.pxi).
"""

ctypedef struct Options:
    char **nodes            # in the order given, each once
    uint32_t node_count
    char **slots            # the same, found by their hashes
    uint32_t mask           # number of slots - 1
    int64_t values[5]       # PORT, FAMILY, COUNT, INTERVAL, STATE
    char *texts[2]          # KEY_FILE, NODE; NULL if not given
    int packets             # whether STATE, KEY_FILE or NODE was met: then packets are sent
    int verbose
    int action              # CHECK, HELP, VERSION, or 0: send
    char *complaints        # what was wrong and what is used instead: lines, each with a NUL behind it
    size_t complained       # bytes of them

ctypedef struct Words:
    # The command line, word by word: the rest of an argument that is several, then the arguments.
    char *rest              # begins with no blank; NULL if there is nothing left
    char **arguments        # with a NULL behind them

cdef enum:
    NO = 0
    YES = 1
    ONLY_SIGNS = 2


cdef void complain(Options *options, Text *text) noexcept nogil:
    """Keep a line to be said; without memory it is lost."""
    cdef char *memory = <char *>realloc(options.complaints, options.complained + text.length + 1)
    if memory == NULL:
        return
    options.complaints = memory
    memcpy(memory + options.complained, text.data, text.length + 1)
    options.complained += text.length + 1


cdef void complain_of(
    Options *options, const char *what, const char *prefix, const char *given, const char *why
) noexcept nogil:
    cdef Text text
    begin(&text, b"%s ", what)
    put_shown(&text, prefix, given)
    put(&text, b": %s", why)
    complain(options, &text)


cdef void complain_using(Options *options, Text *text, int index) noexcept nogil:
    """Say as well what is used for the option."""
    if index >= VALUES and options.texts[index - VALUES] == NULL:
        put(text, b"; ignored")
    else:
        put(text, b"; using ")
        if index >= VALUES:
            put_shown(text, b"", options.texts[index - VALUES])
        elif index == FAMILY or index == STATE:
            put(text, b"%s", word_for(FAMILIES if index == FAMILY else STATES, options.values[index]))
        else:
            put(text, b"%d", <int>options.values[index])
    complain(options, text)


cdef void say_complaints(Options *options) noexcept nogil:
    cdef size_t at = 0
    while at < options.complained:
        say_words(WARNING, options.complaints + at)
        at += strlen(options.complaints + at) + 1


# ---------------------------------------------------------------- word by word

cdef void put_back(Words *words, char *text) noexcept nogil:
    """What is left of an argument comes next, split at its blanks."""
    text += span(text, BLANKS)
    words.rest = text if text[0] else NULL


cdef char *next_word(Words *words) noexcept nogil:
    """The next one, which then belongs to the caller; NULL if there is none."""
    cdef char *word = words.rest
    cdef char *end
    if word != NULL:
        end = word + before(word, BLANKS)
        words.rest = NULL
        if end[0]:
            end[0] = 0
            put_back(words, end + 1)
    elif words.arguments[0] != NULL:
        word = words.arguments[0]
        words.arguments += 1
    return word


cdef int keep_first(Words *words, char **text) noexcept nogil:
    """If these are several words, keep the first; the others come next."""
    cdef char *first = text[0] + span(text[0], BLANKS)
    cdef char *end = first + before(first, BLANKS)
    if not end[span(end, BLANKS)]:
        return 0
    end[0] = 0
    put_back(words, end + 1)
    text[0] = first
    return 1


cdef int may_be_value(Words *words, int index) noexcept nogil:
    """Whether the word that comes next is the value of this option, if a wrong one: no node, no
    option. ONLY_SIGNS: it has neither letters nor digits."""
    cdef const char *first = words.rest if words.rest != NULL else words.arguments[0]
    cdef size_t length
    if first == NULL:
        return NO
    first += span(first, BLANKS)
    length = before(first, BLANKS)
    first = strip(first, &length, QUOTES)
    if length and first[0] == c'-':
        return length > 1 and is_digit(first[1])
    if index >= VALUES:
        return YES
    first = core_of(first, &length)
    if length == 0:
        return ONLY_SIGNS
    if index == STATE:
        return meaning(STATES, first, length) >= 0
    return may_be_family(first, length) if index == FAMILY else may_be_number(first, length)


cdef int find_row(const char *given, size_t length) noexcept nogil:
    """Of the option that is so named, or abbreviated; -1: none is, -2: it could be several."""
    cdef int row, found = -1
    for row in range(ROWS):
        if same(given, OPTIONS[row].name, length):
            if strlen(OPTIONS[row].name) == length:
                return row
            if found == -1:
                found = row
            elif OPTIONS[row].letter:       # the stock sender has it, which knows of no other
                found = -2
    return found


cdef int find_letter(char letter) noexcept nogil:
    cdef int row
    for row in range(ROWS):
        if OPTIONS[row].letter == letter:
            return row
    return -1


cdef int has_one_dash(const char *word) noexcept nogil:
    """Whether this is a long option that lacks its second dash."""
    cdef size_t length
    cdef int row
    word += 1
    word += span(word, BLANKS)
    length = min(before(word, BLANKS), before(word, b"="))
    row = find_row(word, length)
    return row >= 0 and strlen(OPTIONS[row].name) == length and OPTIONS[row].takes != NOTHING


cdef void take_value(
    Options *options, Words *words, int index, const char *dashes, const char *name, char *value
) noexcept nogil:
    """Read the value of an option that needs one: this, or else the word that follows."""
    cdef Text text
    cdef size_t length
    cdef int64_t number, read
    while True:
        if value == NULL:
            if not may_be_value(words, index):
                begin(&text, b"option '%s%s': needs a value", dashes, name)
                complain_using(options, &text, index)
                return
            value = next_word(words)
        read = read_value(index, value)
        if read < 0 and keep_first(words, &value):
            read = read_value(index, value)
        length = strlen(value)
        core_of(value, &length)
        if length or may_be_value(words, index) != YES:
            break
        value = NULL                # only a sign, as in "-i = 10"
    number = read if read >= 0 else guess_value(index, value)
    if number >= 0:
        options.values[index] = number
    if read < 0:
        begin(&text, b"%s ", OPTIONS[index].name)
        put_shown(&text, b"", value)
        put(&text, b": not %s", LIMITS[index].what)
        complain_using(options, &text, index)


cdef void take_text(
    Options *options, Words *words, const Option *option, char *value
) noexcept nogil:
    """Read the value of an option that needs a word, whatever it is: this, or else the one that follows."""
    cdef Text text
    cdef size_t length
    cdef char *read
    cdef const char *fault = (b"not the path of a file" if option.index == KEY_FILE
                              else b"not 1 to 64 ASCII characters without blanks")
    if value == NULL:
        if not may_be_value(words, option.index):
            begin(&text, b"option '--%s': needs a value", option.name)
            complain_using(options, &text, option.index)
            return
        value = next_word(words)
    read = read_text(option.index, value, &length, 0)
    if read != NULL:
        fault = NULL
    elif keep_first(words, &value):
        read = read_text(option.index, value, &length, 0)
        if read != NULL:
            fault = b"the first of several words"
    if fault != NULL:
        begin(&text, b"%s ", option.name)
        put_shown(&text, b"", value)
        put(&text, b": %s", fault)
    if read == NULL:
        read = read_text(option.index, value, &length, 1)
    if read != NULL:
        read[length] = 0
        options.texts[option.index - VALUES] = read
    if fault != NULL:
        complain_using(options, &text, option.index)


cdef void set_verbose(Options *options, Words *words, char *value) noexcept nogil:
    cdef Text text
    cdef int level
    if value == NULL:
        options.verbose += 1
        return
    level = read_level(value, options.verbose)
    if level < 0 and keep_first(words, &value):
        level = read_level(value, options.verbose)
    options.verbose = level if level >= 0 else max(options.verbose, 1)
    if level < 0:
        begin(&text, b"verbose ")
        put_shown(&text, b"", value)
        put(&text, b": not a number or a boolean; using %d", options.verbose)
        complain(options, &text)


cdef void act(Options *options, int action) noexcept nogil:
    """Of help and version the one that comes first counts, and more than a check."""
    if options.action != HELP and options.action != VERSION:
        options.action = action


cdef void read_long(Options *options, Words *words, char *word) noexcept nogil:
    cdef char *given = word + (2 if word[1] == c'-' else 1)
    cdef char *value = strchr(given, c'=')
    cdef size_t length = before(given, b"=")
    cdef int row
    cdef const Option *option
    if before(given, BLANKS) < length:
        put_back(words, word)
        return
    if value != NULL:
        value[0] = 0
        value += 1
    row = find_row(given, length)
    if row < 0:
        complain_of(options, b"option", b"--", given,
                    b"unknown; ignored" if row == -1 else b"ambiguous; ignored")
        return
    option = &OPTIONS[row]
    if STATE <= option.index <= NODE:
        options.packets = 1
    if KEY_FILE <= option.index <= NODE:
        take_text(options, words, option, value)
    elif option.takes == VALUE:
        take_value(options, words, option.index, b"--", option.name, value)
    elif option.takes == MAYBE_VALUE:
        set_verbose(options, words, value)
    else:
        if value != NULL:
            complain_of(options, b"option", b"--", option.name, b"takes no value")
        if option.index == CHECK or value == NULL:
            act(options, option.index)


cdef void read_short(Options *options, Words *words, char *word) noexcept nogil:
    cdef char letter[2]
    cdef char held
    cdef int row, unknown = 0, action = 0
    cdef size_t at = 1, end
    cdef char *rest
    letter[1] = 0
    while word[at]:
        letter[0] = word[at]
        at += 1
        rest = word + at
        if strchr(BLANKS, letter[0]) != NULL:
            put_back(words, rest)
            break
        row = find_letter(letter[0])
        if row < 0:
            # Where no letter follows, it is the value of an option that does not exist.
            end = at
            if not is_letter(rest[0]) or <uint8_t>letter[0] >= 128:
                end += before(rest, BLANKS)
            held = word[end]
            word[end] = 0
            complain_of(options, b"option", b"-", word + at - 1, b"unknown; ignored")
            word[end] = held
            unknown = 1
            at = end
        elif OPTIONS[row].takes == NOTHING:
            action = action or OPTIONS[row].index
        elif OPTIONS[row].takes == VALUE:
            take_value(options, words, OPTIONS[row].index, b"-", letter, rest if rest[0] else NULL)
            break
        elif not rest[0] or (
            (rest[0] in b"pfci" or strchr(BLANKS, rest[0]) != NULL) and read_level(rest, 0) < 0
        ):
            set_verbose(options, words, NULL)
        else:
            set_verbose(options, words, rest)
            break
    if action and not unknown:
        act(options, action)


# ---------------------------------------------------------------------- nodes

cdef int clean(char *text) noexcept nogil:
    """Escaped colons and brackets around IPv6 -> the form in which it is used; 0: no node."""
    cdef size_t read = 0, length = 0
    while text[read]:
        if text[read] == c'\\' and text[read + 1] == c':':
            read += 1
        text[length] = text[read]
        read += 1
        length += 1
    text[length] = 0
    if text[0] == c'[' and text[length - 1] == c']' and strchr(text, c':') != NULL:
        text[length - 1] = 0
        memmove(text, text + 1, length - 1)
        return is_literal(text)
    return why_refused(text) == NULL


cdef void add_node(Options *options, char *node) noexcept nogil:
    """Unless it was given before."""
    cdef char *cleaned = strdup(node) if node[before(node, b"\\[")] else NULL
    cdef const char *letter
    cdef uint32_t at = 2166136261       # FNV-1a
    if cleaned != NULL and clean(cleaned):
        node = cleaned
    else:
        free(cleaned)
    letter = node
    while letter[0]:
        at = (at ^ <uint8_t>letter[0]) * <uint32_t>16777619
        letter += 1
    while options.slots[at & options.mask] != NULL:
        if strcmp(options.slots[at & options.mask], node) == 0:
            return
        at += 1
    options.slots[at & options.mask] = options.nodes[options.node_count] = node
    options.node_count += 1


cdef void read_operand(Options *options, Words *words, char *word) noexcept nogil:
    """NODE[,NODE...]; a comma too many does no harm."""
    cdef char *end = word + before(word, SIGNS)
    if word[before(word, BLANKS)]:
        put_back(words, word)
        return
    if end[0]:
        complain_of(options, b"operand", b"", word, b"contains characters that no node name has; ignoring them")
    while end[0]:
        end[0] = c','
        end += before(end, SIGNS)
    if not word[span(word, b",")]:
        return
    if not word[span(word, b",0123456789")]:
        complain_of(options, b"operand", b"", word, b"a number is not a node; ignored")
        return
    while word[0]:
        end = word + before(word, b",")
        if end[0]:
            end[0] = 0
            end += 1
        if word[0]:
            add_node(options, word)
        word = end


cdef int read_options(Options *options, int argc, char **argv) noexcept nogil:
    """0 without memory. What is read stays where it is in `argv`."""
    cdef Words words
    cdef char *word
    cdef char *bare
    cdef size_t length
    cdef uint32_t most = 1              # nodes that there can be
    cdef int i, only_operands = 0
    memset(options, 0, sizeof(Options))
    for i in range(VALUES):
        options.values[i] = LIMITS[i].initial
    for i in range(argc):
        most += 1
        word = argv[i] + before(argv[i], ENDS_OF_NODES)
        while word[0]:
            most += 1
            word += 1 + before(word + 1, ENDS_OF_NODES)
    while options.mask < 2 * most:
        options.mask = 2 * options.mask + 1
    options.nodes = <char **>calloc(most + options.mask + 1, sizeof(char *))
    if options.nodes == NULL:
        return 0
    options.slots = options.nodes + most
    words.rest = NULL
    words.arguments = argv + 1 if argc else argv
    while True:
        word = next_word(&words)
        if word == NULL:
            return 1
        length = strlen(word)
        word = strip(word, &length, BLANKS)
        word[length] = 0
        bare = strip(word, &length, BLANKS_AND_QUOTES)
        if bare != word or bare[length]:
            complain_of(options, b"argument", b"", word, b"stray quotes ignored")
        bare[length] = 0
        if only_operands or bare[0] != c'-' or not bare[1]:
            read_operand(options, &words, bare)
        elif strcmp(bare, b"--") == 0:
            only_operands = 1
        elif bare[1] == c'-' or has_one_dash(bare):
            read_long(options, &words, bare)
        else:
            read_short(options, &words, bare)
