"""What proxies say of a request: who asks, how, and for which host.

Anybody can send these headers, so they count only from addresses that are trusted. Each proxy of a
chain adds at the right what it sees. The client is the first from there that is not trusted itself:
what stands to the left of it, that client may have made up.

``X-Forwarded-For``, ``-Proto`` and ``-Host`` come before ``Forwarded`` (RFC 7239), which is looked
at where none of the three is there. For most proxies set the former, and pass the latter on as it
came from whomever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsframe import HandshakeError
from wsframe.fields import TOKEN, Fields
from wsframe.origins import check_host

from ..addresses import TrustedNetworks, parse_address

FORWARDING = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded")
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# RFC 7239 section 4. An address with a port is often seen without the quotes that its colon needs.
MAX_PAIRS = 400  # four for each of the items that a list may have
PAIR = re.compile(
    rf'({TOKEN.pattern})=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]+))[ \t]*(?:([;,])[ \t]*|$)'
)
# RFC 7239 section 6, and an IPv6 address without brackets, as X-Forwarded-For has it.
PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
# "unix:" is what nginx sends for a client that has come through a unix socket.
UNKNOWN = re.compile(rf"(?:unknown|_[A-Za-z0-9._-]+){PORT}|unix:", re.IGNORECASE)
NODE = re.compile(rf"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]){PORT}|([0-9A-Fa-f:.]+)")


@dataclass(frozen=True)
class Hop:
    """What one proxy says of who has connected to it; "" where it does not."""

    client: str = ""
    scheme: str = ""
    host: str = ""


class Proxies(TrustedNetworks):
    """The proxies that are trusted."""

    def resolve(self, fields: Fields) -> Hop:
        """Any thread: return what the headers of a request state about its client.

        Args:
            fields: the headers, as a trusted proxy has sent them.

        Returns:
            The address of the client, the scheme, and the host that it has addressed; "" for each
            of them that no trusted proxy has reported.

        Raises:
            HandshakeError: 400; what one of the proxies has sent is malformed, so that the client
                is unknown.
        """
        client = scheme = host = ""
        try:
            for hop in reversed(_x_forwarded(fields) or _forwarded(fields)):
                if hop.scheme:
                    scheme = SCHEMES[hop.scheme.lower()]
                if hop.host:
                    check_host([("Host", hop.host)])
                    host = hop.host
                if not hop.client or UNKNOWN.fullmatch(hop.client):
                    break  # the last address that is known is the client's
                client = _node(hop.client)
                if not self.trust(client):
                    break
        except (KeyError, ValueError, HandshakeError):
            raise HandshakeError(400, "what the proxy says of the client is malformed") from None
        return Hop(client, scheme, host)


def _x_forwarded(fields: Fields) -> list[Hop]:
    """The headers that are no standard: lists, which end at the right with the nearest proxy."""
    lists = [fields.items(f"x-forwarded-{name}") for name in ("for", "proto", "host")]
    length = max(map(len, lists))
    filled = ([""] * (length - len(items)) + items for items in lists)
    return [Hop(*said) for said in zip(*filled, strict=True)]


def _forwarded(fields: Fields) -> list[Hop]:
    """RFC 7239 section 4."""
    text = ", ".join(fields.items("forwarded"))
    if text.count(";") + text.count("\\") > MAX_PAIRS:
        raise ValueError("more than any chain of proxies has to tell")
    hops: list[Hop] = []
    said: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = PAIR.match(text, position)
        if pair is None or (name := pair[1].lower()) in said:
            raise ValueError("not a pair, or the second of its name")
        said[name] = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
        position = pair.end()
        if pair[4] != ";":
            hops.append(Hop(said.get("for", ""), said.get("proto", ""), said.get("host", "")))
            said = {}
    return hops


def _node(text: str) -> str:
    """An address in its normal form, without a port."""
    match = NODE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an address: {text!r}")
    return str(parse_address(match[1] or match[2] or match[3]))
