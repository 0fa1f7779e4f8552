"""TLS: the certificate, the key and the context of a server."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.server.sockets.over_tls import VERSIONS, client_of, page_app
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Clients, get
from tests.support.handlers import generator_echo, websocket_app
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe.server import App, Settings
from wsframe.server.sockets.certificate import CertificateError, tls_context

pytestmark = resets_under_tls


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Path:
    """A directory with certificates."""
    certificates.write(tmp_path)
    return tmp_path


def paths(directory: Path, names: dict[str, str]) -> dict[str, Any]:
    return {option: directory / name for option, name in names.items()}


@pytest.mark.parametrize(
    "options",
    [{"cert": "cert.pem", "key": "key.pem"}, {"cert": "both.pem"}],
    ids=["two files", "one file"],
)
@VERSIONS
def test_a_certificate_enables_tls(
    files: Path,
    certificates: Certificates,
    clients: Clients,
    options: dict[str, str],
    version: ssl.TLSVersion,
) -> None:
    app = websocket_app(generator_echo)
    with app.start("127.0.0.1", **paths(files, options)) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        context = client_of(certificates, version)
        context.set_alpn_protocols(["h2", "http/1.1"])
        # No client that receives in another thread: Python 3.11 may lose what one thread sends
        # through an SSLSocket while another one receives a ticket of TLS 1.3.
        client = clients.websocket(server, "/echo", tls=context)
        client.send_messages("hello")
        assert client.expect(1) == ["hello"]
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.version() == version.name.replace("_", ".")
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        client.leave()


def test_a_context_can_be_passed_instead(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(websocket_app(generator_echo), ssl_context=certificates.server)
    assert server.url.startswith("https:")
    client = clients.websocket(server, "/echo", tls=certificates.client)
    client.send_messages("hello")
    assert client.next_event() == "hello"
    client.leave()


def test_insecure_versions_of_tls_are_refused(files: Path) -> None:
    context = tls_context(Settings(cert=files / "both.pem"))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cert": "missing.pem"}, FileNotFoundError, "'.*missing.pem'"),
        ({"cert": "cert.pem", "key": "missing.pem"}, FileNotFoundError, "'.*missing.pem'"),
        ({"cert": "."}, OSError, "directory"),
        ({"cert": "cert.pem"}, CertificateError, "cert.pem does not contain a private key"),
        (
            {"cert": "cert.pem", "key": "ca.pem"},
            CertificateError,
            "ca.pem does not contain a private key",
        ),
        ({"cert": "key.pem"}, CertificateError, "key.pem does not contain a certificate"),
        (
            {"cert": "cert.pem", "key": "empty.pem"},
            CertificateError,
            "empty.pem does not contain a private",
        ),
        (
            {"cert": "empty.pem", "key": "key.pem"},
            CertificateError,
            "empty.pem does not contain a cert",
        ),
        (
            {"cert": "junk.pem", "key": "key.pem"},
            CertificateError,
            "junk.pem and .* cannot be used",
        ),
        (
            {"cert": "cert.pem", "key": "other.pem"},
            CertificateError,
            "the key in .*other.pem does not belong to the certificate in .*cert.pem",
        ),
        ({"cert": "cert.pem", "key": "locked.pem"}, CertificateError, "locked.pem is encrypted"),
        ({"cert": "cert.pem", "key": "old.pem"}, CertificateError, "old.pem is encrypted"),
        ({"cert": "locked-both.pem"}, CertificateError, "locked-both.pem is encrypted"),
        ({"key": "key.pem"}, ValueError, "key requires cert"),
        ({"client_ca": "ca.pem"}, ValueError, "client_ca requires cert"),
        ({"cert": "both.pem", "client_ca": "none.pem"}, FileNotFoundError, "'.*none.pem'"),
        (
            {"cert": "both.pem", "client_ca": "key.pem"},
            CertificateError,
            "key.pem does not contain certificates of authorities in PEM format",
        ),
    ],
)
def test_an_unusable_certificate_is_refused_and_its_file_is_named(
    files: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    key = load_pem_private_key((files / "key.pem").read_bytes(), None)
    for name, form in (("locked", PrivateFormat.PKCS8), ("old", PrivateFormat.TraditionalOpenSSL)):
        locked = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
        (files / f"{name}.pem").write_bytes(locked)
    both = (files / "cert.pem").read_bytes() + (files / "locked.pem").read_bytes()
    (files / "locked-both.pem").write_bytes(both)
    other = trustme.CA().issue_cert("localhost").private_key_pem
    other.write_to_path(files / "other.pem")
    (files / "empty.pem").touch()
    junk = "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"
    (files / "junk.pem").write_text(junk, encoding="ascii")
    with pytest.raises(error, match=message):
        App().start("127.0.0.1", **paths(files, options))


def test_the_need_for_a_client_certificate_is_checked(files: Path) -> None:
    with pytest.raises(ValueError, match="must be 'required' or 'optional': 'sometimes'"):
        App().start(cert=files / "both.pem", client_cert="sometimes")  # type: ignore[arg-type]


def test_a_context_and_a_certificate_exclude_each_other(
    files: Path, certificates: Certificates
) -> None:
    with pytest.raises(ValueError, match="cannot be combined"):
        App().start(cert=files / "both.pem", ssl_context=certificates.server)


def test_an_error_of_readable_files_is_not_attributed_to_one(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        tls_context(Settings(cert=files / "both.pem"))
    assert caught.value.filename is None


@VERSIONS
def test_a_client_can_resume_its_session_several_times(
    files: Path, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = client_of(certificates, version)

    def ask(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as tls,
        ):
            tls.sendall(get("/"))
            while tls.recv(4096):
                pass
            return tls.session_reused, tls.session

    with page_app().start("127.0.0.1", cert=files / "both.pem") as server:
        reused, session = ask(None)
        assert not reused
        for _ in range(3):
            assert ask(session)[0]
