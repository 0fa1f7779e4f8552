"""RequestDecoder: any bytes in any pieces, and the acceptance of what it returns."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

from .heads import decode_all_ways, decoded
from .inputs import Codecs, Draw

LIMITS = {
    "max_head_size": (16384, 1, 20, 100, 1000),
    "max_headers": (100, 1, 3),
    "max_path_size": (2048, 1, 10),
}


def check(codecs: Codecs, data: bytes) -> None:
    """Decode a request whole, in pieces and byte by byte, and accept it."""
    draw = Draw(data)
    codec = codecs.compiled
    limits = {name: draw.one_of(values) for name, values in LIMITS.items()}
    deflate = codec.PerMessageDeflate() if draw.flag() else None
    stream = draw.data()
    new_decoder = partial(codec.RequestDecoder, **limits)
    head, rest = decode_all_ways(codec, new_decoder, draw, stream)
    if isinstance(head, int):
        assert head in (400, 414, 431, 505)
        assert codec.HandshakeError(head, rest).encode().startswith(b"HTTP/1.1 %d " % head)
    if isinstance(head, codec.RequestHead):
        assert stream.endswith(rest)
        check_head(codec, head, stream[: len(stream) - len(rest)], limits)
        answer(codec, head, deflate)
    assert len(repr(head)) < 2000


def check_head(codec: ModuleType, head: Any, wire: bytes, limits: dict[str, int]) -> None:
    """Check that a head contains what was received, within the limits."""
    assert wire.endswith(b"\r\n\r\n")
    assert len(wire) <= limits["max_head_size"]
    assert len(head.headers) <= limits["max_headers"]
    assert len(head.path) <= limits["max_path_size"]
    assert head.path.startswith("/")
    line = f"{head.method} {head.target} HTTP/1."
    again = f"{line}{head.http_version[-1]}\r\n".encode()
    again += b"".join(f"{n}: {v}\r\n".encode("latin-1") for n, v in head.headers) + b"\r\n"
    assert wire.removeprefix(b"\r\n").startswith(line.encode())
    assert decoded(codec, codec.RequestDecoder(), [again]) == (head, b"")
    for name, value in head.headers:
        codec.headers.check_field(name, value)


def answer(codec: ModuleType, head: Any, deflate: Any) -> None:
    """Accept a request, or refuse it with a response."""
    try:
        acceptance = head.accept(
            subprotocols=["chat", "v1"], deflate=deflate, headers=[(b"Set-Cookie", b"a=b")]
        )
    except codec.HandshakeError as error:
        assert 400 <= error.status < 500
        assert error.encode(body=head.method != "HEAD")
        return
    status, headers = codec.fields.decode_response(acceptance.encode())
    assert (status, tuple(headers)) == (101, acceptance.headers)
