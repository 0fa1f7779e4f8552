"""The hosts that a server answers to: protection against DNS rebinding.

The owner of a malicious site can make its name resolve to 127.0.0.1 while one of its pages is open.
Then the browser regards a server on that machine as the page's site, and the page can read the
server's answers. Only the Host header shows that these requests are meant for another site.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from wsframe.arguments import is_sequence_of_str
from wsframe.origins import NUMERIC, split_host

# A name in ASCII; a name with the prefix "*." matches all names below it.
NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Hosts:
    """The hosts that are served.

    The case, a final dot and the port are ignored in comparisons.

    Args:
        hosts: names, "*.example.com" for all names below example.com (but not that name), and
            addresses; "*" for every host. None for "localhost", the names below it, and every
            address, because an attacker cannot control how these resolve.
        more: additional names, whose syntax is not checked.

    Attributes:
        by_default: True if no hosts were given.

    Raises:
        TypeError: ``hosts`` is neither a sequence of ``str`` nor "*".
        ValueError: one of the hosts can never match.
    """

    def __init__(
        self, hosts: Sequence[str] | Literal["*"] | None, more: Iterable[str] = ()
    ) -> None:
        if hosts is not None and hosts != "*" and not is_sequence_of_str(hosts):
            raise TypeError('hosts must be a sequence of str, as in ["example.com"], or "*"')
        self._all = hosts is not None and "*" in hosts
        self.by_default: bool = hosts is None
        self._names: set[str] = {name.lower().removesuffix(".") for name in more}
        entries = ("localhost", "*.localhost") if hosts is None else hosts
        normal = [_normal(entry) for entry in entries if entry != "*"]
        self._names.update(entry for entry in normal if not entry.startswith("*."))
        self._below = tuple(entry[1:] for entry in normal if entry.startswith("*."))

    def admit(self, host: str) -> bool:
        """Any thread: return True if a Host is served; pass "" for HTTP/1.0 without a Host."""
        if self._all or not host:
            return True
        parts = split_host(host)
        if parts is None:
            return False
        name = parts[0].removesuffix(".")
        if name in self._names or name.endswith(self._below):
            return True
        address = address_in(name)
        return address is not None and (self.by_default or str(address) in self._names)


def hosts_of(
    hosts: Sequence[str] | Literal["*"] | None, name: str, sockets: Sequence[socket.socket]
) -> Hosts:
    """Return the hosts of a server.

    Without a setting, a server that is reachable only from its own machine serves the hosts of that
    machine, and the name that it was started with. So does a server without listening sockets.
    Any other server serves every host, because its names are unknown, and pages can reach it
    without DNS rebinding.

    Args:
        hosts: the setting.
        name: the name or address that the server was started with.
        sockets: the listening sockets.
    """
    if hosts is not None:
        return Hosts(hosts)
    return Hosts(None, [name]) if all(map(_is_loopback, sockets)) else EVERY


def address_in(name: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address of a host; None if the host is a name."""
    try:
        return IPv6Address(name[1:-1]) if name.startswith("[") else IPv4Address(name)
    except ValueError:
        return None


def _is_loopback(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False  # browsers cannot connect to unix sockets
    return ip_address(sock.getsockname()[0]).is_loopback


def _normal(entry: str) -> str:
    """Return the normal form of an entry: a lower-case name without a final dot, or an address."""
    name = entry.removesuffix(".")
    try:
        address = ip_address(name[1:-1] if name[:1] + name[-1:] == "[]" else name)
    except ValueError:
        pass
    else:
        if "%" not in name:  # a Host never contains an address with a zone (RFC 9110 section 7.2)
            return str(address)
    if NAME.fullmatch(name) is None or NUMERIC.fullmatch(name):
        raise ValueError(
            f"the host {entry!r} can never match: a host is a name in ASCII, "
            '"*.example.com" for all names below it, or an address, without a scheme, port or path'
        )
    return name.lower()


# A trusted proxy that forwards a host usually sends the address of the server as Host.
LOCAL = Hosts(None)
EVERY = Hosts("*")
