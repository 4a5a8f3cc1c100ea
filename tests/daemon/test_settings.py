# SPDX-License-Identifier: LGPL-2.1-or-later
"""The settings file: what is allowed, and how it is said what is not."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from pathlib import Path

import pytest

from kdumpfence.daemon import settings_file
from kdumpfence.daemon.settings import KEYS, Settings, changes
from kdumpfence.daemon.settings_file import SettingsError, load, parse

ROOT = Path(__file__).resolve().parents[2]
NODE = '\n[nodes]\nnode1 = ["192.0.2.1"]\n'


def faults(text: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        parse(text, "file")
    return raised.value.faults


def test_networks_or_nodes_are_enough() -> None:
    networks = ("192.0.2.0/24", "2001:db8::/64")
    assert parse(f"networks = {list(networks)}") == Settings(networks=networks)
    found = parse(
        '[nodes]\nn1 = "192.0.2.1, 240.0.0.1"\nn2 = ["[2001:db8::2],n2.example", "192.0.2.2"]\n'
        "n3 = '2001\\:db8\\:\\:3,'\nport = []\n'[2001:db8::4]' = []\n"
        "[metrics]\nport=9\naddress='[::1]'"
    )
    assert found.nodes == {
        "n1": ("192.0.2.1", "240.0.0.1"),
        "n2": ("2001:db8::2", "n2.example", "192.0.2.2"),
        "n3": ("2001:db8::3",),
        "port": (),
        "[2001:db8::4]": (),
    }
    assert found.metrics_address == "::1"
    assert "nodes: 5, with 6 addresses and 2 names to look up" in found.meaning()


EVERY = """
networks = ["192.0.2.0/24"]
port = 7411
address = "192.0.2.9"
family = "ipv4"
silence = 25
repeat = 5.5
room = 100
queue = "8M"
auth = "sha256"
answer = false
node = "node9"
key_file = "/tmp/k"
[listen]
counting = "kernel"
[history]
path = "/tmp/h"
days = 30
most = 1000
mode = "0640"
database = "postgresql://u:secret@h1,h2:5433/d?sslmode=verify-full"
[control]
path = "/tmp/c"
mode = "0660"
[metrics]
address = "::1"
port = 9741
nodes = 10
page = false
[http]
address = "::1"
port = 9742
[log]
level = "debug"
lines = 50
"""


def test_every_key_is_taken() -> None:
    found = parse(EVERY)
    default = Settings()
    for key in KEYS:
        assert getattr(found, key.attribute) != getattr(default, key.attribute), key.name
    assert (found.queue, found.control_mode, found.repeat) == (8 << 20, 0o660, 5.5)
    assert found.address == ("192.0.2.9",)
    both = parse('networks = ["::/0"]\naddress = ["[2001:db8::1]", "0.0.0.0", "2001:db8::1"]')
    assert both.address == ("2001:db8::1", "0.0.0.0")


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    found = faults(
        'prot = 1\nsilence = "30"\n[metrics]\nlisten = "x"\nport = 70000\n'
        '[nodes]\na = ["10.0.0.300"]\n'
    )
    assert found == [
        "file:1: prot is unknown; did you mean port?",
        'file:2: silence = "30": not a number of seconds from 1 to 86400',
        "file:4: [metrics] listen is unknown; known keys: address, port, nodes, page",
        "file:5: [metrics] port = 70000: not a whole number from 1 to 65535",
        'file:7: [nodes] a "10.0.0.300": neither a host name nor an IP address '
        "(IPv4: four numbers from 0 to 255 without leading zeros)",
    ]


#: What is said of each of these lines.
REFUSED = {
    "not a whole number": ["port = 0", "port = true", "port = 7410.0"],
    "not a number of seconds": ["silence = nan", "silence = inf", "silence = 0.5"],
    "not one of auto, ipv4, ipv6": ['family = "both"'],
    'address = "10.0.0.1/24": not an IP address of this machine': ['address = "10.0.0.1/24"'],
    'address = "node1": not an IP address of this machine': ['address = "node1"'],
    "address = [1]: not an IP address of this machine": ["address = [1]"],
    "address no node can have this address": ['address = "224.0.0.1"'],
    "address a link-local address needs its interface": ['address = "fe80::1"'],
    """address "2001:db8::1": not of family 'ipv4'""": ['family="ipv4"\naddress = "2001:db8::1"'],
    "not true or false": ['answer = "yes"', "answer = 1"],
    "not a node's name: 1 to 64 ASCII characters without blanks": [
        'node = "a b"', 'node = ""', "node = 1", f'node = "{"x" * 65}"', 'node = "n\u00f6de"',
    ],
    'key_file = "key": not an absolute path': ['key_file = "key"'],
    "not a size from 4096 bytes to below 1G": ['queue = "64X"', "queue = 1"],
    "not a list of networks": ['networks = "192.0.2.0/24"'],
    "host bits set; did you mean 192.0.2.0/24?": ['networks = ["192.0.2.1/24"]'],
    "is not a network such as": ['networks = ["192.0.2.0/33"]', "networks = [7]"],
    "a network has no interface": ['networks = ["fe80::%lo/64"]', 'networks = ["fe80::%lo"]'],
    "is IPv4: write 10.0.0.0/8": ['networks = ["::ffff:10.0.0.0/104"]'],
    "holds no address that a node can have": [
        f'networks = ["{network}"]'
        for network in (
            "224.0.0.0/4", "239.1.0.0/16", "0.0.0.0/8", "255.255.255.255", "ff02::/16", "::/128",
        )
    ],
    "not an IP address of this machine": [
        f'[metrics]\naddress = "{address}"' for address in ("127.1", "127.0.0.01", "localhost")
    ],
    '[history] path = "h": not an absolute path': ['[history]\npath = "h"'],
    "[history] database = ...: not a URL such as postgresql://": [
        '[history]\ndatabase = "mysql://u:secret@h/d"',
        '[history]\ndatabase = "postgresql://u:pass@word@h/d"',
        "[history]\ndatabase = true",
    ],
    '[control] mode = "0777": not a socket mode': ['[control]\nmode = "0777"'],
    "too long for a socket": [f'[control]\npath = "/{"x" * 200}"'],
    "not one of debug, info, warning, error": ['[log]\nlevel = "loud"'],
    "hear is unknown": ["[hear]\nport = 1"],
    "level is unknown here; it belongs in [log]": ["level = 1"],
    "[log] silence is unknown here; it belongs before": ["[log]\nsilence = 1"],
    "history must be a table: write [history] on a line of its own": ["history = 5"],
    "nodes must be a table": ["[[nodes]]\na = 1"],
    "port = a huge number: not a whole": ["port = 99999999999999999999999999999999"],
}  # fmt: skip

#: The same below [nodes].
REFUSED_NODES = {
    "not a list of addresses and names": ["a = 5", "a = [5]", "a = {b = 5}"],
    "node can have": ['a = ["224.0.0.1"]'],
    "a link-local address needs its interface": ['a = ["fe80::1"]'],
    'this machine has no interface "absent"': ['a = ["fe80::1%absent"]'],
    "has an address for a name": [
        '"192.0.2.9" = ["192.0.2.8"]',
        '"::1" = ["a.example"]',
        '"[2001:db8::1]" = ["2001:db8::2"]',
    ],
    "neither a host name nor an IP address": [
        'a = ["192.0.2.0/24"]', 'a = ["b c"]', 'a = ["::g"]', 'a = ["192.0.2.1:7410"]',
        'a = ["192.0.2.1,192.0.2.2/32"]', 'a = ["192.0.2.1;"]', 'a = [""]', '"a,b" = []',
        '"b c" = []',
    ],
    "without leading zeros": ['a = ["192.0.2.010"]', 'a = ["127.1"]'],
    "not a node name": [
        '"" = ["192.0.2.9"]', '"a\\u001b" = ["192.0.2.9"]', f'"{1025 * "a"}" = ["192.0.2.9"]',
        f'"{342 * chr(0x2603)}" = ["192.0.2.9"]',
    ],
    "move it before the first [table]": ["port = 7410"],
    'already belongs to node "a"': [
        'a = ["192.0.2.1"]\nb = ["192.0.2.1"]', 'a = ["::1"]\nb = ["0:0::1"]',
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (one if "nodes" in one else one + NODE, said)
            for said in REFUSED
            for one in REFUSED[said]
        ),
        *((f"[nodes]\n{one}\n", said) for said in REFUSED_NODES for one in REFUSED_NODES[said]),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_line(text: str, said: str) -> None:
    (found,) = faults(text)
    assert said in found
    assert found.startswith("file:")
    assert found.isprintable()


def test_an_address_of_another_family_than_the_settings() -> None:
    found = faults('family = "ipv4"\nnetworks = ["2001:db8::/64"]\n[nodes]\na = ["::1"]')
    assert found == [
        "file:2: networks \"2001:db8::/64\": not of family 'ipv4'",
        'file:4: [nodes] a "::1": not an ipv4 address',
    ]


def test_nobody_to_listen_to() -> None:
    assert faults("port = 7410") == ["file: no nodes configured: set [nodes] or networks"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = = 1\n", "file:1: not valid TOML: "),
        ("port = 1\nport = 2\n", "file:2: not valid TOML: "),
        ("a = " + "[" * 100000, "file: "),
        ("[nodes\n", "file:1: not valid TOML: "),
        ("a = '", "file"),
    ],
)
def test_what_is_no_toml(text: str, said: str) -> None:
    (found,) = faults(text)
    assert found.startswith(said)
    assert "Traceback" not in found


def test_a_line_is_told_only_where_it_is_sure() -> None:
    # What looks like the key is in a string of several lines; the true one is in a table's row.
    text = '[log]\nlevel = """\nlines = 5\n"""\n[metrics]\nport = 0\n[nodes]\na = []\n'
    found = faults(text)
    assert "file:6: [metrics] port = 0: not a whole number from 1 to 65535" in found
    found = faults('log = {level = "x"}\nsilence = 0\n[nodes]\na = []\n')
    assert found[0].startswith('file: [log] level = "x"')


def test_what_changed_is_told_apart_by_whether_it_needs_a_restart() -> None:
    old = parse("port = 7410" + NODE)
    new = parse('port = 7411\n[log]\nlevel = "debug"' + NODE)
    assert changes(old, new) == (["[log] level"], ["port"])
    assert changes(old, old) == ([], [])


def test_the_meaning_has_every_value_and_what_is_to_be_minded() -> None:
    found = parse(EVERY)
    assert "questions: not answered" in found.meaning()
    said = "\n".join(dataclasses.replace(found, answer=True).meaning())
    for key in KEYS:
        value = getattr(found, key.attribute)
        shown = f"{value:,}" if isinstance(value, int) and key.name != "port" else f"{value}"
        words = {"networks": "192.0.2.0/24", "family": "over IPv4 ", "answer": "answered as"}
        words["database"] = "postgresql://u@h1,h2:5433/d?sslmode=verify-full, as listener 'node9'"
        words["address"] = "at 192.0.2.9," if not key.table else "[::1]"
        shown = {"mode": "0660", **words}.get(
            key.name, f"{value:g}" if isinstance(value, float) else shown
        )
        assert shown in said, key.name
    assert "has a password in it" in said
    assert "secret" not in said
    notes = parse('networks = ["0.0.0.0/0"]\nsilence = 10').meaning()[-2:]
    assert "senders repeat every ten seconds" in notes[0]
    assert "messages are not authenticated" in notes[1]


#: Off by default; the file that is shipped proposes one.
PORTS = (("metrics", "port"), ("http", "port"))


def test_the_settings_file_that_is_shipped_shows_every_key_with_its_default() -> None:
    text = (ROOT / "packaging/kdumpfenced.toml").read_text()
    assert faults(text)[0].endswith("no nodes configured: set [nodes] or networks")
    live = re.sub(r"(?m)^#(\w+ = )", r"\1", text)
    found = parse(live)
    default = Settings()
    named = set(re.findall(r"(?m)^(\w+) = ", live.partition("\n[nodes]\n")[0]))
    assert named == {key.name for key in KEYS}
    for key in KEYS:
        if (key.table, key.name) not in (("", "networks"), ("", "node"), *PORTS):
            assert getattr(found, key.attribute) == getattr(default, key.attribute), key.name
    assert set(found.nodes) == {"node1", "node2", "node3"}


@pytest.mark.slow
def test_a_hundred_thousand_nodes_are_taken() -> None:
    count = 100_000
    lines = (f'n{i} = ["127.{i >> 16}.{i >> 8 & 255}.{i & 255}"]' for i in range(1, count + 1))
    assert len(parse("[nodes]\n" + "\n".join(lines)).nodes) == count


def test_no_look_up_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert parse("[nodes]\nn1 = []").nodes == {"n1": ()}


# ------------------------------------------------------------------ what is no file


def test_what_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "binary").write_bytes(b"a = 1\n\xff = 2\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for place, reason in (
        ("fifo", "a FIFO; a regular file is needed"),
        ("link", "a FIFO; a regular file is needed"),
        ("socket", "a socket; a regular file is needed"),
        (".", "a directory; a regular file is needed"),
        ("/dev/zero", "a device; a regular file is needed"),
        ("/dev/tty", "a device; a regular file is needed"),
        ("huge", f"more than {settings_file.MOST_FILE} bytes"),
        ("nowhere", "No such file or directory"),
        ("binary:2", "not UTF-8"),
        ("/proc/self/mem", "Input/output error"),
    ):
        path = str(tmp_path / place)
        with pytest.raises(SettingsError) as raised:
            load(path.partition(":")[0])
        assert raised.value.faults == [f"{path}: {reason}"]


def test_what_changes_between_a_look_and_the_opening_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings"
    path.touch()
    regular = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    with pytest.raises(SettingsError, match="a FIFO; a regular file is needed"):
        load(str(path))


def test_a_file_that_grows_while_it_is_read_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_file, "MOST_FILE", 100)
    endless = Path("/proc/self/smaps")  # a regular file that says that it is empty
    with pytest.raises(SettingsError, match="more than 100 bytes"):
        load(str(endless))


def test_the_mode_of_the_history_is_the_daemons_or_a_groups() -> None:
    for text, mode in (('"0600"', 0o600), ('"0640"', 0o640), ('"0o640"', 0o640), ("0o600", 0o600)):
        found = parse(f'networks = ["192.0.2.0/24"]\n[history]\nmode = {text}')
        assert found.history_mode == mode
    for text in ('"0644"', '"0660"', '"0400"', "600", "true", '""', "[]", "1.5"):
        (fault,) = faults(f'networks = ["192.0.2.0/24"]\n[history]\nmode = {text}')
        assert fault.endswith('not "0600", or "0640" for a group that may read it')
