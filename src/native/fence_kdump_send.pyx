# SPDX-License-Identifier: LGPL-2.1-or-later
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, binding=False
"""fence_kdump_send for crash kernels: a program that needs libc and nothing else.

Codec, send loop, schedule and routes are the core's; the linker throws away all that mentions
Python, since it cannot be reached from `kdumpfence_send`. What stands in this folder is what
kdumpfence/sender/, cmdline.py, addresses.py and log.py are for the Python front end, and it has to
say and do the same: tests/property/test_forms.py runs all of them.

Nothing but the list of its parts may be in this file, and no variable in any part may be given a
value outside a function. Macros: KDUMPFENCE_VERSION, a string; KDUMPFENCE_NUMERIC, if there is to
be no name service (a static program of glibc would need its shared libraries for that).
"""

from kdumpwire.linux cimport *
from system cimport *

include "../kdumpwire/codec.pxi"
include "../kdumpwire/packet.pxi"
include "../kdumpwire/mac.pxi"
include "../kdumpwire/derive.pxi"
include "../kdumpwire/sources.pxi"
include "../kdumpwire/shared.pxi"
include "../kdumpwire/send.pxi"
include "../kdumpwire/schedule.pxi"
include "../kdumpwire/route.pxi"

include "text.pxi"          # texts, letters, words
include "log.pxi"           # lines to stdout, stderr and the system log
include "addresses.pxi"     # what is an address, what may be a name
include "values.pxi"        # what the value of an option means
include "options.pxi"       # the command line
include "key.pxi"           # the key file
include "state.pxi"         # all that the sender knows
include "status.pxi"        # packets: what this node says of itself
include "nodes.pxi"         # nodes and their addresses
include "names.pxi"         # look-ups of names, each in a thread
include "network.pxi"       # what the kernel says of interfaces, routes and sources
include "lanes.pxi"         # sockets, what goes through them and what became of it
include "questions.pxi"     # questions, and the answers to them
include "loop.pxi"          # what is due, when, until it is enough
include "check.pxi"         # --check
include "program.pxi"       # from start to exit status
