"""Requests that are refused for their path, method or origin."""

from __future__ import annotations

import pytest

from tests.server.http.refused import HOST, PAGE, answers
from tests.support.clients import Clients, get, head, parse_response, upgrade
from wsframe.server import Server

NO_UPGRADE = {
    "a page is asked for": get("/echo"),
    "another upgrade": get("/echo", ("Upgrade", "h2c"), ("Connection", "Upgrade")),
    "another method": get("/echo", method="POST"),
    "no Upgrade": upgrade("/echo", changes={"Upgrade": None}),
    "an Upgrade that only begins so": upgrade("/echo", changes={"Upgrade": "websockets"}),
    "no Connection": upgrade("/echo", changes={"Connection": None}),
    "another Connection": upgrade("/echo", changes={"Connection": "keep-alive"}),
    "no version": upgrade("/echo", changes={"Sec-WebSocket-Version": None}),
    "version 8": upgrade("/echo", changes={"Sec-WebSocket-Version": "8"}),
    "version 14": upgrade("/echo", changes={"Sec-WebSocket-Version": "14"}),
    "version 013": upgrade("/echo", changes={"Sec-WebSocket-Version": "013"}),
    "empty version": upgrade("/echo", changes={"Sec-WebSocket-Version": ""}),
    "two versions": upgrade("/echo", changes={"Sec-WebSocket-Version": "13, 8"}),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", NO_UPGRADE)
def test_a_websocket_requires_an_upgrade_to_version_13(
    server: Server, clients: Clients, name: str
) -> None:
    for answer in answers(clients, server, NO_UPGRADE[name]):
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert "Upgrade" in answer.headers.get_all("Connection", [])[0]
        assert answer.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize(
    ("version", "status"),
    [("0.9", 505), ("1.0", 426), ("1.2", 400), ("1.10", 400), ("2.0", 505), ("3.0", 400)],
)
def test_no_other_version_of_http_is_upgraded(
    server: Server, clients: Clients, version: str, status: int
) -> None:
    for answer in answers(clients, server, upgrade("/echo", version=version)):
        assert answer.status == status


@pytest.mark.parametrize(
    "request_",
    [b"GET /\r\n\r\n", head("GET / HTTP/0.9", [HOST]), head("GET / HTTP/2.0", [HOST])],
    ids=["none", "0.9", "2.0"],
)
def test_only_http_1_is_supported(server: Server, clients: Clients, request_: bytes) -> None:
    for answer in answers(clients, server, request_):
        assert answer.status == 505


def test_a_page_may_be_read_with_http_1_0_without_a_host(server: Server, clients: Clients) -> None:
    for answer in answers(clients, server, head("GET / HTTP/1.0", [])):
        assert (answer.status, answer.body) == (200, PAGE)


def test_an_upgrade_requires_get(server: Server, clients: Clients) -> None:
    for answer in answers(clients, server, upgrade("/echo", method="POST")):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "request_",
    [get("/no"), upgrade("/no"), get("/no", method="POST")],
    ids=["GET", "upgrade", "POST"],
)
def test_a_path_without_a_route_is_not_found(
    server: Server, clients: Clients, request_: bytes
) -> None:
    for answer in answers(clients, server, request_):
        assert answer.status == 404


@pytest.mark.parametrize("target", ["/", "/time"])
def test_the_answer_to_another_method_names_the_allowed_ones(
    server: Server, clients: Clients, target: str
) -> None:
    for answer in answers(clients, server, get(target, method="POST")):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("target", "host", "origin", "admitted"),
    [
        ("/echo", "localhost:9292", None, True),
        ("/echo", "localhost:9292", "http://localhost:9292", True),
        ("/echo", "localhost:9292", "https://LOCALHOST:9292", True),
        ("/echo", "example.org", "https://example.org", True),
        ("/echo", "example.org", "https://example.org:443", True),
        ("/echo", "example.org:80", "http://example.org", True),
        ("/echo", "[::1]:9292", "http://[::1]:9292", True),
        ("/echo", "localhost:9292", "http://localhost:9293", False),
        ("/echo", "localhost:9292", "http://localhost", False),
        ("/echo", "example.org", "https://example.org:8443", False),
        ("/echo", "example.org", "http://example.org.evil.example", False),
        ("/echo", "example.org", "http://evil.example", False),
        ("/echo", "example.org", "http://evil.example/example.org", False),
        ("/echo", "example.org", "http://evil@example.org", False),
        ("/echo", "example.org", "null", False),
        ("/echo", "example.org", "", False),
        ("/echo", "example.org", "example.org", False),
        ("/echo", "example.org", "file://", False),
        ("/echo", "example.org", "file://example.org", False),
        ("/echo", "example.org", "ftp://example.org", False),
        ("/echo", "example.org", "ws://example.org", False),
        ("/echo", "example.org", "chrome-extension://example.org", False),
        ("/app", "localhost", "capacitor://localhost", True),
        ("/app", "localhost", "ionic://localhost", False),
        ("/every", "localhost", "https://evil.example", True),
        ("/site", "localhost", "https://example.com", True),
        ("/site", "localhost", "HTTPS://EXAMPLE.COM", True),
        ("/site", "localhost", "http://other.example:8080", True),
        ("/site", "localhost", "http://localhost", True),
        ("/site", "localhost", "http://example.com", False),
        ("/site", "localhost", "https://example.com:8443", False),
        ("/site", "localhost", "https://sub.example.com", False),
        ("/site", "localhost", "http://other.example", False),
        ("/open", "localhost", "https://evil.example", True),
        ("/open", "localhost", "null", True),
    ],
)
def test_only_pages_of_this_host_and_of_allowed_origins_can_connect(
    server: Server, clients: Clients, target: str, host: str, origin: str | None, admitted: bool
) -> None:
    request = upgrade(target, changes={"Host": host, "Origin": origin})
    client = clients.connect(server)
    client.send(request)
    if admitted:
        assert parse_response(client.read_until(b"\r\n\r\n")).status == 101
    else:
        answer = client.answer()
        assert answer.status == 403
        assert answer.body == b"this Origin is not allowed\n"
