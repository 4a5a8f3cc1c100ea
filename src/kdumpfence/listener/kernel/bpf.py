# SPDX-License-Identifier: LGPL-2.1-or-later
"""The system call bpf(2), as far as it is needed here: maps in shared memory, and socket filters.

By ctypes, for libc has no function for it. What may not be in this file: what a program does.
Sources: bpf(2), linux/bpf.h; the numbers of the call: asm/unistd.h of each architecture.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct

_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_ARRAY = 2
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE, Linux 5.5
_SOCKET_FILTER = 1
_SO_ATTACH_BPF = 50

#: What the helper bpf_ktime_get_ns asks for. kdumpfence is LGPL-2.1-or-later, whose section 3 lets
#: anyone pass a copy on under the GPL; so is the program, as the kernel gets it.
_LICENSE = b"GPL"

#: The number of the call, by what `uname -m` says and the bytes of a pointer.
_NUMBERS = {
    ("x86_64", 8): 321,
    ("x86_64", 4): 357,
    ("i686", 4): 357,
    ("aarch64", 8): 280,
    ("aarch64", 4): 386,
    ("armv7l", 4): 386,
    ("ppc64", 8): 361,
    ("ppc64le", 8): 361,
    ("s390x", 8): 351,
    ("riscv64", 8): 280,
    ("loongarch64", 8): 280,
}

#: Bytes that are told of why the kernel refuses a program.
_LOG = 1 << 16


def _call(command: int, attributes: bytes) -> bytearray:
    """bpf(2): what became of the attributes, with the result before them. Raises OSError."""
    number = _NUMBERS.get((os.uname().machine, struct.calcsize("P")))
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(number, command, buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return bytearray(struct.pack("=i", result) + buffer.raw)


def _address(data: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(data)


class SharedArray:
    """An array map that programs and this process see at the same time, full of zeros.

    Raises OSError.
    """

    def __init__(self, name: str, size: int, entries: int) -> None:
        wanted = struct.pack(
            "=7I16s", _MAP_ARRAY, 4, size, entries, _MMAPABLE, 0, 0, name.encode()[:15]
        )
        self.fd: int = struct.unpack_from("=i", _call(_MAP_CREATE, wanted))[0]
        page = mmap.PAGESIZE
        try:
            #: All entries one behind the other.
            self.memory = mmap.mmap(self.fd, (size * entries + page - 1) // page * page)
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Programs keep it. BufferError if something still has the memory."""
        self.memory.close()
        os.close(self.fd)


class RefusedError(OSError):
    """The kernel's verifier does not take a program. `log` is what it said."""

    log = ""


def load(name: str, code: bytes) -> int:
    """A descriptor of the program, a socket filter. Raises RefusedError, or another OSError."""
    try:
        return _load(name, code, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.E2BIG):
            raise
        log = ctypes.create_string_buffer(_LOG)
        try:
            # Once more, for what it says to it: a log for which the buffer is too small is ENOSPC.
            return _load(name, code, 1, log)
        except OSError:
            refused = RefusedError(error.errno, error.strerror)
            refused.log = log.value.decode("ascii", "replace")
            raise refused from None


def _load(
    name: str, code: bytes, level: int, log: ctypes.Array[ctypes.c_char] | None = None
) -> int:
    text = ctypes.create_string_buffer(code, len(code))
    license_ = ctypes.create_string_buffer(_LICENSE)
    wanted = struct.pack(
        "=IIQQIIQII16s",
        _SOCKET_FILTER,
        len(code) // 8,
        _address(text),
        _address(license_),
        level,
        0 if log is None else len(log),
        0 if log is None else _address(log),
        0,
        0,
        name.encode()[:15],
    )
    fd: int = struct.unpack_from("=i", _call(_PROG_LOAD, wanted))[0]
    return fd


def attach(sock: socket.socket, program: int) -> None:
    """Put a program on the socket, in the place of the filter that it has. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)


def run(program: int, frame: bytes, interface: int = 0, repeat: int = 1) -> tuple[int, int]:
    """What the program says to an Ethernet frame, and the nanoseconds that it took for it.

    As the kernel has it, offset 0 is the IP header then. `interface`: the index of that through
    which it comes, 0: lo. Raises OSError.
    """
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("=10II", *[0] * 10, interface), 192)
    with_context = (len(context), _address(context)) if interface else (0, 0)
    wanted = struct.pack(
        "=IIIIQQIIIIQQ",
        program,
        0,
        len(frame),
        0,
        _address(data),
        0,
        repeat,
        0,
        with_context[0],
        0,
        with_context[1],
        0,
    )
    answer = _call(_PROG_TEST_RUN, wanted)
    return (
        struct.unpack_from("=I", answer, 4 + 4)[0],
        struct.unpack_from("=I", answer, 4 + 36)[0],
    )
