"""Forwarding headers, of trusted proxies and of other clients."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.support.clients import Clients, Response, get, upgrade
from tests.support.serving import Serve
from wsframe.fields import Fields
from wsframe.server import App, Server, WebSocket
from wsframe.server.http.proxies import Hop, Proxies

CHAIN = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")
SHOP = ("X-Forwarded-Host", "shop.example")
OWN = ("127.0.0.1", "http", "localhost")


def send_identity(ws: WebSocket) -> None:
    """Send the client its address, scheme and host as the server sees them."""
    request = ws.request
    ws.send(f"{request.client} {request.scheme} {request.host}")


@pytest.fixture
def trusting(serve: Serve) -> Server:
    """A server behind proxies; one of them is on this machine."""
    return start(serve, CHAIN)


def start(serve: Serve, trusted: tuple[str, ...]) -> Server:
    app = App()
    app.websocket("/")(send_identity)
    return serve(app, trusted_proxies=trusted, hosts="*")


def seen_by_server(clients: Clients, server: Server, *headers: tuple[str, str]) -> tuple[str, ...]:
    """Return the client, scheme and host of a request as the server sees them."""
    client = clients.websocket(server, "/", *headers)
    message = client.next_event()
    client.expect_close()
    assert isinstance(message, str)
    return tuple(message.split(" "))


def port(value: str) -> tuple[str, str]:
    return "X-Forwarded-Port", value


def xff(value: str) -> tuple[str, str]:
    return "X-Forwarded-For", value


def forwarded(value: str) -> tuple[str, str]:
    return "Forwarded", value


@pytest.mark.parametrize(
    ("fields", "hop"),
    [
        ([("Host", "example.com")], Hop()),
        ([("X-Forwarded-For", "203.0.113.7, 10.1.2.3")], Hop("203.0.113.7")),
        ([("X-Forwarded-Proto", "wss"), ("X-Forwarded-Host", "a")], Hop("", "https", "a")),
        ([forwarded("for=203.0.113.7;proto=http;host=a")], Hop("203.0.113.7", "http", "a")),
        ([("X-Forwarded-Host", "a"), port("08443")], Hop("", "", "a", "8443")),
    ],
)
def test_forwarding_headers_are_resolved_without_a_request(
    fields: list[tuple[str, str]], hop: Hop
) -> None:
    assert Proxies(CHAIN).resolve(Fields(fields)) == hop


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "127.0.0.1"),
        ([xff("203.0.113.7")], "203.0.113.7"),
        ([xff("203.0.113.7:4711")], "203.0.113.7"),
        ([xff("6.6.6.6, 203.0.113.7")], "203.0.113.7"),
        ([xff("6.6.6.6, 203.0.113.7, 10.1.2.3")], "203.0.113.7"),
        ([xff("6.6.6.6"), xff("203.0.113.7"), xff("10.1.2.3,10.1.2.4")], "203.0.113.7"),
        ([xff("<script>, 203.0.113.7")], "203.0.113.7"),
        ([xff("10.1.2.3, 10.1.2.4")], "10.1.2.3"),
        ([xff("")], "127.0.0.1"),
        ([xff("unknown")], "127.0.0.1"),
        ([xff("unix:")], "127.0.0.1"),
        ([xff("6.6.6.6, unknown, 10.1.2.3")], "10.1.2.3"),
        ([xff("2001:DB9:0::7")], "2001:db9::7"),
        ([xff("[2001:db9::7]:4711")], "2001:db9::7"),
        ([xff("203.0.113.7, 2001:db8::1")], "203.0.113.7"),
        ([xff("203.0.113.7, ::ffff:10.1.2.3")], "203.0.113.7"),
        ([forwarded("for=203.0.113.7")], "203.0.113.7"),
        ([forwarded('For="203.0.113.7:80"; by=_proxy')], "203.0.113.7"),
        ([forwarded('for=6.6.6.6, for="[2001:db9::7]:4711";proto=http')], "2001:db9::7"),
        ([forwarded("for=6.6.6.6;host=a"), forwarded("for=203.0.113.7")], "203.0.113.7"),
        ([forwarded("for=203.0.113.7, for=10.1.2.3")], "203.0.113.7"),
        ([forwarded("for=203.0.113.7 , for=10.1.2.3 ; proto=http")], "203.0.113.7"),
        ([forwarded("for=6.6.6.6, proto=http, for=10.1.2.3")], "10.1.2.3"),
        ([forwarded("for=6.6.6.6, for=_hidden, for=10.1.2.3")], "10.1.2.3"),
        ([forwarded('for="_hidden:80"')], "127.0.0.1"),
        ([forwarded(r'for="\203.0.113.7"')], "203.0.113.7"),
        # A proxy sets one of the two and passes on the other: the more common one counts.
        ([forwarded("for=6.6.6.6"), xff("203.0.113.7")], "203.0.113.7"),
        ([forwarded("for=6.6.6.6"), ("X-Forwarded-Proto", "http")], "127.0.0.1"),
        ([forwarded("nonsense"), xff("203.0.113.7")], "203.0.113.7"),
    ],
)
def test_the_client_is_the_first_untrusted_address(
    trusting: Server, clients: Clients, headers: list[tuple[str, str]], client: str
) -> None:
    assert seen_by_server(clients, trusting, *headers) == (client, "http", "localhost")


@pytest.mark.parametrize(
    ("headers", "scheme", "host"),
    [
        ([("X-Forwarded-Proto", "https")], "https", "localhost"),
        ([("X-Forwarded-Proto", "WSS")], "https", "localhost"),
        ([("X-Forwarded-Proto", "ws"), ("X-Forwarded-Host", "a.example:8")], "http", "a.example:8"),
        ([forwarded('for=1.2.3.4;proto=https;host="shop.example:81"')], "https", "shop.example:81"),
        ([forwarded("host=shop.example")], "http", "shop.example"),
        # A port completes a forwarded host without one.
        ([SHOP, port("8443")], "http", "shop.example:8443"),
        ([SHOP, port("443"), ("X-Forwarded-Proto", "https")], "https", "shop.example"),
        ([SHOP, port("443"), ("X-Forwarded-Proto", "http")], "http", "shop.example:443"),
        ([SHOP, port("80")], "http", "shop.example"),
        ([("X-Forwarded-Host", "shop.example:"), port("81")], "http", "shop.example:81"),
        ([("X-Forwarded-Host", "[::1]"), port("81")], "http", "[::1]:81"),
        ([("X-Forwarded-Host", "shop.example:81"), port("82")], "http", "shop.example:81"),
        ([("X-Forwarded-Host", "shop.example:81"), port("nonsense")], "http", "shop.example:81"),
        ([port("8443")], "http", "localhost"),
        ([xff("203.0.113.7"), port("nonsense")], "http", "localhost"),
        ([forwarded("host=shop.example"), port("8443")], "http", "shop.example"),
        # The port must be that of the same proxy.
        ([("X-Forwarded-Host", "shop.example, inner"), port("81, 82")], "http", "inner:82"),
        (
            [xff("1.2.3.4, 10.1.2.3"), ("X-Forwarded-Host", "shop.example, b"), port("81, 82")],
            "http",
            "shop.example:81",
        ),
        (
            [xff("1.2.3.4, 10.1.2.3"), ("X-Forwarded-Host", "shop.example, b"), port("82")],
            "http",
            "shop.example",
        ),
        # In a chain, the headers of the outermost trusted proxy count.
        (
            [xff("1.2.3.4, 10.1.2.3"), ("X-Forwarded-Proto", "https, http")],
            "https",
            "localhost",
        ),
        (
            [xff("6.6.6.6, 1.2.3.4"), ("X-Forwarded-Proto", "https, http")],
            "http",
            "localhost",
        ),
        (
            [xff("6.6.6.6, 1.2.3.4, 10.1.2.3"), ("X-Forwarded-Host", "evil, shop.example, inner")],
            "http",
            "shop.example",
        ),
        ([xff("1.2.3.4, 10.1.2.3"), ("X-Forwarded-Proto", "https")], "https", "localhost"),
        ([xff("6.6.6.6, 1.2.3.4"), ("X-Forwarded-Proto", "https")], "https", "localhost"),
        (
            [forwarded("for=6.6.6.6;host=evil, for=1.2.3.4;proto=https, for=10.1.2.3;host=inner")],
            "https",
            "inner",
        ),
    ],
)
def test_scheme_and_host_are_the_ones_of_the_client(
    trusting: Server, clients: Clients, headers: list[tuple[str, str]], scheme: str, host: str
) -> None:
    assert seen_by_server(clients, trusting, *headers)[1:] == (scheme, host)


def test_an_origin_is_compared_with_the_port_of_the_forwarded_host(
    trusting: Server, serve: Serve, clients: Clients
) -> None:
    headers = [SHOP, port("8443"), ("Origin", "https://shop.example:8443")]
    assert seen_by_server(clients, trusting, *headers)[2] == "shop.example:8443"
    assert ask(clients, trusting, *headers[:1], *headers[2:]).status == 403
    assert ask(clients, start(serve, ()), *headers).status == 403


EVERYTHING = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    SHOP,
    port("8443"),
    ("Forwarded", "for=203.0.113.7;proto=https;host=shop.example"),
]


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "::1", "unix")])
@pytest.mark.parametrize("headers", [EVERYTHING[:4], EVERYTHING[4:], [xff("nonsense")]])
def test_forwarding_headers_of_untrusted_clients_are_ignored(
    serve: Serve, clients: Clients, trusted: tuple[str, ...], headers: list[tuple[str, str]]
) -> None:
    assert seen_by_server(clients, start(serve, trusted), *headers) == OWN


@pytest.mark.parametrize(
    "header",
    [
        xff("nonsense"),
        xff("203.0.113.256"),
        xff("203.0.113.7, 10.1.2.3, <script>"),
        xff("fe80::1%eth0"),
        xff("[2001:db9::7"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Host", "shop.example/path"),
        forwarded("nonsense"),
        forwarded("for=203.0.113.7;for=203.0.113.8"),
        forwarded('for="203.0.113.7'),
        forwarded("for=nonsense"),
        forwarded("for=1.2.3.4;proto=gopher"),
        forwarded("for=1.2.3.4;host=a/b"),
        forwarded("for=1.2.3.4 proto=http"),
        # Implausibly long chains, which would take too much of the loop's time.
        xff("10.1.2.3," * 101),
        xff("," * 15_000),
        forwarded("for=10.1.2.3," * 101),
        forwarded(";".join(f"a{number}=b" for number in range(402))),
        forwarded('for="' + "\\1" * 401 + '"'),
    ],
)
def test_malformed_forwarding_headers_are_refused(
    trusting: Server, clients: Clients, header: tuple[str, str]
) -> None:
    client = clients.connect(trusting)
    client.send(upgrade("/", header))
    answer = client.answer()
    assert answer.status == 400
    assert answer.body == b"the forwarding headers of the proxy are malformed\n"


@pytest.mark.parametrize("value", ["nonsense", "0", "65536", "-1", "+1", "\xb2", "123456"])
def test_a_malformed_port_of_a_forwarded_host_is_refused(
    trusting: Server, clients: Clients, value: str
) -> None:
    answer = ask(clients, trusting, SHOP, port(value))
    assert answer.status == 400
    assert answer.body == b"the forwarding headers of the proxy are malformed\n"


def ask(clients: Clients, server: Server, *headers: tuple[str, str]) -> Response:
    client = clients.connect(server)
    client.send(upgrade("/", *headers))
    return client.answer()


@pytest.mark.parametrize("host", ["X-Forwarded-Host", "Forwarded"])
def test_an_origin_is_compared_with_the_forwarded_host(
    trusting: Server, serve: Serve, clients: Clients, host: str
) -> None:
    value = "shop.example:81" if host != "Forwarded" else 'for=1.2.3.4;host="shop.example:81"'
    headers = [(host, value), ("Origin", "https://shop.example:81")]
    assert seen_by_server(clients, trusting, *headers)[2] == "shop.example:81"
    assert ask(clients, start(serve, ()), *headers).status == 403
    foreign = [(host, value), ("Origin", "http://localhost")]
    assert ask(clients, trusting, *foreign).status == 403


def test_the_log_names_the_client(trusting: Server, clients: Clients, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "wsframe.access"):
        for headers in ([xff("203.0.113.7")], [xff("203.0.113.7, nonsense")]):
            client = clients.connect(trusting)
            client.send(get("/nothing", *headers))
            client.answer()
        trusting.stop()
    assert [
        (record.client, record.status)
        for record in caplog.records
        if record.name == "wsframe.access"
    ] == [
        ("203.0.113.7", 404),
        ("127.0.0.1", 400),
    ]


@pytest.mark.parametrize(
    ("trusted", "error"),
    [
        (["nonsense"], ValueError),
        (["10.0.0.1/8"], ValueError),
        (["127.0.0.1", ""], ValueError),
        ("127.0.0.1", TypeError),
        ([1], TypeError),
    ],
)
def test_invalid_trusted_proxies_are_refused_at_the_start(
    trusted: Any, error: type[Exception]
) -> None:
    text = "trusted_proxies: " if error is ValueError else "trusted_proxies must be"
    with pytest.raises(error, match=text):
        App().start(trusted_proxies=trusted)
