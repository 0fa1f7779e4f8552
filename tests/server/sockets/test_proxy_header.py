"""PROXY headers: their decoding, for any split of their bytes."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframe.server.sockets.proxy_header import (
    MAX_LINE,
    MAX_SIZE,
    SIGNATURE,
    ProxyHeader,
    begins_with_header,
    decode_header,
)


def binary(command: int, family: int, more: bytes, size: int | None = None) -> bytes:
    """Return a header of version 2 with these bytes after the fixed ones."""
    size = len(more) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, family, size) + more


def inet(source: str, target: str, ports: tuple[int, int] = (4711, 443)) -> bytes:
    """Return the addresses of a header of version 2."""
    packed = [ip_address(address).packed for address in (source, target)]
    return b"".join(packed) + struct.pack("!HH", *ports)


V4 = inet("203.0.113.7", "198.51.100.1")
V6 = inet("2001:db8::7", "2001:db8::1")
MAPPED = inet("::ffff:203.0.113.7", "::ffff:198.51.100.1")
TLV = b"\x04\x00\x03abc"
CLIENT = ("203.0.113.7", 4711)
CLIENT_V6 = ("2001:db8::7", 4711, 0, 0)
LONGEST = b"PROXY UNKNOWN " + b"f" * (MAX_LINE - 16) + b"\r\n"

HEADERS: dict[bytes, Any] = {
    b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n": CLIENT,
    b"PROXY TCP4 203.0.113.7 198.51.100.1 0 65535\r\n": ("203.0.113.7", 0),
    b"PROXY TCP6 2001:DB8:0::7 2001:db8::1 4711 443\r\n": CLIENT_V6,
    b"PROXY TCP6 " + b" ".join([b"ffff" + b":ffff" * 7] * 2) + b" 65535 65535\r\n": (
        "ffff" + ":ffff" * 7,
        65535,
        0,
        0,
    ),
    b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n": CLIENT,
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN anything\r\x00\n at all\r\n": None,
    LONGEST: None,
    binary(0x21, 0x11, V4): CLIENT,
    binary(0x21, 0x12, V4): CLIENT,
    binary(0x21, 0x11, V4 + TLV): CLIENT,
    binary(0x21, 0x11, V4 + bytes(MAX_SIZE - 16 - len(V4))): CLIENT,
    binary(0x21, 0x21, V6): CLIENT_V6,
    binary(0x21, 0x22, V6 + TLV): CLIENT_V6,
    binary(0x21, 0x21, MAPPED): CLIENT,
    binary(0x21, 0x31, bytes(216)): None,
    binary(0x21, 0x32, bytes(216) + TLV): None,
    binary(0x21, 0x00, b""): None,
    binary(0x21, 0x00, TLV): None,
    binary(0x20, 0x00, b""): None,
    binary(0x20, 0x11, V4): None,
    binary(0x20, 0xFF, TLV): None,
}


@pytest.mark.parametrize("data", HEADERS, ids=lambda data: ascii(data[:30]))
def test_a_header_is_decoded_once_its_last_byte_has_arrived(data: bytes) -> None:
    for size in range(len(data)):
        assert decode_header(bytearray(data[:size])) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", data):
        header = decode_header(bytearray(data + rest))
        assert header == ProxyHeader(len(data), HEADERS[data])
    assert begins_with_header(data)


MALFORMED: dict[bytes, str] = {
    b"GET / HTTP/1.1\r\n\r\n": "does not begin with a header",
    b"\x16\x03\x01": "does not begin with a header",
    b"\r\n\r\n\r\n": "does not begin with a header",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n": "does not begin with a header",
    b"PROXY\r\n": "does not begin with a header",
    b"PROXY \r\n": "the line is malformed",
    b"PROXY UNKNOWNS\r\n": "the line is malformed",
    b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n": "the line is malformed",
    b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n": "the line is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n": "a port exceeds 65535",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n": "a port exceeds 65535",
    b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n": "an address is malformed",
    b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n": "an address is malformed",
    b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n": "an address is malformed",
    b"PROXY TCP4 ::1 ::1 1 1\r\n": "an address is malformed",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n": "an address is malformed",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n": "the line is malformed",
    b"PROXY UNKNOWN " + b"f" * (MAX_LINE - 15) + b"\r\n": "the line exceeds 107 bytes",
    b"PROXY " + b"x" * 16_000: "the line exceeds 107 bytes",
    binary(0x11, 0x11, V4): "the version and command 0x11 are unknown",
    binary(0x31, 0x11, V4): "the version and command 0x31 are unknown",
    binary(0x22, 0x11, V4): "the version and command 0x22 are unknown",
    binary(0x21, 0x01, V4): "transport 0x01 are unknown",
    binary(0x21, 0x10, V4): "transport 0x10 are unknown",
    binary(0x21, 0x13, V4): "transport 0x13 are unknown",
    binary(0x21, 0x41, V4): "transport 0x41 are unknown",
    binary(0x21, 0x11, V4[:-1]): "the header's size of 27 bytes is too small",
    binary(0x21, 0x21, V4): "the header's size of 28 bytes is too small",
    binary(0x21, 0x31, bytes(215)): "the header's size of 231 bytes is too small",
    binary(0x21, 0x11, V4, MAX_SIZE - 15): "the header's size of 4097 bytes exceeds 4096",
    binary(0x20, 0x00, b"", 65535): "the header's size of 65551 bytes exceeds 4096",
}


@pytest.mark.parametrize("data", MALFORMED, ids=lambda data: ascii(data[:40]))
def test_a_malformed_header_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=MALFORMED[data]):
        decode_header(bytearray(data))


def test_a_fault_is_found_before_the_header_is_complete() -> None:
    for data in (b"GET", b"PROXIES", binary(0x21, 0x11, b"", 65535), binary(0x2F, 0x11, b"", 12)):
        with pytest.raises(ValueError, match=r"unknown|exceeds|begin"):
            decode_header(bytearray(data))


PIECES = st.lists(
    st.sampled_from([SIGNATURE, b"PROXY ", b"TCP4 ", b"1.2.3.4 ", b"1 ", b"\r\n", b"\x21\x11"])
    | st.binary(max_size=20)
)


@given(PIECES.map(b"".join))
def test_any_data_is_a_header_or_incomplete_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        header = decode_header(bytearray(data))
        assert header is None or 0 < header.size <= len(data)
