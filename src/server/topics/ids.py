"""The ids of events: which may be given, and how those of a shared log are ordered."""

from __future__ import annotations

import re

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
# An id of a shared log: a time and a number.
STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


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


def check_topic_id(given: str) -> None:
    """Check an id that a topic's event was given.

    Raises:
        ValueError: no client could come back with it, or it begins with "?", as the ids of streams
            that are subscribed to several topics do.
    """
    if given.startswith("?"):
        raise ValueError(f"the id of a topic's event must not begin with '?': {given[:40]!r}")
    check_id(given)


def place_of(stream_id: str) -> tuple[int, int]:
    """A stream's id as something that has an order."""
    time, _, number = stream_id.partition("-")
    return int(time), int(number)
