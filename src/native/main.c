/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Links fence_kdump_send.pyx into a program without Python. */
#include <unistd.h>

int kdumpfence_send(int argc, char **argv);

/* Without exit(3), which a look-up that hangs could hold up: nothing is buffered here. */
int main(int argc, char **argv) { _exit(kdumpfence_send(argc, argv)); }
