"""The opening handshake as the server sees it (RFC 6455 section 4)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.vectors import RFC_ACCEPT, RFC_KEY

Pairs = list[tuple[str, str]]

REQUEST: Pairs = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", RFC_KEY),
    ("Sec-WebSocket-Version", "13"),
]
UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
)
FOREIGN = "this Origin may not connect"
NO_UPGRADE = "this resource is a WebSocket: an upgrade is required"
WRONG_VERSION = "only version 13 is spoken here"


def request(*more: tuple[str, str], **changes: str | None) -> Pairs:
    """A request in order, with these headers changed (None: left out), and these added."""
    values = {name.replace("_", "-"): value for name, value in changes.items()}
    assert set(values) <= {name.lower() for name, _ in REQUEST}
    pairs = []
    for name, value in REQUEST:
        changed = values.get(name.lower(), value)
        if changed is not None:
            pairs.append((name, changed))
    return [*pairs, *more]


def refusal(codec: ModuleType, headers: Any, **options: Any) -> tuple[int, str, Any]:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.accept(headers, **options)
    return caught.value.status, caught.value.reason, caught.value.headers


# What is in order ---------------------------------------------------------------------------------


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


def test_connection_may_stand_in_several_headers(codec: ModuleType) -> None:
    assert codec.accept(request(("Connection", "Upgrade"), connection="keep-alive"))
    assert codec.accept(request(("connection", "x"), ("Upgrade", "h2c")))


def test_an_empty_body_is_no_body(codec: ModuleType) -> None:
    assert codec.accept(request(("Content-Length", "0")))


# What is not --------------------------------------------------------------------------------------

BAD_KEY = "Sec-WebSocket-Key must be 16 bytes in base64"

REFUSED: dict[str, tuple[Pairs, int, str]] = {
    "no-host": (request(host=None), 400, "no Host header"),
    "two-hosts": (request(("host", "server.example.com")), 400, "more than one Host header"),
    "no-key": (request(sec_websocket_key=None), 400, "no Sec-WebSocket-Key header"),
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
        "an upgrade request has no body",
    ),
    "body": (request(("Content-Length", "5")), 400, "an upgrade request has no body"),
    "length-that-is-none": (
        request(("Content-Length", "x")),
        400,
        "an upgrade request has no body",
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
def test_refused(codec: ModuleType, headers: Pairs, status: int, reason: str) -> None:
    answer = UPGRADE_REQUIRED if status == 426 else ()
    assert refusal(codec, headers) == (status, reason, answer)


def test_a_refusal_is_an_answer(codec: ModuleType) -> None:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.accept(request(sec_websocket_version="8"))
    error = caught.value
    body = error.reason.encode()
    wire = codec.fields.encode_response(error.status, error.headers, body)
    assert wire == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
        b"only version 13 is spoken here"
    )


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get", ""])
def test_another_method_is_refused(codec: ModuleType, method: str) -> None:
    expected = (405, "a WebSocket is opened with GET", (("Allow", "GET"),))
    assert refusal(codec, request(), method=method) == expected


@pytest.mark.parametrize("version", ["1.0", "0.9", "2", "2.0", ""])
def test_another_http_version_is_refused(codec: ModuleType, version: str) -> None:
    expected = (426, NO_UPGRADE, UPGRADE_REQUIRED)
    assert refusal(codec, request(), http_version=version) == expected


# The key (RFC 6455 section 4.1: 16 bytes in base64) -----------------------------------------------


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
def test_another_key_is_refused(codec: ModuleType, key: str) -> None:
    assert refusal(codec, request(sec_websocket_key=key)) == (400, BAD_KEY, ())


# The Host (RFC 9112 section 3.2, RFC 9110 section 7.2) --------------------------------------------


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
        ([("Accept", "*/*")], "no Host header"),
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
def test_whether_any_request_wants_an_upgrade(
    codec: ModuleType, headers: Any, wanted: bool
) -> None:
    assert codec.handshake.wants_upgrade(headers) is wanted


# The Origin (RFC 6455 section 10.2) ---------------------------------------------------------------

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


def test_a_malformed_origin_is_not_taken_for_a_malformed_host(codec: ModuleType) -> None:
    # Neither has a host; they must not be equal for that.
    headers = request(("Origin", "http://exämple"), host="ex.ample")
    assert refusal(codec, headers)[0] == 403


def test_allowed_origins_are_those_and_the_own_host(codec: ModuleType) -> None:
    origins = ["https://a.example", "https://b.example:8443"]

    for origin in ("https://a.example", "https://b.EXAMPLE:8443", "http://server.example.com"):
        assert codec.accept(request(("Origin", origin)), origins=origins)
    for origin in ("http://a.example", "https://a.example:8443", "https://b.example", "null"):
        expected = (403, FOREIGN, ())
        assert refusal(codec, request(("Origin", origin)), origins=origins) == expected


def test_null_may_be_allowed_by_name(codec: ModuleType) -> None:
    assert codec.accept(request(("Origin", "null")), origins=["null"])


def test_without_an_origin_it_is_no_browser(codec: ModuleType) -> None:
    assert codec.accept(request())
    assert codec.accept(request(), origins=["https://a.example"])


@pytest.mark.parametrize("origins", ["*", ["*"], ("*",)])
def test_a_star_admits_every_origin(codec: ModuleType, origins: Any) -> None:
    assert codec.accept(request(("Origin", "http://evil.example")), origins=origins)


@pytest.mark.parametrize("scheme", ["ftp", "file", "ws", "wss", "chrome-extension", "httpx"])
def test_only_pages_have_the_origin_of_the_own_host(codec: ModuleType, scheme: str) -> None:
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
    "https://*.example": 'name every site, or use "*"',
    "*.example": 'name every site, or use "*"',
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
def test_an_origin_that_can_never_match_is_refused_with_a_hint(
    codec: ModuleType, origin: str
) -> None:
    text = re.escape(f"the origin {origin!r} can never match: ") + ".*"
    for call in (codec.accept, lambda _, origins: codec.origins.check_origins(origins)):
        with pytest.raises(ValueError, match=text + re.escape(IMPOSSIBLE_ORIGINS[origin])):
            call(REQUEST, origins=["https://b.example", origin])


def test_a_star_stands_alone(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match="must be the only one"):
        codec.accept(REQUEST, origins=["*", "https://a.example"])


def test_an_origin_is_a_str(codec: ModuleType) -> None:
    with pytest.raises(TypeError, match="sequences of str"):
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
def test_of_any_request_it_is_known_which_origin_was_allowed(
    codec: ModuleType, origin: str | None, origins: Any, found: str | None
) -> None:
    headers = [("Host", "server.example.com"), *([("Origin", origin)] if origin else [])]
    assert codec.origins.check_origin(headers, origins) == found


@pytest.mark.parametrize("origin", ["http://evil.example", "http://[", "null"])
def test_no_host_is_nobodys_own(codec: ModuleType, origin: str) -> None:
    # As HTTP/1.0 has it, and then even an origin that has none either is a foreign one.
    with pytest.raises(codec.HandshakeError) as caught:
        codec.origins.check_origin([("Origin", origin)], ["https://a.example"])
    assert (caught.value.status, caught.value.reason) == (403, FOREIGN)


# The subprotocol (RFC 6455 section 4.2.2) ---------------------------------------------------------


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
def test_the_first_of_the_clients_that_is_spoken(
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


# Responses ----------------------------------------------------------------------------------------


def test_a_response_byte_for_byte(codec: ModuleType) -> None:
    wire = codec.fields.encode_response(
        404, [("Content-Length", "2"), ("X-Note", "caf\xe9 and\ttab")], b"no"
    )
    assert wire == (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-Note: caf\xe9 and\ttab\r\n\r\nno"
    )
    assert codec.fields.encode_response(204) == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "\x1b[1m", "\x7f", "a\n", "\x0b"]
)
def test_a_response_header_cannot_be_forged(codec: ModuleType, value: str) -> None:
    with pytest.raises(ValueError, match="control characters must not stand in a header: X-Note"):
        codec.fields.encode_response(200, [("X-Note", value)])


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\n", "ä", "a\0", "(a)"])
def test_a_response_header_has_a_token_for_a_name(codec: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match="a header's name must be a token"):
        codec.fields.encode_response(200, [(name, "x")])


def test_a_response_header_must_fit_one_byte_a_character(codec: ModuleType) -> None:
    with pytest.raises(UnicodeEncodeError):
        codec.fields.encode_response(200, [("X-Note", "\u20ac")])


def test_a_status_must_be_known(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match="999 is not a valid HTTPStatus"):
        codec.fields.encode_response(999)


def test_an_acceptance_with_more_headers_is_checked_as_well(codec: ModuleType) -> None:
    acceptance = codec.Acceptance((("Set-Cookie", "a=b"),))
    assert acceptance.encode() == (b"HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: a=b\r\n\r\n")
    with pytest.raises(ValueError, match="control characters"):
        codec.Acceptance((("Set-Cookie", "a=b\r\nc: d"),)).encode()
    with pytest.raises(AttributeError):
        acceptance.subprotocol = "chat"


@pytest.mark.parametrize("arguments", [{"subprotocols": "chat"}, {"origins": "https://a.example"}])
def test_one_str_is_no_sequence_of_them(codec: ModuleType, arguments: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="sequences of str"):
        codec.accept(REQUEST, **arguments)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "a\r\nX: y", "\xe9"])
def test_what_the_server_speaks_is_a_token(codec: ModuleType, subprotocol: str) -> None:
    with pytest.raises(ValueError, match="a subprotocol is a token"):
        codec.accept(REQUEST, subprotocols=["chat", subprotocol])
