"""A server accepts an offer of permessage-deflate (RFC 7692 sections 5 and 7.1)."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.codec.deflate.helpers import (
    C_BITS,
    C_CONTEXT,
    PLAIN,
    PMD,
    S_BITS,
    S_CONTEXT,
    Agreed,
    agreed,
    answer,
)

pytestmark = pytest.mark.one_kernel


class Offer(NamedTuple):
    """An offer of a client, and the response of a server with these settings."""

    offers: tuple[str, ...]
    answer: str
    agreed: Agreed
    ready: dict[str, Any] = {}  # noqa: RUF012


OFFERS: dict[str, Offer] = {
    "nothing-said": Offer((PMD,), PMD, PLAIN),
    "as-browsers-do": Offer((f"{PMD}; {C_BITS}",), PMD, PLAIN),
    # Section 7.1.1.1: the server must comply if it accepts, and may do so without a request.
    "server-without-context": Offer(
        (f"{PMD}; {S_CONTEXT}",), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)
    ),
    "server-without-context-unasked": Offer(
        (PMD,), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15), {S_CONTEXT: True}
    ),
    "server-without-context-on-both-sides": Offer(
        (f"{PMD}; {S_CONTEXT}",), f"{PMD}; {S_CONTEXT}", (True, False, 15, 15), {S_CONTEXT: True}
    ),
    # Section 7.1.1.2: the server may repeat this hint, or request it without the hint.
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
    # Section 7.1.2.1: the smaller window is used, and the response contains it if requested.
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
    # Section 7.1.2.2: the response limits the client's window only if the offer has the parameter.
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
    # Section 5.1: offers are in order of preference; unsupported ones are skipped.
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
    # Local settings are unchanged.
    assert deflate == dataclasses.replace(
        ready, **dict(zip((S_CONTEXT, C_CONTEXT, S_BITS, C_BITS), offer.agreed, strict=True))
    )


@pytest.mark.parametrize("asked", range(8, 16))
@pytest.mark.parametrize("ready", range(8, 16))
def test_the_smaller_window_is_negotiated(codec: ModuleType, ready: int, asked: int) -> None:
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
def test_an_unsupported_offer_is_declined(codec: ModuleType, offers: tuple[str, ...]) -> None:
    assert answer(codec, codec.PerMessageDeflate(), *offers) == (None, None)


@pytest.mark.parametrize("name", [S_BITS, C_BITS])
def test_isal_has_no_window_of_8(codec: ModuleType, name: str) -> None:
    ready = codec.PerMessageDeflate(backend="isal")
    assert answer(codec, ready, f"{PMD}; {name}=8") == (None, None)
    for backend in ("zlib", "zlib-ng"):
        ready = codec.PerMessageDeflate(backend=backend)
        assert answer(codec, ready, f"{PMD}; {name}=8")[0] == f"{PMD}; {name}=8"


def test_a_server_without_compression_accepts_no_offer(codec: ModuleType) -> None:
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
def test_a_malformed_header_is_rejected(codec: ModuleType, header: str, ready: bool) -> None:
    settings = codec.PerMessageDeflate() if ready else None
    for offers in ((header,), (PMD, header)):
        with pytest.raises(codec.HandshakeError) as caught:
            answer(codec, settings, *offers)
        assert (caught.value.status, caught.value.reason) == (
            400,
            "the Sec-WebSocket-Extensions header is malformed",
        )
