/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links fence_kdump_send.pyx into a program without Python. */
int kdumpfence_send(int argc, char **argv);

int main(int argc, char **argv) { return kdumpfence_send(argc, argv); }
