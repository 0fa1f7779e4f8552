"""The command ``doctor`` finds faults that are planted in Caddy, and its remedies cure them."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import Run
from tests.cli.faults import (
    CERTIFICATES,
    Backend,
    Fault,
    application,
    backend,
    check_remedy,
    examined,
    issue,
    status_of,
    url_of,
)
from tests.support.proxies import Proxy, caddy, caddy_version, caddy_with, caddyfile
from tests.support.serving import Serve
from tests.support.tools import missing_tool
from tests.support.waiting import wait_until
from wsframe.cli.doctor.findings import REMEDIES
from wsframe.server import EventStream

pytestmark = [pytest.mark.slow]
__all__ = ["backend"]

CORRECT = ("reverse_proxy 127.0.0.1:{server}",)


def reverse_proxy(*options: str) -> tuple[str, ...]:
    return ("reverse_proxy 127.0.0.1:{server} {", *options, "}")


VERSION = caddy_version()
# The option that buffers responses.
BUFFER = "response_buffers 1MiB" if VERSION >= (2, 8) else "buffer_responses"
# Directives that compress also short responses.
COMPRESS = (
    ("encode {", "gzip", "minimum_length 1", "}"),
    ("encode gzip {", "minimum_length 1", "match {", "header Content-Type *", "}", "}"),
)
# Newer versions do not compress a response with ``no-transform``, such as an event stream.
HONOURS_NO_TRANSFORM = VERSION >= (2, 6, 3)
UNMARKED = reverse_proxy("header_down -Cache-Control")
# The finding about a compressed stream: only newer versions flush it.
COMPRESSED = "The stream is compressed (gzip)" if VERSION >= (2, 9) else "Nothing arrived"
REFUSED = "The server refused the upgrade"
# Directives that change a header of the request.
CHANGES = {
    name: [reverse_proxy(f"header_up {change}"), (f"request_header {change}", *CORRECT)]
    for name, change in {
        "no Upgrade": "-Upgrade",
        "no Connection": "-Connection",
        "another Connection": "Connection close",
        "another Host": "Host 127.0.0.1",
        "the Host of an upstream": "Host backend",
        "no port": "Host {host}",
        "no Origin": "-Origin",
        "another Origin": "Origin http://{http.request.hostport}",
    }.items()
}


def changed(change: str, path: str, found: str, remedy: str) -> list[Fault]:
    return [Fault(change, path, site, found, remedy) for site in CHANGES[change]]


FAULTS = [
    *changed("no Upgrade", "/ws", REFUSED, "upgrade"),
    *changed("no Connection", "/ws", REFUSED, "upgrade"),
    *changed("another Connection", "/ws", REFUSED, "upgrade"),
    *changed("another Host", "/ws", "it receives another Host", "host"),
    *changed("another Host", "/stream", "it receives another Host", "host"),
    *changed("the Host of an upstream", "/ws", "does not serve the host", "hosts"),
    *changed("the Host of an upstream", "/stream", "does not serve the host", "hosts"),
    *changed("no port", "/ws", "the Host without its port", "port"),
    *changed("no port", "/stream", "the Host without its port", "port"),
    *changed("no Origin", "/ws", "A page of any other site may connect", "origin"),
    *changed("another Origin", "/ws", "A page of any other site may connect", "origin"),
    Fault(
        "streams are buffered",
        "/quiet",
        reverse_proxy(BUFFER),
        "No response within",
        "buffering",
    ),
    Fault(
        "streams are buffered in spite of flush_interval",
        "/quiet",
        reverse_proxy(BUFFER, "flush_interval -1"),
        "No response within",
        "buffering",
    ),
    *(
        Fault("streams are compressed", "/stream", (*compress, *server), COMPRESSED, "compression")
        for compress in COMPRESS
        for server in ([UNMARKED] if HONOURS_NO_TRANSFORM else [UNMARKED, CORRECT])
    ),
    *(
        Fault(
            "silent connections are cut",
            path,
            reverse_proxy("transport http {", "read_timeout 200ms", "}"),
            "was cut",
            "silence",
        )
        for path in ("/ws", "/stream")
    ),
    *(
        Fault("the server is not reached", "/ws", site, "does not reach the server", "server")
        for site in (
            ("reverse_proxy 127.0.0.1:1",),
            ("reverse_proxy https://127.0.0.1:{server}",),
            ("reverse_proxy h2c://127.0.0.1:{server}",),
        )
    ),
    *(
        Fault("the path is changed", "/ws", site, "The path does not exist", "route")
        for site in (
            ("handle_path /ws* {", *CORRECT, "}"),
            ("uri strip_prefix /ws", *CORRECT),
            ("rewrite * /other", *CORRECT),
        )
    ),
    Fault("another page answers", "/ws", ("respond page",), "A page answers", "route"),
    Fault(
        "the proxy redirects to https",
        "/ws",
        ("redir https://{hostport}{uri}", *CORRECT),
        "The URL redirects to https://localhost",
        "redirect",
    ),
]


@pytest.fixture
def program() -> str:
    """The path of Caddy."""
    return caddy() or missing_tool("caddy")


@pytest.mark.parametrize("path", ["/ws", "/stream"])
@pytest.mark.parametrize(
    "site",
    [
        CORRECT,
        ("encode gzip", *CORRECT),
        *((*compress, *CORRECT) for compress in COMPRESS if HONOURS_NO_TRANSFORM),
    ],
)
def test_a_correct_caddy_has_no_problem(
    run: Run, backend: Backend, program: str, site: tuple[str, ...], path: str
) -> None:
    with caddy_with(program, caddyfile(backend.fill(site))) as proxy:
        code, report = examined(run, url_of(proxy, path))
    assert "problem" not in report
    assert code == 0


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_caddy_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, program: str, fault: Fault
) -> None:
    configuration = caddyfile(backend.fill(fault.site))

    def examine(proxy: Proxy) -> tuple[int, str]:
        return examined(run, url_of(proxy, fault.path))

    start = partial(caddy_with, program)
    with start(configuration) as proxy:
        code, report = examine(proxy)
    assert fault.found in report
    assert "nginx:" not in report  # Caddy was recognized
    assert code == (0 if "note     " in report else 1)
    names = {**backend.names, "PATH": fault.path}
    check_remedy(report, "caddy", fault.remedy, configuration, names, start, examine)


def test_a_limit_on_the_time_of_a_response_is_found_and_its_remedy_cures_it(
    run: Run, serve: Serve, program: str
) -> None:
    app = application()

    @app.sse("/news")
    def news(stream: EventStream) -> None:
        while not never.wait(0.05):
            stream.send("news")

    never = threading.Event()
    backend = Backend(serve(app, drain=0.1), {})
    options = "\n".join(("servers {", "timeouts {", "write 200ms", "}", "}"))
    configuration = caddyfile(backend.fill(CORRECT), options)

    def examine(proxy: Proxy) -> tuple[int, str]:
        return examined(run, url_of(proxy, "/news"))

    start = partial(caddy_with, program)
    with start(configuration) as proxy:
        code, report = examine(proxy)
    assert "The stream was cut" in report
    assert code == 1
    check_remedy(report, "caddy", "silence", configuration, {}, start, examine)


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_failing_health_check_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, program: str, path: str
) -> None:
    check = reverse_proxy("health_uri /nothing", "health_interval 50ms")
    configuration = caddyfile(backend.fill(check))

    def examine(proxy: Proxy) -> tuple[int, str]:
        return examined(run, url_of(proxy, path))

    start = partial(caddy_with, program)
    with start(configuration) as proxy:
        wait_until(lambda: status_of(proxy) == 503, "the health check has failed")
        code, report = examine(proxy)
    assert "The server is full or does not run" in report
    assert code == 1
    check_remedy(report, "caddy", "full", configuration, {}, start, examine)


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_clients_refuse_is_found_and_its_remedy_cures_it(
    run: Run, backend: Backend, program: str, tmp_path: Path, kind: str
) -> None:
    names = {**backend.names, **issue(kind, trustme.CA(), tmp_path)}
    site = (f"tls {tmp_path}/bad.pem {tmp_path}/bad-key.pem", *CORRECT)
    configuration = caddyfile(backend.fill(site), tls=True)

    def examine(proxy: Proxy) -> tuple[int, str]:
        url = url_of(proxy, "/ws", secure=True)
        return examined(run, url, "--cacert", tmp_path / "ca.pem")

    start = partial(caddy_with, program)
    with start(configuration) as proxy:
        code, report = examine(proxy)
    found, remedy = CERTIFICATES[kind]
    assert found in report
    assert code == 1
    check_remedy(report, "caddy", remedy, configuration, names, start, examine)


def test_the_remedies_for_caddy_are_tested() -> None:
    tested = {fault.remedy for fault in FAULTS} | {remedy for _, remedy in CERTIFICATES.values()}
    assert tested | {"full"} == {key for key, remedy in REMEDIES.items() if remedy.caddy}
