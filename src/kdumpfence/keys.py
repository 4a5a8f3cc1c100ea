# SPDX-License-Identifier: LGPL-2.1-or-later
"""Key files: the cluster's key, and the keys of single nodes that are derived from it.

A line has a word and what belongs to it; empty ones and those that begin with # are passed over.
The cluster's key file has one or two slots, a key each: what `signs` is signed with, and what is
believed when it comes is either. A node's key file names the node, and has its `signs` alone:

    signs 5f2a91c3 0123...ef        accepts 9b14e002 89ab...67        node node1

The first is the key's id, 8 hexadecimal digits, and then come its 32 bytes. A node's key has the
id of the cluster's key that it comes from. docs/protocol.md says how both are derived.
"""

from __future__ import annotations

import errno
import posix

from kdumpfence.text import shown
from kdumpfence.wire import is_packet_name, mac

#: The cluster's key file, unless another is named.
DEFAULT_PATH = "/etc/kdumpfence/key"

KEY_BYTES = 32

#: Bytes of a key file at most; its comments may be long.
MOST_BYTES = 65536

#: Of sys/stat.h; the agent starts quicker without the module of that name.
_S_IFMT, _S_IFREG = 0o170000, 0o100000

_DIGITS = "0123456789abcdefABCDEF"

_ID_INFO = b"kdumpfence key id"
_NODE_INFO = b"kdumpfence node key "


class KeyFileError(Exception):
    """There is no key to be had from this file; the text says why in one line."""


def _hkdf(key: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt, 32 bytes."""
    return mac(mac(bytes(32), key), info + b"\1")


def key_id(cluster_key: bytes) -> int:
    """What messages signed with this cluster's key, or keys derived from it, name; never 0."""
    return int.from_bytes(_hkdf(cluster_key, _ID_INFO)[:4], "big") or 1


def node_key(cluster_key: bytes, node: str) -> bytes:
    """The key of a node, 32 bytes. ValueError for a name that no packet can carry."""
    if not is_packet_name(node):
        raise ValueError(f"node {shown(node)}: not 1 to 64 ASCII characters without blanks")
    return _hkdf(cluster_key, _NODE_INFO + node.encode())


class Keys:
    """What a key file holds.

    `signs`, `accepts`: (key id, 32 bytes), the latter None if there is but one slot. `node`: the
    one that these are the keys of; "" if they are the cluster's.
    """

    __slots__ = ("accepts", "node", "signs")

    def __init__(
        self,
        signs: tuple[int, bytes],
        accepts: tuple[int, bytes] | None = None,
        node: str = "",
    ) -> None:
        self.signs = signs
        self.accepts = accepts
        self.node = node

    def of(self, node: str) -> Keys | None:
        """The keys of this node; None if these are another node's."""
        if self.node:
            return self if self.node == node else None
        number, key = self.signs
        accepts = self.accepts and (self.accepts[0], node_key(self.accepts[1], node))
        return Keys((number, node_key(key, node)), accepts, node)

    def by_id(self, number: int) -> bytes | None:
        """The key that has this id."""
        for slot in (self.signs, self.accepts):
            if slot is not None and slot[0] == number:
                return slot[1]
        return None

    def text(self) -> str:
        """As they stand in a file, comments aside."""
        lines = [f"node {self.node}"] if self.node else []
        slots = (("signs", self.signs), ("accepts", self.accepts))
        lines += [f"{word} {slot[0]:08x} {slot[1].hex()}" for word, slot in slots if slot]
        return "".join(f"{line}\n" for line in lines)


def parse(text: str) -> Keys:
    """The keys that stand in such a text. KeyFileError with what is wrong."""
    slots: dict[str, tuple[int, bytes]] = {}
    node = ""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in slots or (words[0] == "node" and node):
            raise KeyFileError(f"line {number}: '{words[0]}' for the second time")
        if words[0] == "node" and len(words) == 2 and is_packet_name(words[1]):
            node = words[1]
        elif words[0] in ("signs", "accepts") and len(words) == 3:
            slots[words[0]] = _slot(number, *words[1:])
        else:
            # Not the line itself: it may be a key.
            raise KeyFileError(
                f"line {number}: not 'signs ID KEY', 'accepts ID KEY' or 'node NAME'"
            )
    if "signs" not in slots:
        raise KeyFileError("no line 'signs ID KEY'")
    if not node:
        for word, (number, key) in slots.items():
            if key_id(key) != number:
                raise KeyFileError(
                    f"'{word}': the id is not that of the key, one of them is mistyped"
                )
    return Keys(slots["signs"], slots.get("accepts"), node)


def _slot(line: int, number: str, key: str) -> tuple[int, bytes]:
    # int() takes more than digits, as in "-1234567".
    digits = len(number) == 8 and len(key) == 2 * KEY_BYTES and not (number + key).strip(_DIGITS)
    if digits and int(number, 16):
        return int(number, 16), bytes.fromhex(key)
    raise KeyFileError(f"line {line}: not a key id of 8 and a key of 64 hexadecimal digits")


#: Where a cluster's key file comes from. One that is made beside others' would not fit them.
_HINT = "; copy it from another node, or make the first with 'kdumpfence key create'"


def read(path: str, hint: str = _HINT) -> Keys:
    """The keys in a file. KeyFileError if there are none, or if others could read or change it.

    `hint`: what is said in addition if there is no such file.
    """
    try:
        return parse(_read(path).decode("ascii"))
    except UnicodeDecodeError:
        raise KeyFileError(f"key file {shown(path)}: not text") from None
    except ValueError:  # what the path has in it
        raise KeyFileError(f"key file {shown(path)}: no name of a file") from None
    except OSError as error:
        why = posix.strerror(error.errno or 0)
        more = hint if error.errno == errno.ENOENT else ""
        raise KeyFileError(f"key file {shown(path)}: {why}{more}") from None
    except KeyFileError as error:
        raise KeyFileError(f"key file {shown(path)}: {error}") from None


def _read(path: str) -> bytes:
    # Not blocked by a FIFO, whoever put one there.
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    try:
        state = posix.fstat(fd)
        if state.st_mode & _S_IFMT != _S_IFREG:
            raise KeyFileError("not a regular file")
        if state.st_uid not in (0, posix.geteuid()):
            raise KeyFileError(f"owned by user {state.st_uid}, must be root's")
        if state.st_mode & 0o077:
            raise KeyFileError(
                f"mode {state.st_mode & 0o7777:04o}, others have rights to it: must be 0600"
            )
        data = b""
        while len(data) <= MOST_BYTES:
            part = posix.read(fd, 65536)
            if not part:
                return data
            data += part
        raise KeyFileError(f"more than {MOST_BYTES} bytes")
    finally:
        posix.close(fd)
