"""Heartbeats: what an idle event stream sends, so that proxies keep it, or pages can watch it."""

from __future__ import annotations

from wsframe import ServerSentEvent

COMMENT = b":\n\n"
# Types that EventSource and the streams of topics use for something else.
RESERVED = frozenset(("end", "error", "gap", "open"))


def encode_heartbeat(event: str) -> bytes:
    """Return a heartbeat: an event of this type, or a comment, which pages cannot see, for "".

    The event has no id, so the last event id of the client does not change. Its data is empty.

    Raises:
        TypeError: the type is not a ``str``.
        ValueError: the type contains CR, LF, NUL or a lone surrogate, or has another meaning.
    """
    if event == "":
        return COMMENT
    if event in RESERVED:
        raise ValueError(f"heartbeat_event must be another type, because {event!r} has a meaning")
    try:
        return ServerSentEvent("", event).encode()
    except ValueError as error:
        raise ValueError(f"heartbeat_event is not valid: {error}") from None
