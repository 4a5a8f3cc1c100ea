# SPDX-License-Identifier: LGPL-2.1-or-later
"""Words that are neither names nor addresses, for all who judge them."""

from __future__ import annotations

#: What is refused at once: of each kind that people write, and that a name service would take for
#: something else or be asked for in vain.
REFUSED = [
    # What inet_aton takes for an address, and what looks like one.
    "192.0.2.010", "127.1", "1.2.3", "0", "2130706433", "0x7f.1", "0x7f000001", "0X7F",
    "017700000001",
    "127.0.0.256", "192.0.2.1.", "192.0.2", "192.0.2.1.5", "1.2.3.4.", "node.1", "node.0x1f", "0x",
    # What belongs elsewhere.
    "192.0.2.0/24", "192.0.2.1/32", "2001:db8::/64", "192.0.2.1:7410", "node1:7410", "[192.0.2.1]",
    "[2001:db8::1]:7410", "node1:192.0.2.1", "http://node1", "node1=192.0.2.1", "user@node1",
    # Marks of a shell and of configuration files.
    "&", "|", ">", ";", "192.0.2.1;", '"192.0.2.1"', "'node1'", '"node1', "node1'", "$NODE", "(a)",
    "*", "node?", "#", "a\\b", "`id`", "a b", "a\tb", "a\nb", "\x07", "\x7f",
    # What is no name by its shape (RFC 1035, 2.3.1 and 2.3.4).
    "", ".", "..", "a..b", ".a", "a..", "-", "-n", "-a.b", "a.-b", "x" * 64, "a." * 127 + "b",
    "n\xf6de", "\u0663.0.0.1", "a\0b", "\ud800",
    # What is nearly IPv6.
    "::g", ":", ":::", "1:2", "fe80::1%", "fe80::1%a/b", 'fe80::1%eth0"', "fe80::1%lo%lo", "%lo",
    "192.0.2.1%lo", "[fe80::1]%lo", "[::1", "::1]", "[]", "[:]", "::ffff:127.0.0.256",
    "::ffff:192.0.2.010", "12345::",
]  # fmt: skip
