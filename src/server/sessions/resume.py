"""What the client of an event stream says when it comes back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..http.request import Request

# For clients that cannot set a header, among them browsers when a page opens an EventSource.
PARAMETERS = frozenset(("lasteventid", "last-event-id", "last_event_id"))
# What no id has: a browser ignores one with NUL, and a line ends at the others. They become what
# bad UTF-8 does, which is no id that was ever sent, and can be sent back.
IMPOSSIBLE = re.compile("[\0\r\n]")
# The id that a stream which has ended for good leaves its client with. A browser comes back after
# any end, until it is answered 204 (WHATWG HTML sections 9.2.2 and 9.2.3): whoever comes back with
# this is, by any server and at any time.
END = ":end"
# How many bytes an id may have: a header of a request must hold it, or a query, where three
# characters may stand for each byte.
MAX_ID = 1024
# A header cannot hold control characters, and what reads it removes the blanks around its value
# (RFC 9110 section 5.5).
NO_HEADER = re.compile(r"[\x00-\x1f\x7f]|\A | \Z")


def check_id(given: str) -> None:
    """Any thread: check that a client can come back with this id.

    Raises:
        ValueError: it cannot, because of its length or of a character in it; or UTF-8 has no form
            for it; or it is the id that ends a stream for good.
    """
    if given == END:
        raise ValueError(f"the id {END!r} is the one that ends a stream for good")
    if NO_HEADER.search(given):
        raise ValueError(
            "control characters, and blanks at either end, must not stand in an event's id, "
            f"because no Last-Event-ID header can have them: {given[:MAX_ID]!r}"
        )
    if len(given.encode()) > MAX_ID:
        raise ValueError(
            f"an event's id must have at most {MAX_ID} bytes: {given[:40]!r} and so on has "
            f"{len(given.encode())}"
        )


def last_event_id(request: Request) -> str:
    """Any thread: see :class:`EventStream`."""
    # The one header that is sent in UTF-8 (WHATWG HTML section 9.2.4).
    said = (request.headers.get("Last-Event-ID") or "").encode("latin-1").decode("utf-8", "replace")
    if not said:
        found = (values[0] for name, values in request.query.items() if name.lower() in PARAMETERS)
        said = next(filter(None, found), "")
    return IMPOSSIBLE.sub("\ufffd", said)
