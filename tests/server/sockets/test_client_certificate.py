"""The certificate of a client, as handlers see it."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.server.sockets.over_tls import VERSIONS
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Clients
from tests.support.serving import Serve
from wsframe.server import App, Request, Server, WebSocket

pytestmark = resets_under_tls


def common_name(request: Request) -> str:
    """Return the common name of a client; "anonymous" without a certificate."""
    certificate: dict[str, Any] | None = request.client_certificate
    if certificate is None:
        return "anonymous"
    return str(dict(pair for group in certificate["subject"] for pair in group)["commonName"])


def names_app() -> App:
    app = App()

    @app.websocket("/", authorize=common_name)
    def greet(ws: WebSocket) -> None:
        ws.send(f"{ws.request.identity}, {common_name(ws.request)}")

    return app


def greeting(clients: Clients, server: Server, tls: ssl.SSLContext | None) -> object:
    client = clients.websocket(server, "/", tls=tls)
    message = client.next_event()
    client.expect_close()
    return message


@VERSIONS
def test_handlers_see_the_certificate_of_a_client(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    server = serve(names_app(), ssl_context=certificates.server_context())
    client = certificates.client_context("ann")
    client.minimum_version = client.maximum_version = version
    assert greeting(clients, server, client) == "ann, ann"
    assert greeting(clients, server, certificates.client_context()) == "anonymous, anonymous"


def test_a_certificate_is_not_seen_without_verification_or_tls(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    client = certificates.client_context("ann")
    secure = serve(names_app(), ssl_context=certificates.server)
    assert greeting(clients, secure, client) == "anonymous, anonymous"
    assert greeting(clients, serve(names_app()), None) == "anonymous, anonymous"


def test_a_certificate_of_another_authority_ends_the_handshake(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    client = Certificates().client_context("ann")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    certificates.authority.configure_trust(client)
    server = serve(names_app(), ssl_context=certificates.server_context())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        clients.connect(server, tls=client)
