"""Errors for wrong arguments name the argument."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.handshake.helpers import REQUEST

KEY = b"abcd"
NOT_BYTES = ("text", None, 5, memoryview(bytes(8))[::2])
NOT_A_MESSAGE = NOT_BYTES[1:]
NOT_A_NUMBER = ("1", None, 1.5)
NOT_PAIRS = (None, 5, "text", [1], [("a", 5)])
NOT_STRINGS = ("chat", None, 5, [5], [b"chat"])


def server(codec: Any, **options: Any) -> Any:
    return codec.Connection(codec.Role.SERVER, **options)


#: For each argument, a call with a value for it, and wrong values.
WRONG: dict[str, tuple[Callable[[Any, Any], object], tuple[Any, ...]]] = {
    "Connection role": (lambda c, v: c.Connection(v), ("proxy", None)),
    "Connection max_message_size": (
        lambda c, v: server(c, max_message_size=v),
        (0, -1, 1 << 70, *NOT_A_NUMBER),
    ),
    "Connection max_fragments": (lambda c, v: server(c, max_fragments=v), (0, "1", 1.5)),
    "Connection deflate": (lambda c, v: server(c, deflate=v), (True, "zlib")),
    "receive data": (lambda c, v: server(c).receive(v), NOT_BYTES),
    "receive_parts data": (lambda c, v: server(c).receive_parts(v), NOT_BYTES),
    "receive_parts min_size": (
        lambda c, v: server(c).receive_parts(b"", min_size=v),
        (0, *NOT_A_NUMBER),
    ),
    "encode message": (lambda c, v: server(c).encode(v), NOT_A_MESSAGE),
    "compressed message": (
        lambda c, v: server(c, deflate=c.PerMessageDeflate(min_size=0)).encode(v),
        NOT_A_MESSAGE,
    ),
    "shared message": (
        lambda c, v: c.PerMessageDeflate(server_no_context_takeover=True).encode(v),
        NOT_A_MESSAGE,
    ),
    "encode_part part": (lambda c, v: server(c).encode_part(v), NOT_A_MESSAGE),
    "encode_parts parts": (lambda c, v: list(server(c).encode_parts(v)), ("x", b"x", None, [])),
    "ping payload": (lambda c, v: server(c).ping(v), (bytes(126), *NOT_A_MESSAGE)),
    "pong payload": (lambda c, v: server(c).pong(v), (bytes(126), *NOT_A_MESSAGE)),
    "close code": (lambda c, v: server(c).close(v), (5, 1006, *NOT_A_NUMBER)),
    "close reason": (lambda c, v: server(c).close(1000, v), ("x" * 124, b"x", None)),
    "accept request": (lambda c, v: c.accept(v), NOT_PAIRS),
    "accept method": (lambda c, v: c.accept(REQUEST, method=v), (None, b"GET")),
    "accept http_version": (lambda c, v: c.accept(REQUEST, http_version=v), (None, 1.1)),
    "accept subprotocols": (
        lambda c, v: c.accept(REQUEST, subprotocols=v),
        (*NOT_STRINGS, ["a b"]),
    ),
    "accept origin": (
        lambda c, v: c.accept(REQUEST, origins=v),
        (*NOT_STRINGS, ["a"], ["*", "https://a.example"]),
    ),
    "accept deflate": (lambda c, v: c.accept(REQUEST, deflate=v), (True, "zlib")),
    "accept header": (
        lambda c, v: c.accept(REQUEST, headers=v),
        (*NOT_PAIRS, {"a b": "x"}, {"a": "\n"}, {"a": "\u20ac"}, {"Upgrade": "x"}),
    ),
    "UpgradeRequest host": (lambda c, v: c.UpgradeRequest(v), ("", "a b", None, b"a")),
    "UpgradeRequest target": (lambda c, v: c.UpgradeRequest("a", v), ("", "a b", None, b"/")),
    "UpgradeRequest origin": (lambda c, v: c.UpgradeRequest("a", origin=v), (5, b"https://a")),
    "UpgradeRequest subprotocols": (
        lambda c, v: c.UpgradeRequest("a", subprotocols=v),
        (*NOT_STRINGS, ["a b"], ["a", "a"]),
    ),
    "UpgradeRequest deflate": (lambda c, v: c.UpgradeRequest("a", deflate=v), (True, 5, [True])),
    "UpgradeRequest header": (
        lambda c, v: c.UpgradeRequest("a", headers=v),
        (*NOT_PAIRS, {"a b": "x"}, {"a": "\n"}, {"a": "\u20ac"}, {"Host": "x"}),
    ),
    "confirm status": (lambda c, v: c.UpgradeRequest("a").confirm(v, []), (0, *NOT_A_NUMBER)),
    "confirm headers": (lambda c, v: c.UpgradeRequest("a").confirm(101, v), NOT_PAIRS),
    "PerMessageDeflate server_max_window_bits": (
        lambda c, v: c.PerMessageDeflate(server_max_window_bits=v),
        (7, 16, *NOT_A_NUMBER),
    ),
    "PerMessageDeflate level": (lambda c, v: c.PerMessageDeflate(level=v), (77, "1", 1.5)),
    "PerMessageDeflate memory_level": (
        lambda c, v: c.PerMessageDeflate(memory_level=v),
        (0, 10, *NOT_A_NUMBER),
    ),
    "PerMessageDeflate min_size": (
        lambda c, v: c.PerMessageDeflate(min_size=v),
        (-1, *NOT_A_NUMBER),
    ),
    "PerMessageDeflate backend": (lambda c, v: c.PerMessageDeflate(backend=v), ("x", None)),
    "encode_frame opcode": (lambda c, v: c.encode_frame(v), (16, -1, *NOT_A_NUMBER)),
    "encode_frame payload": (lambda c, v: c.encode_frame(2, v), NOT_A_MESSAGE),
    "encode_frame rsv": (lambda c, v: c.encode_frame(1, rsv=v), (8, -1, *NOT_A_NUMBER)),
    "encode_frame masking_key": (
        lambda c, v: c.encode_frame(1, masking_key=v),
        (False, b"abc", "abcd", 5),
    ),
    "mask payload": (lambda c, v: c.mask(v, KEY), NOT_BYTES),
    "mask masking_key": (lambda c, v: c.mask(b"x", v), (b"abc", "abcd", None, True)),
    "mask_into buffer": (lambda c, v: c.mask_into(v, KEY), (b"read-only", *NOT_BYTES)),
    "mask_into masking_key": (lambda c, v: c.mask_into(bytearray(1), v), (b"abc", "abcd", None)),
    "mask_into offset": (
        lambda c, v: c.mask_into(bytearray(1), KEY, v),
        (-1, *NOT_A_NUMBER),
    ),
    "accept_key key": (lambda c, v: c.accept_key(v), (None, 5, b"x" * 24)),
    "ServerSentEvent data": (lambda c, v: c.ServerSentEvent(v), (None, 5, b"x")),
    "ServerSentEvent event": (lambda c, v: c.ServerSentEvent("", event=v), (5, b"x", "a\n")),
    "ServerSentEvent id": (lambda c, v: c.ServerSentEvent("", id=v), (5, b"x", "a\n")),
    "ServerSentEvent retry": (lambda c, v: c.ServerSentEvent("", retry=v), (-1, "1", 1.5)),
    "EventStreamDecoder max_event_size": (
        lambda c, v: c.EventStreamDecoder(max_event_size=v),
        (0, *NOT_A_NUMBER),
    ),
    "EventStreamDecoder last_event_id": (
        lambda c, v: c.EventStreamDecoder(last_event_id=v),
        (None, 5, b"x"),
    ),
    "EventStreamDecoder data": (lambda c, v: c.EventStreamDecoder().receive(v), NOT_BYTES),
    "RequestDecoder data": (lambda c, v: c.RequestDecoder().receive(v), NOT_BYTES),
    "ResponseDecoder max_head_size": (
        lambda c, v: c.ResponseDecoder(max_head_size=v),
        (0, *NOT_A_NUMBER),
    ),
    "HandshakeError status": (
        lambda c, v: c.HandshakeError(v, "x").encode(),
        (0, 101, 204, 599, *NOT_A_NUMBER),
    ),
    "HandshakeError header": (
        lambda c, v: c.HandshakeError(400, "x").encode(v),
        (*NOT_PAIRS, {"a b": "x"}, {"a": "\n"}, {"a": "\u20ac"}, {"Content-Length": "x"}),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_the_argument(codec: ModuleType, name: str) -> None:
    call, values = WRONG[name]
    argument = name.partition(" ")[2]
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"\b{argument}") as caught:
            call(codec, value)
        assert "\n" not in str(caught.value)
