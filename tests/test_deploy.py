"""The templates in deploy/, as far as the programs that use them are installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Client, WebSocketClient, get
from tests.support.fixtures import certificates, leak_check, log
from tests.support.log import ServerLog
from tests.support.processes import run
from tests.support.proxies import Proxy, caddy, caddy_proxy, haproxy_with, nginx_with
from tests.support.serving import serve
from tests.support.tools import missing_tool
from wsframe import nginx
from wsframe.cli.options import PREFIX, SETTINGS, argument_parser
from wsframe.cli.sources import resolve
from wsframe.server import App, WebSocket

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.skipif(sys.platform != "linux", reason="for servers with Linux"),
]
__all__ = ["certificates", "leak_check", "log"]

DEPLOY = Path(__file__).parent.parent / "deploy"


def template(name: str, replacements: dict[str, str]) -> str:
    """Return a file of deploy/ with other paths."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for before, after in replacements.items():
        assert before in text
        text = text.replace(before, after)
    return text


def address_app() -> App:
    """An app that sends its clients their addresses."""
    app = App()
    app.metrics()

    @app.websocket("/address")
    def address(ws: WebSocket) -> None:
        request = ws.request
        ws.send(f"{request.client} {request.scheme} {request.host}")
        for message in ws:
            ws.send(message)

    return app


@pytest.fixture
def sock(tmp_path: Path) -> Iterator[Path]:
    """The unix socket of a server, which sends its clients their addresses."""
    path = tmp_path / "s"
    with serve(address_app(), unix=path, trusted_proxies=["unix"], hosts=["localhost"]):
        yield path


def check_proxy(proxy: Proxy, certificates: Certificates | None) -> None:
    """Check that a proxy passes on WebSockets, with the client and the host."""
    tls = None if certificates is None else certificates.client
    client = WebSocketClient(proxy.port, "/address", tls=tls)
    scheme = "http" if tls is None else "https"
    assert client.next_event() == f"127.0.0.1 {scheme} localhost"
    client.send_messages("hello")
    assert client.next_event() == "hello"
    client.leave()
    metrics = Client(proxy.port, tls=tls)
    metrics.send(get("/metrics", ("Connection", "close")))
    assert metrics.answer().status == 200


def test_nginx_is_a_proxy_of_the_server(
    sock: Path, tmp_path: Path, certificates: Certificates
) -> None:
    certificates.write(tmp_path)
    replacements = {
        "/run/shop/shop.sock": str(sock),
        "/etc/ssl/shop": str(tmp_path),
        "443": "127.0.0.1:{port}",
    }
    text = template("nginx.conf", replacements)
    assert {*nginx.UPGRADE, nginx.HOST} <= {line.strip() for line in text.splitlines()}
    with nginx_with(text) as proxy:
        check_proxy(proxy, certificates)


def test_caddy_is_a_proxy_of_the_server(sock: Path) -> None:
    program = caddy() or missing_tool("caddy")
    site = template("Caddyfile", {"/run/shop/shop.sock": str(sock)})
    site = site.partition("shop.example {")[2].rpartition("}")[0]
    with caddy_proxy(program, site) as proxy:
        check_proxy(proxy, None)


@pytest.mark.parametrize("version", ["send-proxy-v2", "send-proxy"])
def test_haproxy_passes_on_tls_and_the_address_of_the_client(
    tmp_path: Path, certificates: Certificates, log: ServerLog, version: str
) -> None:
    sock = tmp_path / "s"
    replacements = {
        "/run/shop/shop.sock": str(sock),
        ":443": "127.0.0.1:{port}",
        "send-proxy-v2": version,
    }
    configuration = template("haproxy.cfg", replacements)
    options: dict[str, Any] = {"proxy_protocol": ["unix"], "hosts": ["localhost", "127.0.0.1"]}
    with (
        serve(address_app(), unix=sock, ssl_context=certificates.server, **options),
        haproxy_with(configuration) as proxy,
    ):
        check_proxy(proxy, certificates)
    assert log.records == []  # HAProxy has checked the server with headers of its own


FORWARDING = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s

listen shop
    bind 127.0.0.1:{port}
    option forwardfor
    http-request del-header X-Forwarded-For
    http-request del-header Forwarded
    http-request del-header X-Forwarded-Host
    http-request del-header X-Forwarded-Port
    http-request set-header X-Forwarded-Proto http
"""


def test_haproxy_forwards_requests(sock: Path) -> None:
    with haproxy_with(f"{FORWARDING}    server shop unix@{sock}\n") as proxy:
        check_proxy(proxy, None)


def test_the_units_of_systemd_are_valid(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze") or missing_tool("systemd-analyze")
    for name in ("shop.service", "shop.socket"):
        text = template(name, {})
        text = text.replace("/opt/shop/.venv/bin/wsframe", sys.executable)
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("shop.service", "shop.socket")]
    result = run([program, "verify", *files])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_settings_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    options = argument_parser("serve").parse_args(["--config", str(DEPLOY / "shop.toml")])
    found = resolve(options, tuple(SETTINGS.values()))
    assert (found["app"], found["workers"]) == ("shop:app", 2)
    for line in (DEPLOY / "Containerfile").read_text().replace("\\", "").splitlines():
        name, _, value = line.strip().removeprefix("ENV ").partition("=")
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value.strip())
    found = resolve(argument_parser("serve").parse_args([]), tuple(SETTINGS.values()))
    assert (found["app"], found["port"], found["ready"]) == ("shop:app", 8000, "/ready")
