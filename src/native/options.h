/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The tables of the command line: which options there are, and what the words mean that may be their
 * values. As in kdumpfence/sender/options.py, and the tests compare what both make of them.
 *
 * In C since a table of Cython's would have to be filled in by an import. Names stand in arrays,
 * not behind pointers, which would have to be relocated when the program starts. */
#ifndef KDUMPFENCE_OPTIONS_H
#define KDUMPFENCE_OPTIONS_H

#include <limits.h>
#include <sys/socket.h>

#define DIGITS "0123456789"
#define BLANKS " \t\n\v\f\r"
#define QUOTES "\"'`"
/* A comma; and quotes and what a shell would have read, which no node has. */
#define SIGNS QUOTES ";&|<>(){}"
#define ENDS_OF_NODES "," SIGNS BLANKS

enum { PORT, FAMILY, COUNT, INTERVAL, STATE, VALUES };  /* whose values become numbers */
enum { KEY_FILE = VALUES, NODE, VERBOSE, VERSION, HELP, CHECK };
enum { NOTHING, VALUE, MAYBE_VALUE };

typedef struct {
    unsigned char index;    /* one of the above; in their order, then further names */
    char letter;            /* 0: none */
    char name[9];
    unsigned char takes;
} Option;

static const Option OPTIONS[] = {
    {PORT, 'p', "ipport", VALUE},
    {FAMILY, 'f', "family", VALUE},
    {COUNT, 'c', "count", VALUE},
    {INTERVAL, 'i', "interval", VALUE},
    {STATE, 0, "state", VALUE},
    {KEY_FILE, 0, "key-file", VALUE},
    {NODE, 0, "node", VALUE},
    {VERBOSE, 'v', "verbose", MAYBE_VALUE},
    {VERSION, 'V', "version", NOTHING},
    {HELP, 'h', "help", NOTHING},
    {CHECK, 0, "check", NOTHING},
    {PORT, 0, "port", VALUE},   /* what the agents of other devices call it */
};
enum { ROWS = sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

/* Of each value that is a number: what it may be, and is without the option. */
typedef struct {
    int least, most, initial;
    char what[44];
} Limits;

static const Limits LIMITS[VALUES] = {
    {1, 65535, 7410, "a port number (1 to 65535)"},
    {0, 0, AF_UNSPEC, "one of auto, ipv4, ipv6"},
    {0, INT_MAX, 0, "a number of messages (0 to 2147483647)"},
    {1, INT_MAX, 10, "a whole number of seconds (1 to 2147483647)"},
    {0, 0, 2, "one of started, dumping, finished, failed"},
};

#define VERSION_LINE "fence_kdump_send " KDUMPFENCE_VERSION " (kdumpfence, native)\n"
#define USAGE \
    "Usage: fence_kdump_send [options] NODE...\n" \
    "\n" \
    "Options:\n" \
    "\n" \
    "  -p, --ipport=IPPORT           UDP port to send to (default: 7410)\n" \
    "  -f, --family=FAMILY           addresses to use: auto, ipv4, ipv6 (default: auto)\n" \
    "  -c, --count=COUNT             messages for each node, 0 = until killed (default: 0)\n" \
    "  -i, --interval=INTERVAL       seconds between messages (default: 10)\n" \
    "  -v, --verbose[=LEVEL]         log more; repeat it or give a level for even more\n" \
    "  -V, --version                 print the version\n" \
    "  -h, --help                    print this help\n" \
    "      --check                   send nothing; show which way the messages would go\n" \
    "      --key-file=FILE           key to sign messages with (default: none)\n" \
    "      --node=NODE               name of this node (default: the key's, or the host name)\n" \
    "      --state=STATE             started, dumping, finished or failed (default: dumping)\n"

/* A word and what it means. A table ends with -1. */
typedef struct {
    char name[12];
    int meaning;
} Word;

static const Word FAMILIES[] = {{"auto", AF_UNSPEC}, {"ipv4", AF_INET}, {"ipv6", AF_INET6}, {"", -1}};

/* By their numbers in a packet (kdumpwire/packet.pxi). */
static const Word STATES[] = {{"started", 1}, {"dumping", 2}, {"finished", 3}, {"failed", 4}, {"", -1}};

/* What else people call families. */
static const Word MORE_FAMILIES[] = {
    {"any", AF_UNSPEC}, {"all", AF_UNSPEC}, {"both", AF_UNSPEC}, {"unspec", AF_UNSPEC},
    {"ip4", AF_INET}, {"inet", AF_INET}, {"inet4", AF_INET}, {"v4", AF_INET}, {"4", AF_INET},
    {"ip6", AF_INET6}, {"inet6", AF_INET6}, {"v6", AF_INET6}, {"6", AF_INET6},
    {"", -1},
};

/* Milliseconds of the units in which Pacemaker takes an interval. */
static const Word UNITS[] = {
    {"", 1000}, {"ms", 1}, {"msec", 1},
    {"s", 1000}, {"sec", 1000}, {"secs", 1000}, {"second", 1000}, {"seconds", 1000},
    {"m", 60000}, {"min", 60000}, {"mins", 60000}, {"minute", 60000}, {"minutes", 60000},
    {"h", 3600000}, {"hr", 3600000}, {"hour", 3600000}, {"hours", 3600000},
    {"", -1},
};

static const Word BOOLEANS[] = {
    {"yes", 1}, {"true", 1}, {"on", 1}, {"y", 1}, {"t", 1},
    {"no", 0}, {"false", 0}, {"off", 0}, {"n", 0}, {"f", 0}, {"", 0},
    {"", -1},
};

#endif
