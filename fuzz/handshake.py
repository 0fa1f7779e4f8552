"""Both sides of the opening handshake: any head, and any combination of compression settings."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any

from .inputs import Codecs, Draw

AGREED = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)


def check(codecs: Codecs, data: bytes) -> None:
    """Check a head as a server or as a client, or negotiate compression."""
    draw = Draw(data)
    part = draw.one_of((check_request, check_answer, check_agreement))
    for codec in codecs:
        part(codec, Draw(data[:-1]))


def fields(draw: Draw) -> list[tuple[str, str]]:
    """Return header fields as a parser might return them."""
    text = draw.data().decode(draw.one_of(("latin-1", "utf-8")), "replace")
    lines = (line.partition(":") for line in text.splitlines())
    return [(name, value.strip(" \t")) for name, _, value in lines]


def deflate(codec: ModuleType, draw: Draw) -> Any:
    return codec.PerMessageDeflate(**draw.settings())


def check_request(codec: ModuleType, draw: Draw) -> None:
    """Check that a request raises only HandshakeError, and that a response can be decoded."""
    ready = deflate(codec, draw)
    subprotocols = draw.one_of(((), ("chat",), ("v1", "chat")))
    origins = draw.one_of(("*", (), ("https://example.com",)))
    try:
        acceptance = codec.accept(
            fields(draw), subprotocols=subprotocols, origins=origins, deflate=ready
        )
    except codec.HandshakeError as error:
        assert 400 <= error.status < 500
        return
    assert acceptance.subprotocol in (None, *subprotocols)
    status, answer = codec.fields.decode_response(acceptance.encode())
    assert status == 101
    assert tuple(answer) == acceptance.headers
    if acceptance.deflate is not None:
        codec.Connection(codec.Role.SERVER, deflate=acceptance.deflate)


def check_answer(codec: ModuleType, draw: Draw) -> None:
    """Check that a response raises only HandshakeError."""
    request = codec.UpgradeRequest(
        "example.com", subprotocols=("chat",), deflate=deflate(codec, draw)
    )
    is_valid = draw.flag()
    head = draw.data()
    with suppress(codec.HandshakeError):
        status, answer = codec.fields.decode_response(head)
        if is_valid:  # the checks continue with the other fields
            status, key = 101, dict(request._headers)["Sec-WebSocket-Key"]
            answer += [("Upgrade", "websocket"), ("Connection", "Upgrade")]
            answer.append(("Sec-WebSocket-Accept", codec.accept_key(key)))
        acceptance = request.confirm(status, answer)
        assert acceptance.subprotocol in (None, "chat")
        codec.Connection(codec.Role.CLIENT, deflate=acceptance.deflate)


def check_agreement(codec: ModuleType, draw: Draw) -> None:
    """Check that both ends agree on the same parameters, within the settings of each."""
    ours, theirs = deflate(codec, draw), deflate(codec, draw)
    request = codec.UpgradeRequest("example.com", deflate=theirs)
    acceptance = codec.accept(request._headers, deflate=ours)
    if theirs.backend == "isal" and 8 in (ours.server_max_window_bits, ours.client_max_window_bits):
        return  # isal has no such window and raises an error
    agreed = request.confirm(101, acceptance.headers).deflate
    if acceptance.deflate is None:
        assert agreed is None
        return
    for name in AGREED:
        value = getattr(agreed, name)
        assert value == getattr(acceptance.deflate, name)
        if name.endswith("bits"):
            assert value <= min(getattr(ours, name), getattr(theirs, name))
        else:
            assert value or not (getattr(ours, name) or getattr(theirs, name))
