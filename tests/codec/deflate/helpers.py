"""Settings, connections and messages for the tests of permessage-deflate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from tests.support.ends import (
    BAD_DATA,
    CLIENT,
    FIN,
    RSV1,
    SERVER,
    End,
)
from tests.support.vectors import (
    RFC_KEY,
    by_hand,
)

BACKENDS = ("zlib", "zlib-ng", "isal")


COMPRESSED = FIN | RSV1


NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}


NOT_DEFLATE = ("Failure", BAD_DATA, "a compressed message is not valid DEFLATE")


backends = pytest.mark.parametrize("backend", BACKENDS)


takeovers = pytest.mark.parametrize("takeover", [True, False], ids=["context", "no-context"])


def compressing(codec: ModuleType, end: End, *, limits: Any = None, **settings: Any) -> Any:
    """Return an end with compression."""
    deflate = codec.PerMessageDeflate(**settings)
    return end.connect(codec, deflate=deflate, **(limits or {}))


def peer(end: End) -> str:
    """Return the name of the other end in the parameters of the extension."""
    return "client" if end is SERVER else "server"


class Read(NamedTuple):
    """The content of a frame in wire format."""

    first: int
    payload: bytes


def read(wire: bytes) -> Read:
    """Parse the only frame in these bytes, from either role."""
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
    """Return the extensions of the server's response to these headers, and the settings."""
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


PMD = "permessage-deflate"


S_CONTEXT, C_CONTEXT = "server_no_context_takeover", "client_no_context_takeover"


S_BITS, C_BITS = "server_max_window_bits", "client_max_window_bits"


def confirm(codec: ModuleType, settings: Any, *answers: str) -> Any:
    """Return the result of a client for a response with these headers."""
    request = codec.UpgradeRequest("a.example", deflate=settings)
    (key,) = re.findall(r"Sec-WebSocket-Key: (\S+)", request.encode().decode())
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", codec.accept_key(key)),
        *(("Sec-WebSocket-Extensions", value) for value in answers),
    ]
    return request.confirm(101, headers).deflate


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
    """Return the settings that a server and a client negotiate, for each end."""
    client = codec.PerMessageDeflate(**offered)
    header, server_side = answer(codec, codec.PerMessageDeflate(**ready), client.offer())
    assert header is not None
    return {SERVER: server_side, CLIENT: confirm(codec, client, header)}


def repetitive(window: int, size: int) -> Iterator[bytes]:
    """Return data with repetitions at all distances around the size of a window."""
    random = Random(window)
    for distance in (1, 3, window // 2, window - 262, window - 6, window - 1, window, window + 1):
        block = random.randbytes(max(distance, 1))
        yield (block * (size // len(block) + 1))[:size]
    words = [random.randbytes(random.randrange(3, 9)) for _ in range(40)]
    yield b"".join(random.choice(words) for _ in range(size // 6))
    yield b"".join(b'{"number": %d, "name": "a"}' % (i * i) for i in range(size // 28))
    yield bytes(size)
    yield random.randbytes(size)


STEP = 1 << 16
