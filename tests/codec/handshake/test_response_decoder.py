"""ResponseDecoder: the response to an opening handshake from its first byte, for any split."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

from tests.support.tools import normals
from tests.support.vectors import RFC_FRAMES

pytestmark = pytest.mark.one_kernel

FRAME = RFC_FRAMES["unmasked-text"].wire
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
FINAL = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX:\r\n folded\r\n\r\n"
HEADERS = (("Upgrade", "websocket"), ("X", "folded"))
NO_HTTP = "the response does not begin with an HTTP/1.1 status line"


def outcome(codec: ModuleType, data: bytes, cuts: Iterable[int], /, **limits: int) -> Any:
    """Return the status, the headers and the bytes after the head; or the status and reason."""
    decoder = codec.ResponseDecoder(**limits)
    begin = 0
    try:
        for end in (*cuts, len(data)):
            head = decoder.receive(data[begin:end])
            if head is not None:
                return head.status, head.headers, decoder.rest + data[end:]
            begin = end
    except codec.HandshakeError as error:
        return error.status, error.reason
    assert decoder.rest == b""
    return None


def result(codec: ModuleType, data: bytes, **limits: int) -> Any:
    """Return the outcome, which is the same for any split."""
    whole = outcome(codec, data, (), **limits)
    assert outcome(codec, data, range(1, len(data)), **limits) == whole
    for cut in range(1, min(len(data), 500)):
        assert outcome(codec, data, [cut], **limits) == whole
    return whole


def test_a_response_is_the_same_for_every_split(codec: ModuleType) -> None:
    assert result(codec, FINAL + FRAME) == (101, HEADERS, FRAME)
    refused = b"HTTP/1.0 404 Not Found\r\nContent-Length: 4\r\n\r\nbody"
    assert result(codec, refused) == (404, (("Content-Length", "4"),), b"body")


def test_interim_responses_are_skipped(codec: ModuleType) -> None:
    assert result(codec, INTERIM + FINAL + FRAME) == (101, HEADERS, FRAME)
    assert result(codec, INTERIM) is None
    assert result(codec, INTERIM + FINAL[:-1]) is None


def test_a_handshake_without_sockets(codec: ModuleType) -> None:
    request, decoder = codec.UpgradeRequest("a.example"), codec.ResponseDecoder()
    acceptance = codec.RequestDecoder().receive(request.encode()).accept()
    head = decoder.receive(acceptance.encode() + FRAME)
    assert request.confirm(head.status, head.headers).headers == acceptance.headers
    connection = codec.Connection(codec.Role.CLIENT)
    assert normals(connection.receive(decoder.rest)) == ["Hello"]
    with pytest.raises(codec.StateError, match=r"pass these bytes to Connection\.receive\(\)"):
        decoder.receive(b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", NO_HTTP),
        (b"\r\n\r\n", NO_HTTP),
        (b"HTTP/1.0 101 x\r\n\r\n", NO_HTTP),
        (INTERIM + b"GET / HTTP/1.1\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 101 x\r\nno colon\r\n\r\n", "a header of the response is malformed"),
        (b"HTTP/1.1 101 x\r\na : b\r\n\r\n", "a header of the response is malformed"),
    ],
)
def test_a_malformed_response_is_refused(codec: ModuleType, data: bytes, reason: str) -> None:
    assert result(codec, data) == (502, reason)
    assert result(codec, data + FRAME) == (502, reason)
    decoder = codec.ResponseDecoder()
    for more in (data, b"", FINAL):
        with pytest.raises(codec.HandshakeError, match=reason):
            decoder.receive(more)


@pytest.mark.parametrize("data", [FINAL, INTERIM + FINAL])
def test_all_heads_together_have_a_maximum_size(codec: ModuleType, data: bytes) -> None:
    size = len(data)
    assert result(codec, data + FRAME, max_head_size=size)[0] == 101
    expected = (502, f"the response head exceeds the limit of {size - 1} bytes")
    assert result(codec, data, max_head_size=size - 1) == expected
    assert result(codec, data + FRAME, max_head_size=size - 1) == expected


def test_the_default_limit(codec: ModuleType) -> None:
    assert outcome(codec, b"HTTP/1.1 101 x\r\na: " + b"b" * 16365, ()) is None
    assert outcome(codec, b"HTTP/1.1 101 x\r\na: " + b"b" * 16366, ())[0] == 502


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("data", [b"HTTP/1.1 101 " + b"a" * 300_000, INTERIM * 10_000])
def test_single_bytes_are_read_in_linear_time(codec: ModuleType, data: bytes) -> None:
    # With quadratic time this would copy 45 GB or more.
    decoder = codec.ResponseDecoder(max_head_size=2_000_000)
    for begin in range(len(data)):
        decoder.receive(data[begin : begin + 1])
