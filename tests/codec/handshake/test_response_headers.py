"""Headers of the caller in the 101 response, and headers as bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.handshake.helpers import REQUEST, Pairs, refusal

pytestmark = pytest.mark.one_kernel

RESERVED, CONTROL, TOKEN, LATIN, TYPE = (
    "is reserved for the handshake",
    "a header must not contain control characters",
    "a header name must be a token",
    "a header must be in Latin-1",
    r"^headers must be a mapping or \(name, value\) pairs, of str or bytes$",
)


def as_bytes(headers: Pairs) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]


def test_headers_follow_those_of_the_handshake(codec: ModuleType) -> None:
    cookies = [("Set-Cookie", "a=b"), ("set-cookie", "c=d; Path=/"), ("X-Note", "caf\xe9")]
    for headers in (cookies, iter(cookies), as_bytes(cookies)):
        acceptance = codec.accept(
            [*REQUEST, ("Sec-WebSocket-Protocol", "chat")], subprotocols=["chat"], headers=headers
        )
        assert len(acceptance.headers) == 7
        status, sent = codec.fields.decode_response(acceptance.encode())
        assert (status, tuple(sent)) == (101, acceptance.headers)
        assert [(name.lower(), value) for name, value in sent[4:]] == [
            (name.lower(), value) for name, value in cookies
        ]


WRONG: dict[str, tuple[Any, str]] = {
    **{
        f"reserved-{name}": ([(name, "x")], f"^header {name} {RESERVED}$")
        for name in (
            *("Upgrade", "connection", "CONTENT-LENGTH", "Transfer-Encoding"),
            *("Sec-WebSocket-Accept", "sec-websocket-protocol", "Sec-WebSocket-Extensions"),
            *("Sec-WebSocket-Version", "Sec-WebSocket-Anything"),
        )
    },
    **{
        f"value-{value!r}": ([("X-A", value)], f"^{CONTROL}: X-A: ")
        for value in ("a\r\nX-Forged: 1", "a\nb", "a\rb", "\0", "\x7f", "a\x0b")
    },
    "value-bytes": ([(b"X-A", b"a\r\nX-Forged: 1")], f"^{CONTROL}: X-A: "),
    **{
        f"name-{name!r}": ([(name, "x")], f"^{TOKEN}: ")
        for name in ("", "a b", "a:", "a\r\nb", "\xe9")
    },
    "latin-1": ({"X-A": "\u20ac"}, f"^{LATIN}: X-A: "),
}


@pytest.mark.parametrize(("headers", "text"), WRONG.values(), ids=WRONG)
def test_a_header_that_is_not_valid_in_the_response(
    codec: ModuleType, headers: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        codec.accept(REQUEST, headers=headers)
    with pytest.raises(ValueError, match=text):  # also if the request is refused
        codec.accept([], headers=headers)


@given(headers=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=3))
def test_no_value_forges_a_header(codec: ModuleType, headers: Pairs) -> None:
    try:
        wire = codec.accept(REQUEST, headers=headers).encode()
    except ValueError:
        return
    assert wire.count(b"\r\n") == 1 + 3 + len(headers) + 1
    assert wire.count(b"\n") == wire.count(b"\r") == wire.count(b"\r\n")


# Headers as bytes ---------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Pairs], Any]] = {
    "pairs": as_bytes,
    "lists": lambda headers: [[*pair] for pair in as_bytes(headers)],
    "mapping": lambda headers: dict(as_bytes(headers)),
    "iterator": lambda headers: iter(as_bytes(headers)),
    "bytearrays": lambda headers: [(bytearray(n), memoryview(v)) for n, v in as_bytes(headers)],
}


@pytest.mark.parametrize("convert", FORMS.values(), ids=FORMS)
def test_the_headers_of_a_request_may_be_bytes(
    codec: ModuleType, convert: Callable[[Pairs], Any]
) -> None:
    headers = [*REQUEST, ("Sec-WebSocket-Protocol", "chat"), ("Origin", "https://b.example")]
    options = {"subprotocols": ["chat"], "origins": ["https://b.example"]}
    assert codec.accept(convert(headers), **options) == codec.accept(headers, **options)
    foreign = [*REQUEST, ("Origin", "https://caf\xe9.example")]
    assert refusal(codec, convert(foreign)) == refusal(codec, foreign)
    assert codec.handshake.wants_upgrade(convert(headers))
    codec.origins.check_host(convert(headers))


@pytest.mark.parametrize("convert", FORMS.values(), ids=FORMS)
def test_the_headers_of_a_client_may_be_bytes(
    codec: ModuleType, convert: Callable[[Pairs], Any]
) -> None:
    request = codec.UpgradeRequest("a.example", headers=convert([("X-Note", "caf\xe9")]))
    assert request.encode().endswith(b"\r\nx-note: caf\xe9\r\n\r\n")
    head = codec.RequestDecoder().receive(request.encode())
    answer = codec.accept(head.headers).headers
    confirmed = request.confirm(101, convert(list(answer)))
    assert [(name.title(), value) for name, value in confirmed.headers] == [
        (name.title(), value) for name, value in answer
    ]
    with pytest.raises(codec.HandshakeError) as caught:
        request.confirm(403, convert([("X-Note", "caf\xe9")]))
    assert caught.value.headers == (("x-note", "caf\xe9"),)


def test_a_subclass_of_str_is_text(codec: ModuleType) -> None:
    class Text(str):
        __slots__ = ()

    headers = [(Text(name), Text(value)) for name, value in REQUEST]
    assert codec.accept(headers).headers == codec.accept(REQUEST).headers


@pytest.mark.parametrize("headers", [None, 5, "abc", [1], [("a",)], [("a", "b", "c")], [("a", 5)]])
def test_headers_of_another_type_are_an_error(codec: ModuleType, headers: Any) -> None:
    with pytest.raises(TypeError, match=TYPE):
        codec.accept(REQUEST, headers=headers)
    with pytest.raises(TypeError, match=TYPE):
        codec.UpgradeRequest("a.example", headers=headers)
    with pytest.raises(TypeError, match=TYPE):
        codec.HandshakeError(400, "x", headers)
    with pytest.raises(TypeError, match=TYPE.replace("headers", "request")):
        codec.accept(headers)
