# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page and its files as answers to requests: what costs little, whoever asks how often.

The thread that answers shares the interpreter with the main loop and the reader of messages. So a
page is made once a second at most, and making pages has a tenth of the time, however many others
than the first one are asked for. What may not be in this file: what is on the page, sockets.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from kdumpfence.daemon.api import is_own_name
from kdumpfence.daemon.http import Handler, Later, Reply, as_text
from kdumpfence.daemon.http_request import Request
from kdumpfence.daemon.page.html import page
from kdumpfence.daemon.page.view import Source
from kdumpfence.text import one_line

#: Seconds for which a page is shown again; how many pages are kept.
KEEP = 1.0
_PAGES = 8

#: Seconds of this thread's time that making pages may take in a second, and at once.
SHARE, AT_ONCE = 0.1, 0.5

#: Characters of a name that is asked for; longer ones are nobody's.
_MOST_NAME = 253

#: No page needs more than itself, its style sheet, its script and its icon, all from here; and if
#: a node's name ever became markup, a browser would still not run it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

#: Where the page's files are.
FOLDER = Path(__file__).parent / "files"

_HTML = "text/html; charset=utf-8"
_FILES = {
    "/status.css": "text/css; charset=utf-8",
    "/status.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


class Site:
    """The page of `source`, which may come later; until then the daemon is starting.

    `otherwise`: who answers for all other paths. `address`: on which that is; who calls this
    machine itself by another name is a browser that was led here (DNS rebinding). `clock` and
    `spent` tell seconds, the latter those of processor time in this thread.
    """

    def __init__(
        self,
        otherwise: Handler,
        address: str,
        source: Source | None = None,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self.source = source
        self._otherwise = otherwise
        self._local = ipaddress.ip_address(address).is_loopback
        self._clock = clock
        self._spent = spent
        self._files = {
            path: Reply(200, kind, (FOLDER / path[1:]).read_bytes(), HEADERS)
            for path, kind in _FILES.items()
        }
        #: (skip, node) -> the page, and when it was made; the newest last.
        self._pages: dict[tuple[int, str], tuple[Reply, float]] = {}
        self._left = AT_ONCE  # seconds of processor time
        self._left_at = clock()

    def answer(self, request: Request) -> Reply | Later:
        """As http.Handler."""
        if request.path != "/" and request.path not in self._files:
            return self._otherwise(request)
        if request.method not in ("GET", "HEAD"):
            return as_text(405, "GET or HEAD")._replace(headers=(("Allow", "GET, HEAD"),))
        if request.path != "/":
            return self._files[request.path]
        host = request.headers.get("host", "localhost")
        if self._local and not is_own_name(host):
            return as_text(421, f"Host {one_line(host)!r}: call it by address, or localhost")
        return self._page(*_asked(request.query))

    def _page(self, skip: int, node: str) -> Reply:
        now = self._clock()
        kept = self._pages.get((skip, node))
        if kept is not None and now - kept[1] < KEEP:
            return kept[0]
        self._left = min(AT_ONCE, self._left + SHARE * (now - self._left_at))
        self._left_at = now
        if self._left <= 0.0:  # what is kept says how old it is
            return kept[0] if kept is not None else _unavailable("too many pages were asked for")
        if self.source is None:
            return _unavailable("the daemon is still starting")
        before = self._spent()
        reply = Reply(200, _HTML, page(self.source.view(skip, node)), HEADERS)
        self._left -= self._spent() - before
        self._pages.pop((skip, node), None)
        if len(self._pages) >= _PAGES:
            # Never that with which everybody begins.
            del self._pages[next(key for key in self._pages if key != (0, ""))]
        self._pages[skip, node] = (reply, now)
        return reply


def _unavailable(why: str) -> Reply:
    answer = as_text(503, f"{why}: try again in a few seconds")
    return answer._replace(headers=(*HEADERS, ("Retry-After", "2")))


def _asked(query: str) -> tuple[int, str]:
    """The dumps to leave out, and the node asked for; what makes no sense counts as not there."""
    try:
        given = parse_qs(query, max_num_fields=4, errors="replace")
    except ValueError:
        return 0, ""
    node = given.get("node", [""])[0].strip()[: _MOST_NAME + 1]
    skip = given.get("skip", ["0"])[0]
    if node or not (skip.isascii() and skip.isdigit() and len(skip) < 8):
        return 0, node
    return int(skip), ""
