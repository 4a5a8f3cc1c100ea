# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections to the database, through psycopg 3, and what goes wrong with them, in one line each.

psycopg is imported only when a database is used. Where it is and how to get in says a URL, and
whatever it leaves open libpq's own settings: PGSERVICE, PGPASSFILE, PGSSLROOTCERT and so on. No
line that is made here has a password in it. What may not be in this file: SQL of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from kdumpfence.text import one_line

if TYPE_CHECKING:
    import psycopg

#: A URL: who, with a password or without, hosts with ports, database and parameters, each of which
#: may be missing. Stricter than libpq: what could be read in two ways might have a part of the
#: password where nobody looks for one.
_HOST = r"(?:[^\s:@/?#,\[\]]*|\[[0-9A-Fa-f:.]+(?:%[^\s@/?#\[\]]*)?\])(?::[0-9]{0,5})?"
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>[^\s:@/?#]*)(?P<password>:[^\s@/?#]*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)?(?P<database>/[^\s@?#/]*)?(?P<parameters>\?[^\s@?#]*)?"
)

#: What a URL is, for people.
RULE = (
    "not a URL such as postgresql://user@host/database; inside a password, write @ as %40, / as %2F"
)

#: What a connection has unless URL or environment say otherwise. Seconds, and milliseconds where
#: libpq has it so: a network that was cut is noticed within some 20 s.
_PATIENCE = {
    "connect_timeout": "10",
    "tcp_user_timeout": "15000",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "application_name": "kdumpfence",
}

_MISSING = "Python package psycopg is missing: pip install 'kdumpfence[postgresql]', or Debian's "
_MISSING += "python3-psycopg"


class DatabaseError(Exception):
    """The database cannot be used; the text is one line for people, without a password.

    `lasting`: trying again soon will not help: somebody has to do something.
    """

    def __init__(self, text: str, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


def is_url(text: str) -> bool:
    """Whether that could be one; whatever libpq thinks of it."""
    return _URL.fullmatch(text) is not None and text.isprintable()


def shown(url: str) -> str:
    """A URL for people: without what could be a password.

    What is no URL to us is not shown at all: the password may be anywhere in it.
    """
    found = _URL.fullmatch(url)
    if found is None or not is_url(url):
        return "postgresql://..."
    user = f"{found['user']}@" if found["user"] is not None else ""
    tail = re.sub(r"(?i)([?&][a-z]*password=)[^&]*", r"\1...", found["parameters"] or "")
    return one_line(f"{found['scheme']}://{user}{found['hosts']}{found['database'] or ''}{tail}")


def has_password(url: str) -> bool:
    """Whether somebody wrote a password into it."""
    return bool(_secrets(url))


def _secrets(url: str) -> list[str]:
    """What must not be shown of a URL, in every form in which it may turn up."""
    match = _URL.fullmatch(url)
    if match is None:
        return []
    found = [(match["password"] or "")[1:]]
    found += re.findall(r"(?i)[?&][a-z]*password=([^&]*)", match["parameters"] or "")
    return [form for one in found if one for form in {one, unquote(one)}]


def driver() -> Any:
    """The module psycopg. DatabaseError if it cannot be had."""
    if sys.flags.no_site:  # packages of distributions run commands without site-packages
        import site

        sys.path += [path for path in site.getsitepackages() if path not in sys.path]
    try:
        import psycopg
    except ImportError as error:
        # psycopg itself is there, and what it works with is not.
        if "psycopg" in str(error) and "libpq" not in str(error):
            raise DatabaseError(_MISSING, lasting=True) from None
        raise DatabaseError(
            "psycopg finds no libpq: install Debian's libpq5, or psycopg[binary]", lasting=True
        ) from None
    return psycopg


def connect(url: str, **more: str) -> psycopg.Connection[Any]:
    """A new connection in which each statement is a transaction. DatabaseError if there is none."""
    module = driver()
    try:
        given = module.conninfo.conninfo_to_dict(url)
    except module.Error as error:
        raise explained(url, error) from None
    if "PGCONNECT_TIMEOUT" in os.environ:
        given.setdefault("connect_timeout", os.environ["PGCONNECT_TIMEOUT"])
    # Names may have any character, whatever the locale or the database is.
    settings = {**_PATIENCE, **more, **given, "client_encoding": "UTF8"}
    with contextlib.suppress(KeyError, ValueError):
        # 0 is libpq's word for ever, and nobody waits for ever here.
        if int(settings["connect_timeout"]) <= 0:
            settings["connect_timeout"] = _PATIENCE["connect_timeout"]
    try:
        made: psycopg.Connection[Any] = module.connect(**settings, autocommit=True)
    except (module.Error, UnicodeError, ValueError) as error:
        raise explained(url, error) from None
    return made


@contextlib.contextmanager
def explaining(url: str, owner: bool = False) -> Iterator[None]:
    """What psycopg raises becomes a DatabaseError. `owner`: it is the owner's work."""
    module = driver()
    try:
        yield
    except module.errors.InsufficientPrivilege as error:
        raise explained(url, error, _OWNER if owner else None) from None
    except module.Error as error:
        raise explained(url, error) from None


_OWNER = "this is for the owner of the schema, who needs CREATE on the database"

#: SQLSTATE, or its class -> what to do about it, and whether nothing else helps.
_HINTS = {
    "25006": ("it is a read-only replica, or default_transaction_read_only is on: name the "
              "primary, or all hosts with target_session_attrs=read-write", False),
    "28": ("", True),
    "3D000": ("", True),
    "3F000": ("run `kdumpfence database init` as its owner", True),
    "42P01": ("run `kdumpfence database init` as its owner", True),
    "42883": ("run `kdumpfence database upgrade` as its owner", True),
    "42501": ("grant this user the role kdumpfence_writer, or kdumpfence_reader to read", True),
    "53100": ("its disk is full", False),
    "57014": ("it took too long", False),
    "55P03": ("somebody else holds a lock for too long", False),
    "KD001": ("", False),
    "KD002": ("stop one of the two, remove its history file, and start it again", True),
}  # fmt: skip


#: Classes of SQLSTATE: data, constraints and limits of a statement.
_DATA = ("22", "23", "54")


def refuses_data(error: Exception) -> bool:
    """Whether the database refuses what a statement says, and not to work at all."""
    return (getattr(error, "sqlstate", None) or "")[:2] in _DATA


def explained(url: str, error: Exception, remedy: str | None = None) -> DatabaseError:
    """What went wrong, with what to do about it: `remedy`, or where we know that."""
    said = [line for line in str(error).strip().splitlines() if not line.startswith((" ", "\t"))]
    said = said or [type(error).__name__]
    # The first line of a statement's error; of several hosts that were tried, the last one's.
    text = said[0]
    if text.startswith("Multiple connection attempts"):
        text = re.sub("^- ", "", said[-1])
    text = re.sub(r"^(connection failed: )?connection to server ", "server ", text)
    state = getattr(error, "sqlstate", None) or _state_of(text)
    misread = re.search("connection info string|URI|percent-encoded", text)
    if misread:
        # libpq quotes what it does not understand, and that may be a part of a password.
        text = re.sub(r':? ?".*', "", text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "...")
    if misread:
        return DatabaseError(f"not a URL that libpq understands ({one_line(text)})", lasting=True)
    hint, lasting = _HINTS.get(state) or _HINTS.get(state[:2]) or ("", False)
    hint = hint if remedy is None else remedy
    return DatabaseError(one_line(f"{text}: {hint}" if hint else text), lasting)


def _state_of(text: str) -> str:
    """The SQLSTATE of a connection that failed, for which libpq has only words."""
    words = {
        "password authentication failed": "28P01",
        "no password supplied": "28P01",
        "no pg_hba.conf entry": "28000",
        "session is read-only": "25006",
        "session is not read-write": "25006",
    }
    for said, state in words.items():
        if said in text:
            return state
    if re.search(r'role ".*" does not exist', text):
        return "28000"
    return "3D000" if re.search(r'database ".*" does not exist', text) else ""
