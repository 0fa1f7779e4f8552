"""A client offers permessage-deflate, and checks the server's response."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given

from tests.codec.deflate.helpers import (
    C_BITS,
    C_CONTEXT,
    PLAIN,
    PMD,
    S_BITS,
    S_CONTEXT,
    SETTINGS,
    Agreed,
    agreed,
    confirm,
    negotiate,
)
from tests.support.ends import (
    CLIENT,
    SERVER,
)

pytestmark = pytest.mark.one_kernel


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
def test_the_offer_of_a_client(codec: ModuleType, settings: dict[str, Any], offer: str) -> None:
    assert codec.PerMessageDeflate(**settings).offer() == offer
    wire = codec.UpgradeRequest("a.example", deflate=codec.PerMessageDeflate(**settings)).encode()
    assert f"\r\nSec-WebSocket-Extensions: {offer}\r\n".encode() in wire


CONFIRMED: dict[str, tuple[dict[str, Any], str, Agreed]] = {
    "nothing-said": ({}, PMD, PLAIN),
    # Section 7.1.1.1: a server may give up context takeover without a request.
    "server-without-context": ({S_CONTEXT: True}, f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)),
    "server-without-context-unasked": ({}, f"{PMD}; {S_CONTEXT}", (True, False, 15, 15)),
    # Section 7.1.1.2: the response or the offer excludes context takeover of the client.
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
def test_a_valid_response_is_confirmed(
    codec: ModuleType, offered: dict[str, Any], header: str, expected: Agreed
) -> None:
    settings = codec.PerMessageDeflate(level=3, memory_level=4, min_size=5, **offered)
    deflate = confirm(codec, settings, header)
    assert agreed(deflate) == expected
    assert (deflate.level, deflate.memory_level, deflate.min_size) == (3, 4, 5)
    assert deflate.backend == settings.backend


def test_a_server_may_decline_compression(codec: ModuleType) -> None:
    assert confirm(codec, codec.PerMessageDeflate()) is None
    assert confirm(codec, codec.PerMessageDeflate(), "") is None
    assert confirm(codec, None) is None


NOT_OFFERED = "the server chose an extension that was not offered"


OTHER_COMPRESSION = "the server's permessage-deflate parameters do not match the client's offer"


MALFORMED_HEADER = "the Sec-WebSocket-Extensions header is malformed"


def answered_with(what: str) -> str:
    return f"the server's response to permessage-deflate is invalid: {what}"


class Refused(NamedTuple):
    """A response that a client must not accept (sections 5.2 and 7.1), and the reason."""

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
    # Section 7.1: unknown, invalid or repeated parameters.
    "unknown": Refused((f"{PMD}; fast",), answered_with("fast")),
    "unknown-with-a-value": Refused((f"{PMD}; level=9",), answered_with("level=9")),
    **{
        f"{name}-twice": Refused((f"{PMD}; {name}; {name}",), answered_with(f"{name} occurs twice"))
        for name in (S_CONTEXT, C_CONTEXT)
    },
    **{
        f"{name}-twice": Refused(
            (f"{PMD}; {name}=9; {name}=9",), answered_with(f"{name} occurs twice")
        )
        for name in (S_BITS, C_BITS)
    },
    **{
        f"{name}-with-a-value": Refused((f"{PMD}; {name}=1",), answered_with(f"{name}=1"))
        for name in (S_CONTEXT, C_CONTEXT)
    },
    # Section 7.1.2.2: in a response client_max_window_bits requires a value.
    **{
        f"{name}-without-a-value": Refused((f"{PMD}; {name}",), answered_with(name))
        for name in (S_BITS, C_BITS)
    },
    **{
        f"{name}-{value}": Refused((f"{PMD}; {name}={value}",), answered_with(f"{name}={value}"))
        for name in (S_BITS, C_BITS)
        for value in ("0", "7", "16", "08", "010", "-9", "x")
    },
    # Section 7.1.1.1: the response to such an offer must contain the parameter.
    "server-keeps-its-context": Refused((PMD,), OTHER_COMPRESSION, {S_CONTEXT: True}),
    # Section 7.1.2.1: the same window or a smaller one, in the response.
    "server-window-larger": Refused((f"{PMD}; {S_BITS}=11",), OTHER_COMPRESSION, {S_BITS: 10}),
    "server-window-of-15": Refused((f"{PMD}; {S_BITS}=15",), OTHER_COMPRESSION, {S_BITS: 14}),
    "server-window-unanswered": Refused((PMD,), OTHER_COMPRESSION, {S_BITS: 14}),
    # Section 7.1.2.2: the same window or a smaller one.
    "client-window-larger": Refused((f"{PMD}; {C_BITS}=11",), OTHER_COMPRESSION, {C_BITS: 10}),
    # The backend has no window of this size.
    **{
        f"{name}-too-small-for-isal": Refused(
            (f"{PMD}; {name}=8",), OTHER_COMPRESSION, {"backend": "isal"}
        )
        for name in (S_BITS, C_BITS)
    },
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_a_response_that_was_not_offered_is_rejected(codec: ModuleType, refused: Refused) -> None:
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
    # The response does not name the accepted offer: the first that it complies with counts.
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


def test_a_server_accepts_the_first_supported_offer(codec: ModuleType) -> None:
    offers = [codec.PerMessageDeflate(**{S_BITS: 8}), codec.PerMessageDeflate(**{S_BITS: 11})]
    request = codec.UpgradeRequest("a.example", deflate=offers)
    head = request.encode().decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in head)]
    for backend, bits in (("zlib", 8), ("isal", 11)):  # isal has no window of 8 bits
        acceptance = codec.accept(headers, deflate=codec.PerMessageDeflate(backend=backend))
        deflate = request.confirm(101, acceptance.headers).deflate
        assert agreed(deflate) == agreed(acceptance.deflate) == (False, False, bits, 15)


@given(ready=SETTINGS, offered=SETTINGS)
def test_a_client_confirms_every_response_of_accept(
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
