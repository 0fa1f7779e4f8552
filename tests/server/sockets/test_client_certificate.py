"""The certificate of a client, as handlers see it."""

from __future__ import annotations

import re
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.sockets.over_tls import VERSIONS
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Clients
from tests.support.processes import ServerProcess
from tests.support.serving import Serve
from wsframe.server import App, Request, WebSocket
from wsframe.testing.clients import Listening

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


# The same in a module for the command line.
NAMES = """
from wsframe.server import App

app = App()

@app.websocket("/")
def greet(ws):
    subject = ws.request.client_certificate["subject"]
    ws.send(dict(pair for group in subject for pair in group)["commonName"])
"""


def greeting(clients: Clients, server: Listening, tls: ssl.SSLContext | None) -> object:
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


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Path:
    """A directory with the files of the certificates."""
    certificates.write(tmp_path)
    return tmp_path


def trusting(certificates: Certificates, other: Certificates) -> ssl.SSLContext:
    """Return a client's context that trusts one authority and has a certificate of another."""
    client = other.client_context("ann")
    certificates.authority.configure_trust(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # the refusal ends the client's own handshake
    return client


def refused(clients: Clients, server: Listening, tls: ssl.SSLContext) -> str:
    """Return the alert with which a server ends the handshake."""
    with pytest.raises(ssl.SSLError) as raised:
        clients.websocket(server, "/", tls=tls)
    return str(raised.value)


def test_client_ca_requires_a_certificate_of_its_authorities(
    serve: Serve, clients: Clients, certificates: Certificates, files: Path
) -> None:
    server = serve(names_app(), cert=files / "both.pem", client_ca=files / "ca.pem")
    assert greeting(clients, server, certificates.client_context("ann")) == "ann, ann"
    anonymous = certificates.client_context()
    anonymous.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "handshake failure" in refused(clients, server, anonymous)
    assert "unknown ca" in refused(clients, server, trusting(certificates, Certificates()))


def test_an_optional_certificate_is_verified_if_a_client_has_one(
    serve: Serve, clients: Clients, certificates: Certificates, files: Path
) -> None:
    server = serve(
        names_app(), cert=files / "both.pem", client_ca=files / "ca.pem", client_cert="optional"
    )
    assert greeting(clients, server, certificates.client_context("ann")) == "ann, ann"
    assert greeting(clients, server, certificates.client_context()) == "anonymous, anonymous"
    assert "unknown ca" in refused(clients, server, trusting(certificates, Certificates()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP and no workers")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_options_require_a_certificate_and_sighup_reads_the_authorities_again(
    clients: Clients, certificates: Certificates, files: Path, workers: str
) -> None:
    (files / "names.py").write_text(NAMES)
    options = ("--cert=both.pem", "--client-ca=ca.pem", "--port=0", f"--workers={workers}")
    command = ("-m", "wsframe", "serve", "names:app", "--drain=0", *options)
    after = Certificates()
    known, new = certificates.client_context("ann"), trusting(certificates, after)
    known.maximum_version = ssl.TLSVersion.TLSv1_2
    with ServerProcess(*command, directory=files) as process:
        assert greeting(clients, process, known) == "ann"
        assert "unknown ca" in refused(clients, process, new)
        after.authority.cert_pem.write_to_path(files / "ca.pem")
        process.signal(signal.SIGHUP)
        process.expect(re.compile("^Reloaded"))
        assert greeting(clients, process, new) == "ann"
        assert "unknown ca" in refused(clients, process, known)


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
