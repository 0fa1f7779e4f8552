"""Refused requests in the log and in the statistics."""

from __future__ import annotations

import re
from logging import WARNING
from typing import Any

import pytest

from tests.support.clients import END_OF_HEAD, Client, Clients, get, head, upgrade
from tests.support.handlers import generator_echo
from tests.support.log import ServerLog
from tests.support.pages import ROOT
from tests.support.proxies import nginx_proxy
from tests.support.serving import Serve
from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.server import App, Request, Server
from wsframe.server.hosts import Hosts
from wsframe.server.http.host_policy import HostPolicy
from wsframe.server.http.proxies import Proxies

HOST = ("Host", "localhost")
CONFIGURATION = ROOT / "deploy" / "nginx.conf"
# The location from nginx' documentation of WebSocket proxying, which does not forward the Host.
DOCUMENTED = """
    proxy_pass {upstream};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
"""
WITH_HOST = DOCUMENTED + "proxy_set_header Host $http_host;"


def app_of_all_kinds() -> App:
    def sign_in(request: Request) -> bool:
        raise HandshakeError(401, "sign in first", [("WWW-Authenticate", "Basic")])

    app = App()
    app.page("/", "the page")
    app.metrics()
    app.websocket("/ws")(generator_echo)
    app.sse("/stream", authorize=lambda _: False)(lambda stream: None)
    app.websocket("/guarded", authorize=sign_in)(generator_echo)
    return app


def status_of(clients: Clients, server: Server, request: bytes) -> int:
    client = clients.connect(server)
    client.send(request)
    return client.answer().status


REFUSED: dict[str, tuple[bytes, int, str, list[str]]] = {
    "another host": (
        head("GET /ws?secret HTTP/1.1", [("Host", "evil.example:81")]),
        421,
        "host",
        ['GET "/ws" from 127.0.0.1, Host "evil.example:81"', 'add "evil.example" to the setting'],
    ),
    "a foreign page, WebSocket": (
        upgrade("/%77s", ("Origin", "https://evil.example")),
        403,
        "origin",
        ['GET "/ws" from 127.0.0.1, Host "localhost", Origin "https://evil.example"', "$http_host"],
    ),
    "a foreign page, event stream": (
        get("/stream", ("Origin", "https://evil.example")),
        403,
        "origin",
        ['add "https://evil.example" to the origins of the route'],
    ),
    "another port": (
        upgrade("/ws", ("Origin", "http://localhost:8080")),
        403,
        "origin",
        ["differ in the port"],
    ),
    "a page whose proxy is not trusted": (
        upgrade("/ws", ("Origin", "https://a.example"), ("X-Forwarded-Host", "a.example")),
        403,
        "origin",
        ["127.0.0.1 is not one of trusted_proxies", '"a.example" must then also be one of hosts'],
    ),
    "a foreign page without a host": (
        upgrade("/ws", ("Origin", "null")),
        403,
        "origin",
        ['Origin "null"'],
    ),
    "the hook's no": (get("/stream"), 403, "authorize", ["authorize returned a false value"]),
    "the hook's error": (upgrade("/guarded"), 401, "authorize", ["sign in first"]),
    "no route": (get("/%6eone?secret"), 404, "path", ['"/none"', "no route matches this path"]),
    "another method": (get("/", method="POST"), 405, "method", ['POST "/"', "use GET or HEAD"]),
    "no upgrade": (get("/ws"), 426, "upgrade", ["an upgrade is required"]),
    "no HTTP": (b"hello\x1b[2J\r\n\r\n", 400, "malformed", [r'"hello\x1b[2J" from 127.0.0.1']),
    "no path": (get("*?secret"), 400, "malformed", ['"GET *" from 127.0.0.1']),
    "a path that is not UTF-8": (get("/%ff"), 400, "malformed", ["the path is not valid UTF-8"]),
    "no Host": (head("GET / HTTP/1.1", []), 400, "malformed", ["no Host header"]),
    "a long target": (
        get("/" + "a" * 9000),
        414,
        "too_large",
        ["the request target exceeds 8192 bytes. The limit is the setting max_head_size"],
    ),
    "a long head": (
        get("/", ("A", "a" * 17_000)),
        431,
        "too_large",
        ["the request head exceeds 16384 bytes. The limit is the setting max_head_size (--max-h"],
    ),
    "many headers": (
        get("/", *[("A", "a")] * 100),
        431,
        "too_large",
        ["more than 100 headers. The limit is the setting max_headers (--max-headers)."],
    ),
    "HTTP/2": (
        head("GET / HTTP/2.0", [HOST]),
        505,
        "version",
        ["unsupported HTTP version: use HTTP/1.1"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_logged_with_its_reason_and_counted(
    serve: Serve, clients: Clients, log: ServerLog, name: str
) -> None:
    request, status, reason, words = REFUSED[name]
    server = serve(app_of_all_kinds())
    assert status_of(clients, server, request) == status
    line = log.expect(f" is refused with {status}: ", WARNING).getMessage()
    assert line.isprintable()
    assert "secret" not in line
    for text in words:
        assert text in line
    stats = server.stats()
    assert (stats.refused, stats.refused_for) == ({status: 1}, {reason: 1})
    assert f'wsframe_refusals_total{{reason="{reason}"}} 1' in metrics(clients, server)


def metrics(clients: Clients, server: Server) -> str:
    client = clients.connect(server)
    client.send(get("/metrics"))
    return client.answer().body.decode()


def test_a_trusted_proxy_is_not_blamed(serve: Serve, clients: Clients, log: ServerLog) -> None:
    server = serve(app_of_all_kinds(), hosts="*", trusted_proxies=["127.0.0.1"])
    headers = ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Host", "shop.example")
    request = upgrade("/ws", *headers, ("Origin", "https://evil.example"))
    assert status_of(clients, server, request) == 403
    line = log.expect("with 403", WARNING).getMessage()
    assert 'from 203.0.113.7, Host "shop.example", Origin "https://evil.example"' in line
    assert "trusted_proxies" not in line


@pytest.mark.parametrize(
    ("sender", "number"),
    [("127.0.0.1", 1), ("10.1.2.3", 1), ("unix", 1), ("192.168.0.1", 0), ("93.184.216.34", 0)],
)
def test_a_proxy_that_is_not_trusted_is_logged_once(
    log: ServerLog, sender: str, number: int
) -> None:
    policy = HostPolicy(Proxies([]), Hosts("*"))
    address = "" if sender == "unix" else (sender, 4711)
    for value in ("", "203.0.113.7, 192.168.0.1", "203.0.113.7, 192.168.0.1"):
        headers = [HOST, ("X-Forwarded-For", value)]
        request = Request("GET", "/", headers, "1.1", address, "http")
        policy.check_host(request, Fields(headers))
    lines = [record.getMessage() for record in log.records]
    assert len(lines) == number
    for line in lines:
        assert line.startswith(f"a request from {sender} has the header X-Forwarded-For")
        assert f'if a proxy has sent it, add "{sender}" to trusted_proxies (--trusted' in line


def test_malformed_headers_of_a_trusted_proxy_are_logged(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    server = serve(app_of_all_kinds(), trusted_proxies=["127.0.0.1"])
    headers = ("X-Forwarded-For", "203.0.113.7\x9b, nonsense"), ("X-Forwarded-Proto", "https")
    assert status_of(clients, server, upgrade("/ws", *headers)) == 400
    line = log.expect("with 400", WARNING).getMessage()
    assert "The trusted proxy 127.0.0.1 sent" in line
    assert r'X-Forwarded-For "203.0.113.7\x9b, nonsense", X-Forwarded-Proto "https".' in line


def test_a_flood_of_refusals_is_counted_and_logged_once_per_second(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    server = serve(app_of_all_kinds())
    for number in range(50):
        assert status_of(clients, server, get(f"/none/{number}")) == 404
    assert status_of(clients, server, get("/ws")) == 426
    log.expect("with 426", WARNING)  # not suppressed by the flood
    assert server.stats().refused_for == {"path": 50, "upgrade": 1}
    assert sum("with 404" in record.getMessage() for record in log.records) < 25


def test_a_value_of_16_kib_is_cut(serve: Serve, clients: Clients, log: ServerLog) -> None:
    origin = "https://" + "\x9b" * 12_000
    assert status_of(clients, serve(app_of_all_kinds()), upgrade("/ws", ("Origin", origin))) == 403
    assert len(log.expect("with 403", WARNING).getMessage()) < 4000


def browser(origin: str) -> bytes:
    """Return the upgrade request of a browser for a page of this origin."""
    host = origin.partition("://")[2]
    return upgrade("/ws", ("Origin", origin), changes={"Host": host})


def answer_behind_nginx(port: int, location: str, origin: str) -> bytes:
    """Return the head of the answer that a browser gets through nginx from this port."""
    with nginx_proxy(location, backend=port) as nginx:
        client = Client(nginx.port)
        try:
            client.send(browser(origin))
            return client.read_until(END_OF_HEAD)
        finally:
            client.close()


def log_behind_nginx(
    serve: Serve, log: ServerLog, location: str, status: int, origin: str, **options: Any
) -> str:
    """Return the log record of a browser's request through nginx that gets this status."""
    server = serve(app_of_all_kinds(), **options)
    answer = answer_behind_nginx(server.port, location, origin)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    return log.expect(f"is refused with {status}", WARNING).getMessage()


def opens_behind_nginx(serve: Serve, location: str, origin: str, **options: Any) -> None:
    server = serve(app_of_all_kinds(), **options)
    assert answer_behind_nginx(server.port, location, origin).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("origin", ["https://shop.example", "http://shop.example:8080"])
def test_the_log_advises_on_the_documented_configuration_of_nginx(
    serve: Serve, log: ServerLog, origin: str
) -> None:
    name = "shop.example"
    # As documented, every page has a foreign origin.
    location = DOCUMENTED.format(upstream="http://backend")
    line = log_behind_nginx(serve, log, location, 403, origin, hosts="*")
    assert f'Origin "{origin}"' in line
    assert 'Host "backend"' in line
    assert "proxy_set_header Host $http_host;" in line
    # On loopback as well, where the name of the upstream is not a host of this machine.
    line = log_behind_nginx(serve, log, location, 421, origin)
    assert 'Host "backend"' in line
    assert "proxy_set_header Host $http_host;" in line
    # With the Host of the browser, its name must be served.
    location = WITH_HOST.format(upstream="http://backend")
    line = log_behind_nginx(serve, log, location, 421, origin)
    assert f'add "{name}" to the setting hosts (--hosts)' in line
    # Nothing else is needed.
    opens_behind_nginx(serve, location, origin, hosts=[name])


def test_the_log_advises_on_nginx_with_an_address_for_its_upstream(
    serve: Serve, log: ServerLog
) -> None:
    server = serve(app_of_all_kinds())
    location = DOCUMENTED.format(upstream=f"http://127.0.0.1:{server.port}")
    answer = answer_behind_nginx(server.port, location, "https://shop.example")
    assert answer.startswith(b"HTTP/1.1 403 ")
    line = log.expect("is refused with 403", WARNING).getMessage()
    assert f'Host "127.0.0.1:{server.port}", Origin "https://shop.example"' in line
    assert "proxy_set_header Host $http_host;" in line
    assert '"shop.example" must then also be one of hosts (--hosts)' in line


def test_the_log_advises_on_nginx_that_does_not_forward_the_upgrade(
    serve: Serve, log: ServerLog
) -> None:
    line = log_behind_nginx(
        serve, log, "proxy_pass http://backend;", 426, "http://shop.example", hosts="*"
    )
    advice = re.search(r"\(nginx: (.*? proxy_set_header Connection .*?;)\)", line)
    assert advice is not None
    location = f"proxy_pass http://backend; {advice[1]} proxy_set_header Host $http_host;"
    opens_behind_nginx(serve, location, "http://shop.example", hosts="*")


def test_origins_are_accepted_behind_the_configuration_of_nginx(serve: Serve) -> None:
    match = re.search(r"location / \{\n(.*?)\n    \}", CONFIGURATION.read_text("utf-8"), re.DOTALL)
    assert match is not None
    location = match[1].replace("http://shop", "http://backend")
    for origin in ("https://shop.example", "http://shop.example:8080"):
        opens_behind_nginx(serve, location, origin, hosts=["shop.example"])
    opens_behind_nginx(
        serve, location, origin, hosts=["shop.example"], trusted_proxies=["127.0.0.1"]
    )


def test_the_log_advises_on_nginx_that_omits_the_port(serve: Serve, log: ServerLog) -> None:
    location = DOCUMENTED.format(upstream="http://backend") + "proxy_set_header Host $host;"
    line = log_behind_nginx(
        serve, log, location, 403, "http://shop.example:8080", hosts=["shop.example"]
    )
    assert 'the Host "shop.example" differ in the port' in line
    assert "proxy_set_header Host $http_host;" in line
