#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes the Debian packages for this machine's distribution and processor:
#
#     sh packaging/deb.sh BUILDER FOLDER [SDIST]
#
# from an sdist, which is made if none is given. BUILDER is a Python with Cython and `build`.
set -eu
cd "$(dirname "$0")/.."

builder=$(realpath -s "$1")
mkdir -p "$2"
folder=$(realpath "$2")
command -v dh >/dev/null || {
	echo "debhelper is missing: apt-get install debhelper" >&2
	exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sdist=${3:-}
if [ -z "$sdist" ]; then
	KDUMPFENCE_COMPILE=no "$builder" -m build --sdist --no-isolation -o "$scratch" . >/dev/null
	sdist=$(echo "$scratch"/*.tar.gz)
fi
tar -C "$scratch" -xf "$sdist"
cd "$scratch"/kdumpfence-*/
cp -a packaging/debian .

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/kdumpfence/_version.py)
if [ "$(dpkg-parsechangelog -S Version)" != "$version-1" ]; then
	echo "packaging/debian/changelog is not about version $version" >&2
	exit 1
fi

# -d: the newest Debian that has Cython 3.1 is newer than most, so the builder brings it.
env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL DEB_BUILD_OPTIONS="noautodbgsym ${DEB_BUILD_OPTIONS:-}" \
	BUILDER="$builder" dpkg-buildpackage -b -uc -us -d >"$scratch/log" 2>&1 || {
	cat "$scratch/log" >&2
	exit 1
}
cp "$scratch"/*.deb "$folder"
ls "$folder"/*kdumpfence_"$version"-1_*.deb
