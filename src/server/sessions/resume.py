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


def last_event_id(request: Request) -> str:
    """Any thread: see :class:`EventStream`."""
    # The one header that is sent in UTF-8 (WHATWG HTML section 9.2.4).
    said = (request.headers.get("Last-Event-ID") or "").encode("latin-1").decode("utf-8", "replace")
    if not said:
        found = (values[0] for name, values in request.query.items() if name.lower() in PARAMETERS)
        said = next(filter(None, found), "")
    return IMPOSSIBLE.sub("\ufffd", said)
