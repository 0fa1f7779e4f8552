"""The ids of events: the valid ones, and the order of ids in a shared log."""

from __future__ import annotations

import re

# The last id of a stream that has ended permanently. A browser reconnects after any end until it
# receives 204 (WHATWG HTML sections 9.2.2 and 9.2.3). So a request with this id receives 204, from
# any process and at any time.
END = ":end"
# The maximum size of an id in bytes. An id must fit into a request header, and into a query, which
# encodes a byte in up to three characters.
MAX_ID = 1024
# A valid field value: no control characters, and no space at either end (RFC 9110 section 5.5).
NO_HEADER = re.compile(r"[\x00-\x1f\x7f]|\A | \Z")
# The form of an id in a shared log: a time and a number.
STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


def check_id(event_id: str) -> None:
    """Any thread: check that a client can send this id in a Last-Event-ID header.

    Raises:
        ValueError: the id is too long, or contains an invalid character or a lone surrogate, or is
            reserved for the end of a stream.
    """
    if event_id == END:
        raise ValueError(f"invalid event id {END!r}: it is reserved for the end of a stream")
    if NO_HEADER.search(event_id):
        raise ValueError(
            f"invalid event id {event_id[:MAX_ID]!r}: a Last-Event-ID header must not contain "
            "control characters, or spaces at either end"
        )
    if len(event_id.encode()) > MAX_ID:
        raise ValueError(
            f"event id too long: {event_id[:40]!r}... has {len(event_id.encode())} bytes, the "
            f"limit is {MAX_ID}"
        )


def check_topic_id(event_id: str) -> None:
    """Check the id of an event that is published to a topic.

    Raises:
        ValueError: as :func:`check_id`; or the id begins with "?", like the composed ids of streams
            with several topics.
    """
    if event_id.startswith("?"):
        raise ValueError(f"invalid event id {event_id[:40]!r}: it must not begin with '?'")
    check_id(event_id)


def place_of(stream_id: str) -> tuple[int, int]:
    """Return the id of an entry in a shared log as a tuple, which has an order."""
    time, _, number = stream_id.partition("-")
    return int(time), int(number)
