"""permessage-deflate (RFC 7692): what is agreed on, and the messages that are compressed."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.deflated import (
    RFC_HELLO_AGAIN,
    RFC_PAYLOADS,
    TAIL,
    bomb,
    compressor,
    ended,
    inflated,
    looking_back,
    squeezed,
    stored,
)
from tests.support.ends import (
    BAD_DATA,
    BINARY,
    CLIENT,
    CLOSE,
    CONTINUATION,
    FIN,
    NORMAL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    SERVER,
    TEXT,
    TOO_BIG,
    End,
    ends,
)
from tests.support.tools import load_codec, normals, receive_in_pieces
from tests.support.vectors import (
    INVALID_UTF8,
    RFC_KEY,
    TRUNCATED_UTF8,
    VALID_UTF8,
    Bad,
    by_hand,
    payload_of,
)

BACKENDS = ("zlib", "zlib-ng", "isal")
COMPRESSED = FIN | RSV1
NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}
NOT_UTF8 = ("Failure", BAD_DATA, "a text message is not valid UTF-8")
NOT_DEFLATE = ("Failure", BAD_DATA, "a compressed message is not valid DEFLATE")

SENTENCE = "Sphinx of black quartz, judge my vow; pack my box with five dozen liquor jugs."

backends = pytest.mark.parametrize("backend", BACKENDS)
takeovers = pytest.mark.parametrize("takeover", [True, False], ids=["context", "no-context"])


def compressing(codec: ModuleType, end: End, *, limits: Any = None, **settings: Any) -> Any:
    """An end that has agreed on compression."""
    deflate = codec.PerMessageDeflate(**settings)
    return end.connect(codec, deflate=deflate, **(limits or {}))


def not_deflate(why: str) -> tuple[str, int, str]:
    """The failure of a message that is no DEFLATE, for this reason."""
    return (*NOT_DEFLATE[:2], f"{NOT_DEFLATE[2]}: {why}")


def peer(end: End) -> str:
    """The other end, as the parameters of the extension call it."""
    return "client" if end is SERVER else "server"


def windows(bits: int) -> dict[str, int]:
    """Windows of both directions."""
    return {"server_max_window_bits": bits, "client_max_window_bits": bits}


class Read(NamedTuple):
    """What a frame says, as whoever reads the wire sees it."""

    first: int
    payload: bytes


def read(wire: bytes) -> Read:
    """The one frame on the wire, of either role."""
    field, position = wire[1] & 0x7F, 2
    if field > 125:
        position += 2 if field == 126 else 8
        field = int.from_bytes(wire[2:position], "big")
    payload = wire[position:]
    if wire[1] & 0x80:
        key, payload = payload[:4], payload[4:]
        payload = by_hand(0, payload, key, length=0)[6:]
    assert len(payload) == field
    return Read(wire[0], payload)


# The settings -------------------------------------------------------------------------------------


def test_settings_are_values(codec: ModuleType) -> None:
    one, same = codec.PerMessageDeflate(level=3), codec.PerMessageDeflate(level=3)
    assert (one == same, hash(one) == hash(same)) == (True, True)
    assert one != codec.PerMessageDeflate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.level = 4
    with pytest.raises(TypeError, match="positional argument"):
        codec.PerMessageDeflate(True)


OUT_OF_RANGE: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name}-{bits}": ({name: bits}, f"{name} is out of range for zlib: {bits}")
        for name in ("server_max_window_bits", "client_max_window_bits")
        for bits in (-15, 0, 7, 16)
    },
    **{
        f"isal-{name}-8": (
            {name: 8, "backend": "isal"},
            f"{name} is out of range for isal: 8",
        )
        for name in ("server_max_window_bits", "client_max_window_bits")
    },
    **{
        f"{backend}-level-{level}": (
            {"level": level, "backend": backend},
            f"level {level} or memory_level 8 is out of range for {backend}: ",
        )
        for backend, levels in (
            ("zlib", (-2, 10, 1 << 70)),
            ("zlib-ng", (-2, 10, 1 << 70)),
            ("isal", (-1, 4, 1 << 70)),
        )
        for level in levels
    },
    **{
        f"{backend}-memory-level-{level}": (
            {"memory_level": level, "backend": backend},
            f"level None or memory_level {level} is out of range for {backend}: ",
        )
        for backend in BACKENDS
        for level in (0, 10, 1 << 70)
    },
    "min-size": ({"min_size": -1}, "min_size must not be negative: -1"),
    "backend": (
        {"backend": "brotli"},
        "backend must be one of zlib, zlib-ng, isal, not 'brotli'",
    ),
}


@pytest.mark.parametrize(("settings", "text"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE.keys())
def test_settings_out_of_range_are_an_error(
    codec: ModuleType, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        codec.PerMessageDeflate(**settings)


@pytest.mark.parametrize("memory_level", range(1, 10))
@pytest.mark.parametrize(
    ("backend", "levels"),
    [("zlib", range(10)), ("zlib-ng", range(10)), ("isal", range(4))],
    ids=BACKENDS,
)
def test_every_level_and_memory_level_is_understood(
    codec: ModuleType, backend: str, levels: Iterable[int], memory_level: int
) -> None:
    messages: list[Any] = ["Hello, " * 40, payload_of(5000), "", b"x" * 70_000, os.urandom(300)]
    for level in (*levels, None):
        sender = compressing(codec, SERVER, backend=backend, level=level, memory_level=memory_level)
        receiver = compressing(codec, CLIENT)
        for message in messages:
            assert receiver.receive(sender.encode(message, compress=True)) == [message]


@pytest.mark.parametrize(
    ("backend", "module"), [("zlib-ng", "zlib_ng.zlib_ng"), ("isal", "isal.isal_zlib")]
)
def test_a_backend_that_is_not_installed_is_named(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, backend: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    codec = load_codec(pure=not codec.ACCELERATED)  # which has not looked for it yet
    text = rf"^{backend} is not installed: pip install 'wsframe\[{backend}\]'$"
    for _ in range(2):
        with pytest.raises(ImportError, match=text):
            codec.PerMessageDeflate(backend=backend)
    assert codec.PerMessageDeflate().backend == "zlib"


# A server agrees (RFC 7692 sections 5 and 7.1) ----------------------------------------------------

#: server_no_context_takeover, client_no_context_takeover, and the windows of the two.
Agreed = tuple[bool, bool, int, int]
PLAIN: Agreed = (False, False, 15, 15)


def agreed(settings: Any) -> Agreed:
    return (
        settings.server_no_context_takeover,
        settings.client_no_context_takeover,
        settings.server_max_window_bits,
        settings.client_max_window_bits,
    )


def answer(codec: ModuleType, settings: Any, *offers: str) -> tuple[str | None, Any]:
    """The extensions that the server answers these headers with, and what it has agreed on."""
    headers = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", RFC_KEY),
        ("Sec-WebSocket-Version", "13"),
        *(("Sec-WebSocket-Extensions", offer) for offer in offers),
    ]
    acceptance = codec.accept(headers, deflate=settings)
    answers = [value for name, value in acceptance.headers if name == "Sec-WebSocket-Extensions"]
    assert len(answers) < 2
    assert (acceptance.deflate is None) == (answers == [])
    return (answers[0] if answers else None), acceptance.deflate


class Offer(NamedTuple):
    """What a client offers, and what a server that is ready for this makes of it."""

    offers: tuple[str, ...]
    answer: str
    agreed: Agreed
    ready: dict[str, Any] = {}  # noqa: RUF012


PMD = "permessage-deflate"
S_CONTEXT, C_CONTEXT = "server_no_context_takeover", "client_no_context_takeover"
S_BITS, C_BITS = "server_max_window_bits", "client_max_window_bits"

OFFERS: dict[str, Offer] = {
    "nothing-said": Offer((PMD,), PMD, PLAIN),
    "as-browsers-do": Offer((f"{PMD}; {C_BITS}",), PMD, PLAIN),
    # Section 7.1.1.1: the server must go without if it accepts, and may if it is not asked.
    "server-without-context": Offer(
        (f"{PMD}; {S_CONTEXT}",), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)
    ),
    "server-without-context-unasked": Offer(
        (PMD,), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15), {S_CONTEXT: True}
    ),
    "server-without-context-on-both-sides": Offer(
        (f"{PMD}; {S_CONTEXT}",), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15), {S_CONTEXT: True}
    ),
    # Section 7.1.1.2: a hint that the server answers with, or asks for unhinted.
    "client-without-context": Offer(
        (f"{PMD}; {C_CONTEXT}",), f"{PMD}; {C_CONTEXT}", (False, True, 15, 15)
    ),
    "client-without-context-unasked": Offer(
        (PMD,), f"{PMD}; {C_CONTEXT}", (False, True, 15, 15), {C_CONTEXT: True}
    ),
    "neither-with-context": Offer(
        (f"{PMD};{C_CONTEXT} ;\t{S_CONTEXT}",),
        f"{PMD}; {S_CONTEXT}; {C_CONTEXT}",
        (True, True, 15, 15),
    ),
    # Section 7.1.2.1: the server's window is the smaller one, and an answer to what was asked.
    "server-window-asked": Offer(
        (f"{PMD}; {S_BITS}=10",), f"{PMD}; {S_BITS}=10", (*PLAIN[:2], 10, 15)
    ),
    "server-window-of-15-asked": Offer((f"{PMD}; {S_BITS}=15",), f"{PMD}; {S_BITS}=15", PLAIN),
    "server-window-unasked": Offer(
        (PMD,), f"{PMD}; {S_BITS}=11", (*PLAIN[:2], 11, 15), {S_BITS: 11}
    ),
    "server-window-smaller-than-asked": Offer(
        (f"{PMD}; {S_BITS}=12",), f"{PMD}; {S_BITS}=9", (*PLAIN[:2], 9, 15), {S_BITS: 9}
    ),
    "server-window-larger-than-asked": Offer(
        (f"{PMD}; {S_BITS}=9",), f"{PMD}; {S_BITS}=9", (*PLAIN[:2], 9, 15), {S_BITS: 12}
    ),
    # Section 7.1.2.2: a client is asked for a window only if it has said that it can keep one.
    "client-window-named": Offer(
        (f"{PMD}; {C_BITS}",), f"{PMD}; {C_BITS}=10", (*PLAIN[:2], 15, 10), {C_BITS: 10}
    ),
    "client-window-not-named": Offer((PMD,), PMD, PLAIN, {C_BITS: 10}),
    "client-window-hinted": Offer(
        (f"{PMD}; {C_BITS}=9",), f"{PMD}; {C_BITS}=9", (*PLAIN[:2], 15, 9)
    ),
    "client-window-smaller-than-hinted": Offer(
        (f"{PMD}; {C_BITS}=12",), f"{PMD}; {C_BITS}=9", (*PLAIN[:2], 15, 9), {C_BITS: 9}
    ),
    "client-window-larger-than-hinted": Offer(
        (f"{PMD}; {C_BITS}=9",), f"{PMD}; {C_BITS}=9", (*PLAIN[:2], 15, 9), {C_BITS: 12}
    ),
    "client-window-of-15-hinted": Offer((f"{PMD}; {C_BITS}=15",), PMD, PLAIN),
    "everything": Offer(
        (f"{PMD}; {C_BITS}=10; {S_BITS}=9; {C_CONTEXT}; {S_CONTEXT}",),
        f"{PMD}; {S_CONTEXT}; {C_CONTEXT}; {S_BITS}=9; {C_BITS}=10",
        (True, True, 9, 10),
    ),
    "quoted-values": Offer(
        (f'{PMD}; {S_BITS}="10"; {C_BITS} = "\\9"',),
        f"{PMD}; {S_BITS}=10; {C_BITS}=9",
        (*PLAIN[:2], 10, 9),
    ),
    # Section 5.1: offers stand in order of preference; what cannot be kept is passed over.
    "the-first-of-two": Offer(
        (f"{PMD}; {S_BITS}=10, {PMD}",), f"{PMD}; {S_BITS}=10", (*PLAIN[:2], 10, 15)
    ),
    "the-second-header": Offer(
        (f"{PMD}; {S_BITS}=7", f"{PMD}; {S_CONTEXT}"), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)
    ),
    "behind-one-that-is-unknown": Offer(
        (f"{PMD}; fast", "x-webkit-deflate-frame; a=b", f"{PMD}; {C_CONTEXT}"),
        f"{PMD}; {C_CONTEXT}",
        (False, True, 15, 15),
    ),
    "among-empty-items": Offer((f", ,\tfoo;bar=1 ,, {PMD} , ,", ""), PMD, PLAIN),
    "behind-what-isal-cannot": Offer(
        (f"{PMD}; {S_BITS}=8, {PMD}; {C_BITS}=8, {PMD}; {S_BITS}=9",),
        f"{PMD}; {S_BITS}=9",
        (*PLAIN[:2], 9, 15),
        {"backend": "isal"},
    ),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS.keys())
def test_an_offer_is_answered(codec: ModuleType, offer: Offer) -> None:
    ready = codec.PerMessageDeflate(level=3, memory_level=4, min_size=5, **offer.ready)
    header, deflate = answer(codec, ready, *offer.offers)
    assert header == offer.answer
    assert agreed(deflate) == offer.agreed
    # What the other end need not know stays as it was.
    assert deflate == dataclasses.replace(
        ready, **dict(zip((S_CONTEXT, C_CONTEXT, S_BITS, C_BITS), offer.agreed, strict=True))
    )


@pytest.mark.parametrize("asked", range(8, 16))
@pytest.mark.parametrize("ready", range(8, 16))
def test_the_smaller_window_is_agreed_on(codec: ModuleType, ready: int, asked: int) -> None:
    settings = codec.PerMessageDeflate(server_max_window_bits=ready, client_max_window_bits=ready)
    both = min(ready, asked)
    header, deflate = answer(codec, settings, f"{PMD}; {S_BITS}={asked}; {C_BITS}={asked}")
    assert agreed(deflate) == (False, False, both, both)
    client_too = f"; {C_BITS}={both}" if both < 15 else ""
    assert header == f"{PMD}; {S_BITS}={both}{client_too}"


DECLINED: dict[str, tuple[str, ...]] = {
    "none": (),
    "empty": ("",),
    "another": ("x-webkit-deflate-frame",),
    "in-another-case": ("PERMESSAGE-DEFLATE",),
    "longer": ("permessage-deflate2",),
    "unknown-parameter": (f"{PMD}; fast",),
    "unknown-parameter-with-a-value": (f"{PMD}; {C_BITS}; level=9",),
    "parameter-in-another-case": (f"{PMD}; Server_No_Context_Takeover",),
    **{f"{name}-with-a-value": (f"{PMD}; {name}=true",) for name in (S_CONTEXT, C_CONTEXT)},
    f"{S_BITS}-without-a-value": (f"{PMD}; {S_BITS}",),
    **{
        f"{name}-{value}": (f"{PMD}; {name}={value}",)
        for name in (S_BITS, C_BITS)
        for value in (
            *("0", "7", "16", "08", "015", "010", "-9", "+9", "9.0", "1e1", "ten", "99", "0x9"),
            '"016"',
        )
    },
    **{f"{name}-twice": (f"{PMD}; {name}; {name}",) for name in (S_CONTEXT, C_CONTEXT, C_BITS)},
    **{f"{name}-twice-with-values": (f"{PMD}; {name}=9; {name}=9",) for name in (S_BITS, C_BITS)},
    f"{C_BITS}-with-and-without": (f"{PMD}; {C_BITS}=9; {C_BITS}",),
    "none-of-three": (f"{PMD}; {S_BITS}=7, {PMD}; x", f"{PMD}; {C_BITS}=16"),
}


@pytest.mark.parametrize("offers", DECLINED.values(), ids=DECLINED.keys())
def test_an_offer_that_cannot_be_kept_is_declined(
    codec: ModuleType, offers: tuple[str, ...]
) -> None:
    assert answer(codec, codec.PerMessageDeflate(), *offers) == (None, None)


@pytest.mark.parametrize("name", [S_BITS, C_BITS])
def test_isal_has_no_window_of_8(codec: ModuleType, name: str) -> None:
    ready = codec.PerMessageDeflate(backend="isal")
    assert answer(codec, ready, f"{PMD}; {name}=8") == (None, None)
    for backend in ("zlib", "zlib-ng"):
        ready = codec.PerMessageDeflate(backend=backend)
        assert answer(codec, ready, f"{PMD}; {name}=8")[0] == f"{PMD}; {name}=8"


def test_a_server_that_is_not_ready_agrees_to_nothing(codec: ModuleType) -> None:
    assert answer(codec, None, PMD, f"{PMD}; {C_BITS}") == (None, None)


MALFORMED = {
    "no-name": "; a=b",
    "no-name-between": f"{PMD}, ;a, foo",
    "two-names": f"{PMD} foo",
    "no-parameter": f"{PMD};",
    "no-parameter-between": f"{PMD};;a",
    "no-value": f"{PMD}; a=",
    "two-values": f"{PMD}; a=b c",
    "two-equal-signs": f"{PMD}; a=b=c",
    "no-parameter-name": f"{PMD}; =9",
    "open-quotes": f'{PMD}; a="b',
    "open-quotes-with-a-comma": f'{PMD}; a="b, foo',
    "closing-quotes-quoted": f'{PMD}; a="b\\"',
    "quoted-nothing": f'{PMD}; a=""',
    "quoted-no-token": f'{PMD}; a="b c"',
    "quoted-comma": f'{PMD}; a="b,c"',
    "quoted-quote": f'{PMD}; a="b\\"c"',
    "text-behind-quotes": f'{PMD}; a="b"c',
    "quoted-parameter": f'{PMD}; "a"=b',
    "quoted-name": f'"{PMD}"',
    "single-quotes-with-blank": f"{PMD}; a='b c'",
    "slash": "a/b",
    "line-break": f"{PMD}\n",
    "line-break-between": f"{PMD};\r\n a",
    "no-break-space": f"{PMD};\u00a0a",
    "not-ascii": "permessäge-deflate",
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("ready", [True, False])
def test_a_malformed_header_is_refused(codec: ModuleType, header: str, ready: bool) -> None:
    settings = codec.PerMessageDeflate() if ready else None
    for offers in ((header,), (PMD, header)):
        with pytest.raises(codec.HandshakeError) as caught:
            answer(codec, settings, *offers)
        assert (caught.value.status, caught.value.reason) == (
            400,
            "the Sec-WebSocket-Extensions header is malformed",
        )


# A client offers, and holds the server to it ------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "offer"),
    [
        ({}, f"{PMD}; {C_BITS}"),
        ({S_CONTEXT: True}, f"{PMD}; {S_CONTEXT}; {C_BITS}"),
        ({C_CONTEXT: True}, f"{PMD}; {C_CONTEXT}; {C_BITS}"),
        ({S_BITS: 8}, f"{PMD}; {S_BITS}=8; {C_BITS}"),
        ({C_BITS: 8}, f"{PMD}; {C_BITS}=8"),
        (
            {S_CONTEXT: True, C_CONTEXT: True, S_BITS: 9, C_BITS: 14},
            f"{PMD}; {S_CONTEXT}; {C_CONTEXT}; {S_BITS}=9; {C_BITS}=14",
        ),
    ],
)
def test_what_a_client_offers(codec: ModuleType, settings: dict[str, Any], offer: str) -> None:
    assert codec.PerMessageDeflate(**settings).offer() == offer
    wire = codec.UpgradeRequest("a.example", deflate=codec.PerMessageDeflate(**settings)).encode()
    assert f"\r\nSec-WebSocket-Extensions: {offer}\r\n".encode() in wire


def confirm(codec: ModuleType, settings: Any, *answers: str) -> Any:
    """What a client says to a server that answers its offer with these headers."""
    request = codec.UpgradeRequest("a.example", deflate=settings)
    (key,) = re.findall(r"Sec-WebSocket-Key: (\S+)", request.encode().decode())
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", codec.accept_key(key)),
        *(("Sec-WebSocket-Extensions", value) for value in answers),
    ]
    return request.confirm(101, headers).deflate


CONFIRMED: dict[str, tuple[dict[str, Any], str, Agreed]] = {
    "nothing-said": ({}, PMD, PLAIN),
    # Section 7.1.1.1: a server may go without its context unasked.
    "server-without-context": ({S_CONTEXT: True}, f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)),
    "server-without-context-unasked": ({}, f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)),
    # Section 7.1.1.2: a client goes without because it is told so, or because it said so.
    "client-without-context": ({C_CONTEXT: True}, f"{PMD}; {C_CONTEXT}", (False, True, 15, 15)),
    "client-without-context-unasked": ({}, f"{PMD}; {C_CONTEXT}", (False, True, 15, 15)),
    "client-without-context-unanswered": ({C_CONTEXT: True}, PMD, (False, True, 15, 15)),
    # Section 7.1.2.1
    "server-window": ({S_BITS: 10}, f"{PMD}; {S_BITS}=10", (False, False, 10, 15)),
    "server-window-smaller": ({S_BITS: 10}, f"{PMD}; {S_BITS}=8", (False, False, 8, 15)),
    "server-window-unasked": ({}, f"{PMD}; {S_BITS}=9", (False, False, 9, 15)),
    "server-window-of-15": ({}, f"{PMD}; {S_BITS}=15", PLAIN),
    # Section 7.1.2.2
    "client-window": ({C_BITS: 10}, f"{PMD}; {C_BITS}=10", (False, False, 15, 10)),
    "client-window-smaller": ({C_BITS: 10}, f"{PMD}; {C_BITS}=8", (False, False, 15, 8)),
    "client-window-chosen-by-the-server": ({}, f"{PMD}; {C_BITS}=9", (False, False, 15, 9)),
    "client-window-unanswered": ({C_BITS: 10}, PMD, (False, False, 15, 10)),
    "quoted": ({}, f'{PMD};{C_BITS}="12" ; {S_BITS} = 11', (False, False, 11, 12)),
    "everything": (
        {S_CONTEXT: True, C_CONTEXT: True, S_BITS: 12, C_BITS: 12},
        f"{PMD}; {C_BITS}=11; {S_BITS}=10; {C_CONTEXT}; {S_CONTEXT}",
        (True, True, 10, 11),
    ),
}


@pytest.mark.parametrize(
    ("offered", "header", "expected"), CONFIRMED.values(), ids=CONFIRMED.keys()
)
def test_an_answer_is_confirmed(
    codec: ModuleType, offered: dict[str, Any], header: str, expected: Agreed
) -> None:
    settings = codec.PerMessageDeflate(level=3, memory_level=4, min_size=5, **offered)
    deflate = confirm(codec, settings, header)
    assert agreed(deflate) == expected
    assert (deflate.level, deflate.memory_level, deflate.min_size) == (3, 4, 5)
    assert deflate.backend == settings.backend


def test_a_server_may_go_without(codec: ModuleType) -> None:
    assert confirm(codec, codec.PerMessageDeflate()) is None
    assert confirm(codec, codec.PerMessageDeflate(), "") is None
    assert confirm(codec, None) is None


NOT_OFFERED = "the server chose an extension that was not offered"
OTHER_COMPRESSION = "the server chose a compression that was not offered"
MALFORMED_HEADER = "the Sec-WebSocket-Extensions header is malformed"


def answered_with(what: str) -> str:
    return f"the server answers permessage-deflate with {what}"


class Refused(NamedTuple):
    """An answer that a client must not accept (sections 5.2 and 7.1), and why."""

    answers: tuple[str, ...]
    reason: str
    offered: dict[str, Any] | None = {}  # noqa: RUF012


REFUSED: dict[str, Refused] = {
    "not-offered": Refused((PMD,), NOT_OFFERED, None),
    "another": Refused(("x-webkit-deflate-frame",), NOT_OFFERED),
    "another-too": Refused((f"{PMD}, foo",), NOT_OFFERED),
    "twice": Refused((f"{PMD}, {PMD}",), NOT_OFFERED),
    "twice-in-two-headers": Refused((PMD, PMD), NOT_OFFERED),
    "malformed": Refused((f"{PMD}; a=",), MALFORMED_HEADER),
    # Section 7.1: unknown, not valid, or there twice.
    "unknown": Refused((f"{PMD}; fast",), answered_with("fast")),
    "unknown-with-a-value": Refused((f"{PMD}; level=9",), answered_with("level=9")),
    **{
        f"{name}-twice": Refused((f"{PMD}; {name}; {name}",), answered_with(f"{name} twice"))
        for name in (S_CONTEXT, C_CONTEXT)
    },
    **{
        f"{name}-twice": Refused((f"{PMD}; {name}=9; {name}=9",), answered_with(f"{name} twice"))
        for name in (S_BITS, C_BITS)
    },
    **{
        f"{name}-with-a-value": Refused((f"{PMD}; {name}=1",), answered_with(f"{name}=1"))
        for name in (S_CONTEXT, C_CONTEXT)
    },
    # Section 7.1.2.2: in an answer the client's window has a value, too.
    **{
        f"{name}-without-a-value": Refused((f"{PMD}; {name}",), answered_with(name))
        for name in (S_BITS, C_BITS)
    },
    **{
        f"{name}-{value}": Refused((f"{PMD}; {name}={value}",), answered_with(f"{name}={value}"))
        for name in (S_BITS, C_BITS)
        for value in ("0", "7", "16", "08", "010", "-9", "x")
    },
    # Section 7.1.1.1: a server that accepts such an offer says so.
    "server-keeps-its-context": Refused((PMD,), OTHER_COMPRESSION, {S_CONTEXT: True}),
    # Section 7.1.2.1: the same or smaller, and said.
    "server-window-larger": Refused((f"{PMD}; {S_BITS}=11",), OTHER_COMPRESSION, {S_BITS: 10}),
    "server-window-of-15": Refused((f"{PMD}; {S_BITS}=15",), OTHER_COMPRESSION, {S_BITS: 14}),
    "server-window-unanswered": Refused((PMD,), OTHER_COMPRESSION, {S_BITS: 14}),
    # Section 7.1.2.2: the same or smaller.
    "client-window-larger": Refused((f"{PMD}; {C_BITS}=11",), OTHER_COMPRESSION, {C_BITS: 10}),
    # It has no window that small.
    **{
        f"{name}-too-small-for-isal": Refused(
            (f"{PMD}; {name}=8",), OTHER_COMPRESSION, {"backend": "isal"}
        )
        for name in (S_BITS, C_BITS)
    },
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_an_answer_that_was_not_offered_is_refused(codec: ModuleType, refused: Refused) -> None:
    settings = None if refused.offered is None else codec.PerMessageDeflate(**refused.offered)
    with pytest.raises(codec.HandshakeError) as caught:
        confirm(codec, settings, *refused.answers)
    assert (caught.value.status, caught.value.reason) == (502, refused.reason)


def test_several_offers_are_made_in_order_of_preference(codec: ModuleType) -> None:
    first = codec.PerMessageDeflate(**{S_BITS: 10, "level": 1})
    second = codec.PerMessageDeflate(level=2)
    offers = [first, second]
    wire = codec.UpgradeRequest("a.example", deflate=offers).encode().decode()
    header = f"{first.offer()}, {second.offer()}"
    assert f"\r\nSec-WebSocket-Extensions: {header}\r\n" in wire
    # The answer does not say which offer it takes: it is the first that it keeps to.
    for value, expected, level in (
        (f"{PMD}; {S_BITS}=10", (False, False, 10, 15), 1),
        (f"{PMD}; {S_BITS}=11", (False, False, 11, 15), 2),
        (PMD, PLAIN, 2),
    ):
        deflate = confirm(codec, offers, value)
        assert (agreed(deflate), deflate.level) == (expected, level)
    assert confirm(codec, offers) is None
    assert confirm(codec, []) is None
    with pytest.raises(codec.HandshakeError, match=answered_with("fast")):
        confirm(codec, offers, f"{PMD}; fast")
    with pytest.raises(codec.HandshakeError, match=NOT_OFFERED):
        confirm(codec, [], PMD)


def test_a_server_takes_the_first_offer_that_it_can_keep(codec: ModuleType) -> None:
    offers = [codec.PerMessageDeflate(**{S_BITS: 8}), codec.PerMessageDeflate(**{S_BITS: 11})]
    request = codec.UpgradeRequest("a.example", deflate=offers)
    head = request.encode().decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in head)]
    for backend, bits in (("zlib", 8), ("isal", 11)):  # isal has no window of 8 bits
        acceptance = codec.accept(headers, deflate=codec.PerMessageDeflate(backend=backend))
        deflate = request.confirm(101, acceptance.headers).deflate
        assert agreed(deflate) == agreed(acceptance.deflate) == (False, False, bits, 15)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        S_CONTEXT: st.booleans(),
        C_CONTEXT: st.booleans(),
        S_BITS: st.integers(9, 15),
        C_BITS: st.integers(9, 15),
        "level": st.sampled_from([None, 0, 1, 3]),
        "memory_level": st.integers(1, 9),
        "min_size": st.sampled_from([0, 1, 64, 1000]),
        "backend": st.sampled_from(BACKENDS),
    },
)


def negotiate(codec: ModuleType, ready: dict[str, Any], offered: dict[str, Any]) -> dict[End, Any]:
    """The settings that a server and a client come to, each as it knows them."""
    client = codec.PerMessageDeflate(**offered)
    header, server_side = answer(codec, codec.PerMessageDeflate(**ready), client.offer())
    assert header is not None
    return {SERVER: server_side, CLIENT: confirm(codec, client, header)}


@given(ready=SETTINGS, offered=SETTINGS)
def test_what_one_agrees_to_the_other_confirms(
    codec: ModuleType, ready: dict[str, Any], offered: dict[str, Any]
) -> None:
    both = negotiate(codec, ready, offered)
    assert agreed(both[SERVER]) == agreed(both[CLIENT])
    for name in (S_CONTEXT, C_CONTEXT):
        wanted = ready.get(name, False) or offered.get(name, False)
        assert getattr(both[SERVER], name) == wanted
    for name in (S_BITS, C_BITS):
        smaller = min(ready.get(name, 15), offered.get(name, 15))
        assert getattr(both[SERVER], name) == smaller


# Compressed messages (RFC 7692 sections 6 and 7.2) ------------------------------------------------


@ends
@backends
@pytest.mark.parametrize(("payload", "data"), RFC_PAYLOADS.values(), ids=RFC_PAYLOADS.keys())
def test_the_payloads_of_the_rfc(
    codec: ModuleType, payload: bytes, data: bytes, backend: str, end: End
) -> None:
    wire = end.wire(COMPRESSED | TEXT, payload) + end.wire(COMPRESSED | BINARY, payload)
    for cuts in ((), range(1, len(wire))):
        connection = compressing(codec, end, backend=backend, **NO_TAKEOVER)
        assert receive_in_pieces(connection, wire, cuts) == [data.decode(), data]


@ends
def test_the_frames_of_the_rfc(codec: ModuleType, end: End) -> None:
    # Section 7.2.3.1: in one frame, and in two of which only the first has RSV1.
    payload = RFC_PAYLOADS["one-block"][0]
    assert by_hand(COMPRESSED | TEXT, payload) == b"\xc1\x07" + payload
    two = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(FIN | CONTINUATION, payload[3:])
    connection = compressing(codec, end, **NO_TAKEOVER)
    assert connection.receive(end.wire(COMPRESSED | TEXT, payload) + two) == ["Hello"] * 2


@ends
@backends
def test_the_window_of_the_rfc(codec: ModuleType, backend: str, end: End) -> None:
    # Section 7.2.3.2
    hello = end.wire(COMPRESSED | TEXT, RFC_PAYLOADS["one-block"][0])
    again = end.wire(COMPRESSED | TEXT, RFC_HELLO_AGAIN)
    connection = compressing(codec, end, backend=backend)
    assert connection.receive(hello + again + again) == ["Hello"] * 3
    connection = compressing(codec, end, backend=backend, **NO_TAKEOVER)
    failure = not_deflate(f"it refers to bytes before it, against {peer(end)}_no_context_takeover")
    assert normals(connection.receive(hello + again)) == ["Hello", failure]


@ends
@backends
@pytest.mark.parametrize("bits", [15, 9])
def test_a_peer_that_keeps_its_window_against_the_agreement_is_told_so(
    codec: ModuleType, backend: str, bits: int, end: End
) -> None:
    # Some clients ignore client_no_context_takeover.
    sender = compressing(codec, end.peer, backend=backend)
    receiver = compressing(codec, end, backend=backend, **NO_TAKEOVER, **windows(bits))
    assert receiver.receive(sender.encode(SENTENCE)) == [SENTENCE]
    (failure,) = receiver.receive(sender.encode(SENTENCE))
    assert failure.code == BAD_DATA
    assert failure.reason.endswith(f"against {peer(end)}_no_context_takeover")
    assert codec.Connection(codec.Role.SERVER).close(failure.code, failure.reason)


@ends
@backends
def test_a_peer_whose_window_is_larger_than_agreed_on_is_told_so(
    codec: ModuleType, backend: str, end: End
) -> None:
    receiver = compressing(codec, end, backend=backend, **windows(9))
    # A reference to 2,000 bytes before the first.
    compressor = zlib.compressobj(wbits=-15, zdict=SENTENCE.encode() + bytes(2000))
    payload = compressor.compress(SENTENCE.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
    (failure,) = normals(receiver.receive(end.wire(COMPRESSED | TEXT, payload[:-4])))
    assert failure == not_deflate(f"it refers further back than {peer(end)}_max_window_bits=9")


@ends
@backends
@takeovers
def test_an_empty_message_is_one_byte(
    codec: ModuleType, takeover: bool, backend: str, end: End
) -> None:
    # Section 7.2.3.6. Without a context nothing shrinks that is empty, and it goes as it is.
    connection = compressing(codec, end, backend=backend, **({} if takeover else NO_TAKEOVER))
    peer = compressing(codec, end.peer, **({} if takeover else NO_TAKEOVER))
    for message, opcode in (("", TEXT), (b"", BINARY)) * 2:
        wire = connection.encode(message, compress=True)
        assert read(wire) == ((COMPRESSED | opcode, b"\0") if takeover else (FIN | opcode, b""))
        assert peer.receive(wire) == [message]
        filler = connection.encode("filler" * 30)
        assert peer.receive(filler) == ["filler" * 30]


@ends
@backends
def test_messages_of_every_kind_and_size(codec: ModuleType, backend: str, end: End) -> None:
    sizes = (0, 1, 63, 64, 65, 125, 126, 300, 65535, 65536, 65537, 131_072, 200_000)
    messages: list[Any] = [payload_of(size) for size in sizes]
    messages += [Random(size).randbytes(size) for size in sizes]
    messages += [text.decode() * 20 for text in VALID_UTF8.values()]
    for settings in ({}, NO_TAKEOVER):
        sender = compressing(codec, end, backend=backend, **settings)
        receiver = compressing(codec, end.peer, backend=backend, **settings)
        wire = b"".join(map(sender.encode, messages))
        assert receiver.receive(wire) == messages
        assert receive_in_pieces(receiver, wire[:0], ()) == []
        wire = b"".join(map(sender.encode, messages[:20]))
        assert receive_in_pieces(receiver, wire, range(1000, len(wire), 1000)) == messages[:20]


@ends
@pytest.mark.parametrize("cut", range(8))
def test_control_frames_stand_between_compressed_fragments(
    codec: ModuleType, cut: int, end: End
) -> None:
    payload = RFC_PAYLOADS["one-block"][0]
    wire = b"".join(
        [
            end.wire(RSV1 | TEXT, payload[:cut]),
            end.wire(PING, b"1"),
            end.wire(CONTINUATION),
            end.wire(PONG, b"2"),
            end.wire(FIN | CONTINUATION, payload[cut:]),
            end.wire(FIN | TEXT, b"plain"),
            end.wire(COMPRESSED | BINARY, payload),
        ]
    )
    expected = [("Ping", b"1"), ("Pong", b"2"), "Hello", "plain", b"Hello"]
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == expected


@ends
@backends
@takeovers
@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_message_in_many_fragments(
    codec: ModuleType, step: int, takeover: bool, backend: str, end: End
) -> None:
    settings = {"backend": backend, **({} if takeover else NO_TAKEOVER)}
    data = b"".join(b"%d, " % (i * i) for i in range(300))
    connection = compressing(codec, end, **settings)
    stream = compressor() if takeover else None
    for _ in range(3):
        payload = squeezed(data, stream)
        pieces = [payload[i : i + step] for i in range(0, len(payload), step)]
        firsts = [RSV1 | BINARY, *[CONTINUATION] * (len(pieces) - 1)]
        firsts[-1] |= FIN
        wire = b"".join(map(end.wire, firsts, pieces))
        assert connection.receive(wire) == [data]


@ends
def test_a_close_inside_a_compressed_message(codec: ModuleType, end: End) -> None:
    payload = squeezed(b"Hello")
    wire = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(CLOSE, b"\x03\xe8")
    connection = compressing(codec, end)
    assert normals(connection.receive(wire)) == [("Close", NORMAL, "")]
    assert connection.receive(end.wire(FIN | CONTINUATION, payload[3:])) == []


# The reserved bits --------------------------------------------------------------------------------

RESERVED = ("Failure", PROTOCOL_ERROR, "a reserved bit is set and no extension was agreed on")
ONLY_FIRST = (
    "Failure",
    PROTOCOL_ERROR,
    "only the first frame of a message says that it is compressed",
)


@ends
@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("first", [FIN | TEXT, BINARY, PING, CLOSE])
@pytest.mark.parametrize("compression", [True, False])
def test_reserved_bits(
    codec: ModuleType, compression: bool, first: int, rsv: int, end: End
) -> None:
    connection = compressing(codec, end) if compression else end.connect(codec)
    wire = end.wire(first | rsv << 4, RFC_PAYLOADS["one-block"][0])
    events = normals(connection.receive(wire[:2]))
    if not compression or rsv != 4:
        assert events == [RESERVED]
    elif first >= CLOSE:
        assert events == [ONLY_FIRST]
    else:
        assert events == []


@ends
@pytest.mark.parametrize("begun", [TEXT, RSV1 | TEXT], ids=["plain", "compressed"])
@pytest.mark.parametrize("fin", [0, FIN], ids=["fragment", "last"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_continuation_does_not_say_that_it_is_compressed(
    codec: ModuleType, whole: bool, fin: int, begun: int, end: End
) -> None:
    connection = compressing(codec, end)
    assert connection.receive(end.wire(begun, b"\xf2")) == []
    wire = end.wire(fin | RSV1 | CONTINUATION, b"\x48\xcd")
    assert normals(connection.receive(wire if whole else wire[:2])) == [ONLY_FIRST]


@ends
def test_an_uncompressed_message_may_follow_any(codec: ModuleType, end: End) -> None:
    # It does not go through the window (section 6.1 leaves the choice, message by message).
    stream = compressor()
    wire = b"".join(
        [
            end.wire(COMPRESSED | TEXT, squeezed(b"Hello", stream)),
            end.wire(FIN | TEXT, b"plain"),
            end.wire(TEXT, b"pl"),
            end.wire(FIN | CONTINUATION, b"ain"),
            end.wire(COMPRESSED | TEXT, squeezed(b"Hello", stream)),
        ]
    )
    expected = ["Hello", "plain", "plain", "Hello"]
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == expected


# The window (RFC 7692 section 7.1.2) --------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8, 16))
def test_what_looks_back_too_far_is_told(bits: int) -> None:
    # The test of the tests below.
    size = 1 << bits
    data = Random(bits).randbytes(size)
    assert inflated(looking_back(data), bits) == data + data[:3]
    if bits < 15:
        data += b"x"
        assert inflated(looking_back(data), bits + 1) == data + data[:3]
        with pytest.raises(zlib.error, match="too far back"):
            inflated(looking_back(data), bits)


def repetitive(window: int, size: int) -> Iterator[bytes]:
    """Data that invites to look back at it from all distances around a window."""
    random = Random(window)
    for distance in (1, 3, window // 2, window - 262, window - 6, window - 1, window, window + 1):
        block = random.randbytes(max(distance, 1))
        yield (block * (size // len(block) + 1))[:size]
    words = [random.randbytes(random.randrange(3, 9)) for _ in range(40)]
    yield b"".join(random.choice(words) for _ in range(size // 6))
    yield b"".join(b'{"number": %d, "name": "a"}' % (i * i) for i in range(size // 28))
    yield bytes(size)
    yield random.randbytes(size)


def check_window(codec: ModuleType, bits: int, size: int, **settings: Any) -> None:
    """Send data of every kind, as a server, and read it with just that window."""
    for data in repetitive(1 << bits, size):
        for takeover in (True, False):
            sender = compressing(
                codec,
                SERVER,
                server_max_window_bits=bits,
                server_no_context_takeover=not takeover,
                **settings,
            )
            thirds = [data[: size // 3], data[size // 3 : size // 2], data[size // 2 :]]
            frames = [read(sender.encode(third, compress=True)) for third in thirds]
            if takeover:
                assert inflated(TAIL.join(frame.payload for frame in frames), bits) == data
                continue
            for third, frame in zip(thirds, frames, strict=True):
                sent = inflated(frame.payload, bits) if frame.first & RSV1 else frame.payload
                assert sent == third


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("memory_level", [1, 8, 9])
@pytest.mark.parametrize("backend", ["zlib", "zlib-ng"])
def test_a_window_of_8_is_kept(
    codec: ModuleType, backend: str, memory_level: int, level: int
) -> None:
    # No backend has one for raw streams: with one of 9, none may look back as far as that allows.
    check_window(codec, 8, 1200, backend=backend, level=level, memory_level=memory_level)


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
@pytest.mark.parametrize(
    ("backend", "level"),
    [("zlib", 1), ("zlib", 9), ("zlib-ng", 1), ("zlib-ng", 9), ("isal", 0), ("isal", 3)],
)
def test_a_window_is_kept(codec: ModuleType, backend: str, level: int, bits: int) -> None:
    check_window(codec, bits, 3 * (1 << bits) // 2, backend=backend, level=level)


@ends
@takeovers
def test_each_end_keeps_to_its_own_window(codec: ModuleType, takeover: bool, end: End) -> None:
    message = Random(0).randbytes(700) * 2  # no use to who cannot look back 700 bytes
    for bits, repeats in ((9, False), (10, True)):
        names = {SERVER: S_BITS, CLIENT: C_BITS}
        settings = {names[end]: bits, names[end.peer]: 19 - bits}
        settings |= {} if takeover else NO_TAKEOVER
        frame = read(compressing(codec, end, **settings).encode(message))
        assert (len(frame.payload) < 1000) == repeats
        if frame.first & RSV1:
            assert inflated(frame.payload, bits) == message


@ends
@pytest.mark.parametrize(
    ("backend", "bits"),
    [
        (backend, bits)
        for backend in BACKENDS
        for bits in range(8, 16)
        if bits > 8 or backend != "isal"
    ],
)
def test_all_of_the_peers_window_is_there(
    codec: ModuleType, backend: str, bits: int, end: End
) -> None:
    names = {SERVER: C_BITS, CLIENT: S_BITS}
    settings = {names[end]: bits, names[end.peer]: 9}
    connection = compressing(codec, end, backend=backend, **settings)
    data = Random(bits).randbytes(1 << bits)
    wire = end.wire(COMPRESSED | BINARY, looking_back(data))
    for cuts in ((), range(len(wire) - 9, len(wire))):
        assert receive_in_pieces(connection, wire, cuts) == [data + data[:3]]


# The context --------------------------------------------------------------------------------------


@ends
@pytest.mark.parametrize("ours", [True, False], ids=["own", "others"])
@takeovers
def test_takeover_is_agreed_on_for_each_direction(
    codec: ModuleType, takeover: bool, ours: bool, end: End
) -> None:
    sender = end if ours else end.peer
    settings = {f"{sender.role}_no_context_takeover": not takeover}
    connections = {role: compressing(codec, role, **settings) for role in (SERVER, CLIENT)}
    message = Random(0).randbytes(500)
    sizes = {}
    for from_end in (SERVER, CLIENT):
        wires = [connections[from_end].encode(message, compress=True) for _ in range(3)]
        sizes[from_end] = [len(wire) for wire in wires]
        assert connections[from_end.peer].receive(b"".join(wires)) == [message] * 3
    first, second, third = sizes[sender]
    assert (second < first / 5) == takeover
    assert (third < first / 5) == takeover
    first, second, third = sizes[sender.peer]
    assert max(second, third) < first / 5


@ends
@backends
def test_without_a_context_the_order_does_not_matter(
    codec: ModuleType, backend: str, end: End
) -> None:
    settings = {"backend": backend, **NO_TAKEOVER}
    sender, receiver = compressing(codec, end, **settings), compressing(codec, end.peer, **settings)
    messages = [f"message {i}, " * 20 for i in range(5)]
    wires = [sender.encode(message) for message in messages]
    assert receiver.receive(b"".join(wires[::-1] + wires[1:2])) == [*messages[::-1], messages[1]]


@ends
def test_the_peer_may_keep_a_context_that_is_not_agreed_on_for_us(
    codec: ModuleType, end: End
) -> None:
    # The two directions have nothing to do with each other.
    connection = compressing(codec, end, **{f"{end.role}_no_context_takeover": True})
    stream = compressor()
    for _ in range(2):
        wire = end.wire(COMPRESSED | TEXT, squeezed(b"Hello" * 20, stream))
        assert connection.receive(wire) == ["Hello" * 20]
        assert read(connection.encode("Hello" * 20)).first == COMPRESSED | TEXT


# Which messages are compressed --------------------------------------------------------------------


@ends
@takeovers
@pytest.mark.parametrize(
    ("min_size", "size", "compress", "expected"),
    [
        (64, 63, None, False),
        (64, 64, None, True),
        (64, 63, True, True),
        (64, 64, False, False),
        (64, 10_000, False, False),
        (0, 20, None, True),
        (0, 20, False, False),
        (1000, 999, None, False),
        (1000, 1000, None, True),
    ],
)
def test_what_is_compressed(
    codec: ModuleType,
    min_size: int,
    size: int,
    compress: bool | None,
    expected: bool,
    takeover: bool,
    end: End,
) -> None:
    settings = {"min_size": min_size, **({} if takeover else NO_TAKEOVER)}
    receiver = compressing(codec, end.peer, **settings)
    sender = compressing(codec, end, **settings)
    numbers = memoryview(bytes(size)).cast("B")
    for message in ("x" * size, b"x" * size, bytearray(size), numbers):
        wire = sender.encode(message, compress=compress)
        assert bool(wire[0] & RSV1) == expected
        whole = message if isinstance(message, str) else bytes(message)
        assert receiver.receive(wire) == [whole]


@ends
def test_from_64_bytes_on_messages_are_compressed_by_default(codec: ModuleType, end: End) -> None:
    for size in (63, 64):
        assert bool(compressing(codec, end).encode(b"x" * size)[0] & RSV1) == (size == 64)


def test_the_size_of_an_array_is_in_bytes(codec: ModuleType) -> None:
    numbers = memoryview(bytes(64)).cast("I")
    assert len(numbers) == 16
    assert read(compressing(codec, SERVER).encode(numbers)).first == COMPRESSED | BINARY


@ends
@pytest.mark.parametrize("compress", [None, True])
def test_what_does_not_shrink_goes_as_it_is_without_a_context(
    codec: ModuleType, compress: bool | None, end: End
) -> None:
    noise = Random(0).randbytes(1000)
    sender = compressing(codec, end, **NO_TAKEOVER)
    assert read(sender.encode(noise, compress=compress)) == (FIN | BINARY, noise)
    sender = compressing(codec, end)
    wire = sender.encode(noise, compress=compress)
    assert read(wire).first == COMPRESSED | BINARY
    assert compressing(codec, end.peer).receive(wire) == [noise]


@ends
def test_what_comes_out_as_long_as_it_was_goes_as_it_is_without_a_context(
    codec: ModuleType, end: End
) -> None:
    sender = compressing(codec, end, **NO_TAKEOVER)
    shrinks = []
    for size in range(3, 30):
        message = payload_of(200) + b"x" * size
        stream = compressor()
        whole = stream.compress(message) + stream.flush(zlib.Z_FULL_FLUSH)
        shrinks.append(len(message) - len(whole.removesuffix(TAIL)))
        assert bool(sender.encode(message)[0] & RSV1) == (shrinks[-1] > 0)
    assert 0 in shrinks


@ends
@pytest.mark.parametrize("compress", [None, True, False])
def test_nothing_is_compressed_where_nothing_was_agreed_on(
    codec: ModuleType, compress: bool | None, end: End
) -> None:
    connection = end.connect(codec)
    assert connection.deflate is None
    message = "x" * 1000
    assert read(connection.encode(message, compress=compress)) == (FIN | TEXT, message.encode())


def test_a_connection_knows_what_was_agreed_on(codec: ModuleType) -> None:
    settings = codec.PerMessageDeflate(level=3)
    assert SERVER.connect(codec, deflate=settings).deflate is settings


@ends
def test_control_frames_are_never_compressed(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, min_size=0)
    assert read(connection.ping(bytes(125))) == (PING, bytes(125))
    assert read(connection.pong(bytes(125))) == (PONG, bytes(125))
    reason = "x" * 123
    assert read(connection.close(NORMAL, reason)) == (CLOSE, b"\x03\xe8" + reason.encode())
    for compress in (None, True, False):
        with pytest.raises(codec.StateError):
            connection.encode("x" * 100, compress=compress)


@ends
@takeovers
@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ("x" * 100 + "\ud800", UnicodeEncodeError, "surrogates not allowed"),
        (None, TypeError, "bytes-like object is required"),
        (5, TypeError, "bytes-like object is required"),
        (["x" * 100], TypeError, "bytes-like object is required"),
        (memoryview(bytes(1000))[::2], TypeError, "C-contiguous"),
    ],
    ids=["surrogate", "None", "int", "list", "gaps"],
)
@pytest.mark.parametrize("compress", [None, True, False])
def test_what_is_no_message_is_an_error_after_which_it_goes_on(
    codec: ModuleType,
    compress: bool | None,
    message: Any,
    error: type[Exception],
    text: str,
    takeover: bool,
    end: End,
) -> None:
    settings = {} if takeover else NO_TAKEOVER
    sender, receiver = compressing(codec, end, **settings), compressing(codec, end.peer, **settings)
    for _ in range(2):
        assert receiver.receive(sender.encode("Hello" * 20)) == ["Hello" * 20]
        with pytest.raises(error, match=text):
            sender.encode(message, compress=compress)


class Broken:
    """A compressor that fails, after its real one has taken the message into its window."""

    def __init__(self, real: Any, method: str) -> None:
        self._real = real
        self._method = method

    def compress(self, data: Any) -> Any:
        return self._call("compress", data)

    def flush(self, mode: int) -> Any:
        return self._call("flush", mode)

    def _call(self, name: str, argument: Any) -> Any:
        result = getattr(self._real, name)(argument)
        if name == self._method:
            raise MemoryError
        return result


@ends
@backends
@pytest.mark.parametrize("fault", ["compress", "flush", "encode_frame"])
def test_a_fault_while_compressing_does_not_lose_the_other_end(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, fault: str, backend: str, end: End
) -> None:
    sender, receiver = compressing(codec, end, backend=backend), compressing(codec, end.peer)
    words = b"words that are there again and again, "
    assert receiver.receive(sender.encode(words * 5)) == [words * 5]
    with monkeypatch.context() as patch:
        if fault == "encode_frame":

            def no_memory(*arguments: Any, **options: Any) -> bytes:
                raise MemoryError

            patch.setattr(codec.deflate, "encode_frame", no_memory)
        else:
            (idle,) = sender._deflater._idle
            sender._deflater._idle[:] = [Broken(idle, fault)]
        with pytest.raises(MemoryError):
            sender.encode(b"not to be looked back at" * 5 + words)
    for _ in range(3):
        wire = sender.encode(b"not to be looked back at" * 5 + words)
        assert receiver.receive(wire) == [b"not to be looked back at" * 5 + words]


@ends
def test_two_threads_in_encode_are_an_error_where_a_context_is_kept(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    sender, receiver = compressing(codec, end), compressing(codec, end.peer)
    inside, go_on = threading.Event(), threading.Event()
    encode_frame = codec.deflate.encode_frame

    def waiting(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return encode_frame(*arguments, **options)

    wires: list[bytes] = []
    thread = threading.Thread(target=lambda: wires.append(sender.encode("first" * 50)))
    with monkeypatch.context() as patch:
        patch.setattr(codec.deflate, "encode_frame", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"^another thread is in encode\(\)"):
                    sender.encode("second" * 50)
            # What does not go through the window does not wait for it.
            short, ping = sender.encode("short"), sender.ping(b"x")
        finally:
            go_on.set()
            thread.join()
    wires += [short, ping, sender.encode("third" * 50)]
    events = normals(receiver.receive(b"".join(wires)))
    assert events == ["first" * 50, "short", ("Ping", b"x"), "third" * 50]


@ends
def test_threads_may_encode_at_once_without_a_context(codec: ModuleType, end: End) -> None:
    sender = compressing(codec, end, **NO_TAKEOVER)
    receiver = compressing(codec, end.peer, **NO_TAKEOVER)
    count = 4
    start = threading.Barrier(count)
    wires: list[list[bytes]] = [[] for _ in range(count)]

    def run(number: int) -> None:
        start.wait(30)
        wires[number] += [sender.encode(f"{number}-{i}, " * 50) for i in range(50)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(count):
        expected = [f"{number}-{i}, " * 50 for i in range(50)]
        assert receiver.receive(b"".join(wires[number])) == expected


def test_few_of_the_compressors_that_threads_need_at_once_are_kept(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a kind that no other test has: those of a kind are everybody's.
    settings = codec.PerMessageDeflate(**NO_TAKEOVER, level=2, memory_level=3)
    senders = [SERVER.connect(codec, deflate=settings) for _ in range(6)]
    made: list[int] = []
    together = threading.Barrier(len(senders))
    new_compressor, compress = codec.PerMessageDeflate.new_compressor, codec.deflate._compress

    def counted(settings: Any, bits: int) -> Any:
        made.append(bits)
        return new_compressor(settings, bits)

    def at_once(*arguments: Any) -> Any:
        together.wait(30)
        return compress(*arguments)

    monkeypatch.setattr(codec.PerMessageDeflate, "new_compressor", counted)
    monkeypatch.setattr(codec.deflate, "_compress", at_once)
    for expected in (6, 2, 2):
        made.clear()
        threads = [
            threading.Thread(target=sender.encode, args=("Hello" * 20,)) for sender in senders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == expected


# One frame for many clients -----------------------------------------------------------------------


@backends
@pytest.mark.parametrize("bits", [9, 15])
def test_one_frame_serves_every_client_that_agreed_on_the_same(
    codec: ModuleType, bits: int, backend: str
) -> None:
    settings = codec.PerMessageDeflate(
        server_no_context_takeover=True, server_max_window_bits=bits, backend=backend
    )
    clients = [CLIENT.connect(codec, deflate=settings) for _ in range(3)]
    server = SERVER.connect(codec, deflate=settings)
    noise = Random(0).randbytes(300)
    for message in ("news, " * 100, b"news, " * 100, "", noise, bytearray(b"x" * 70_000)):
        frame = settings.encode(message)
        expected = message if isinstance(message, str) else bytes(message)
        for i, client in enumerate(clients):
            own = server.encode(f"{i}, " * 50)
            assert client.receive(own + frame + frame) == [f"{i}, " * 50, expected, expected]
    assert read(settings.encode("news, " * 100)).first == COMPRESSED | TEXT
    assert read(settings.encode(noise)) == (FIN | BINARY, noise)
    with pytest.raises(UnicodeEncodeError):
        settings.encode("\ud800")


def test_with_a_context_no_frame_serves_two_clients(codec: ModuleType) -> None:
    for settings in ({}, {"client_no_context_takeover": True}):
        deflate = codec.PerMessageDeflate(**settings)
        with pytest.raises(ValueError, match="no two clients can be sent the same frame"):
            deflate.encode("x")


# The backends understand each other ---------------------------------------------------------------


@ends
@pytest.mark.parametrize("from_backend", BACKENDS)
@pytest.mark.parametrize("to_backend", BACKENDS)
@takeovers
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_every_backend_understands_every_other(
    codec: ModuleType, bits: int, takeover: bool, to_backend: str, from_backend: str, end: End
) -> None:
    settings: dict[str, Any] = {S_BITS: bits, C_BITS: bits}
    settings |= {} if takeover else NO_TAKEOVER
    sender = compressing(codec, end, backend=from_backend, **settings)
    receiver = compressing(codec, end.peer, backend=to_backend, **settings)
    for data in repetitive(1 << bits, 40_000):
        for message in (data[:10_000], data[10_000:10_001], data[10_001:], b"", "tëxt" * 30):
            assert receiver.receive(sender.encode(message, compress=True)) == [message]


# What is no DEFLATE, or no text -------------------------------------------------------------------

BROKEN: dict[str, bytes] = {
    "reserved-block-type": b"\x06",
    "reserved-block-type-last": b"\x07",
    "stored-length-and-its-complement": b"\x00\x05\x00\x05\x00Hello",
    "dynamic-codes-oversubscribed": bytes.fromhex("04009204000000000000"),
    "distance-before-the-beginning": RFC_HELLO_AGAIN,
    "not-compressed-at-all": b"Hello, world",
    "ones": b"\xff" * 20,
    "zlib-header": zlib.compress(b"Hello" * 20),
}


@ends
@backends
@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_deflate_is_refused(
    codec: ModuleType, payload: bytes, backend: str, end: End
) -> None:
    before = end.wire(COMPRESSED | TEXT, squeezed(b"before"))
    ways = {
        "one-frame": end.wire(COMPRESSED | BINARY, payload),
        "fragments": end.wire(RSV1 | TEXT, payload[:1])
        + end.wire(PING)
        + end.wire(CONTINUATION, payload[1:])
        + end.wire(FIN | CONTINUATION),
    }
    for wire in ways.values():
        for settings in ({}, NO_TAKEOVER):
            if not settings and payload == RFC_HELLO_AGAIN:
                continue  # the window has something in it
            for cuts in ((), range(1, len(before + wire))):
                connection = compressing(codec, end, backend=backend, **settings)
                events = receive_in_pieces(connection, before + wire, cuts)
                first, failure = (event for event in events if event != ("Ping", b""))
                assert first == "before"
                assert failure[:2] == NOT_DEFLATE[:2]
                assert failure[2].startswith(NOT_DEFLATE[2])
                assert connection.receive(end.wire(FIN | TEXT, b"after")) == []


@ends
@backends
def test_what_is_no_deflate_is_refused_in_a_frame_still_arriving(
    codec: ModuleType, backend: str, end: End
) -> None:
    payload = stored(b"good" * 5) + b"\xff\xff\xff\xff"
    wire = end.wire(COMPRESSED | BINARY, payload, length=100_000)
    connection = compressing(codec, end, backend=backend)
    assert connection.receive(wire[:-4]) == []
    assert normals(connection.receive(wire[-4:])) == [NOT_DEFLATE]


bad_texts = pytest.mark.parametrize("bad", INVALID_UTF8.values(), ids=INVALID_UTF8)


@ends
@bad_texts
def test_text_that_inflates_to_bad_utf8_is_refused(codec: ModuleType, bad: Bad, end: End) -> None:
    before = end.wire(COMPRESSED | TEXT, squeezed(b"before"))
    payload = squeezed(b"good" + bad.data)
    one = end.wire(COMPRESSED | TEXT, payload)
    binary = end.wire(COMPRESSED | BINARY, payload)
    two = end.wire(RSV1 | TEXT, payload[:3]) + end.wire(FIN | CONTINUATION, payload[3:])
    for wire in (one, two):
        for cuts in ((), range(1, len(before + wire))):
            connection = compressing(codec, end, **NO_TAKEOVER)
            assert receive_in_pieces(connection, before + wire, cuts) == ["before", NOT_UTF8]
    assert compressing(codec, end).receive(binary) == [b"good" + bad.data]


@ends
@bad_texts
def test_bad_text_is_refused_at_its_first_bad_byte(codec: ModuleType, bad: Bad, end: End) -> None:
    # In the middle of a frame of which most has not come, and never will; or of a fragment.
    good = "gööd".encode() + bad.data[: bad.prefix]
    payload = stored(good + bad.data[bad.prefix :] + bytes(100))
    at = payload.index(good) + len(good)
    arriving = end.wire(COMPRESSED | TEXT, payload[: at + 1], length=100_000)
    fragments = end.wire(RSV1 | TEXT, payload[:at]), end.wire(CONTINUATION, payload[at : at + 1])
    for begun, wire in ((arriving[:-1], arriving[-1:]), fragments):
        for cuts in ((), range(1, len(begun))):
            connection = compressing(codec, end)
            assert receive_in_pieces(connection, begun, cuts) == []
            assert normals(connection.receive(wire)) == [NOT_UTF8]


@ends
@pytest.mark.parametrize("data", TRUNCATED_UTF8.values(), ids=TRUNCATED_UTF8)
def test_text_must_not_end_inside_a_character(codec: ModuleType, data: bytes, end: End) -> None:
    payload = squeezed(b"good" + data)
    one = end.wire(COMPRESSED | TEXT, payload)
    two = end.wire(RSV1 | TEXT, payload) + end.wire(FIN | CONTINUATION)
    for wire in (one, two):
        for cuts in ((), range(1, len(wire))):
            assert receive_in_pieces(compressing(codec, end), wire, cuts) == [NOT_UTF8]


@ends
@pytest.mark.parametrize("text", ["x" * 200_000, "é" * 100_000, "a😀" * 40_000, "x" * 65_535 + "é"])
def test_long_text_is_checked_piece_by_piece(codec: ModuleType, text: str, end: End) -> None:
    payload = squeezed(text.encode())
    wire = end.wire(COMPRESSED | TEXT, payload)
    for cuts in ((), range(1, len(wire))):
        assert receive_in_pieces(compressing(codec, end), wire, cuts) == [text]
    bad = end.wire(COMPRESSED | TEXT, squeezed(text.encode() + b"\xff"))
    for cuts in ((), range(1, len(bad))):
        assert receive_in_pieces(compressing(codec, end), bad, cuts) == [NOT_UTF8]


# Limits -------------------------------------------------------------------------------------------


def inflates_to(size: int, limit: int) -> str:
    return f"a message that inflates to {size} bytes or more is over the limit of {limit}"


STEP = 1 << 16
LIMITS = (1, 2, 100, STEP - 1, STEP, STEP + 1, 2 * STEP, 3 * STEP + 5)


@ends
@backends
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", ["zeros", "noise", "text"])
def test_a_message_may_inflate_to_the_limit(
    codec: ModuleType, kind: str, limit: int, backend: str, end: End
) -> None:
    data = Random(limit).randbytes(limit + 1) if kind == "noise" else b"x" * (limit + 1)
    opcode = TEXT if kind == "text" else BINARY
    fits, over = squeezed(data[:-1]), squeezed(data)
    message: Any = data[:-1].decode() if kind == "text" else data[:-1]
    ways: tuple[Callable[[bytes], bytes], ...] = (
        lambda payload: end.wire(COMPRESSED | opcode, payload),
        lambda payload: end.wire(RSV1 | opcode, payload) + end.wire(FIN | CONTINUATION),
        lambda payload: (
            end.wire(RSV1 | opcode, payload[:2]) + end.wire(FIN | CONTINUATION, payload[2:])
        ),
    )
    for way in ways:
        for step in (1000, 1 << 20):
            connection = compressing(
                codec, end, limits={"max_message_size": limit}, backend=backend, **NO_TAKEOVER
            )
            wire = way(fits) * 2
            events = receive_in_pieces(connection, wire, range(step, len(wire), step))
            assert events == [message] * 2
            wire = way(over)
            events = receive_in_pieces(connection, wire, range(step, len(wire), step))
            assert [event[:2] for event in events] == [("Failure", TOO_BIG)]
            assert re.fullmatch(inflates_to(0, limit).replace("0", r"\d+", 1), events[0][2])


@ends
def test_the_limit_counts_bytes_of_utf_8(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": 4})
    stream = compressor()
    wire = end.wire(COMPRESSED | TEXT, squeezed("éé".encode(), stream))
    assert connection.receive(wire) == ["éé"]
    wire = end.wire(COMPRESSED | TEXT, squeezed("ééé".encode(), stream))
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, inflates_to(6, 4))]


@ends
def test_an_uncompressed_message_has_the_limit_itself(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": 100})
    assert connection.receive(end.wire(FIN | BINARY, bytes(100))) == [bytes(100)]
    reason = "a message of 101 bytes or more is over the limit of 100"
    wire = end.wire(FIN | BINARY, length=101)
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, reason)]


@ends
@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_a_compressed_message_may_be_longer_than_what_it_inflates_to(
    codec: ModuleType, limit: int, end: End
) -> None:
    # Twice as long and 1 KiB: who flushes often, or compresses noise, needs it.
    limits = {"max_message_size": limit, "max_fragments": 3}
    wire_limit = 2 * limit + 1024
    connection = compressing(codec, end, limits=limits)
    head = end.wire(COMPRESSED | BINARY, length=wire_limit)
    assert connection.receive(head) == []
    reason = f"a message of {wire_limit + 1} bytes or more is over the limit of {limit}"
    failure = ("Failure", TOO_BIG, reason)
    connection = compressing(codec, end, limits=limits)
    head = end.wire(COMPRESSED | BINARY, length=wire_limit + 1)
    assert normals(connection.receive(head)) == [failure]
    # Of a message in fragments, the sum counts.
    connection = compressing(codec, end, limits=limits)
    assert connection.receive(end.wire(RSV1 | BINARY, b"\0\0\0\xff\xff")) == []
    assert connection.receive(end.wire(PING, bytes(125)))
    head = end.wire(CONTINUATION, length=wire_limit - 4)
    assert normals(connection.receive(head)) == [failure]


@ends
def test_a_message_flushed_after_every_byte_fits(codec: ModuleType, end: End) -> None:
    data = payload_of(500)
    stream = compressor()
    payload = b"".join(
        stream.compress(data[i : i + 1]) + stream.flush(zlib.Z_PARTIAL_FLUSH)
        for i in range(len(data))
    )
    payload = (payload + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    assert len(payload) > len(data)
    connection = compressing(codec, end, limits={"max_message_size": len(data)})
    assert connection.receive(end.wire(COMPRESSED | BINARY, payload)) == [data]


@ends
def test_the_largest_limit_is_accepted(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, limits={"max_message_size": sys.maxsize})
    wire = end.wire(COMPRESSED | TEXT, squeezed(b"Hello"))
    assert connection.receive(wire) == ["Hello"]
    assert connection.receive(end.wire(COMPRESSED | BINARY, length=(1 << 63) - 1)) == []


@ends
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_compressed_fragments_are_limited(codec: ModuleType, limit: int, end: End) -> None:
    payload = squeezed(b"Hello")
    connection = compressing(codec, end, limits={"max_fragments": limit})
    rest = [CONTINUATION] * (limit - 1)
    firsts = [RSV1 | TEXT, *rest]
    whole = [*firsts[:-1], firsts[-1] | FIN]
    pieces = [payload, *[b""] * (limit - 1)]
    assert connection.receive(b"".join(map(end.wire, whole, pieces)) * 2) == ["Hello"] * 2
    assert connection.receive(b"".join(map(end.wire, firsts, pieces))) == []
    reason = f"a message in more fragments than the limit of {limit}"
    wire = end.wire(FIN | CONTINUATION)
    assert normals(connection.receive(wire)) == [("Failure", TOO_BIG, reason)]


# The end of a stream (RFC 7692 section 7.2.3.4) ---------------------------------------------------


@ends
@backends
@takeovers
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_stream_may_end_inside_a_message(
    codec: ModuleType, opcode: int, takeover: bool, backend: str, end: End
) -> None:
    settings = {"backend": backend, **({} if takeover else NO_TAKEOVER)}
    connection = compressing(codec, end, **settings)
    payload = ended(b"One, ") + ended(b"") + ended("zwö".encode() * 100) + squeezed(b" and three")
    data = "One, " + "zwö" * 100 + " and three"
    message: Any = data if opcode == TEXT else data.encode()
    one = end.wire(COMPRESSED | opcode, payload)
    many = [end.wire(CONTINUATION, payload[i : i + 1]) for i in range(len(payload))]
    many[0] = end.wire(RSV1 | opcode, payload[:1])
    many.append(end.wire(FIN | CONTINUATION))
    for wire in (one, b"".join(many)):
        for cuts in ((), range(1, len(wire))):
            assert receive_in_pieces(connection, wire, cuts) == [message]


@ends
@backends
def test_a_stream_that_ends_at_the_end_of_a_message(
    codec: ModuleType, backend: str, end: End
) -> None:
    # Behind it stands the header of an empty block, whose rest is TAIL.
    for size in (0, 5, STEP - 1, STEP, STEP + 1, 2 * STEP):
        connection = compressing(codec, end, backend=backend)
        wire = end.wire(COMPRESSED | BINARY, ended(bytes(size)) + b"\0")
        assert connection.receive(wire * 3) == [bytes(size)] * 3


@ends
@backends
@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("content", [b"", b"ab"], ids=["empty", "full"])
def test_the_ends_of_streams_count_as_fragments(
    codec: ModuleType, content: bytes, limit: int, backend: str, end: End
) -> None:
    connection = compressing(codec, end, limits={"max_fragments": limit}, backend=backend)
    fits = end.wire(COMPRESSED | BINARY, ended(content) * limit + b"\0")
    assert connection.receive(fits * 2) == [content * limit] * 2
    over = end.wire(COMPRESSED | BINARY, ended(content) * (limit + 1) + b"\0")
    reason = f"a message in more fragments than the limit of {limit}"
    new = compressing(codec, end, limits={"max_fragments": limit}, backend=backend)
    for receiver in (connection, new):
        assert normals(receiver.receive(over)) == [("Failure", TOO_BIG, reason)]


@ends
def test_a_stream_that_ended_leaves_no_window(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end)
    wire = end.wire(COMPRESSED | TEXT, ended(b"Hello") + b"\0")
    assert connection.receive(wire) == ["Hello"]
    wire = end.wire(COMPRESSED | TEXT, RFC_HELLO_AGAIN)
    assert normals(connection.receive(wire)) == [NOT_DEFLATE]


# Any messages, any fragments, any split -----------------------------------------------------------


TEXTS = st.text(max_size=30).flatmap(
    lambda text: st.integers(0, 40).map(lambda times: text * times)
)
BYTES = st.binary(max_size=60).flatmap(
    lambda data: st.integers(0, 40).map(lambda times: data * times)
)
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


def in_fragments(frame: Read, cuts: list[int]) -> list[tuple[int, bytes]]:
    """The frame's message in several frames: (first byte, payload)."""
    cuts = sorted(cut % (len(frame.payload) + 1) for cut in cuts)
    ends_at = [*cuts, len(frame.payload)]
    pieces = [frame.payload[a:b] for a, b in zip([0, *cuts], ends_at, strict=True)]
    firsts = [frame.first & ~FIN, *[CONTINUATION] * (len(pieces) - 1)]
    firsts[-1] |= FIN
    return list(zip(firsts, pieces, strict=True))


@ends
@given(data=st.data(), ready=SETTINGS, offered=SETTINGS)
def test_any_fragments_and_any_split_give_the_same_events(
    codec: ModuleType,
    end: End,
    data: st.DataObject,
    ready: dict[str, Any],
    offered: dict[str, Any],
) -> None:
    settings = negotiate(codec, ready, offered)
    peer = end.peer.connect(codec, deflate=settings[end.peer])
    places = st.lists(st.integers(0, 5000), max_size=4)
    expected: list[Any] = []
    parts: list[tuple[int, bytes]] = []
    for message in data.draw(st.lists(TEXTS | BYTES, max_size=4)):
        compress = data.draw(st.sampled_from([None, True, False]))
        frame = read(peer.encode(message, compress=compress))
        for part in in_fragments(frame, data.draw(places)):
            for first, payload in data.draw(st.lists(CONTROLS, max_size=1)):
                parts.append((first, payload))
                expected.append(("Ping" if first == PING else "Pong", payload))
            parts.append(part)
        expected.append(message)
    keys = st.binary(min_size=4, max_size=4) if end.peer_key else st.none()
    wire = b"".join(by_hand(first, payload, data.draw(keys)) for first, payload in parts)
    cuts = sorted(cut % (len(wire) + 1) for cut in data.draw(st.lists(st.integers(0), max_size=9)))
    for split in ((), cuts):
        connection = end.connect(codec, deflate=settings[end])
        assert receive_in_pieces(connection, wire, split) == expected


def without_reasons(events: list[Any]) -> list[Any]:
    """Which of its faults a message fails for depends on how much of it is inflated at once."""
    return [event[:2] if isinstance(event, tuple) else event for event in events]


@ends
@given(
    noise=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 220), max_size=5),
    opcode=st.sampled_from([TEXT, BINARY]),
    backend=st.sampled_from(BACKENDS),
)
def test_noise_gives_the_same_events_however_it_is_cut(
    codec: ModuleType, end: End, noise: bytes, cuts: list[int], opcode: int, backend: str
) -> None:
    wire = end.wire(COMPRESSED | opcode, noise) + end.wire(FIN | TEXT, b"after")
    whole = receive_in_pieces(compressing(codec, end, backend=backend), wire, ())
    cut = receive_in_pieces(compressing(codec, end, backend=backend), wire, sorted(cuts))
    assert without_reasons(cut) == without_reasons(whole)
    assert len(whole) == (1 if isinstance(whole[0], tuple) else 2)


def test_a_bomb_is_what_it_says() -> None:
    assert zlib.decompressobj(-15).decompress(bomb((3 << 20) + 5)) == bytes((3 << 20) + 5)
