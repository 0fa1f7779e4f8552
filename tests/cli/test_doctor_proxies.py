"""The command ``doctor`` finds the faults that are planted in configurations of proxies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cli.conftest import Run
from tests.support.proxies import caddy, caddy_proxy, nginx_proxy
from tests.support.serving import Serve
from tests.support.tools import missing_tool
from wsframe.server import App, Server

pytestmark = [pytest.mark.slow]

PASS = "proxy_pass http://127.0.0.1:{server};"
VERSION = "proxy_http_version 1.1;"
UPGRADE = "proxy_set_header Upgrade $http_upgrade;"
CONNECTION = 'proxy_set_header Connection "upgrade";'
HOST = "proxy_set_header Host $http_host;"
# A configuration that works.
CORRECT = (PASS, VERSION, UPGRADE, CONNECTION, HOST)


@dataclass(frozen=True)
class Fault:
    """A fault in a configuration.

    Attributes:
        name: the fault.
        path: the path that is affected.
        location: the directives of nginx's location.
        found: a part of the finding.
        line: the line of the configuration that doctor names.
        server: directives of nginx's server.
    """

    name: str
    path: str
    location: tuple[str, ...]
    found: str
    line: str
    server: str = ""


def without(*directives: str) -> tuple[str, ...]:
    return tuple(directive for directive in CORRECT if directive not in directives)


FAULTS = [
    Fault(
        "the upgrade is not forwarded",
        "/ws",
        without(VERSION, UPGRADE, CONNECTION),
        "The server refused the upgrade",
        UPGRADE,
    ),
    Fault(
        "the proxy uses HTTP/1.0",
        "/ws",
        without(VERSION),
        "The server refused the upgrade",
        VERSION,
    ),
    Fault(
        "Connection is not forwarded",
        "/ws",
        without(CONNECTION),
        "The server refused the upgrade",
        CONNECTION,
    ),
    Fault("the Host is replaced", "/ws", without(HOST), "it receives another Host", HOST),
    Fault("the Host is replaced", "/stream", without(HOST), "it receives another Host", HOST),
    Fault(
        "the Host loses its port",
        "/ws",
        (*without(HOST), "proxy_set_header Host $host;"),
        "the Host without its port",
        HOST,
    ),
    Fault(
        "the Host loses its port",
        "/stream",
        (*without(HOST), "proxy_set_header Host $host;"),
        "the Host without its port",
        HOST,
    ),
    Fault(
        "the Origin is removed",
        "/ws",
        (*CORRECT, 'proxy_set_header Origin "";'),
        "A page of any other site may connect",
        "remove proxy_set_header Origin",
    ),
    Fault(
        "streams are buffered",
        "/quiet",
        (*CORRECT, "proxy_buffering on;", "proxy_ignore_headers X-Accel-Buffering;"),
        "No response within",
        "proxy_buffering off;",
    ),
    Fault(
        "streams are compressed",
        "/stream",
        (*CORRECT, "gzip on; gzip_types text/event-stream; gzip_min_length 0;"),
        "The stream is compressed (gzip)",
        "gzip_types ...;   # without text/event-stream",
    ),
    Fault(
        "silent WebSockets are cut",
        "/ws",
        (*CORRECT, "proxy_read_timeout 200ms;"),
        "closed the connection without a close frame",
        "proxy_read_timeout 1h;",
    ),
    Fault(
        "silent streams are cut",
        "/stream",
        (*CORRECT, "proxy_read_timeout 200ms;"),
        "The stream was cut",
        "proxy_read_timeout 1h;",
    ),
    Fault(
        "the server does not run",
        "/ws",
        ("proxy_pass http://127.0.0.1:1;",),
        "The proxy does not reach the server",
        "proxy_pass http://127.0.0.1:9292;",
    ),
    Fault(
        "the path is changed",
        "/ws",
        ("proxy_pass http://127.0.0.1:{server}/other/;", *without(PASS)),
        "The path does not exist",
        "location PATH { proxy_pass http://127.0.0.1:9292;",
    ),
    Fault(
        "another page answers",
        "/ws",
        ("return 200 'the page';",),
        "A page answers for this path",
        "location PATH { proxy_pass",
    ),
    Fault(
        "the proxy redirects to https",
        "/ws",
        CORRECT,
        "The URL redirects to https://localhost",
        "use wss:// in the page",
        server="return 301 https://$http_host$request_uri;",
    ),
]


@pytest.fixture
def server(serve: Serve) -> Server:
    """A server with a WebSocket and an event stream that never send anything by themselves."""
    app = App()

    @app.websocket("/ws")
    def websocket(ws: Any) -> Any:
        while True:
            yield

    app.sse("/stream", source=app.topic("nothing"))
    app.sse("/quiet", source=app.topic("quiet"))
    return serve(app, drain=0.1)


def directives(location: tuple[str, ...], server: Server) -> str:
    return "\n".join(location).replace("{server}", str(server.port))


def scheme(path: str, *, secure: bool = False) -> str:
    return ("ws" if path == "/ws" else "http") + "s" * secure


def examined(run: Run, url: str, *options: object) -> tuple[int, str]:
    """Return the exit code and the report of an examination."""
    ran = run("doctor", url, "--silence", 0.6, "--timeout", 2, *options)
    return ran.code, "\n".join(ran.out)


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_correct_nginx_has_no_problem(run: Run, server: Server, path: str) -> None:
    with nginx_proxy(directives(CORRECT, server)) as proxy:
        code, report = examined(run, f"{scheme(path)}://localhost:{proxy.port}{path}")
    assert "problem" not in report
    assert code == 0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}{fault.path}")
def test_a_fault_of_nginx_is_found_and_its_line_is_named(
    run: Run, server: Server, fault: Fault
) -> None:
    with nginx_proxy(directives(fault.location, server), fault.server) as proxy:
        code, report = examined(run, f"{scheme(fault.path)}://localhost:{proxy.port}{fault.path}")
    assert fault.found in report
    assert fault.line in report
    assert "Caddy:" not in report  # nginx was recognized
    assert code == (0 if "compressed" in fault.name else 1)


TLS = "ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def issue(kind: str, authority: trustme.CA, folder: Path) -> None:
    """Write a certificate with a fault, and its key."""
    if kind == "self-signed":
        other = trustme.CA()
        other.cert_pem.write_to_path(folder / "cert.pem")
        other.private_key_pem.write_to_path(folder / "key.pem")
        return
    if kind == "expired":
        certificate = authority.issue_cert("localhost", not_after=LONG_AGO)
    elif kind == "name":
        certificate = authority.issue_cert("other.example")
    elif kind == "chain":
        certificate = authority.create_child_ca().issue_cert("localhost")
    else:
        certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that issues certificates."""
    return trustme.CA()


@pytest.mark.parametrize(
    ("kind", "found", "line"),
    [
        ("expired", "certificate has expired", "ssl_certificate FILE;   # renew the file"),
        ("name", "certificate is not valid for 'localhost'", "server_name HOST;"),
        ("self-signed", "self-signed certificate", "ssl_certificate FILE;   # a certificate of a"),
        ("chain", "unable to get local issuer certificate", "ssl_certificate fullchain.pem;"),
        ("valid", "The certificate is valid, for ", ""),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_certificate_that_clients_refuse_is_found(
    run: Run,
    server: Server,
    authority: trustme.CA,
    tmp_path: Path,
    kind: str,
    found: str,
    line: str,
    path: str,
) -> None:
    issue(kind, authority, tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = TLS.replace("{folder}", str(tmp_path))
    with nginx_proxy(directives(CORRECT, server), tls, tls=True) as proxy:
        url = f"{scheme(path, secure=True)}://localhost:{proxy.port}{path}"
        code, report = examined(run, url, "--cacert", tmp_path / "ca.pem")
    assert found in report
    assert line in report
    assert code == (0 if kind == "valid" else 1)


CADDY_FAULTS = {
    "none": ("/ws", "reverse_proxy 127.0.0.1:{server}", "The path upgrades", ""),
    "the Host is replaced": (
        "/ws",
        "reverse_proxy 127.0.0.1:{server} { header_up Host {upstream_hostport} }",
        "it receives another Host",
        "remove header_up Host",
    ),
    "the Host loses its port": (
        "/ws",
        "reverse_proxy 127.0.0.1:{server} { header_up Host {host} }",
        "the Host without its port",
        "remove header_up Host {host}",
    ),
    "the Origin is removed": (
        "/ws",
        "reverse_proxy 127.0.0.1:{server} { header_up -Origin }",
        "A page of any other site may connect",
        "remove header_up -Origin",
    ),
    "silent streams are cut": (
        "/stream",
        "reverse_proxy 127.0.0.1:{server} { transport http { read_timeout 200ms } }",
        "The stream was cut",
        "remove read_timeout",
    ),
    "the server does not run": (
        "/ws",
        "reverse_proxy 127.0.0.1:1",
        "The proxy does not reach the server",
        "reverse_proxy 127.0.0.1:9292",
    ),
    "the path is changed": (
        "/ws",
        "handle_path /ws* { reverse_proxy 127.0.0.1:{server} }",
        "The path does not exist",
        "not handle_path",
    ),
}


@pytest.fixture
def caddy_program() -> str:
    """The path of Caddy."""
    program = caddy()
    if program is None:
        missing_tool("caddy")
    return program


@pytest.mark.parametrize("fault", CADDY_FAULTS)
def test_a_fault_of_caddy_is_found_and_its_line_is_named(
    run: Run, server: Server, caddy_program: str, fault: str
) -> None:
    path, site, found, line = CADDY_FAULTS[fault]
    site = site.replace("{server}", str(server.port)).replace(" { ", " {\n").replace(" }", "\n}")
    with caddy_proxy(caddy_program, site) as proxy:
        code, report = examined(run, f"{scheme(path)}://localhost:{proxy.port}{path}")
    assert found in report
    assert line in report
    assert code == (0 if fault == "none" else 1)
