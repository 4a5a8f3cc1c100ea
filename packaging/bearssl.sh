#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes BearSSL's static library, for systems that have no package of it:
#
#     sh packaging/bearssl.sh FOLDER [ARCHIVE]
#     KDUMPFENCE_BEARSSL=FOLDER ...
#
# of the released archive, which is downloaded if none is given. CC and CFLAGS are honoured.
set -eu
version=0.6
sha256=6705bba1714961b41a728dfc5debbe348d2966c117649392f8c8139efc83ff14

mkdir -p "$1"
folder=$(cd "$1" && pwd)
archive=${2:-}
if [ -z "$archive" ]; then
    archive=$folder/bearssl-$version.tar.gz
    curl -fsSL --retry 3 -o "$archive" "https://www.bearssl.org/bearssl-$version.tar.gz"
fi
echo "$sha256  $archive" | sha256sum -c - >&2
tar -C "$folder" --strip-components=1 -xzf "$archive"
make -C "$folder" CC="${CC:-cc}" CFLAGS="${CFLAGS:--Os} -fPIC" lib >&2
