"""The subprotocol (RFC 6455 section 4.2.2), and responses."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.codec.handshake.helpers import REQUEST, refusal, request

pytestmark = pytest.mark.one_kernel


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        (["chat, superchat"], ["superchat", "chat"], "chat"),
        (["chat", "superchat"], ["superchat"], "superchat"),
        (["chat"], [], None),
        (["chat"], ["other"], None),
        ([], ["chat"], None),
        ([""], ["chat"], None),
        ([",chat ,\t,"], ["chat"], "chat"),
        (["Chat"], ["chat"], None),
        (["v1.chat!#$%&'*+-.^_`|~"], ["v1.chat!#$%&'*+-.^_`|~"], "v1.chat!#$%&'*+-.^_`|~"),
    ],
)
def test_the_first_supported_subprotocol_of_the_client_is_chosen(
    codec: ModuleType, offered: list[str], spoken: list[str], chosen: str | None
) -> None:
    headers = request(*(("Sec-WebSocket-Protocol", value) for value in offered))
    acceptance = codec.accept(headers, subprotocols=spoken)
    assert acceptance.subprotocol == chosen
    assert dict(acceptance.headers).get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize("value", ["a b", "a;b", '"a"', "a/b", "ü", "a\r\nX: y", "a(b)"])
def test_a_subprotocol_must_be_a_token(codec: ModuleType, value: str) -> None:
    headers = request(("Sec-WebSocket-Protocol", f"chat, {value}"))
    expected = (400, "Sec-WebSocket-Protocol must be a list of tokens", ())
    assert refusal(codec, headers, subprotocols=["chat"]) == expected


def test_a_response_byte_for_byte(codec: ModuleType) -> None:
    wire = codec.headers.encode_response(
        404, [("Content-Length", "2"), ("X-Note", "caf\xe9 and\ttab")], b"no"
    )
    assert wire == (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-Note: caf\xe9 and\ttab\r\n\r\nno"
    )
    assert codec.headers.encode_response(204) == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "\x1b[1m", "\x7f", "a\n", "\x0b"]
)
def test_a_response_header_cannot_be_forged(codec: ModuleType, value: str) -> None:
    with pytest.raises(ValueError, match="a header must not contain control characters: X-Note"):
        codec.headers.encode_response(200, [("X-Note", value)])


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\n", "ä", "a\0", "(a)"])
def test_the_name_of_a_response_header_must_be_a_token(codec: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match="a header name must be a token"):
        codec.headers.encode_response(200, [(name, "x")])


def test_a_response_header_must_be_latin_1(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^a header must be in Latin-1: X-Note: '\u20ac'$"):
        codec.headers.encode_response(200, [("X-Note", "\u20ac")])


def test_an_unknown_status_is_an_error(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^status must be one of http\.HTTPStatus, not 999$"):
        codec.headers.encode_response(999)


def test_additional_headers_of_an_acceptance_are_checked(codec: ModuleType) -> None:
    acceptance = codec.Acceptance((("Set-Cookie", "a=b"),))
    assert acceptance.encode() == (b"HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: a=b\r\n\r\n")
    with pytest.raises(ValueError, match="control characters"):
        codec.Acceptance((("Set-Cookie", "a=b\r\nc: d"),)).encode()
    with pytest.raises(AttributeError):
        acceptance.subprotocol = "chat"


@pytest.mark.parametrize("arguments", [{"subprotocols": "chat"}, {"origins": "https://a.example"}])
def test_a_str_is_not_accepted_as_a_sequence(codec: ModuleType, arguments: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="must be a sequence of str"):
        codec.accept(REQUEST, **arguments)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "a\r\nX: y", "\xe9"])
def test_a_subprotocol_of_the_server_must_be_a_token(codec: ModuleType, subprotocol: str) -> None:
    with pytest.raises(ValueError, match=r"^subprotocols must be tokens, unlike "):
        codec.accept(REQUEST, subprotocols=["chat", subprotocol])
