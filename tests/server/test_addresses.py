"""Client addresses, their networks, and the networks that are trusted."""

from __future__ import annotations

from wsframe.server.addresses import TrustedNetworks, client_network, client_of


def test_the_client_is_the_address_without_the_port() -> None:
    assert client_of(("127.0.0.1", 80)) == "127.0.0.1"
    assert client_of(("fe80::1%eth0", 80, 0, 2)) == "fe80::1%eth0"
    assert client_of("") == client_of(b"\0name") == "unix"


def test_trusted_networks_contain_their_addresses() -> None:
    assert TrustedNetworks(["fe80::/10"]).trust("fe80::1%eth0")
    assert TrustedNetworks(["unix"]).trust("unix")
    assert not TrustedNetworks(["fe80::/10"]).trust("unix")
    assert TrustedNetworks(["10.0.0.0/8"]).trust("::ffff:10.1.2.3")


def test_the_network_of_an_ipv6_client_has_64_bits() -> None:
    one, same, other = map(client_network, ("2001:db8::1", "2001:db8::9:1", "2001:db8:0:1::1"))
    assert one == same != other


def test_the_network_of_an_ipv4_client_is_its_address() -> None:
    assert client_network("1.2.3.4") != client_network("1.2.3.5")


def test_a_client_of_a_unix_socket_has_no_network() -> None:
    assert client_network("unix") is None
