"""The origins whose pages may connect, by the settings of Django."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import path

from tests.support.clients import Client, get, upgrade
from tests.support.log import ServerLog
from wsframe.django import EventStream, Live, WebSocket

from .conftest import Serve

HOST = "site.example"


def wait(request: HttpRequest, ws: WebSocket) -> Generator[None, str, None]:
    yield


def status(port: int, *headers: tuple[str, str]) -> int:
    """Return the status of the answer to an upgrade request."""
    client = Client(port)
    client.send(upgrade("/", *headers, changes={"Host": HOST}))
    code = int(client.read_until(b"\r\n").split()[1])
    client.close()
    return code


def status_of(port: int, origin: str) -> int:
    return status(port, ("Origin", origin))


@pytest.fixture
def sites(live: Live, serve: Serve) -> Any:
    """Serve a site with these settings."""
    return lambda **settings: serve([path("", live.websocket(wait))], **settings)


def test_only_pages_of_the_own_site_may_connect(sites: Any) -> None:
    port = sites()
    assert status(port) == 101
    assert status_of(port, "http://site.example") == 101
    for other in ("https://site.example", "http://site.example:8080", "null", "http://[bad"):
        assert status_of(port, other) == 403


def test_all_hosts_do_not_mean_all_origins(sites: Any) -> None:
    port = sites(ALLOWED_HOSTS=["*"])
    assert status_of(port, "http://site.example") == 101
    assert status_of(port, "http://evil.example") == 403


def test_the_scheme_is_that_of_a_trusted_proxy(sites: Any, log: ServerLog) -> None:
    header = ("X-Forwarded-Proto", "https")
    port = sites()
    assert status(port, header, ("Origin", "https://site.example")) == 403
    log.expect("If a proxy terminates TLS, set SECURE_PROXY_SSL_HEADER", 30)
    port = sites(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    assert status(port, header, ("Origin", "https://site.example")) == 101
    assert status(port, header, ("Origin", "http://site.example")) == 403


def test_trusted_origins_may_connect(sites: Any, log: ServerLog) -> None:
    port = sites(CSRF_TRUSTED_ORIGINS=["https://friend.example", "https://*.wild.example"])
    for trusted in ("https://friend.example", "https://a.wild.example", "https://wild.example"):
        assert status_of(port, trusted) == 101
    for other in (
        "http://friend.example",
        "https://friend.example.evil.example",
        "https://evilwild.example",
        "http://a.wild.example",
        "https://*.wild.example.evil.example",
    ):
        assert status_of(port, other) == 403
    log.expect("add it to CSRF_TRUSTED_ORIGINS", 30)


def test_the_origins_of_a_handler_may_connect_and_read(live: Live, serve: Serve) -> None:
    @live.events
    @live.handler(origins=["https://reader.example"])
    def count(request: HttpRequest, stream: EventStream) -> None:
        stream.send("hello")

    port = serve([path("", count)])
    client = Client(port)
    client.send(get("/", ("Origin", "https://reader.example")))
    head = client.read_until(b"\r\n\r\n")
    assert b"Access-Control-Allow-Origin: https://reader.example\r\n" in head
    client.close()
