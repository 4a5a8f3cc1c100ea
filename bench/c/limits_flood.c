/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flood alone, for a reader in another process: port=, count=, core=, and sources=.
   Prints how many datagrams it sent. */
#include "limits.h"

int main(int argc, char **argv)
{
    (void)argc;
    arguments = argv;
    struct flood flood;
    long sent = 0;
    pin(option("core", 0));
    flood_open(&flood, option("port", 7410), option("sources", 1000), 1, 0);
    while (sent < option("count", 20000))
        sent += flood_send(&flood);
    printf("{\"sent\": %ld}\n", sent);
    return 0;
}
