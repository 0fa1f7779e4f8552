"""RequestDecoder, h11 and websockets with the same bytes: equal heads, and equal judgements."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from types import ModuleType
from typing import Any

import h11
import pytest
from websockets.http11 import Request
from websockets.streams import StreamReader

pytestmark = [pytest.mark.one_kernel, pytest.mark.unmeasured]

SEEDS = range(4)
HEADS = 3000  # of each seed

METHODS: tuple[bytes, ...] = (
    b"GET",
    b"GET",
    b"GET",
    b"POST",
    b"M-SEARCH",
    b"get",
    b"G T",
    b"",
    b"G\x00T",
    b"G@T",
)
TARGETS: tuple[bytes, ...] = (
    b"/",
    b"/chat?x=1",
    b"/%41",
    b"//a",
    b"/~!$&'()*+,;=:@",
    b"/[",
    b"/a b",
    b"",
    b"/\x7f",
)
TARGETS += (b"*", b"http://a.example/x", b"ws://a", b"a.example:1", b"/\xc3\xa9", b"/a#b", b"/\\")
VERSIONS: tuple[bytes, ...] = (b"HTTP/1.1",) * 6 + (
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"http/1.1",
    b"HTTP/1.10",
)
NAMES: tuple[bytes, ...] = (
    b"Host",
    b"Upgrade",
    b"X-A",
    b"x_a",
    b"a!#$%&'*+-.^`|~",
    b"A B",
    b"A ",
    b"",
    b"n\xe9e",
)
NAMES += (b"A:", b"\tA", b"A\x00")
VALUES: tuple[bytes, ...] = (
    b"a.example",
    b"",
    b"a b",
    b"\ta\t ",
    b'a,b;c="d"',
    b"caf\xe9\xff",
    b"a\x00",
    b"a\x0bb",
)
VALUES += (b"a\rb", b"a\nb", b":", b"\x7f", b"\x80")
ENDS: tuple[bytes, ...] = (b"\r\n",) * 30 + (b"\n", b"\r", b"\r\r\n", b" \r\n")


def heads(seed: int) -> Generator[bytes]:
    """Yield heads: most parts are valid, and a byte of some heads is changed."""
    random = Random(seed)
    choose = random.choice

    def one_of(items: tuple[bytes, ...]) -> bytes:
        return items[0] if random.random() < 0.6 else choose(items)

    for _ in range(HEADS):
        blank = b"\r\n" if random.random() < 0.02 else b""
        line = b" ".join((one_of(METHODS), one_of(TARGETS), one_of(VERSIONS))) + choose(ENDS)
        fields = [b"Host: a.example\r\n"]
        for _ in range(random.randrange(4)):
            separator = b": " if random.random() < 0.9 else choose((b":", b" :", b":\t", b""))
            fields.append(one_of(NAMES[1:]) + separator + one_of(VALUES) + choose(ENDS))
        head = bytearray(blank + line + b"".join(fields) + b"\r\n")
        if random.random() < 0.1:
            head[random.randrange(len(head))] = random.randrange(256)
        yield bytes(head)


def by_wsframe(codec: ModuleType, head: bytes) -> Any:
    try:
        decoded = codec.RequestDecoder().receive(head)
    except codec.HandshakeError as error:
        return error
    if decoded is None:
        return None
    headers = [(name.lower(), value) for name, value in decoded.headers]
    return decoded.method, decoded.target, decoded.http_version, headers


def by_h11(head: bytes) -> Any:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head.removeprefix(b"\r\n"))  # h11 refuses an empty line
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return error
    if not isinstance(event, h11.Request):
        return None
    headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
    version = "1.0" if event.http_version == b"1.0" else "1.1"
    return event.method.decode(), event.target.decode("latin-1"), version, headers


def by_websockets(head: bytes) -> Any:
    reader = StreamReader()
    reader.feed_data(head.removeprefix(b"\r\n"))
    reader.feed_eof()
    try:
        next(Request.parse(reader.read_line))
    except StopIteration as parsed:
        request = parsed.value
    except (NotImplementedError, ValueError, EOFError) as error:
        return error
    headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
    # Versions before 17 accept only GET and HTTP/1.1.
    version = getattr(request, "protocol", "HTTP/1.1").removeprefix("HTTP/")
    return getattr(request, "method", "GET"), request.path, version, headers


# The rules of RFC 9112 that h11 does not apply, or a server of WebSockets need not support.
STRICTER = {
    "the request contains a control character",  # h11 accepts them in values
    "a line of the request does not end with CR LF",  # section 2.2 allows both
    "a header of the request is malformed",  # section 5.2: a folded line
    "the request line is malformed",  # a fragment
    "unsupported HTTP version: use HTTP/1.1",
    "the request target * (asterisk-form) is not supported",
    "the request target must be a path or a URL of this server",
}


@pytest.mark.parametrize("seed", SEEDS)
def test_h11_decodes_the_same_heads(codec: ModuleType, seed: int) -> None:
    equal = stricter = 0
    for head in heads(seed):
        ours, theirs = by_wsframe(codec, head), by_h11(head)
        if isinstance(ours, tuple):
            if isinstance(theirs, Exception):  # a changed byte; accept() checks these headers
                assert "Host" in str(theirs) or "Content-Length" in str(theirs), (head, theirs)
                continue
            assert ours == theirs, head
            equal += 1
        elif isinstance(theirs, tuple):
            assert ours is not None, head
            assert ours.reason in STRICTER, (head, ours)
            stricter += 1
    assert equal > HEADS / 10
    assert stricter > HEADS / 100


@pytest.mark.parametrize("seed", SEEDS)
def test_websockets_decodes_the_same_heads(codec: ModuleType, seed: int) -> None:
    equal = 0
    for head in heads(seed):
        ours, theirs = by_wsframe(codec, head), by_websockets(head)
        if isinstance(ours, tuple) and isinstance(theirs, tuple):
            assert ours == theirs, head
            equal += 1
        elif isinstance(ours, tuple):
            tolerated = (
                head.lstrip().startswith((b"POST", b"M-", b"get")) or b"HTTP/1.1" not in head
            )
            assert tolerated or b"content" in head.lower(), (head, theirs)
    assert equal > HEADS / 10
