"""The Last-Event-ID of a client that reconnects to an event stream."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..http.request import Request

# The query parameters for clients that cannot set headers, such as a browser's EventSource.
PARAMETERS = frozenset(("lasteventid", "last-event-id", "last_event_id"))
# The characters that an id cannot contain: NUL, which browsers ignore, and line breaks (WHATWG HTML
# section 9.2.6). U+FFFD replaces them, as in invalid UTF-8. The server never sends such an id.
IMPOSSIBLE = re.compile("[\0\r\n]")


def last_event_id(request: Request) -> str:
    """Any thread: return the id of the last event that the client has received; '' if none."""
    return read_last_event_id(request.headers.get("Last-Event-ID") or "", request.query)


def read_last_event_id(header: str, query: Mapping[str, Sequence[str]]) -> str:
    """Any thread: return the last event id of a request; '' without one.

    Args:
        header: the value of Last-Event-ID, decoded as Latin-1.
        query: the parameters of the query.
    """
    # Browsers send this header in UTF-8 (WHATWG HTML section 9.2.4).
    last_id = header.encode("latin-1").decode("utf-8", "replace")
    if not last_id:
        candidates = (values[0] for name, values in query.items() if name.lower() in PARAMETERS)
        last_id = next(filter(None, candidates), "")
    return IMPOSSIBLE.sub("\ufffd", last_id)
