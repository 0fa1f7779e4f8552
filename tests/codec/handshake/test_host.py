"""The Host of an upgrade request (RFC 9112 section 3.2, RFC 9110 section 7.2)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tests.codec.handshake.helpers import refusal, request

pytestmark = pytest.mark.one_kernel


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "example.com:80",
        "example.com:9292",
        "example.com:",
        "example.com:65535",
        "EXAMPLE.com",
        "localhost:1",
        "127.0.0.1:8000",
        "[::1]",
        "[::1]:9292",
        "[2001:db8::ffff:192.0.2.1]:1",
        "under_score.example",
        "xn--bcher-kva.example",
        "%C3%BC.example",
    ],
)
def test_a_valid_host(codec: ModuleType, host: str) -> None:
    assert codec.accept(request(host=host))


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "user@example.com",
        "user:pass@example.com",
        "example.com:x",
        "example.com:65536",
        "example.com:123456",
        "example.com:80:80",
        "example.com:-1",
        "example.com:٣",
        "example.com/",
        "example.com/path",
        "http://example.com",
        "example.com, example.org",
        "exa mple.com",
        "example.com?x",
        "example.com#x",
        "[::1",
        "::1",
        "[]",
        "[::1]x",
        "[example.com]",
        "[:::::]",
        "[::1%25lo]",
        "%zz.example",
        "100%",
        "exa\nmple.com",
        "example.com\n",
        "exämple.com",
        "<script>",
    ],
)
def test_a_malformed_host(codec: ModuleType, host: str) -> None:
    expected = (400, "the Host header is malformed", ())
    assert refusal(codec, request(host=host)) == expected


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("Accept", "*/*")], "the request has no Host header"),
        ([("Host", "a.example"), ("host", "a.example")], "more than one Host header"),
        ({"HOST": "a.example:x"}, "the Host header is malformed"),
    ],
    ids=["none", "two", "malformed"],
)
def test_the_host_of_any_request(codec: ModuleType, headers: Any, reason: str) -> None:
    codec.origins.check_host([("Accept", "*/*"), ("hOST", " a.example:80 ")])
    with pytest.raises(codec.HandshakeError) as caught:
        codec.origins.check_host(headers)
    assert (caught.value.status, caught.value.reason) == (400, reason)


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([("uPGRADE", " WebSocket ")], True),
        ({"Upgrade": "h2c, websocket"}, True),
        ({"Upgrade": "websocket", "Host": "not/a host"}, True),
        ({"Upgrade": "websockets"}, False),
        ({"Connection": "websocket"}, False),
    ],
    ids=["alone", "in-a-list", "wrongly", "another", "none"],
)
def test_wants_upgrade_of_any_request(codec: ModuleType, headers: Any, wanted: bool) -> None:
    assert codec.handshake.wants_upgrade(headers) is wanted
