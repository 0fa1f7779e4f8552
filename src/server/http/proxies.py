"""The headers in which proxies report the client, the scheme and the host of a request.

Any client can send these headers, so they count only from trusted addresses. Each proxy of a chain
appends, on the right, the address that it is connected to. The client is the first address from the
right that is not trusted. Everything to its left may be forged by the client.

``X-Forwarded-For``, ``-Proto`` and ``-Host`` take precedence over ``Forwarded`` (RFC 7239), which
is read only if none of the three is present. Most proxies set the X-Forwarded headers, but do not
change a client's ``Forwarded`` header. ``X-Forwarded-Port`` completes an ``X-Forwarded-Host`` of
the same proxy that has no port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.headers import TOKEN
from wsframe.origins import DEFAULT_PORTS, check_host, split_host

from ..addresses import TrustedNetworks, parse_address

FORWARDING = (
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "Forwarded",
)
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
MAX_PAIRS = 400  # four pairs for each item of a list with the maximum length
# A pair of the Forwarded header (RFC 7239 section 4). Many proxies omit the required quotes around
# an address with a port.
PAIR = re.compile(
    rf'({TOKEN.pattern})=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]+))[ \t]*(?:([;,])[ \t]*|$)'
)
# A node (RFC 7239 section 6), or an IPv6 address without brackets, as in X-Forwarded-For.
PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
# nginx sends "unix:" for a client of a unix socket.
UNKNOWN = re.compile(rf"(?:unknown|_[A-Za-z0-9._-]+){PORT}|unix:", re.IGNORECASE)
PORT_NUMBER = re.compile("[0-9]{1,5}")
MAX_PORT = 65535
NODE = re.compile(rf"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]){PORT}|([0-9A-Fa-f:.]+)")


@dataclass(frozen=True)
class Hop:
    """The values that proxies report about a client; "" for each that is not reported.

    Attributes:
        client: the address of the client.
        scheme: the scheme.
        host: the host, perhaps with its port.
        port: the port of a host that has none.
    """

    client: str = ""
    scheme: str = ""
    host: str = ""
    port: str = ""

    def authority(self, scheme: str) -> str:
        """Any thread: return the host, with its port unless that is the default of the scheme."""
        omitted = self.port in ("", DEFAULT_PORTS.get(scheme))
        return self.host if omitted else f"{self.host.removesuffix(':')}:{self.port}"


class Proxies(TrustedNetworks):
    """The trusted proxies."""

    def resolve(self, fields: Fields) -> Hop:
        """Any thread: return the values that the headers of a request report.

        Args:
            fields: the headers, as a trusted proxy has sent them.

        Returns:
            The address of the client, the scheme, and the host with its port; "" for each of them
            that no trusted proxy reports.

        Raises:
            HandshakeError: 400, because the headers of a proxy are malformed, so that the client
                is unknown.
        """
        client = scheme = host = port = ""
        try:
            for hop in reversed(_x_forwarded(fields) or _forwarded(fields)):
                if hop.scheme:
                    scheme = SCHEMES[hop.scheme.lower()]
                if hop.host:
                    check_host([("Host", hop.host)])
                    host, port = hop.host, _port_of(hop)
                if not hop.client or UNKNOWN.fullmatch(hop.client):
                    break  # the client is at the last known address
                client = _node(hop.client)
                if not self.trust(client):
                    break
        except (KeyError, ValueError, HandshakeError):
            raise HandshakeError(400, "the forwarding headers of the proxy are malformed") from None
        return Hop(client, scheme, host, port)


def _x_forwarded(fields: Fields) -> list[Hop]:
    """Return the hops in the X-Forwarded headers; the last hop is from the nearest proxy."""
    lists = [fields.items(f"x-forwarded-{name}") for name in ("for", "proto", "host")]
    if any(lists):
        lists.append(fields.items("x-forwarded-port"))
    length = max(map(len, lists))
    filled = ([""] * (length - len(items)) + items for items in lists)
    return [Hop(*items) for items in zip(*filled, strict=True)]


def _forwarded(fields: Fields) -> list[Hop]:
    """Return the hops in the Forwarded header (RFC 7239 section 4)."""
    text = ", ".join(fields.items("forwarded"))
    if text.count(";") + text.count("\\") > MAX_PAIRS:
        raise ValueError("the Forwarded header has too many pairs")
    hops: list[Hop] = []
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = PAIR.match(text, position)
        if pair is None or (name := pair[1].lower()) in values:
            raise ValueError("the Forwarded header is malformed")
        values[name] = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
        position = pair.end()
        if pair[4] != ";":
            hops.append(Hop(values.get("for", ""), values.get("proto", ""), values.get("host", "")))
            values = {}
    return hops


def _port_of(hop: Hop) -> str:
    """Return the port that a hop reports for its host; "" if the host has a port."""
    parts = split_host(hop.host)
    if not hop.port or parts is None or parts[1]:
        return ""
    if not PORT_NUMBER.fullmatch(hop.port) or not 0 < int(hop.port) <= MAX_PORT:
        raise ValueError(f"not a port: {hop.port!r}")
    return str(int(hop.port))


def _node(text: str) -> str:
    """Return the address of a node in normal form, without its port."""
    match = NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an IP address: {text!r}")
    return str(parse_address(match[1] or match[2] or match[3]))
