"""The client's side of the opening handshake (RFC 6455 section 4.1)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.one_kernel

Pairs = list[tuple[str, str]]

NOT_OFFERED = "the server chose a subprotocol that was not offered"
NO_UPGRADE = "the response does not upgrade to WebSocket"
WRONG_ACCEPT = "Sec-WebSocket-Accept does not match the key that was sent"


def sent(request: Any) -> tuple[str, Pairs]:
    """Return the first line and the headers of the encoded request."""
    wire = request.encode()
    assert wire.endswith(b"\r\n\r\n")
    assert wire.count(b"\r\n\r\n") == 1
    first, *lines = wire.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = []
    for line in lines:
        name, _, value = line.partition(": ")
        pairs.append((name, value))
    return first, pairs


def key_of(request: Any) -> str:
    return dict(sent(request)[1])["Sec-WebSocket-Key"]


def answer(codec: ModuleType, request: Any, **changes: str | None) -> Pairs:
    """Return a valid response, with changed headers (None: removed)."""
    values = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": codec.accept_key(key_of(request)),
    }
    for name, value in changes.items():
        (known,) = [known for known in values if known.lower().replace("-", "_") == name]
        if value is None:
            del values[known]
        else:
            values[known] = value
    return list(values.items())


def refusal(codec: ModuleType, request: Any, status: int, headers: Any) -> tuple[int, str, Any]:
    with pytest.raises(codec.HandshakeError) as caught:
        request.confirm(status, headers)
    return caught.value.status, caught.value.reason, caught.value.headers


# The request --------------------------------------------------------------------------------------


def test_the_request_byte_for_byte(codec: ModuleType) -> None:
    request = codec.UpgradeRequest("a.example:8080", "/chat?room=1")
    assert (request.host, request.target) == ("a.example:8080", "/chat?room=1")
    key = key_of(request)
    assert request.encode() == (
        b"GET /chat?room=1 HTTP/1.1\r\n"
        b"Host: a.example:8080\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + key.encode() + b"\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )
    assert request.encode() == request.encode()


def test_the_request_with_everything(codec: ModuleType) -> None:
    request = codec.UpgradeRequest(
        "a.example",
        origin="https://b.example",
        subprotocols=["chat", "superchat"],
        deflate=codec.PerMessageDeflate(client_max_window_bits=10),
        headers={"Cookie": "a=b; c=d", "X-Note": "caf\xe9"},
    )
    first, headers = sent(request)
    assert first == "GET / HTTP/1.1"
    assert headers[5:] == [
        ("Origin", "https://b.example"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits=10"),
        ("Cookie", "a=b; c=d"),
        ("X-Note", "caf\xe9"),
    ]


def test_headers_may_come_as_pairs_and_more_than_once(codec: ModuleType) -> None:
    pairs: Iterator[tuple[str, str]] = iter([("X-A", "1"), ("x-a", "2"), ("X-Empty", "")])
    request = codec.UpgradeRequest("a.example", headers=pairs)
    assert sent(request)[1][5:] == [("X-A", "1"), ("x-a", "2"), ("X-Empty", "")]


def test_every_request_has_a_new_key(codec: ModuleType) -> None:
    keys = {key_of(codec.UpgradeRequest("a.example")) for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert len(base64.b64decode(key, validate=True)) == 16


@pytest.mark.parametrize(
    "host", ["a.example", "A.EXAMPLE:1", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:8080", "a_b"]
)
def test_valid_hosts(codec: ModuleType, host: str) -> None:
    assert sent(codec.UpgradeRequest(host))[1][0] == ("Host", host)


@pytest.mark.parametrize("target", ["/", "/a/b?c=d&e=%20", "//", "/?", "/~!$&'()*+,;=:@"])
def test_valid_targets(codec: ModuleType, target: str) -> None:
    assert sent(codec.UpgradeRequest("a.example", target))[0] == f"GET {target} HTTP/1.1"


INJECTION = "x\r\nX-Forged: 1"
HOST, TARGET, TOKEN = (
    "host must be",
    "target must begin with a slash",
    "subprotocols must be tokens, unlike ",
)
CONTROL, OURS = (
    "a header must not contain control characters",
    "is reserved for the handshake",
)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"host-{host!r}": ({"host": host}, HOST)
        for host in (
            *("", ":80", "a b", "user@a.example", "a.example:x", "a.example:65536", "a.example/x"),
            *("::1", "[::1", "http://a.example", "a.example\n", "a.example\r\nX: y", "ex\xe4mple"),
            *("a.example, b.example", "a\0b"),
        )
    },
    **{
        f"target-{target!r}": ({"target": target}, TARGET)
        for target in (
            *("", "*", "a", "?a", "http://a.example/", "/a b", "/a\n", "/a HTTP/1.1\r\nX: y"),
            *("/\t", "/\xe4", "/\0", "/\x7f", " /"),
        )
    },
    "target-with-a-fragment": ({"target": "/a#b"}, TARGET),
    **{
        f"origin-{origin!r}": ({"origin": origin}, CONTROL)
        for origin in (INJECTION, "x\n", "\0", "a\rb")
    },
    **{
        f"subprotocol-{subprotocol!r}": ({"subprotocols": ["good", subprotocol]}, TOKEN)
        for subprotocol in ("", " ", "a b", "a,b", "a;b", '"a"', "a/b", "\xe4", "a\n", INJECTION)
    },
    "subprotocol-twice": ({"subprotocols": ["a", "b", "a"]}, "subprotocols must be unique"),
    **{
        f"header-name-{name!r}": ({"headers": [(name, "x")]}, "a header name must be a token")
        for name in ("", "a b", "a:", "a\n", "X: y\r\nb", "\xe4", " host")
    },
    **{
        f"header-value-{value!r}": ({"headers": {"X-Note": value}}, CONTROL)
        for value in (INJECTION, "x\n", "\0", "a\rb", "\x7f")
    },
    **{
        f"header-{name}": ({"headers": [(name, "x")]}, f"header {name} {OURS}")
        for name in (
            *("Content-Length", "transfer-encoding", "Expect"),
            *("Host", "host", "Upgrade", "UPGRADE", "Connection", "Origin", "Sec-WebSocket-Key"),
            *("sec-websocket-version", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"),
            *("Sec-WebSocket-Extensions", "Sec-WebSocket-Anything"),
        )
    },
}


@pytest.mark.parametrize(("arguments", "text"), WRONG.values(), ids=WRONG.keys())
def test_values_that_are_not_valid_in_a_request(
    codec: ModuleType, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        codec.UpgradeRequest(**{"host": "a.example", **arguments})


@pytest.mark.parametrize("arguments", [{"origin": "\u20ac"}, {"headers": {"X-Note": "\u20ac"}}])
def test_a_header_must_be_latin_1(codec: ModuleType, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^a header must be in Latin-1: (Origin|X-Note): "):
        codec.UpgradeRequest("a.example", **arguments)


def test_a_str_is_not_accepted_as_subprotocols(codec: ModuleType) -> None:
    with pytest.raises(TypeError, match="must be a sequence of str"):
        codec.UpgradeRequest("a.example", subprotocols="chat")


@given(text=st.text(max_size=20))
def test_no_value_forges_a_header(codec: ModuleType, text: str) -> None:
    ways: list[dict[str, Any]] = [
        {"host": text},
        {"host": "a.example", "target": f"/{text}"},
        {"host": "a.example", "origin": text},
        {"host": "a.example", "subprotocols": [text]},
        {"host": "a.example", "headers": [("X-A", text)]},
        {"host": "a.example", "headers": [(text, "x")]},
    ]
    for arguments in ways:
        try:
            wire = codec.UpgradeRequest(**arguments).encode()
        except ValueError:
            continue
        optional = {"origin", "subprotocols", "headers"} & set(arguments)
        assert wire.count(b"\r\n") == 1 + 5 + len(optional) + 1
        assert wire.count(b"\n") == wire.count(b"\r") == wire.count(b"\r\n")
        assert wire.split(b"\r\n")[0].count(b" ") == 2


# The answer ---------------------------------------------------------------------------------------


def test_a_valid_response(codec: ModuleType) -> None:
    request = codec.UpgradeRequest("a.example", subprotocols=["b", "c"])
    headers = [*answer(codec, request), ("Sec-WebSocket-Protocol", "c"), ("Server", "x")]
    acceptance = request.confirm(101, headers)
    assert (acceptance.subprotocol, acceptance.deflate) == ("c", None)
    assert acceptance.headers == tuple(headers)


@pytest.mark.parametrize(
    "convert",
    [
        list,
        dict,
        iter,
        lambda pairs: [(name.upper(), value) for name, value in pairs],
        lambda pairs: [(name.lower(), f" \t{value} ") for name, value in pairs],
    ],
    ids=["pairs", "mapping", "iterator", "upper-case", "blanks-around"],
)
def test_a_response_in_any_form(codec: ModuleType, convert: Callable[[Pairs], Any]) -> None:
    request = codec.UpgradeRequest("a.example")
    assert request.confirm(101, convert(answer(codec, request))).subprotocol is None


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "WEBSOCKET"])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", ",UPGRADE,"])
def test_tokens_are_case_insensitive(codec: ModuleType, connection: str, upgrade: str) -> None:
    request = codec.UpgradeRequest("a.example")
    headers = answer(codec, request, upgrade=upgrade, connection=connection)
    assert request.confirm(101, headers).subprotocol is None


@pytest.mark.parametrize("status", [100, 200, 301, 400, 401, 403, 404, 426, 500, 503, 102])
def test_a_rejection_has_the_status_and_headers_of_the_response(
    codec: ModuleType, status: int
) -> None:
    request = codec.UpgradeRequest("a.example")
    headers = [("Location", "/other"), ("WWW-Authenticate", "Basic"), *answer(codec, request)]
    expected = (status, f"the server answered {status}", tuple(headers))
    assert refusal(codec, request, status, headers) == expected
    assert refusal(codec, request, status, iter(headers)) == expected


BREAKS_A_RULE: dict[str, tuple[dict[str, str | None], str]] = {
    "no-upgrade": ({"upgrade": None}, NO_UPGRADE),
    "another-upgrade": ({"upgrade": "h2c"}, NO_UPGRADE),
    "upgrade-that-only-contains-it": ({"upgrade": "websockets"}, NO_UPGRADE),
    "no-connection": ({"connection": None}, NO_UPGRADE),
    "another-connection": ({"connection": "close"}, NO_UPGRADE),
    "connection-that-only-contains-it": ({"connection": "upgraded"}, NO_UPGRADE),
    "no-accept": ({"sec_websocket_accept": None}, WRONG_ACCEPT),
    "empty-accept": ({"sec_websocket_accept": ""}, WRONG_ACCEPT),
    "accept-of-another-key": (
        {"sec_websocket_accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        WRONG_ACCEPT,
    ),
}


@pytest.mark.parametrize(("changes", "reason"), BREAKS_A_RULE.values(), ids=BREAKS_A_RULE.keys())
def test_an_invalid_response(
    codec: ModuleType, changes: dict[str, str | None], reason: str
) -> None:
    request = codec.UpgradeRequest("a.example")
    headers = answer(codec, request, **changes)
    assert refusal(codec, request, 101, headers) == (502, reason, ())


@pytest.mark.both_kernels
def test_a_wrong_accept_value(codec: ModuleType) -> None:
    request = codec.UpgradeRequest("a.example")
    right = codec.accept_key(key_of(request))
    for wrong in (key_of(request), right.swapcase(), right + "=", right[:-1], f'"{right}"'):
        headers = answer(codec, request, sec_websocket_accept=wrong)
        assert refusal(codec, request, 101, headers) == (502, WRONG_ACCEPT, ())


@pytest.mark.parametrize("name", ["Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"])
def test_a_header_that_must_not_be_repeated(codec: ModuleType, name: str) -> None:
    request = codec.UpgradeRequest("a.example", subprotocols=["a"])
    headers = [*answer(codec, request), ("Sec-WebSocket-Protocol", "a")]
    headers.append((name.lower(), dict(headers)[name]))
    reason = f"more than one {name.title()} header"
    assert refusal(codec, request, 101, headers) == (502, reason, ())


@pytest.mark.parametrize("offered", [[], ["a"], ["a", "c"]])
@pytest.mark.parametrize("chosen", ["b", "", "A", "a, c", "a b"])
def test_a_subprotocol_that_was_not_offered(
    codec: ModuleType, chosen: str, offered: list[str]
) -> None:
    request = codec.UpgradeRequest("a.example", subprotocols=offered)
    headers = [*answer(codec, request), ("Sec-WebSocket-Protocol", chosen)]
    assert refusal(codec, request, 101, headers) == (502, NOT_OFFERED, ())


def test_a_server_may_choose_no_subprotocol(codec: ModuleType) -> None:
    request = codec.UpgradeRequest("a.example", subprotocols=["a"])
    assert request.confirm(101, answer(codec, request)).subprotocol is None


# Both halves --------------------------------------------------------------------------------------

BITS = st.integers(9, 15)
SETTINGS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "server_no_context_takeover": st.booleans(),
        "client_no_context_takeover": st.booleans(),
        "server_max_window_bits": BITS,
        "client_max_window_bits": BITS,
        "backend": st.sampled_from(["zlib", "zlib-ng", "isal"]),
    },
)
TOKENS = st.text(st.sampled_from("ab-_1"), min_size=1, max_size=3)


@pytest.mark.slow
@given(
    offered=st.lists(TOKENS, unique=True, max_size=4),
    spoken=st.lists(TOKENS, max_size=4),
    offer=SETTINGS,
    ready=SETTINGS,
    host=st.sampled_from(["a.example", "a.example:8080", "[::1]:80"]),
    scheme=st.sampled_from([None, "http", "https"]),
)
def test_accept_accepts_every_upgrade_request(
    codec: ModuleType,
    offered: list[str],
    spoken: list[str],
    offer: dict[str, Any] | None,
    ready: dict[str, Any] | None,
    host: str,
    scheme: str | None,
) -> None:
    def settings(values: dict[str, Any] | None) -> Any:
        return None if values is None else codec.PerMessageDeflate(**values)

    request = codec.UpgradeRequest(
        host,
        "/x",
        origin=None if scheme is None else f"{scheme}://{host}",
        subprotocols=offered,
        deflate=settings(offer),
        headers={"X-Note": "x"},
    )
    acceptance = codec.accept(sent(request)[1], subprotocols=spoken, deflate=settings(ready))
    status, headers = codec.fields.decode_response(acceptance.encode())
    confirmed = request.confirm(status, headers)
    assert confirmed.headers == acceptance.headers
    chosen = next((item for item in offered if item in spoken), None)
    assert confirmed.subprotocol == acceptance.subprotocol == chosen
    agreed = offer is not None and ready is not None
    assert (confirmed.deflate is not None, acceptance.deflate is not None) == (agreed, agreed)
    if agreed:
        client = codec.Connection(codec.Role.CLIENT, deflate=confirmed.deflate)
        server = codec.Connection(codec.Role.SERVER, deflate=acceptance.deflate)
        for message in ("Hello " * 50, b"Hello " * 500, ""):
            assert client.receive(server.encode(message)) == [message]
            assert server.receive(client.encode(message)) == [message]


def test_the_response_to_another_request_is_rejected(codec: ModuleType) -> None:
    one, other = codec.UpgradeRequest("a.example"), codec.UpgradeRequest("a.example")
    headers = codec.accept(sent(one)[1]).headers
    assert one.confirm(101, headers).headers == headers
    assert refusal(codec, other, 101, headers) == (502, WRONG_ACCEPT, ())
