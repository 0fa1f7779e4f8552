"""ResponseDecoder: any bytes in any pieces."""

from __future__ import annotations

from functools import partial

from .heads import decode_all_ways
from .inputs import Codecs, Draw


def check(codecs: Codecs, data: bytes) -> None:
    """Decode a response whole, in pieces and byte by byte."""
    draw = Draw(data)
    codec = codecs.compiled
    limit = draw.one_of((16384, 1, 20, 100))
    stream = draw.data()
    new_decoder = partial(codec.ResponseDecoder, max_head_size=limit)
    head, rest = decode_all_ways(codec, new_decoder, draw, stream)
    if isinstance(head, int):
        assert head == 502
    if isinstance(head, codec.ResponseHead):
        wire = stream[: len(stream) - len(rest)]
        assert wire + rest == stream
        assert len(wire) <= limit
        assert wire.endswith(b"\r\n\r\n")
        assert head.status == 101 or 200 <= head.status < 600
        for name, value in head.headers:
            codec.headers.check_field(name, value)
    assert len(repr(head)) < 2000
