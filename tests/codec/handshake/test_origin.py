"""The Origin of an upgrade request (RFC 6455 section 10.2)."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest

from tests.codec.handshake.helpers import FOREIGN, REQUEST, refusal, request

pytestmark = pytest.mark.one_kernel

SAME_HOST = [
    ("HTTPS://example.com:443", "example.com"),
    ("http://example.com", "example.com"),
    ("https://example.com", "example.com"),
    ("HTTP://EXAMPLE.com", "example.COM"),
    ("http://example.com", "example.com:80"),
    ("http://example.com:80", "example.com"),
    ("https://example.com", "example.com:443"),
    ("https://example.com:443", "example.com"),
    ("http://example.com:9292", "example.com:9292"),
    ("https://example.com:9292", "example.com:9292"),
    ("http://example.com", "example.com:"),
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("http://[::1]", "[::1]:80"),
]


@pytest.mark.parametrize(("origin", "host"), SAME_HOST)
def test_the_same_host_may_connect(codec: ModuleType, origin: str, host: str) -> None:
    assert codec.accept(request(("Origin", origin), host=host))


OTHER_HOST = [
    ("http://evil.example", "example.com"),
    ("http://example.com.evil.example", "example.com"),
    ("http://evilexample.com", "example.com"),
    ("http://sub.example.com", "example.com"),
    ("http://example.com", "sub.example.com"),
    ("http://example.com:9292", "example.com"),
    ("http://example.com", "example.com:9292"),
    ("http://example.com:1", "example.com:2"),
    ("http://example.com", "example.com:443"),
    ("https://example.com", "example.com:80"),
    ("http://example.com:443", "example.com"),
    ("http://[::1]:8000", "[::2]:8000"),
    ("http://example.com@evil.example", "example.com"),
    ("http://evil.example@example.com", "example.com"),
    ("http://example.com/", "example.com"),
    ("http://example.com#", "example.com"),
    ("http://example.com?", "example.com"),
    ("http://example.com http://evil.example", "example.com"),
    ("http://example.com:99999", "example.com"),
    ("example.com", "example.com"),
    ("//example.com", "example.com"),
    ("null", "example.com"),
    ("null", "null"),
    ("", "example.com"),
    ("*", "example.com"),
    ("file://", "example.com"),
]


@pytest.mark.parametrize(("origin", "host"), OTHER_HOST)
def test_another_host_may_not_connect(codec: ModuleType, origin: str, host: str) -> None:
    headers = request(("Origin", origin), host=host)
    assert refusal(codec, headers) == (403, FOREIGN, ())
    assert refusal(codec, headers, origins=["http://third.example"]) == (403, FOREIGN, ())
    assert codec.accept(headers, origins="*")


def test_a_malformed_origin_does_not_match_a_malformed_host(codec: ModuleType) -> None:
    # Neither has a host, but they must not compare equal.
    headers = request(("Origin", "http://exämple"), host="ex.ample")
    assert refusal(codec, headers)[0] == 403


def test_the_listed_origins_and_the_own_host_are_allowed(codec: ModuleType) -> None:
    origins = ["https://a.example", "https://b.example:8443"]

    for origin in ("https://a.example", "https://b.EXAMPLE:8443", "http://server.example.com"):
        assert codec.accept(request(("Origin", origin)), origins=origins)
    for origin in ("http://a.example", "https://a.example:8443", "https://b.example", "null"):
        expected = (403, FOREIGN, ())
        assert refusal(codec, request(("Origin", origin)), origins=origins) == expected


def test_null_may_be_allowed_by_name(codec: ModuleType) -> None:
    assert codec.accept(request(("Origin", "null")), origins=["null"])


def test_a_request_without_an_origin_is_allowed(codec: ModuleType) -> None:
    assert codec.accept(request())
    assert codec.accept(request(), origins=["https://a.example"])


@pytest.mark.parametrize("origins", ["*", ["*"], ("*",)])
def test_a_star_allows_every_origin(codec: ModuleType, origins: Any) -> None:
    assert codec.accept(request(("Origin", "http://evil.example")), origins=origins)


@pytest.mark.parametrize("scheme", ["ftp", "file", "ws", "wss", "chrome-extension", "httpx"])
def test_only_http_origins_match_the_own_host(codec: ModuleType, scheme: str) -> None:
    headers = request(("Origin", f"{scheme}://server.example.com"))
    assert refusal(codec, headers)[0] == 403


POSSIBLE_ORIGINS = (
    *("http://a.example", "https://a.example:8443", "http://a.example:443", "https://a_b.example."),
    *(
        "http://localhost:8080",
        "http://127.0.0.1",
        "https://[::1]:9292",
        "https://[::ffff:102:304]",
    ),
    *("chrome-extension://abc", "capacitor://localhost", "app://Id", "file://", "null"),
)


IMPOSSIBLE_ORIGINS = {
    "https://a.example/": "browsers send 'https://a.example'",
    "https://a.example/chat?b": "browsers send 'https://a.example'",
    "https://a.example#b": "browsers send 'https://a.example'",
    "https://user@a.example": "browsers send 'https://a.example'",
    "a.example": "browsers send 'https://a.example'",
    "a.example:8443": "browsers send 'https://a.example:8443'",
    "HTTPS://a.example": "browsers send 'https://a.example'",
    "https://A.example": "browsers send 'https://a.example'",
    "https://a.example:443": "browsers send 'https://a.example'",
    "http://a.example:80": "browsers send 'http://a.example'",
    "http://a.example:": "browsers send 'http://a.example'",
    "http://a.example:08080": "browsers send 'http://a.example:8080'",
    "wss://a.example": "browsers send 'https://a.example'",
    "ws://a.example:80": "browsers send 'http://a.example'",
    "http://[0:0::1]": "browsers send 'http://[::1]'",
    "app://Id/": "browsers send 'app://Id'",
    "https://*.example": 'list every origin, or use "*"',
    "*.example": 'list every origin, or use "*"',
    **dict.fromkeys(
        (
            *("", "https://", "//a.example", "https://é.example", "https://a%41.example", "://a"),
            *("https://a b", "https://a.example:65536", "https://[::1", "http://127.1", "1a://b"),
            *("http://0x7f.0.0.1", " https://a.example", "http://1.2.3.4.5"),
        ),
        "a scheme and a host in ASCII",
    ),
}


def test_an_origin_as_browsers_send_it_may_be_allowed(codec: ModuleType) -> None:
    codec.origins.check_origins(POSSIBLE_ORIGINS)
    for origin in POSSIBLE_ORIGINS:
        assert codec.accept(request(("Origin", origin)), origins=POSSIBLE_ORIGINS)


@pytest.mark.parametrize("origin", IMPOSSIBLE_ORIGINS)
def test_an_origin_that_can_never_match_is_an_error_with_a_hint(
    codec: ModuleType, origin: str
) -> None:
    text = re.escape(f"the origin {origin!r} can never match: ") + ".*"
    for call in (codec.accept, lambda _, origins: codec.origins.check_origins(origins)):
        with pytest.raises(ValueError, match=text + re.escape(IMPOSSIBLE_ORIGINS[origin])):
            call(REQUEST, origins=["https://b.example", origin])


def test_a_star_must_be_the_only_entry(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match="must be the only one"):
        codec.accept(REQUEST, origins=["*", "https://a.example"])


def test_an_origin_is_a_str(codec: ModuleType) -> None:
    with pytest.raises(TypeError, match="must be a sequence of str"):
        codec.accept(REQUEST, origins=[b"https://a.example"])


@pytest.mark.parametrize(
    ("origin", "origins", "found"),
    [
        ("https://A.example", ["https://a.example"], "https://A.example"),
        ("app://Id", ["app://Id"], "app://Id"),
        ("https://a.example", ["*"], "https://a.example"),
        ("https://a.example", "*", "https://a.example"),
        ("http://server.example.com", "*", "http://server.example.com"),
        ("http://server.example.com", ["http://server.example.com"], "http://server.example.com"),
        ("http://server.example.com", ["https://a.example"], None),
        ("https://server.example.com", (), None),
        (None, "*", None),
        (None, (), None),
    ],
)
def test_check_origin_returns_the_listed_origin(
    codec: ModuleType, origin: str | None, origins: Any, found: str | None
) -> None:
    headers = [("Host", "server.example.com"), *([("Origin", origin)] if origin else [])]
    assert codec.origins.check_origin(headers, origins) == found


@pytest.mark.parametrize("origin", ["http://evil.example", "http://[", "null"])
def test_a_missing_host_matches_no_origin(codec: ModuleType, origin: str) -> None:
    # HTTP/1.0 allows this; then even an origin without a host is a foreign origin.
    with pytest.raises(codec.HandshakeError) as caught:
        codec.origins.check_origin([("Origin", origin)], ["https://a.example"])
    assert (caught.value.status, caught.value.reason) == (403, FOREIGN)
