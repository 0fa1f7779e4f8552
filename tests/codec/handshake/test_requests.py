"""Accepted and rejected upgrade requests."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.handshake.helpers import FOREIGN, REQUEST, Pairs, refusal, request
from tests.support.vectors import RFC_ACCEPT, RFC_KEY

pytestmark = pytest.mark.one_kernel

UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
)


NO_UPGRADE = "this resource is a WebSocket: an upgrade is required"


WRONG_VERSION = "unsupported WebSocket version: use 13"


@pytest.mark.both_kernels
def test_the_example_of_the_rfc(codec: ModuleType) -> None:
    # RFC 6455 section 1.3
    acceptance = codec.accept(
        request(
            ("Origin", "http://example.com"),
            ("Sec-WebSocket-Protocol", "chat, superchat"),
        ),
        origins=["http://example.com"],
        subprotocols=["chat"],
    )
    assert acceptance.subprotocol == "chat"
    assert acceptance.headers == (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", RFC_ACCEPT),
        ("Sec-WebSocket-Protocol", "chat"),
    )
    assert acceptance.encode() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


def test_without_a_subprotocol(codec: ModuleType) -> None:
    acceptance = codec.accept(request())
    assert acceptance.subprotocol is None
    assert acceptance.encode() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "headers",
    [
        REQUEST,
        tuple(REQUEST),
        dict(REQUEST),
        {name.lower(): value for name, value in REQUEST},
        [(name.upper(), value) for name, value in REQUEST],
        [(name, f" \t{value}\t ") for name, value in REQUEST],
        REQUEST[::-1],
    ],
    ids=["pairs", "tuple", "mapping", "lower-case", "upper-case", "blanks-around", "reversed"],
)
def test_headers_come_in_any_form(codec: ModuleType, headers: Any) -> None:
    assert dict(codec.accept(headers).headers)["Sec-WebSocket-Accept"] == RFC_ACCEPT


def test_headers_may_come_from_an_iterator(codec: ModuleType) -> None:
    pairs: Iterable[tuple[str, str]] = iter(REQUEST)
    assert codec.accept(pairs).subprotocol is None


@pytest.mark.parametrize(
    "value", ["websocket", "WebSocket", "WEBSOCKET", "foo, websocket,", ",websocket"]
)
def test_upgrade_is_a_list_in_any_case(codec: ModuleType, value: str) -> None:
    assert codec.accept(request(upgrade=value))


@pytest.mark.parametrize(
    "value",
    [
        "Upgrade",
        "upgrade",
        "UPGRADE",
        "keep-alive, Upgrade",
        "Upgrade,keep-alive",
        ", ,upgrade \t,",
    ],
)
def test_connection_is_a_list_in_any_case(codec: ModuleType, value: str) -> None:
    assert codec.accept(request(connection=value))


def test_connection_may_be_split_into_several_headers(codec: ModuleType) -> None:
    assert codec.accept(request(("Connection", "Upgrade"), connection="keep-alive"))
    assert codec.accept(request(("connection", "x"), ("Upgrade", "h2c")))


def test_an_empty_body_is_allowed(codec: ModuleType) -> None:
    assert codec.accept(request(("Content-Length", "0")))


BAD_KEY = "Sec-WebSocket-Key must be 16 bytes in base64"


REFUSED: dict[str, tuple[Pairs, int, str]] = {
    "no-host": (request(host=None), 400, "the request has no Host header"),
    "two-hosts": (request(("host", "server.example.com")), 400, "more than one Host header"),
    "no-key": (request(sec_websocket_key=None), 400, "the request has no Sec-WebSocket-Key header"),
    "two-keys": (
        request(("sec-websocket-key", RFC_KEY)),
        400,
        "more than one Sec-Websocket-Key header",
    ),
    "no-version": (request(sec_websocket_version=None), 426, WRONG_VERSION),
    "two-versions": (
        request(("Sec-WebSocket-Version", "13")),
        400,
        "more than one Sec-Websocket-Version header",
    ),
    **{
        f"version-{version}": (request(sec_websocket_version=version), 426, WRONG_VERSION)
        for version in ("8", "12", "14", "013", "13.0", "13, 8", "", "x")
    },
    "no-upgrade": (request(upgrade=None), 426, NO_UPGRADE),
    "empty-upgrade": (request(upgrade=""), 426, NO_UPGRADE),
    "another-upgrade": (request(upgrade="h2c"), 426, NO_UPGRADE),
    "upgrade-that-only-contains-it": (request(upgrade="websockets"), 426, NO_UPGRADE),
    "no-connection": (request(connection=None), 426, NO_UPGRADE),
    "connection-keep-alive": (request(connection="keep-alive"), 426, NO_UPGRADE),
    "connection-that-only-contains-it": (request(connection="upgrade-x"), 426, NO_UPGRADE),
    "connection-in-one-token": (request(connection="keep-alive upgrade"), 426, NO_UPGRADE),
    "chunked-body": (
        request(("Transfer-Encoding", "chunked")),
        400,
        "an upgrade request must not have a body",
    ),
    "body": (request(("Content-Length", "5")), 400, "an upgrade request must not have a body"),
    "length-that-is-none": (
        request(("Content-Length", "x")),
        400,
        "an upgrade request must not have a body",
    ),
    "two-lengths": (
        request(("Content-Length", "0"), ("Content-Length", "0")),
        400,
        "more than one Content-Length header",
    ),
    "two-origins": (
        request(("Origin", "http://server.example.com"), ("Origin", "http://evil.example")),
        400,
        "more than one Origin header",
    ),
    "foreign-origin": (request(("Origin", "http://evil.example")), 403, FOREIGN),
    "subprotocol-that-is-no-token": (
        request(("Sec-WebSocket-Protocol", "chat, super chat")),
        400,
        "Sec-WebSocket-Protocol must be a list of tokens",
    ),
}


@pytest.mark.parametrize(("headers", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_rejected_request(codec: ModuleType, headers: Pairs, status: int, reason: str) -> None:
    answer = UPGRADE_REQUIRED if status == 426 else ()
    assert refusal(codec, headers) == (status, reason, answer)


def test_a_rejection_can_be_sent_as_a_response(codec: ModuleType) -> None:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.accept(request(sec_websocket_version="8"))
    error = caught.value
    body = error.reason.encode()
    wire = codec.headers.encode_response(error.status, error.headers, body)
    assert wire == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
        b"unsupported WebSocket version: use 13"
    )


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get", ""])
def test_another_method_is_rejected(codec: ModuleType, method: str) -> None:
    expected = (405, "a WebSocket handshake must use GET", (("Allow", "GET"),))
    assert refusal(codec, request(), method=method) == expected


@pytest.mark.parametrize("version", ["1.0", "0.9", "2", "2.0", ""])
def test_another_http_version_is_rejected(codec: ModuleType, version: str) -> None:
    expected = (426, NO_UPGRADE, UPGRADE_REQUIRED)
    assert refusal(codec, request(), http_version=version) == expected


@pytest.mark.both_kernels
@given(nonce=st.binary(min_size=16, max_size=16))
def test_every_key_of_16_bytes_is_accepted(codec: ModuleType, nonce: bytes) -> None:
    key = base64.b64encode(nonce).decode()
    answer = dict(codec.accept(request(sec_websocket_key=key)).headers)
    assert answer["Sec-WebSocket-Accept"] == codec.accept_key(key)


BAD_KEYS = {
    "empty": "",
    "15-bytes": base64.b64encode(bytes(15)).decode(),
    "17-bytes": base64.b64encode(bytes(17)).decode(),
    "18-bytes-24-characters": base64.b64encode(bytes(18)).decode(),
    "without-padding": RFC_KEY.rstrip("="),
    "half-the-padding": RFC_KEY[:-1],
    "too-much-padding": RFC_KEY + "=",
    "16-bytes-and-a-tail": RFC_KEY + "AAAA",
    "blank-inside": RFC_KEY[:10] + " " + RFC_KEY[11:],
    "line-break-inside": RFC_KEY[:10] + "\n" + RFC_KEY[10:],
    "url-safe-alphabet": "-_" + RFC_KEY[2:],
    "star": "*" + RFC_KEY[1:],
    "not-ascii": "é" + RFC_KEY[1:],
    "full-width-digit": "\uff11" + RFC_KEY[1:],
    "16-plain-characters": "x" * 16,
    "24-characters-without-padding": "x" * 24,
    "padding-in-the-middle": "AA==" + RFC_KEY[4:],
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_another_key_is_rejected(codec: ModuleType, key: str) -> None:
    assert refusal(codec, request(sec_websocket_key=key)) == (400, BAD_KEY, ())
