"""RequestDecoder: a request from its first byte, for any split (RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.handshake.helpers import REQUEST
from tests.support.tools import normals
from tests.support.vectors import RFC_ACCEPT, RFC_FRAMES

pytestmark = pytest.mark.one_kernel

HEAD = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    + b"".join(f"{name}: {value}\r\n".encode() for name, value in REQUEST)
    + b"\r\n"
)
FRAMES = RFC_FRAMES["masked-text"].wire + b"\r\n\r\nGET"


def decoded(decoder: Any, data: bytes, cuts: Iterable[int] = ()) -> tuple[Any, bytes]:
    """Return the head, and all bytes after it; data after the head is not passed on."""
    begin = 0
    for end in (*cuts, len(data)):
        head = decoder.receive(data[begin:end])
        if head is not None:
            return head, decoder.rest + data[end:]
        begin = end
    return None, b""


def outcome(codec: ModuleType, data: bytes, cuts: Iterable[int] = (), /, **limits: int) -> Any:
    """Return the head and the rest; or the status, reason and headers of the error."""
    try:
        return decoded(codec.RequestDecoder(**limits), data, cuts)
    except codec.HandshakeError as error:
        return error.status, error.reason, error.headers


def refused(codec: ModuleType, data: bytes, **limits: int) -> Any:
    """Return the status and reason of the error; it is the same for any split of these bytes."""
    whole = outcome(codec, data, **limits)
    assert outcome(codec, data, range(1, len(data)), **limits) == whole
    if len(data) < 2000:
        for cut in range(1, len(data)):
            assert outcome(codec, data, [cut], **limits) == whole
    status, reason, headers = whole
    assert headers == ()
    return status, reason


# Heads --------------------------------------------------------------------------------------------


def test_a_request_is_the_same_for_every_split(codec: ModuleType) -> None:
    data = HEAD + FRAMES
    whole, rest = decoded(codec.RequestDecoder(), data)
    assert (whole.method, whole.target, whole.http_version) == ("GET", "/chat?room=1", "1.1")
    assert (whole.path, whole.query, whole.authority) == ("/chat", "room=1", None)
    assert whole.headers == tuple(REQUEST)
    assert rest == FRAMES
    for cut in range(1, len(data)):
        assert decoded(codec.RequestDecoder(), data, [cut]) == (whole, FRAMES)
    assert decoded(codec.RequestDecoder(), data, range(1, len(data))) == (whole, FRAMES)


def test_the_frames_behind_a_head_belong_to_the_connection(codec: ModuleType) -> None:
    decoder = codec.RequestDecoder()
    head = decoder.receive(HEAD + RFC_FRAMES["masked-text"].wire)
    acceptance = head.accept(subprotocols=["chat"], headers=[(b"X-A", b"1")])
    assert acceptance.headers[2:] == (("Sec-WebSocket-Accept", RFC_ACCEPT), ("X-A", "1"))
    connection = codec.Connection(codec.Role.SERVER)
    assert normals(connection.receive(decoder.rest)) == ["Hello"]
    with pytest.raises(codec.StateError, match=r"pass these bytes to Connection\.receive\(\)"):
        decoder.receive(b"")
    assert decoder.rest == RFC_FRAMES["masked-text"].wire


def test_the_request_of_the_client_is_decoded(codec: ModuleType) -> None:
    request = codec.UpgradeRequest("a.example:8080", "/x?y", headers={"Cookie": "a=b"})
    head = codec.RequestDecoder().receive(request.encode())
    assert (head.path, head.query) == ("/x", "y")
    answer = head.accept()
    assert request.confirm(101, answer.headers).headers == answer.headers


def test_the_buffer_may_be_reused(codec: ModuleType) -> None:
    decoder = codec.RequestDecoder()
    buffer = bytearray(7)
    for begin in range(0, len(HEAD) - 7, 7):
        buffer[:] = HEAD[begin : begin + 7]
        assert decoder.receive(memoryview(buffer)) is None
        buffer[:] = b"\xff" * 7
    buffer[:] = b""  # BufferError if the buffer is still exported
    left = HEAD[begin + 7 :]
    assert decoder.receive(bytearray(left)).headers == tuple(REQUEST)


@pytest.mark.parametrize("data", ["GET", None, 5])
def test_another_type_is_an_error_and_changes_nothing(codec: ModuleType, data: Any) -> None:
    decoder = codec.RequestDecoder()
    decoder.receive(HEAD[:40])
    with pytest.raises(TypeError, match=r"^data must be a C-contiguous bytes-like object, not "):
        decoder.receive(data)
    assert decoder.receive(b"") is None
    assert decoder.receive(HEAD[40:]).headers == tuple(REQUEST)


VALID: dict[str, tuple[bytes, tuple[str, str, str, str | None]]] = {
    "shortest": (b"GET / HTTP/1.1\r\n\r\n", ("GET", "/", "1.1", None)),
    "blank-line-first": (b"\r\nGET / HTTP/1.1\r\n\r\n", ("GET", "/", "1.1", None)),
    "http-1.0": (b"GET / HTTP/1.0\r\n\r\n", ("GET", "/", "1.0", None)),
    "higher-minor-version": (b"GET / HTTP/1.7\r\n\r\n", ("GET", "/", "1.1", None)),
    "any-method": (b"M-SEARCH~ / HTTP/1.1\r\n\r\n", ("M-SEARCH~", "/", "1.1", None)),
    "double-slash": (b"GET //a HTTP/1.1\r\n\r\n", ("GET", "//a", "1.1", None)),
    "absolute": (b"GET http://a.example HTTP/1.1\r\n\r\n", ("GET", "/", "1.1", "a.example")),
    "absolute-path": (b"GET WSS://a:1/b HTTP/1.1\r\n\r\n", ("GET", "/b", "1.1", "a:1")),
    "absolute-query": (b"GET ws://a?/b HTTP/1.1\r\n\r\n", ("GET", "/", "1.1", "a")),
}


@pytest.mark.parametrize(("data", "expected"), VALID.values(), ids=VALID)
def test_a_valid_request_line(codec: ModuleType, data: bytes, expected: Any) -> None:
    for cuts in ((), range(1, len(data))):
        head, _ = decoded(codec.RequestDecoder(), data, cuts)
        assert (head.method, head.path, head.http_version, head.authority) == expected
        assert head.target == data.split()[1].decode()


def test_headers_are_stripped_and_keep_their_order(codec: ModuleType) -> None:
    lines = b"a: 1\r\nB:2 \r\na:\t 3 4\t\r\nEmpty:\r\nLatin: caf\xe9\x80\r\nColon: a:b\r\n\r\n"
    head, _ = decoded(codec.RequestDecoder(), b"GET / HTTP/1.1\r\n" + lines)
    assert head.headers == (
        *(("a", "1"), ("B", "2"), ("a", "3 4"), ("Empty", "")),
        *(("Latin", "caf\xe9\x80"), ("Colon", "a:b")),
    )


# Refusals -----------------------------------------------------------------------------------------

LINE, FIELD = "the request line is malformed", "a header of the request is malformed"
CONTROL, ENDING = (
    "the request contains a control character",
    "a line of the request does not end with CR LF",
)
VERSION = "unsupported HTTP version: use HTTP/1.1"
FORM = "the request target must be a path or a URL of this server"

MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "two-blank-lines": (b"\r\n\r\n", 400, LINE),
    "words": (b"hello\r\n", 400, LINE),
    "two-spaces": (b"GET  / HTTP/1.1\r\n", 400, LINE),
    "space-first": (b" GET / HTTP/1.1\r\n", 400, LINE),
    "space-last": (b"GET / HTTP/1.1 \r\n", 400, LINE),
    "tab": (b"GET\t/ HTTP/1.1\r\n", 400, LINE),
    "method": (b"G@T / HTTP/1.1\r\n", 400, LINE),
    "fragment": (b"GET /a#b HTTP/1.1\r\n", 400, LINE),
    "target-not-in-ascii": (b"GET /\xc3\xa9 HTTP/1.1\r\n", 400, LINE),
    "lower-case-version": (b"GET / http/1.1\r\n", 400, LINE),
    "long-version": (b"GET / HTTP/1.10\r\n", 400, LINE),
    "http-0.9": (b"GET /\r\n", 505, VERSION),
    "http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, VERSION),
    "http-0.1": (b"GET / HTTP/0.1\r\n", 505, VERSION),
    "asterisk": (
        b"OPTIONS * HTTP/1.1\r\n",
        400,
        "the request target * (asterisk-form) is not supported",
    ),
    "authority-form": (b"CONNECT a.example:443 HTTP/1.1\r\n", 400, FORM),
    "another-scheme": (b"GET ftp://a.example/ HTTP/1.1\r\n", 400, FORM),
    "user-in-the-target": (b"GET http://u@a.example/ HTTP/1.1\r\n", 400, FORM),
    "malformed-authority": (b"GET http://a:b/ HTTP/1.1\r\n", 400, "the Host header is malformed"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00", 400, CONTROL),
    "nul-in-the-line": (b"GET /\x00", 400, CONTROL),
    "line-feed-alone": (b"GET / HTTP/1.1\n", 400, ENDING),
    "line-feed-first": (b"\n", 400, ENDING),
    "carriage-return-inside": (b"GET / HTTP/1.1\r\r\n", 400, LINE),
    **{
        f"header-{line!r}": (b"GET / HTTP/1.1\r\nHost: a\r\n" + line, 400, reason)
        for line, reason in (
            (b"no colon\r\n", FIELD),
            (b": no name\r\n", FIELD),
            (b"space : before\r\n", FIELD),
            (b" folded: x\r\n", FIELD),
            (b"\tfolded\r\n", FIELD),
            (b"n\xc3\xa9e: x\r\n", FIELD),
            (b"(a): x\r\n", FIELD),
            (b"a: b\rc\r\n", FIELD),
            (b"a: b\r\r\n", FIELD),
            (b"a: b\n", ENDING),
            (b"\n", ENDING),
            (b"\r\r\n", FIELD),
            (b"a: b\x00", CONTROL),
            (b"a: \x7f", CONTROL),
            (b"a b: \x0b", CONTROL),
        )
    },
}


@pytest.mark.parametrize(("data", "status", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_at_once(
    codec: ModuleType, data: bytes, status: int, reason: str
) -> None:
    assert refused(codec, data) == (status, reason)
    assert refused(codec, data + b"\x00 anything\r\n\r\n") == (status, reason)


def test_the_error_is_raised_again_for_further_bytes(codec: ModuleType) -> None:
    decoder = codec.RequestDecoder()
    for data in (b"\x16\x03", b"", HEAD):
        with pytest.raises(codec.HandshakeError) as caught:
            decoder.receive(data)
        assert (caught.value.status, caught.value.reason) == (400, CONTROL)
    assert decoder.rest == b""


def test_a_refusal_keeps_no_data(codec: ModuleType) -> None:
    decoder, data = codec.RequestDecoder(), bytearray(b"\x16\x03")
    with pytest.raises(codec.HandshakeError) as caught:
        decoder.receive(data)
    data.clear()  # BufferError if the data is still exported
    assert caught.value.reason == CONTROL


def test_an_error_can_be_sent_as_the_response(codec: ModuleType) -> None:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.RequestDecoder().receive(b"GET /\r\n")
    assert caught.value.encode().startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")


# Limits -------------------------------------------------------------------------------------------


INCOMPLETE = (None, b"")


@pytest.mark.parametrize("size", [18, 60, 20_000])
def test_the_head_has_a_maximum_size(codec: ModuleType, size: int) -> None:
    line, field = b"GET / HTTP/1.1\r\n", b"a: " + b"b" * (size - 23) + b"\r\n"
    head = line + (field if size > 18 else b"") + b"\r\n"
    assert len(head) == size
    for cuts in ((), range(1, size)):
        assert outcome(codec, head + FRAMES, cuts, max_head_size=size)[1] == FRAMES
    expected = (431, f"the request head exceeds {size - 1} bytes")
    assert refused(codec, head, max_head_size=size - 1) == expected
    assert refused(codec, head + FRAMES * 100, max_head_size=size - 1) == expected


def test_a_request_line_over_the_limit_is_a_long_target(codec: ModuleType) -> None:
    # RFC 9112 section 3
    expected = (414, "the request line exceeds 100 bytes")
    assert refused(codec, b"GET /" + b"a" * 96, max_head_size=100) == expected
    assert refused(codec, b"\r\n" + b"G" * 99, max_head_size=100) == expected
    assert outcome(codec, b"GET /" + b"a" * 95, max_head_size=100) == INCOMPLETE


def test_a_control_character_within_the_limit_comes_first(codec: ModuleType) -> None:
    data = b"GET /" + b"\x00" + b"a" * 200 + b" HTTP/1.1\r\n"
    assert refused(codec, data, max_head_size=100) == (400, CONTROL)
    data = b"GET /" + b"a" * 200 + b"\x00"
    assert refused(codec, data, max_head_size=100)[0] == 414


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_headers_have_a_maximum_number(codec: ModuleType, limit: int) -> None:
    lines = [b"GET / HTTP/1.1\r\n", *(b"a: %d\r\n" % number for number in range(limit))]
    fits = b"".join([*lines, b"\r\n"])
    assert len(decoded(codec.RequestDecoder(max_headers=limit), fits)[0].headers) == limit
    over = b"".join([*lines, b"malformed\r\n"])
    reason = f"the request has more than {limit} headers"
    assert refused(codec, over, max_headers=limit) == (431, reason)


def test_the_path_has_a_maximum_size(codec: ModuleType) -> None:
    def line(target: str) -> bytes:
        return f"GET {target} HTTP/1.1\r\n\r\n".encode()

    for target in ("/" + "a" * 9, "/" + "a" * 9 + "?" + "b" * 50, "http://long.example/" + "a" * 9):
        assert decoded(codec.RequestDecoder(max_path_size=10), line(target))[0].target == target
    for target in ("/" + "a" * 10, "http://a/" + "a" * 10 + "?b"):
        expected = (414, "the path exceeds 10 bytes")
        assert refused(codec, line(target), max_path_size=10) == expected


def test_the_default_limits(codec: ModuleType) -> None:
    assert outcome(codec, b"GET /" + b"a" * 2048 + b" HTTP/1.1\r\n")[0] == 414
    assert outcome(codec, b"GET /" + b"a" * 2047 + b" HTTP/1.1\r\n") == INCOMPLETE
    assert outcome(codec, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101)[0] == 431
    assert outcome(codec, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100) == INCOMPLETE
    assert outcome(codec, b"GET / HTTP/1.1\r\na: " + b"b" * 16365) == INCOMPLETE
    assert outcome(codec, b"GET / HTTP/1.1\r\na: " + b"b" * 16366)[0] == 431


@pytest.mark.parametrize("name", ["max_head_size", "max_headers", "max_path_size"])
def test_a_limit_is_at_least_one(codec: ModuleType, name: str) -> None:
    codec.RequestDecoder(**{name: 1})
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, not 0$"):
        codec.RequestDecoder(**{name: 0})
    with pytest.raises(TypeError, match=f"^{name} must be an integer, not str$"):
        codec.RequestDecoder(**{name: "1"})


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "line", [b"GET /" + b"a" * 300_000, b"GET / HTTP/1.1\r\na:" + b" " * 300_000]
)
def test_single_bytes_are_read_in_linear_time(codec: ModuleType, line: bytes) -> None:
    # With quadratic time this would copy 45 GB.
    decoder = codec.RequestDecoder(max_head_size=2_000_000, max_path_size=2_000_000)
    for begin in range(len(line)):
        decoder.receive(line[begin : begin + 1])


# Acceptance ---------------------------------------------------------------------------------------


def accepted(codec: ModuleType, line: bytes, *headers: tuple[str, str], **options: Any) -> Any:
    """Return the result of accepting a request, or its status and reason."""
    fields = b"".join(f"{name}: {value}\r\n".encode() for name, value in (*REQUEST, *headers))
    head = codec.RequestDecoder().receive(line + b"\r\n" + fields + b"\r\n")
    try:
        return head.accept(**options)
    except codec.HandshakeError as error:
        return error.status, error.reason


def test_method_and_version_are_checked(codec: ModuleType) -> None:
    reason = "this resource is a WebSocket: an upgrade is required"
    assert accepted(codec, b"GET / HTTP/1.0") == (426, reason)
    reason = "a WebSocket handshake must use GET"
    assert accepted(codec, b"POST / HTTP/1.1") == (405, reason)
    assert accepted(codec, b"GET / HTTP/1.9").subprotocol is None


def test_options_are_passed_on(codec: ModuleType) -> None:
    acceptance = accepted(
        codec,
        b"GET / HTTP/1.1",
        ("Sec-WebSocket-Protocol", "a, chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Origin", "https://b.example"),
        subprotocols=["chat"],
        origins=["https://b.example"],
        deflate=codec.PerMessageDeflate(),
        headers={"X-A": "1"},
    )
    assert acceptance.subprotocol == "chat"
    assert acceptance.deflate == codec.PerMessageDeflate()
    assert acceptance.headers[-1] == ("X-A", "1")


def test_the_authority_of_the_target_replaces_the_host(codec: ModuleType) -> None:
    # RFC 9112 section 3.2.2
    origin = ("Origin", "https://proxied.example")
    foreign = (403, "this Origin is not allowed")
    assert accepted(codec, b"GET / HTTP/1.1", origin) == foreign
    acceptance = accepted(codec, b"GET http://proxied.example/ HTTP/1.1", origin)
    assert acceptance.subprotocol is None
    own = ("Origin", "https://server.example.com")
    assert accepted(codec, b"GET http://proxied.example/ HTTP/1.1", own) == foreign


def test_the_authority_of_the_target_is_no_excuse_for_a_malformed_host(codec: ModuleType) -> None:
    for host, reason in (("", "no Host header"), ("Host: a b\r\n", "the Host header is malformed")):
        wire = f"GET http://a.example/ HTTP/1.1\r\n{host}\r\n".encode()
        with pytest.raises(codec.HandshakeError, match=reason):
            codec.RequestDecoder().receive(wire).accept()


# Any bytes ----------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"\r", b"\n"),
        *(b"Host: a\r\n", b"a", b": ", b"b\r\n", b" ", b"\t", b"\x00", b"\xff", b"x" * 50, b"?"),
    ]
)


@pytest.mark.slow
@given(
    pieces=st.lists(PIECES | st.binary(max_size=5), max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "max_head_size": st.integers(1, 120),
            "max_headers": st.integers(1, 4),
            "max_path_size": st.integers(1, 60),
        },
    ),
)
def test_any_bytes_have_the_same_result_for_any_split(
    codec: ModuleType, pieces: list[bytes], cuts: list[int], limits: dict[str, int]
) -> None:
    data = b"".join(pieces)

    whole = outcome(codec, data, **limits)
    at = sorted(min(cut, len(data)) for cut in cuts)
    assert outcome(codec, data, at, **limits) == whole
    assert outcome(codec, data, range(1, len(data)), **limits) == whole
