"""Event streams: equal events for any chunks, and a round trip of one event."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from .inputs import Codecs, Draw


def check(codecs: Codecs, data: bytes) -> None:
    """Read a stream of arbitrary bytes, or an encoded event."""
    draw = Draw(data)
    codec = codecs.compiled
    if draw.flag():
        check_written(codec, draw)
    else:
        check_read(codec, draw)


def check_read(codec: ModuleType, draw: Draw) -> None:
    limit = draw.one_of((1 << 20, 1, 10, 100))
    stream = draw.data()
    assert read(codec, limit, [stream]) == read(codec, limit, draw.chunks(stream))


def read(codec: ModuleType, limit: int, chunks: list[bytes]) -> tuple[object, ...]:
    """Return the events, True if the limit was exceeded, and the state for a reconnect."""
    decoder = codec.EventStreamDecoder(max_event_size=limit)
    events: list[Any] = []
    failed = False
    for chunk in [*chunks, b""]:
        try:
            events += decoder.receive(chunk)
        except codec.ProtocolError as error:
            assert error.code == 1009
            failed = True
    return events, failed, decoder.last_event_id, decoder.retry


def check_written(codec: ModuleType, draw: Draw) -> None:
    event = codec.ServerSentEvent(
        draw.text(100),
        event=draw.one_of((None, re.sub("[\r\n\0]", "", draw.text(10)))),
        id=draw.one_of((None, re.sub("[\r\n\0]", "", draw.text(10)))),
        retry=draw.one_of((None, 0, 7, draw.number(1 << 40))),
    )
    decoder = codec.EventStreamDecoder()
    (received,) = (e for chunk in draw.chunks(event.encode()) for e in decoder.receive(chunk))
    assert received.data == re.sub("\r\n|\r", "\n", event.data)
    assert received.event == (event.event or None)
    assert received.id == (event.id or None)
    assert decoder.retry == event.retry
