"""HandshakeError.encode: the complete response to a refused request, as h11 reads it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import h11
import pytest

from tests.codec.handshake.helpers import request

pytestmark = pytest.mark.one_kernel

FIXED = [
    ("content-type", "text/plain; charset=utf-8"),
    ("x-content-type-options", "nosniff"),
    ("connection", "close"),
]


def read(wire: bytes, method: str = "GET") -> tuple[int, list[tuple[str, str]], bytes]:
    """Return the status, the headers and the body of the one response."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    connection.receive_data(b"")
    answer = connection.next_event()
    assert isinstance(answer, h11.Response)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in answer.headers]
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert isinstance(connection.next_event(), h11.ConnectionClosed)
    return answer.status_code, headers, body


def test_the_response_byte_for_byte(codec: ModuleType) -> None:
    error = codec.HandshakeError(405, "use GET", [("Allow", "GET")])
    assert error.encode() == (
        b"HTTP/1.1 405 Method Not Allowed\r\n"
        b"Allow: GET\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"Content-Length: 8\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"use GET\n"
    )


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 414, 426, 431, 500, 503, 505])
def test_a_client_reads_the_reason(codec: ModuleType, status: int) -> None:
    found, headers, body = read(codec.HandshakeError(status, "gr\xfc\xdfe").encode())
    assert (found, body) == (status, "gr\xfc\xdfe\n".encode())
    assert headers == [*FIXED[:2], ("content-length", "8"), FIXED[2]]


def test_the_response_to_head_has_no_body(codec: ModuleType) -> None:
    error = codec.HandshakeError(400, "a reason")
    whole, alone = error.encode(), error.encode(body=False)
    assert whole == alone + b"a reason\n"
    assert read(alone, "HEAD")[1] == read(whole)[1]


def test_headers_are_added(codec: ModuleType) -> None:
    error = codec.HandshakeError(401, "log in", {b"WWW-Authenticate": b"Basic"})
    _, headers, _ = read(error.encode([(b"Date", b"now"), ("Set-Cookie", "caf\xe9")]))
    assert headers[:3] == [
        ("www-authenticate", "Basic"),
        ("date", "now"),
        ("set-cookie", "caf\xe9"),
    ]


@pytest.mark.parametrize("changes", [{"upgrade": None}, {"sec_websocket_version": "8"}])
def test_the_refusals_of_accept_can_be_sent(codec: ModuleType, changes: dict[str, Any]) -> None:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.accept(request(**changes))
    status, headers, body = read(caught.value.encode())
    assert (status, body) == (426, f"{caught.value.reason}\n".encode())
    assert ("sec-websocket-version", "13") in headers


WRONG: dict[str, tuple[Any, str]] = {
    **{
        f"reserved-{name}": ([(name, "x")], f"header {name} is reserved for the body")
        for name in ("Content-Length", "content-type", "TRANSFER-ENCODING", "Content-Encoding")
    },
    "line-break": ([("X-A", "a\r\nX-Forged: 1")], "a header must not contain control characters"),
    "name": ([("X A", "a")], "a header name must be a token"),
}


@pytest.mark.parametrize(("headers", "text"), WRONG.values(), ids=WRONG)
def test_a_header_that_is_not_valid(codec: ModuleType, headers: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        codec.HandshakeError(400, "x", headers).encode()
    with pytest.raises(ValueError, match=f"^{text}"):
        codec.HandshakeError(400, "x").encode(headers)


def test_the_reason_forges_no_header(codec: ModuleType) -> None:
    _, headers, body = read(codec.HandshakeError(400, "a\r\nX-Forged: 1\r\n\r\nb").encode())
    assert [name for name, _ in headers] == [
        *("content-type", "x-content-type-options", "content-length", "connection"),
    ]
    assert body == b"a\r\nX-Forged: 1\r\n\r\nb\n"


@pytest.mark.parametrize("status", [0, 101, 199, 204, 205, 304, 599, 600])
def test_a_status_without_a_body_or_a_name(codec: ModuleType, status: int) -> None:
    with pytest.raises(ValueError, match=f"^status must .*{status}$"):
        codec.HandshakeError(status, "x").encode()
