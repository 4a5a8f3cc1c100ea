#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Sees to what the machine itself must have, beside python3, git and make.
#
#     sh tools/prerequisites.sh [--plan] build|packages|tests [PYTHON]
#
# As root on Debian or Ubuntu it installs what is missing. Elsewhere it says what that is, and
# fails if the project cannot be built without it; tests that cannot run skip for themselves, and
# without BearSSL nothing signs.
# With --plan it only says what it would do.

plan=''
if [ "$1" = --plan ]; then
    plan=1
    shift
fi
purpose=$1
python=${2:-python3}

# The list: package (Debian's name), when it is needed, what for, and how to see that it is there.
look() {
    missing='' reasons='' fatal=''
    need gcc             compile 'compiles the core'           sh -c 'command -v gcc || command -v cc'
    need libc6-dev       compile 'headers of C and Linux'      test -e /usr/include/linux/errqueue.h
    need python3-dev     compile 'headers of Python'           "$python" -c "$has_headers"
    need libbearssl-dev  signing 'signs messages'              env KDUMPFENCE_SIGNING=require "$python" src/native/build_flags.py signing
    need python3-venv    build   'makes .venv'                 "$python" -c 'import ensurepip, venv'
    need debhelper       packages 'makes the Debian package'   command -v dh
    need python3-dev     packages 'headers for packages'       /usr/bin/python3 -c "$has_headers"
    need iproute2        tests   'networks of tests/system'    command -v ip
    need util-linux      tests   'namespaces of tests/system' command -v unshare
    need mount           tests   'namespaces of tests/system' command -v mount
    need qemu-system-x86 tests   'guests of tests/system'      command -v qemu-system-x86_64
    need mmdebstrap      tests   'other suites of Debian'       command -v mmdebstrap
    need nftables        tests   'firewalls of tests/doctor'   command -v nft
    need zstd            tests   'images of tests/doctor'      command -v zstd
    need lz4             tests   'images of tests/doctor'      command -v lz4
    need mandoc          tests   'checks the man pages'        command -v mandoc
    need groff-base      tests   'checks the man pages'        command -v groff
    need musl-tools      packages 'a static native sender'     command -v musl-gcc
    need rpm             tests   'makes and tries the rpm'      command -v rpmbuild
    need dnf             tests   'tries the rpm'                command -v dnf
    need createrepo-c    tests   'tries the rpm'                command -v createrepo_c
    need buildah         tests   'builds the container image'   command -v buildah
    need lintian         tests   'checks the Debian package'    command -v lintian
    need checkpolicy     tests   'compiles the SELinux module'  command -v checkmodule
    need semodule-utils  tests   'compiles the SELinux module'  command -v semodule_package
    need tshark          tests   'tries the dissector'          command -v tshark
    need postgresql      tests   'databases of the tests'       sh -c "$has_postgres"
    need systemd         tests   'checks and runs the units'   command -v systemd-analyze
}

has_headers='import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'

# Where Debian has it, no PATH leads.
has_postgres='command -v postgres || ls /usr/lib/postgresql/*/bin/postgres'

need() {
    package=$1 when=$2 what=$3
    shift 3
    case $when in
        compile | signing) [ "${KDUMPFENCE_COMPILE:-}" != no ] || return 0 ;;
        tests) [ "$purpose" = tests ] || return 0 ;;
        packages) [ "$purpose" != build ] || return 0 ;;
    esac
    [ "$when,${KDUMPFENCE_SIGNING:-}" != signing,no ] || return 0
    "$@" >/dev/null 2>&1 && return
    case " $missing " in
        *" $package "*) ;;
        *) missing="$missing $package" ;;
    esac
    reasons="$reasons${reasons:+, }$package ($what)"
    case $when,$purpose in
        tests,* | packages,tests | signing,build | signing,tests) ;;
        *) fatal=1 ;;
    esac
}

# The tests start a database server of their own: Debian's package need not.
no_cluster=/etc/postgresql-common/createcluster.d/kdumpfence-tests.conf

install() {
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@" \
        install -y --no-install-recommends $missing
}

# How many these are with all that they need; 0 if apt has no lists yet.
count() {
    install --simulate 2>/dev/null | grep -c '^Inst '
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || {
    echo "$python: Python 3.9 or newer is needed; name another: make PYTHON=python3.11" >&2
    exit 1
}
look
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "to be installed with apt-get:$missing"
    if [ -n "$plan" ]; then
        number=$(count)
        [ "$number" = 0 ] || echo "which makes $number packages, with what they depend on"
        exit 0
    fi
    case $missing in
        *postgresql*)
            mkdir -p "${no_cluster%/*}"
            echo 'create_main_cluster = false' >"$no_cluster"
            trap 'rm -f "$no_cluster"' EXIT
            ;;
    esac
    install || { apt-get -q update && install; }
    look
    [ -n "$missing" ] || exit 0
fi
echo "not on this machine: $reasons; on Debian: apt-get install$missing" >&2
[ -z "$fatal" ] || [ -n "$plan" ]
