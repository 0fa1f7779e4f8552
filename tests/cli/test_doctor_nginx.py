"""The command ``doctor`` finds faults that are planted in nginx, and its remedies cure them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import Run
from tests.cli.faults import (
    CERTIFICATES,
    Backend,
    Fault,
    backend,
    check_remedy,
    examined,
    issue,
    status_of,
    url_of,
)
from tests.support.proxies import Proxy, nginx_server, nginx_with
from wsframe import nginx
from wsframe.cli.doctor.findings import REMEDIES

pytestmark = [pytest.mark.slow]
__all__ = ["backend"]

PASS = "proxy_pass http://127.0.0.1:{server};"
VERSION, UPGRADE, CONNECTION = nginx.UPGRADE
HOST = nginx.HOST
# A configuration that works.
CORRECT = (PASS, *nginx.UPGRADE, HOST)
AROUND = """
upstream backend {
    server 127.0.0.1:{server};
}
limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
limit_req_status 429;
"""
LIMIT = ("limit_req zone=one;",)


def without(*directives: str) -> tuple[str, ...]:
    return tuple(directive for directive in CORRECT if directive not in directives)


REFUSED = "The server refused the upgrade"
FAULTS = [
    Fault("no upgrade", "/ws", without(*nginx.UPGRADE), REFUSED, "upgrade"),
    Fault("HTTP/1.0", "/ws", (*without(VERSION), "proxy_http_version 1.0;"), REFUSED, "upgrade"),
    Fault("no Upgrade", "/ws", without(UPGRADE), REFUSED, "upgrade"),
    Fault("no Connection", "/ws", without(CONNECTION), REFUSED, "upgrade"),
    *(
        Fault(
            "another Connection",
            "/ws",
            (*without(CONNECTION), f"proxy_set_header Connection {value};"),
            REFUSED,
            "upgrade",
        )
        for value in ('""', "close", "keep-alive")
    ),
    *(
        Fault("the Host is replaced", path, without(HOST), "it receives another Host", "host")
        for path in ("/ws", "/stream")
    ),
    *(
        Fault(
            "the Host loses its port",
            path,
            (*without(HOST), "proxy_set_header Host $host;"),
            "the Host without its port",
            "port",
        )
        for path in ("/ws", "/stream")
    ),
    *(
        Fault(
            "the Host is that of the upstream",
            path,
            (*without(HOST, PASS), "proxy_pass http://backend;"),
            "does not serve the host that it receives",
            "hosts",
        )
        for path in ("/ws", "/stream")
    ),
    Fault(
        "the Origin is removed",
        "/ws",
        (*CORRECT, 'proxy_set_header Origin "";'),
        "A page of any other site may connect",
        "origin",
    ),
    Fault(
        "streams are buffered",
        "/quiet",
        (*CORRECT, "proxy_buffering on;", "proxy_ignore_headers X-Accel-Buffering;"),
        "No response within",
        "buffering",
    ),
    *(
        Fault(
            "streams are compressed",
            "/stream",
            (*CORRECT, "gzip on;", f"gzip_types {types};", "gzip_min_length 0;"),
            "The stream is compressed (gzip)",
            "compression",
        )
        for types in ("text/event-stream", "*")
    ),
    Fault(
        "silent WebSockets are cut",
        "/ws",
        (*CORRECT, "proxy_read_timeout 200ms;"),
        "closed the connection without a close frame",
        "silence",
    ),
    Fault(
        "silent streams are cut",
        "/stream",
        (*CORRECT, "proxy_read_timeout 200ms;"),
        "The stream was cut",
        "silence",
    ),
    Fault(
        "the server does not run",
        "/ws",
        ("proxy_pass http://127.0.0.1:1;", *without(PASS)),
        "The proxy does not reach the server",
        "server",
    ),
    Fault(
        "the server is reached with TLS",
        "/ws",
        ("proxy_pass https://127.0.0.1:{server};", *without(PASS)),
        "The proxy does not reach the server",
        "server",
    ),
    Fault(
        "the path is changed",
        "/ws",
        ("proxy_pass http://127.0.0.1:{server}/other/;", *without(PASS)),
        "The path does not exist",
        "route",
    ),
    Fault(
        "the path is rewritten",
        "/ws",
        CORRECT,
        "The path does not exist",
        "route",
        around=("rewrite ^ /other;",),
    ),
    Fault(
        "another page answers",
        "/ws",
        ("return 200 page;",),
        "A page answers for this path",
        "route",
    ),
    *(
        Fault(
            "the proxy redirects to https",
            "/ws",
            CORRECT,
            "The URL redirects to https://localhost",
            "redirect",
            around=(directive,),
        )
        for directive in (
            "return 301 https://$http_host$request_uri;",
            "rewrite ^ https://$http_host$request_uri permanent;",
        )
    ),
]


def configuration_of(backend: Backend, site: tuple[str, ...], around: tuple[str, ...] = ()) -> str:
    return backend.fill((AROUND, nginx_server("\n".join(site), "\n".join(around))))


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_correct_nginx_has_no_problem(run: Run, backend: Backend, path: str) -> None:
    with nginx_with(configuration_of(backend, CORRECT)) as proxy:
        code, report = examined(run, url_of(proxy, path))
    assert "problem" not in report
    assert code == 0


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_nginx_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, fault: Fault
) -> None:
    configuration = configuration_of(backend, fault.site, fault.around)

    def examine(proxy: Proxy) -> tuple[int, str]:
        return examined(run, url_of(proxy, fault.path))

    with nginx_with(configuration) as proxy:
        code, report = examine(proxy)
    assert fault.found in report
    assert "Caddy:" not in report  # nginx was recognized
    assert code == (0 if "note     " in report else 1)
    names = {**backend.names, "PATH": fault.path}
    check_remedy(report, "nginx", fault.remedy, configuration, names, nginx_with, examine)


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_limit_of_nginx_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, path: str
) -> None:
    configuration = configuration_of(backend, (*CORRECT, *LIMIT))

    def examine(proxy: Proxy) -> tuple[int, str]:
        assert status_of(proxy) == 404  # the only request within the limit
        return examined(run, url_of(proxy, path))

    with nginx_with(configuration) as proxy:
        code, report = examine(proxy)
    assert "The server is full or does not run: The server answered 429" in report
    assert code == 1
    check_remedy(report, "nginx", "full", configuration, {}, nginx_with, examine)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that issues certificates."""
    return trustme.CA()


@pytest.mark.parametrize("kind", [*CERTIFICATES, "valid"])
@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_certificate_that_clients_refuse_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, authority: trustme.CA, tmp_path: Path, kind: str, path: str
) -> None:
    names = {**backend.names, **issue(kind, authority, tmp_path)}
    directives = (
        "server_name other.example;",
        f"ssl_certificate {tmp_path}/bad.pem;",
        f"ssl_certificate_key {tmp_path}/bad-key.pem;",
    )
    site, around = "\n".join(CORRECT), "\n".join(directives)
    configuration = backend.fill((nginx_server(site, around, tls=True),))

    def examine(proxy: Proxy) -> tuple[int, str]:
        url = url_of(proxy, path, secure=True)
        return examined(run, url, "--cacert", tmp_path / "ca.pem")

    with nginx_with(configuration) as proxy:
        code, report = examine(proxy)
    if kind == "valid":
        assert "The certificate is valid, for " in report
        assert code == 0
        return
    found, remedy = CERTIFICATES[kind]
    assert found in report
    assert code == 1
    check_remedy(report, "nginx", remedy, configuration, names, nginx_with, examine)


def test_the_remedies_for_nginx_are_tested() -> None:
    tested = {fault.remedy for fault in FAULTS} | {remedy for _, remedy in CERTIFICATES.values()}
    assert tested | {"full"} == {key for key, remedy in REMEDIES.items() if remedy.nginx}
