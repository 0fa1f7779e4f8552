"""PROXY headers, in which a proxy sends its client's address at the beginning of a connection.

See https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from ..addresses import parse_address

__all__ = ["MAX_SIZE", "ProxyHeader", "begins_with_header", "decode_header"]

#: An address and a port, as the socket module returns them.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"

# The maximum size of a header, in bytes. Version 2 allows 64 KiB, but proxies rarely send over 1
# KiB.
MAX_SIZE = 4 * 1024
# The maximum size of a version 1 header with its line end, in bytes.
MAX_LINE = 107
MAX_PORT = 65535
NAME = b"PROXY "
END_OF_LINE = b"\r\n"
ADDRESS, PORT = rb"([0-9A-Fa-f.:]+)", rb"(0|[1-9][0-9]{0,4})"
LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|(TCP[46]) %b %b %b %b)" % (ADDRESS, ADDRESS, PORT, PORT), re.DOTALL
)
# Version 2: the signature, version and command, family and transport, and the size of the rest.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED = struct.Struct("!BBH")
FIXED_SIZE = len(SIGNATURE) + FIXED.size
LOCAL, PROXY = 0x20, 0x21
# The form of the source address and port, by family and transport. Unix sockets have paths instead.
UNSPECIFIED, UNIX = struct.Struct(""), struct.Struct("216x")
IPV4, IPV6 = struct.Struct("!4s4xH2x"), struct.Struct("!16s16xH2x")
FAMILIES = {
    0x00: UNSPECIFIED,
    **dict.fromkeys((0x11, 0x12), IPV4),
    **dict.fromkeys((0x21, 0x22), IPV6),
    **dict.fromkeys((0x31, 0x32), UNIX),
}


@dataclass(frozen=True)
class ProxyHeader:
    """A complete PROXY header.

    Attributes:
        size: the size of the header in bytes.
        address: the address of the client, as the socket module returns it. None if the connection
            is one of the proxy itself, such as a check of the server, or if the proxy does not
            report an address.
    """

    size: int
    address: Address | None


def begins_with_header(data: bytes | bytearray) -> bool:
    """Any thread: return True if the data begins like a PROXY header."""
    return data.startswith((NAME, SIGNATURE))


def decode_header(data: bytearray) -> ProxyHeader | None:
    """Any thread: decode the PROXY header at the beginning of the data; None if incomplete.

    Args:
        data: all bytes that were received.

    Raises:
        ValueError: the data does not begin with a valid header of at most ``MAX_SIZE`` bytes. The
            message is for the log.
    """
    if data.startswith(SIGNATURE):
        return _decode_binary(data)
    if data.startswith(NAME):
        return _decode_line(data)
    if SIGNATURE.startswith(data) or NAME.startswith(data):
        return None
    raise ValueError("the data does not begin with a header")


def _decode_line(data: bytearray) -> ProxyHeader | None:
    """Decode a header of version 1, which is a line of text."""
    end = data.find(END_OF_LINE, 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise ValueError(f"the line exceeds {MAX_LINE} bytes")
        return None
    size = end + len(END_OF_LINE)
    match = LINE.fullmatch(data, 0, end)
    if match is None:
        raise ValueError("the line is malformed")
    if match[1] is None:
        return ProxyHeader(size, None)
    kind = IPv4Address if match[1] == b"TCP4" else IPv6Address
    return ProxyHeader(size, _in_line(kind, *map(bytes.decode, match.group(2, 3, 4, 5))))


def _in_line(
    kind: type[IPv4Address] | type[IPv6Address], source: str, target: str, *ports: str
) -> Address:
    try:
        addresses = kind(source), kind(target)
    except ValueError as error:
        raise ValueError(f"an address is malformed: {error}") from None
    port, other = map(int, ports)
    if max(port, other) > MAX_PORT:
        raise ValueError(f"a port exceeds {MAX_PORT}")
    return _address(addresses[0], port)


def _decode_binary(data: bytearray) -> ProxyHeader | None:
    """Decode a header of version 2, which is binary."""
    if len(data) < FIXED_SIZE:
        return None
    command, family, more = FIXED.unpack_from(data, len(SIGNATURE))
    if command not in (LOCAL, PROXY):
        raise ValueError(f"the version and command 0x{command:02x} are unknown")
    layout = UNSPECIFIED if command == LOCAL else FAMILIES.get(family)
    if layout is None:
        raise ValueError(f"the address family and transport 0x{family:02x} are unknown")
    size = FIXED_SIZE + more
    if size > MAX_SIZE:
        raise ValueError(f"the header's size of {size} bytes exceeds {MAX_SIZE}")
    if more < layout.size:
        raise ValueError(f"the header's size of {size} bytes is too small for its addresses")
    if len(data) < size:
        return None
    values = layout.unpack_from(data, FIXED_SIZE)
    return ProxyHeader(size, _address(ip_address(values[0]), values[1]) if values else None)


def _address(source: IPv4Address | IPv6Address, port: int) -> Address:
    """Return an address in the form of the socket module; IPv4-mapped IPv6 becomes IPv4."""
    text = str(parse_address(str(source)))
    return (text, port, 0, 0) if ":" in text else (text, port)
