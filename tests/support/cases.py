"""Cases of the reference suite (see docs/conformance.md), by its numbers, written anew."""

from __future__ import annotations

from typing import Any, NamedTuple

from .deflated import RFC_HELLO_AGAIN, RFC_PAYLOADS, compressor, squeezed
from .ends import (
    BAD_DATA,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    End,
)
from .vectors import payload_of

RSV2, RSV3 = 0x20, 0x10

HELLO, HELLO_FRAME = "Hello, world!", (FIN | TEXT, b"Hello, world!")
NOT_TEXT = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"

Frame = tuple[int, bytes]  # the first byte and the payload


class Case(NamedTuple):
    """Frames for an echo peer, and its expected replies.

    Attributes:
        frames: the frames that it receives.
        replies: its replies: messages, ("Pong", payload), and ("Close", code) at the end.
        deflate: the negotiated settings, as arguments of PerMessageDeflate; None for none.
    """

    frames: tuple[Frame, ...]
    replies: tuple[Any, ...]
    deflate: dict[str, Any] | None = None

    def wire(self, end: End) -> list[bytes]:
        """Return each frame as this end's peer encodes it."""
        return [end.wire(first, payload) for first, payload in self.frames]


def closing(code: int, reason: bytes = b"") -> Frame:
    """Return a close frame."""
    return CLOSE, code.to_bytes(2, "big") + reason


def right(*frames: Frame, replies: tuple[Any, ...], deflate: dict[str, Any] | None = None) -> Case:
    """Return a case in which everything is answered, including a final close frame."""
    return Case((*frames, closing(NORMAL)), (*replies, ("Close", NORMAL)), deflate)


def wrong(*frames: Frame, before: tuple[Any, ...] = (), code: int = PROTOCOL_ERROR) -> Case:
    """Return a case in which the connection fails with this code, after earlier replies."""
    return Case(frames, (*before, ("Close", code)))


def echoed(message: str | bytes) -> Case:
    """Return one message in one frame."""
    first, payload = (
        (FIN | TEXT, message.encode()) if isinstance(message, str) else (FIN | BINARY, message)
    )
    return right((first, payload), replies=(message,))


def fragments(*payloads: bytes) -> list[Frame]:
    """Return a text in fragments."""
    firsts = [TEXT, *[CONTINUATION] * (len(payloads) - 1)]
    firsts[-1] |= FIN
    return list(zip(firsts, payloads, strict=True))


def one_byte_each(data: bytes) -> list[Frame]:
    """Return a text in fragments of one byte."""
    return fragments(*(data[i : i + 1] for i in range(len(data))))


SIZES = (0, 125, 126, 127, 128, 65535, 65536)
FRAGMENTED = fragments(b"one, ", b"two")
PINGED = [FRAGMENTED[0], (PING, b"between"), FRAGMENTED[1]]
FIVE = fragments(b"1", b"2", b"3", b"4", b"5")
GREEK = "κόσμε".encode()
MIXED = "Grüße-µ@ßöäüàá-UTF-8".encode()
TOO_HIGH, SURROGATE = b"\xf4\x90\x80\x80", b"\xed\xa0\x80"
LONG = payload_of(2000)
LONG_DEFLATED = squeezed(LONG, compressor(bits=9))
GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
DEFLATED = RFC_PAYLOADS["one-block"][0]  # Hello
NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}
SMALL_WINDOW = {"server_max_window_bits": 9, "client_max_window_bits": 9}

CASES = {
    # 1 Framing
    **{f"1.1.{i}": echoed("*" * size) for i, size in enumerate(SIZES, 1)},
    **{f"1.2.{i}": echoed(b"\xfe" * size) for i, size in enumerate(SIZES, 1)},
    # 2 Pings and pongs
    "2.1": right((PING, b""), replies=(("Pong", b""),)),
    "2.2": right((PING, b"payload"), replies=(("Pong", b"payload"),)),
    "2.3": right((PING, NOT_TEXT), replies=(("Pong", NOT_TEXT),)),
    "2.4": right((PING, b"\xfe" * 125), replies=(("Pong", b"\xfe" * 125),)),
    "2.5": wrong((PING, b"\xfe" * 126)),
    "2.7": right((PONG, b""), replies=()),
    "2.8": right((PONG, b"unasked"), replies=()),
    "2.9": right((PONG, b"unasked"), (PING, b"asked"), replies=(("Pong", b"asked"),)),
    "2.10": right(
        *((PING, b"%d" % i) for i in range(10)),
        replies=tuple(("Pong", b"%d" % i) for i in range(10)),
    ),
    # 3 Reserved bits
    "3.1": wrong((FIN | TEXT | RSV3, b"x")),
    "3.2": wrong(HELLO_FRAME, (FIN | TEXT | RSV2, b"x"), (PING, b""), before=(HELLO,)),
    "3.3": wrong(HELLO_FRAME, (FIN | TEXT | RSV2 | RSV3, b"x"), (PING, b""), before=(HELLO,)),
    "3.4": wrong(HELLO_FRAME, (FIN | TEXT | RSV1, b"x"), (PING, b""), before=(HELLO,)),
    "3.5": wrong((FIN | BINARY | RSV1 | RSV3, NOT_TEXT)),
    "3.6": wrong((FIN | BINARY | RSV1 | RSV2, b"x")),
    "3.7": wrong((CLOSE | RSV1 | RSV2 | RSV3, b"")),
    # 4 Opcodes
    "4.1.1": wrong((FIN | 3, b"")),
    "4.1.2": wrong((FIN | 4, b"reserved")),
    "4.1.3": wrong(HELLO_FRAME, (FIN | 5, b""), (PING, b""), before=(HELLO,)),
    "4.1.4": wrong(HELLO_FRAME, (FIN | 6, b"reserved"), (PING, b""), before=(HELLO,)),
    "4.1.5": wrong(HELLO_FRAME, (FIN | 7, b"reserved"), (PING, b""), before=(HELLO,)),
    "4.2.1": wrong((FIN | 11, b"")),
    "4.2.2": wrong((FIN | 12, b"reserved")),
    "4.2.3": wrong(HELLO_FRAME, (FIN | 13, b""), (PING, b""), before=(HELLO,)),
    "4.2.4": wrong(HELLO_FRAME, (FIN | 14, b"reserved"), (PING, b""), before=(HELLO,)),
    "4.2.5": wrong(HELLO_FRAME, (FIN | 15, b"reserved"), (PING, b""), before=(HELLO,)),
    # 5 Fragmentation
    "5.1": wrong((PING & ~FIN, b"pi"), (FIN | CONTINUATION, b"ng")),
    "5.2": wrong((PONG & ~FIN, b"po"), (FIN | CONTINUATION, b"ng")),
    "5.3": right(*FRAGMENTED, replies=("one, two",)),
    "5.6": right(*PINGED, replies=(("Pong", b"between"), "one, two")),
    "5.9": wrong((FIN | CONTINUATION, b"of nothing"), HELLO_FRAME),
    "5.12": wrong((CONTINUATION, b"of nothing"), HELLO_FRAME),
    "5.15": wrong(*FRAGMENTED, (CONTINUATION, b"of nothing"), HELLO_FRAME, before=("one, two",)),
    "5.16": wrong((CONTINUATION, b"of nothing"), *FRAGMENTED),
    "5.17": wrong((FIN | CONTINUATION, b"of nothing"), *FRAGMENTED),
    "5.18": wrong((TEXT, b"one"), HELLO_FRAME),
    "5.19": right(
        *(FIVE[0], FIVE[1], (PING, b"1"), FIVE[2], FIVE[3], (PING, b"2"), FIVE[4]),
        replies=(("Pong", b"1"), ("Pong", b"2"), "12345"),
    ),
    # 6 UTF-8
    "6.1.1": right((FIN | TEXT, b""), replies=("",)),
    "6.1.2": right(*fragments(b"", b"", b""), replies=("",)),
    "6.1.3": right(*fragments(b"", b"middle", b""), replies=("middle",)),
    "6.2.1": right((FIN | TEXT, MIXED), replies=(MIXED.decode(),)),
    "6.2.2": right(*fragments(MIXED[:4], MIXED[4:]), replies=(MIXED.decode(),)),
    "6.2.3": right(*one_byte_each(MIXED), replies=(MIXED.decode(),)),
    "6.2.4": right(*one_byte_each(GREEK), replies=(GREEK.decode(),)),
    "6.3.1": wrong((FIN | TEXT, GREEK + SURROGATE + b"edited"), code=BAD_DATA),
    "6.3.2": wrong(*one_byte_each(GREEK + SURROGATE + b"edited"), code=BAD_DATA),
    # 7 Closing
    "7.1.1": right(HELLO_FRAME, replies=(HELLO,)),
    "7.1.2": right(closing(NORMAL), replies=()),
    "7.1.3": Case((closing(NORMAL), (PING, b"")), (("Close", NORMAL),)),
    "7.1.4": Case((closing(NORMAL), HELLO_FRAME), (("Close", NORMAL),)),
    "7.1.5": right(FRAGMENTED[0], closing(NORMAL), FRAGMENTED[1], replies=()),
    "7.1.6": Case(
        ((FIN | TEXT, b"*" * (1 << 18)), HELLO_FRAME, closing(NORMAL), (PING, b"")),
        ("*" * (1 << 18), HELLO, ("Close", NORMAL)),
    ),
    "7.3.1": Case(((CLOSE, b""),), (("Close", 1005),)),
    "7.3.2": wrong((CLOSE, b"\x03")),
    "7.3.3": Case((closing(NORMAL),), (("Close", NORMAL),)),
    "7.3.4": Case((closing(NORMAL, b"why"),), (("Close", NORMAL),)),
    "7.3.5": Case((closing(NORMAL, b"*" * 123),), (("Close", NORMAL),)),
    "7.3.6": wrong(closing(NORMAL, b"*" * 124)),
    "7.5.1": wrong(closing(NORMAL, GREEK + SURROGATE), code=BAD_DATA),
    **{
        f"7.7.{i}": Case((closing(code),), (("Close", code),))
        for i, code in enumerate(GOOD_CODES, 1)
    },
    **{f"7.9.{i}": wrong(closing(code)) for i, code in enumerate(BAD_CODES, 1)},
    "7.13.1": wrong(closing(5000)),
    "7.13.2": wrong(closing(65535)),
    # 9 Limits, 10 Automatic fragmentation; the large ones are separate tests
    "9.1.1": echoed("*" * (1 << 16)),
    "9.2.1": echoed(b"\xfe" * (1 << 16)),
    "10.1.1": right(*fragments(*[b"*" * 1300] * 50, b"*" * 536), replies=("*" * 65536,)),
    # 12 and 13 Compression
    "12.1.1": right((FIN | TEXT | RSV1, DEFLATED), replies=("Hello",), deflate={}),
    "12.1.11": right(
        (TEXT | RSV1, DEFLATED[:3]),
        (FIN | CONTINUATION, DEFLATED[3:]),
        replies=("Hello",),
        deflate={},
    ),
    "13.1.1": right(
        (FIN | TEXT | RSV1, DEFLATED),
        (FIN | TEXT | RSV1, RFC_HELLO_AGAIN),
        replies=("Hello",) * 2,
        deflate={},
    ),
    "13.2.1": right(
        *[(FIN | TEXT | RSV1, DEFLATED)] * 2, replies=("Hello",) * 2, deflate=NO_TAKEOVER
    ),
    "13.3.1": right((FIN | BINARY | RSV1, LONG_DEFLATED), replies=(LONG,), deflate=SMALL_WINDOW),
    "13.5.1": right(
        *[(FIN | BINARY | RSV1, LONG_DEFLATED)] * 2,
        replies=(LONG,) * 2,
        deflate={**NO_TAKEOVER, **SMALL_WINDOW},
    ),
}


def fail_fast(end: End) -> dict[str, tuple[bytes, bytes]]:
    """Beginnings of texts, and bytes that make each invalid before it or its frame is complete."""
    text = GREEK + TOO_HIGH + b"edited"
    high, bad = len(GREEK), len(GREEK) + 1  # the beginning of TOO_HIGH, and its first invalid byte
    whole = end.wire(FIN | TEXT, text)
    head = len(whole) - len(text)
    return {
        "6.4.1": (end.wire(TEXT, GREEK), end.wire(CONTINUATION, TOO_HIGH)),
        "6.4.2": (end.wire(TEXT, text[:bad]), end.wire(CONTINUATION, text[bad : bad + 1])),
        "6.4.3": (whole[: head + high], whole[head + high : head + high + 4]),
        "6.4.4": (whole[: head + bad], whole[head + bad : head + bad + 1]),
    }


def many_fragments(end: End) -> bytes:
    """9.4.1: 4 MiB of binary in 65,536 fragments."""
    payload = b"\xfe" * 64
    first, last = end.wire(BINARY, payload), end.wire(FIN | CONTINUATION, payload)
    return first + end.wire(CONTINUATION, payload) * 65534 + last
