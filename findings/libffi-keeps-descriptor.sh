#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libffi 3.8 keeps its own file open in every Python that imports ctypes.
#
# An import of ctypes takes a descriptor and never gives it back: the library opens itself for its
# trampolines, where an older one did not. It takes the lowest number that is free. So in a service
# that was started with its standard input closed, as some supervisors do it, number 0 is a file of
# /usr/lib, though sys.stdin is None: code that fills 0, 1 and 2 by opening /dev/null until the
# number is above 2 leaves it there, and a count of the open descriptors before and after an
# innocent import differs by one.
#
# libffi8 3.8.0 (Debian sid) does it, 3.4.8 (Debian 13) does not; each with its suite's Python.
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

cat >"$work/test.py" <<'PYTHON'
import os
import sys


def open_files():
    found = {}
    for number in range(20):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if path.startswith("/usr"):
            found[number] = os.path.basename(path).partition(".so")[0]
    return found


before = open_files()
import ctypes

print(f"  open before the import of ctypes: {before}, after it: {open_files()}")
print(f"  handed on to other programs: {[n for n in open_files() if os.get_inheritable(n)]}")
print(f"  sys.stdin: {sys.stdin and 'there'}")
PYTHON
cat >"$work/test.sh" <<'SHELL'
echo "standard input is /dev/null"
python3 /test.py </dev/null
echo "standard input is closed"
python3 /test.py <&-
SHELL

# one SUITE=VERSION EXPECTED
one() {
    echo "libffi8 ${1#*=}, Debian ${1%%=*}"
    root=$work/${1%%=*}
    unpack "$work" "${1%%=*}" "$root" "libffi8=${1#*=}" python3 || return 0
    cp "$work/test.py" "$work/test.sh" "$root/"
    said=$(inside "$root" sh /test.sh) || cannot "$said"
    as_expected "$2" "$said"
    rm -rf "$root"
    # shellcheck disable=SC2034  # at_least_one looks at it
    ran=yes
}

packages_from "$work"
one sid=3.8.0-2 "standard input is /dev/null
  open before the import of ctypes: {}, after it: {3: 'libffi'}
  handed on to other programs: []
  sys.stdin: there
standard input is closed
  open before the import of ctypes: {}, after it: {0: 'libffi'}
  handed on to other programs: []
  sys.stdin: None"
one trixie=3.4.8-2 "standard input is /dev/null
  open before the import of ctypes: {}, after it: {}
  handed on to other programs: []
  sys.stdin: there
standard input is closed
  open before the import of ctypes: {}, after it: {}
  handed on to other programs: []
  sys.stdin: None"
at_least_one
