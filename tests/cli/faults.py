"""The faults that tests plant in configurations of proxies, and their examination."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cli.conftest import Run
from tests.support.proxies import Proxy
from tests.support.remedies import apply_remedy, printed_remedies
from tests.support.serving import Serve
from wsframe.cli.doctor.findings import NAMES, remedy_lines
from wsframe.server import App, Server

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# A remedy that requires a public authority.
BY_ITSELF = "remove tls"
# The certificates that clients refuse: a part of the finding, and its remedy.
CERTIFICATES = {
    "expired": ("certificate has expired", "expired"),
    "expires": ("The certificate expires in 5 days", "expires"),
    "name": ("certificate is not valid for 'localhost'", "name"),
    "self-signed": ("self-signed certificate", "self-signed"),
    "chain": ("unable to get local issuer certificate", "chain"),
}


@dataclass(frozen=True)
class Fault:
    """A fault in a configuration.

    Attributes:
        name: the fault.
        path: the path that is affected.
        site: the directives of nginx's location or Caddy's site; ``{server}`` is a port.
        found: a part of the finding.
        remedy: the key of the remedy in ``REMEDIES``.
        around: directives of nginx's server, or global options of Caddy.
    """

    name: str
    path: str
    site: tuple[str, ...]
    found: str
    remedy: str
    around: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}{self.path}"


@dataclass
class Backend:
    """A server behind proxies, and the values of the words in capitals of remedies."""

    server: Server
    names: Mapping[str, object]

    def fill(self, directives: tuple[str, ...]) -> str:
        """Return directives as lines with the server's port."""
        return "\n".join(directives).replace("{server}", str(self.server.port))


def application() -> App:
    """Return an app whose WebSocket and event streams send nothing by themselves."""
    app = App()

    @app.websocket("/ws")
    def websocket(ws: Any) -> Any:
        while True:
            yield

    app.sse("/stream", source=app.topic("nothing"))
    app.sse("/quiet", source=app.topic("quiet"))
    return app


@pytest.fixture
def backend(serve: Serve, tmp_path: Path) -> Backend:
    """A server on a port, and the same on a unix socket."""
    sock = tmp_path / "s"
    serve(application(), unix=sock, hosts=["localhost"], drain=0.1)
    server = serve(application(), drain=0.1)
    return Backend(server, {"9292": server.port, "SOCKET": sock, "HOST": "localhost"})


def url_of(proxy: Proxy, path: str, *, secure: bool = False) -> str:
    scheme = ("ws" if path == "/ws" else "http") + "s" * secure
    return f"{scheme}://localhost:{proxy.port}{path}"


def status_of(proxy: Proxy) -> int:
    """Return the status of a request for a path that the server does not have."""
    with closing(HTTPConnection("localhost", proxy.port)) as connection:
        connection.request("GET", "/nothing")
        return connection.getresponse().status


def examined(run: Run, url: str, *options: object) -> tuple[int, str]:
    """Return the exit code and the report of an examination."""
    ran = run("doctor", url, "--silence", 0.6, "--timeout", 2, *options)
    return ran.code, "\n".join(ran.out)


def check_remedy(
    report: str,
    proxy: str,
    remedy: str,
    configuration: str,
    names: Mapping[str, object],
    start: Callable[[str], Proxy],
    examine: Callable[[Proxy], tuple[int, str]],
) -> None:
    """Check that a report contains a remedy, and that each alternative cures the fault.

    Args:
        report: the report.
        proxy: the key of the proxy in ``NAMES``.
        remedy: the key of the remedy in ``REMEDIES``.
        configuration: the configuration with the fault.
        names: the values of the words in capitals.
        start: returns a proxy with a configuration.
        examine: examines a proxy, and returns the exit code and the report.
    """
    for line in remedy_lines(remedy, proxy):
        assert line in report
    alternatives = printed_remedies(report, NAMES[proxy])
    assert alternatives
    for lines in alternatives:
        with start(apply_remedy(configuration, lines, names)) as running:
            if lines[0].startswith(BY_ITSELF):
                continue
            code, cured = examine(running)
        assert "problem  " not in cured, lines
        assert "note     " not in cured, lines
        assert code == 0


def self_signed() -> tuple[bytes, bytes]:
    """Return a certificate for localhost that no authority has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=100))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.TraditionalOpenSSL
    return (
        certificate.public_bytes(pem),
        key.private_bytes(pem, private, serialization.NoEncryption()),
    )


def issue(kind: str, authority: trustme.CA, folder: Path) -> dict[str, object]:
    """Write a certificate with a fault, and a valid one; return the words for the valid one."""
    bad = Path(folder, "bad.pem"), Path(folder, "bad-key.pem")
    good = Path(folder, "good.pem"), Path(folder, "good-key.pem")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issuer = authority.create_child_ca() if kind == "chain" else authority
    valid = issuer.issue_cert("localhost")
    if kind == "self-signed":
        for path, content in zip(bad, self_signed(), strict=True):
            path.write_bytes(content)
    else:
        end = {"expired": LONG_AGO, "expires": datetime.now(UTC) + timedelta(days=5, hours=1)}
        host = "other.example" if kind == "name" else "localhost"
        given = valid if kind == "chain" else issuer.issue_cert(host, not_after=end.get(kind))
        given.cert_chain_pems[0].write_to_path(str(bad[0]))
        given.private_key_pem.write_to_path(str(bad[1]))
    for number, pem in enumerate(valid.cert_chain_pems):
        pem.write_to_path(str(good[0]), append=number > 0)
    valid.private_key_pem.write_to_path(str(good[1]))
    # The remedy of an incomplete chain keeps the key.
    key = bad[1] if kind == "chain" else good[1]
    return {"CERT": good[0], "CHAIN": good[0], "KEY": key}
