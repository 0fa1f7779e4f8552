"""Client addresses: their text form, the networks for limits, and the trusted networks."""

from __future__ import annotations

import socket
from collections.abc import Hashable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from wsframe.arguments import is_sequence_of_str

# The client address of connections through a unix socket: such clients have no IP address.
UNIX = "unix"


def client_of(address: object) -> str:
    """Any thread: return the client's address without the port.

    Args:
        address: an address as the socket module returns it.
    """
    return str(address[0]) if isinstance(address, tuple) else UNIX


def client_network(client: str) -> Hashable:
    """Any thread: return the network that limits on one client apply to.

    Returns:
        An IPv4 address, or an IPv6 network of 64 bits, because one client may use all of its
        addresses. None for :data:`UNIX`.
    """
    if client == UNIX:
        return None
    return socket.inet_pton(socket.AF_INET6, client)[:8] if ":" in client else client


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Any thread: parse an address; an IPv4 address written as IPv6 becomes IPv4.

    Raises:
        ValueError: the text is not an address.
    """
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


class TrustedNetworks:
    """The addresses of trusted proxies.

    Args:
        trusted: addresses, networks as in "10.0.0.0/8", and "unix" for unix sockets.
        name: the name of the setting, for errors.

    Raises:
        TypeError: ``trusted`` is not a sequence of ``str``.
        ValueError: an item is not an address, a network or "unix".
    """

    def __init__(self, trusted: Sequence[str], name: str = "trusted_proxies") -> None:
        if not is_sequence_of_str(trusted):
            raise TypeError(f'{name} must be a sequence of str, as in ["127.0.0.1"]')
        self._unix = UNIX in trusted
        try:
            self._networks = [ip_network(item) for item in trusted if item != UNIX]
        except ValueError as error:
            raise ValueError(
                f'{error} ({name} are addresses, networks such as "10.0.0.0/8", or "unix")'
            ) from None

    def trust(self, client: str) -> bool:
        """Any thread: return True if an address is that of a trusted proxy."""
        if client == UNIX:
            return self._unix
        if not self._networks:
            return False
        address = parse_address(client)
        return any(address in network for network in self._networks)
