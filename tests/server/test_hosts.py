"""The hosts that a server accepts, which protect it from DNS rebinding."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.clients import Client, Clients, Response, head, upgrade
from tests.support.handlers import generator_echo
from tests.support.processes import ServerProcess
from tests.support.serving import Serve
from wsframe.server import App, Server, Settings
from wsframe.server.hosts import Hosts, hosts_of

LOCAL = (
    *("localhost", "LOCALHOST:9292", "localhost.", "app.localhost:80", "127.0.0.1", "127.0.0.2:1"),
    *("[::1]", "[0:0:0:0:0:0:0:1]:80", "192.168.1.7", "[2001:db8::7]:9292", "8.8.8.8"),
)
FOREIGN = (
    *("evil.example", "evil.example:9292", "localhost.evil.example", "evillocalhost"),
    *("127.0.0.1.evil.example", "127.1", "0x7f000001", "2130706433", "local", "%31"),
)


def app_of_all_kinds() -> App:
    app = App()
    app.page("/", "the page")
    app.websocket("/echo", origins="*")(generator_echo)
    app.sse("/stream", origins="*")(lambda stream: stream.close())
    app.metrics()
    return app


def requests(host: str) -> list[bytes]:
    """Return a request of each kind, to a route of each kind and to an unknown path."""
    return [
        *(head(f"GET {path} HTTP/1.1", [("Host", host)]) for path in ("/", "/stream", "/metrics")),
        head("GET / HTTP/1.0", [("Host", host)]),
        head("GET /none HTTP/1.1", [("Host", host)]),
        upgrade("/echo", changes={"Host": host}),
        upgrade(f"http://{host}/echo"),
    ]


def ask(clients: Clients, server: Server, request: bytes) -> Response:
    client = clients.connect(server)
    client.send(request)
    return client.answer()


def is_served(clients: Clients, server: Server, host: str, *headers: tuple[str, str]) -> bool:
    """Return True if a page is served, False if the answer is 421."""
    request = head("GET / HTTP/1.1", [("Host", host), *headers])
    status = ask(clients, server, request).status
    assert status in (200, 421)
    return status == 200


@pytest.mark.parametrize("host", LOCAL)
def test_a_server_on_loopback_serves_the_loopback_hosts(
    serve: Serve, clients: Clients, host: str
) -> None:
    server = serve(app_of_all_kinds())
    assert is_served(clients, server, host)
    client = clients.connect(server)
    client.send(upgrade("/echo", changes={"Host": host}))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("host", FOREIGN)
def test_a_server_on_loopback_refuses_hosts_of_dns_rebinding(
    serve: Serve, clients: Clients, host: str
) -> None:
    server = serve(app_of_all_kinds())
    for request in requests(host):
        answer = ask(clients, server, request)
        assert (answer.status, answer.body) == (421, b"this server does not serve this host\n")
    assert server.stats().refused == {421: len(requests(host))}


def test_a_request_without_host_is_served_because_no_browser_sends_it(
    serve: Serve, clients: Clients
) -> None:
    server = serve(app_of_all_kinds(), hosts=["shop.example"])
    assert ask(clients, server, head("GET / HTTP/1.0", [])).status == 200


def test_a_server_on_every_interface_serves_every_host(serve: Serve, clients: Clients) -> None:
    server = serve(app_of_all_kinds(), host="0.0.0.0")
    assert is_served(clients, server, "shop.example")


def test_the_host_name_of_the_server_is_served() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert hosts_of(None, "Dev.Example.", [sock]).admit("dev.example:80")
        assert not hosts_of(["a.example"], "dev.example", [sock]).admit("dev.example")


def test_a_unix_socket_serves_every_host() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert hosts_of(None, "", [sock]).admit("shop.example")


@pytest.mark.parametrize(
    ("hosts", "served", "others"),
    [
        (["shop.example"], ["shop.example", "SHOP.example.:81"], ["localhost", "127.0.0.1", "a"]),
        (["Shop.Example."], ["shop.example"], ["a.shop.example"]),
        (
            ["*.shop.example"],
            ["a.shop.example", "a.b.shop.example:1"],
            ["shop.example", "ashop.example", "a.shop.example.evil.example"],
        ),
        (["127.0.0.1", "[::1]"], ["127.0.0.1:8", "[0::1]"], ["127.0.0.2", "[::2]", "localhost"]),
        (["2001:DB8::7"], ["[2001:db8::7]:80"], ["[2001:db8::8]"]),
        (["*"], ["shop.example", "127.0.0.1"], []),
        ("*", ["shop.example"], []),
        ([], [], ["localhost", "127.0.0.1", "shop.example"]),
    ],
)
def test_the_hosts_of_the_setting_are_served(
    serve: Serve, clients: Clients, hosts: Any, served: list[str], others: list[str]
) -> None:
    server = serve(app_of_all_kinds(), hosts=hosts)
    assert [host for host in (*served, *others) if is_served(clients, server, host)] == served


@pytest.mark.parametrize(
    ("host", "forwarded", "served"),
    [
        ("127.0.0.1:9292", "shop.example", True),
        ("localhost", "shop.example:443", True),
        ("shop.example", "shop.example", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("backend", "shop.example", False),
        # A page that has its name resolve to the proxy can send any header but Host.
        ("evil.example", "shop.example", False),
    ],
)
@pytest.mark.parametrize("header", ["X-Forwarded-Host", "Forwarded"])
def test_the_host_that_a_trusted_proxy_forwards_must_be_served(
    serve: Serve, clients: Clients, host: str, forwarded: str, header: str, served: bool
) -> None:
    server = serve(app_of_all_kinds(), hosts=["shop.example"], trusted_proxies=["127.0.0.1"])
    value = forwarded if header != "Forwarded" else f'host="{forwarded}"'
    assert is_served(clients, server, host, (header, value)) is served


def test_a_host_forwarded_by_an_untrusted_client_is_ignored(serve: Serve, clients: Clients) -> None:
    server = serve(app_of_all_kinds(), hosts=["shop.example"])
    assert not is_served(clients, server, "127.0.0.1", ("X-Forwarded-Host", "shop.example"))
    assert is_served(clients, server, "shop.example", ("X-Forwarded-Host", "evil.example"))


@pytest.mark.parametrize(
    "host",
    [
        *("", "a b", "http://a.example", "a.example/", "a.example:80", "é.example", "a.*.example"),
        *("*a.example", "*.", "[::1", "[::1]:80", ".a.example", "a@b", "-"),
        *("fe80::1%eth0", "[fe80::1%eth0]", "127.1", "0x7f.1", "256.1.1.1", "*.1.2.3.4"),
    ],
)
def test_a_hosts_setting_that_never_matches_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="can never match"):
        Settings(hosts=["a.example", host])


@pytest.mark.parametrize("hosts", ["a.example", [b"a.example"], [None]])
def test_hosts_must_be_a_sequence_of_str(hosts: Any) -> None:
    with pytest.raises(TypeError, match="str"):
        Settings(hosts=hosts)


def test_any_host_text_is_accepted_or_refused_without_an_error() -> None:
    assert not Hosts(None).admit("a b")
    assert not Hosts(["a.example"]).admit("[a")


def test_the_option_hosts_sets_the_hosts() -> None:
    arguments = ("--port", "0", "--hosts", "a.example,b.example", "--hosts", "*.c.example")
    with ServerProcess("-m", "wsframe.server", *arguments) as process:
        served = {"a.example": 200, "b.example": 200, "x.c.example": 200, "c.example": 421}
        for host, status in served.items():
            client = Client(process.port)
            client.send(head("GET / HTTP/1.1", [("Host", host)]))
            assert client.answer().status == status
