"""The initial inputs of each target. Choices are at the end, in the order of drawing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.codec.test_differential import Generator
from tests.support.deflated import RFC_PAYLOADS, bomb, squeezed
from tests.support.vectors import INVALID_UTF8, RFC_FRAMES, RFC_KEY, by_hand

REQUEST = f"""\
Host: example.com
Upgrade: websocket
Connection: keep-alive, Upgrade
Sec-WebSocket-Key: {RFC_KEY}
Sec-WebSocket-Version: 13
Sec-WebSocket-Protocol: chat, v1
Origin: https://example.com
"""
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    'permessage-deflate; server_max_window_bits="10"; client_max_window_bits=9',
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "x; y=1, permessage-deflate; foo, permessage-deflate",
)
STREAMS = (
    "data: one\ndata: two\n\n",
    ": a comment\r\nevent: e\r\nid: 7\r\nretry: 3\r\ndata\r\n\r\n",
    "\ufeffdata: \u00e9\U0001f600\r\rid\n\nid: \0\ndata:x\n\n",
)


def noise() -> list[bytes]:
    """Return inputs for a target that draws only choices."""
    return [Random(size).randbytes(size) for size in range(10, 400, 10)]


def wires() -> list[bytes]:
    """Return streams for each role, with compression and without."""
    seeds = [
        *(frame.wire + choices(frame.masking_key is not None) for frame in RFC_FRAMES.values()),
        *(by_hand(0x81, bad.data, b"key!") + choices(True) for bad in INVALID_UTF8.values()),
    ]
    for seed in range(100):
        stream = Generator(seed).stream()
        seeds.append(stream.data[:4000] + choices(stream.role == "server"))
    payloads = [payload for payload, _ in RFC_PAYLOADS.values()]
    payloads += [squeezed(b"Hello " * 50), squeezed("\u00e9".encode() * 99), bomb(3 << 20)]
    for payload in payloads:
        for key in (b"\0\0\0\0", None):
            seeds.append(by_hand(0xC1, payload, key) + choices(key is not None, compressed=True))
            pieces = by_hand(0x42, payload[:3], key) + by_hand(0x80, payload[3:], key)
            seeds.append(pieces + choices(key is not None, compressed=True))
    return seeds


def choices(server: bool, *, compressed: bool = False) -> bytes:
    return bytes(40) + bytes((compressed, not server))


def heads() -> list[bytes]:
    """Return requests and responses."""
    extensions = [f"Sec-WebSocket-Extensions: {offer}\r\n" for offer in OFFERS]
    answer = "HTTP/1.1 101 Switching Protocols\r\n"
    seeds = [(REQUEST.replace("\n", "\r\n") + extension).encode() for extension in extensions]
    seeds = [seed + bytes(20) for seed in seeds]
    seeds += [f"{answer}{extension}\r\n".encode() + b"\1\1" for extension in extensions]
    return seeds + [seed + b"\2" for seed in noise()]


def requests() -> list[bytes]:
    """Return requests from their first byte, valid and malformed."""
    lines = ("GET /chat?a=b HTTP/1.1", "GET http://example.com/ HTTP/1.0", "POST * HTTP/2.0")
    fields = REQUEST.replace("\n", "\r\n")
    heads = [f"{line}\r\n{fields}" for line in lines]
    heads += [f"{heads[0]}Sec-WebSocket-Extensions: {offer}\r\n" for offer in OFFERS]
    frames = b"".join(frame.wire for frame in RFC_FRAMES.values())
    seeds = [f"{head}\r\n".encode() + frames[:50] + bytes(20) for head in heads]
    seeds += [b"\r\n" + seeds[0], seeds[0].replace(b"\r\n", b"\n"), b"\x16\x03\x01" + bytes(20)]
    return seeds + noise()


def responses() -> list[bytes]:
    """Return responses from their first byte."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n folded\r\n\r\n"
    seeds = [final, interim + final, b"HTTP/1.0 404 Not Found\r\n\r\nbody", final[:-2]]
    return [seed + bytes(20) for seed in seeds] + noise()


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "kernels": noise,
    "stream": wires,
    "frames": noise,
    "talk": noise,
    "parts": wires,
    "sent-parts": noise,
    "request": requests,
    "response": responses,
    "handshake": heads,
    "eventstream": lambda: [stream.encode() + bytes(10) for stream in STREAMS] + noise(),
}
