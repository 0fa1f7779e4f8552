"""The programs in the guides do what the text states."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.pages import DOCS, blocks
from tests.support.proxies import nginx_with
from tests.support.redis_server import RedisServer
from tests.wsgi.running import werkzeug_server
from wsframe import nginx
from wsframe.server import App, Tickets, WebSocket
from wsframe.testing import AppServer, WebSocketClient
from wsframe.testing.requests import upgrade

from .test_python import run


def names_of(page: str) -> dict[str, Any]:
    """Return the names that the blocks of a page define."""
    return run(DOCS / f"{page}.md")


@pytest.fixture
def migrated() -> Iterator[dict[str, Any]]:
    """The names of the page about migrating, whose connections end with the test."""
    names = names_of("migrating")
    yield names
    for app in (names["app"], names["chat"]):
        app.extensions["wsframe"].stop(0)
    names["wsgi_live"].stop(0)


def test_a_session_and_a_ticket_identify_a_visitor() -> None:
    names = names_of("authentication")
    with AppServer(names["app"]) as server:
        client = server.websocket("/chat", ("Cookie", "session=3f9c"))
        assert client.expect(1) == ["Welcome, ann"]
        refused = server.connect()
        refused.send(upgrade("/chat"))
        assert refused.response().status == 403
    visitor = names["site"].test_client()
    assert visitor.post("/ticket").status_code == 401
    with visitor.session_transaction() as session:
        session["name"] = "bob"
    ticket = visitor.post("/ticket").json["ticket"]
    with AppServer(names["live"]) as server:
        assert server.websocket(f"/chat?ticket={ticket}").expect(1) == ["Welcome, bob"]


def test_migrated_programs_run(migrated: dict[str, Any]) -> None:
    for application, path, sent, expected in (
        (migrated["app"], "/echo", "hello", "hello"),
        (migrated["app"], "/later", "hello", "hello"),
        (migrated["chat"], "/chat", '{"event": "message", "data": "hello"}', "hello"),
        (migrated["chat"], "/chat", '{"event": "ping"}', "pong"),
        (migrated["application"], "/echo", "hello", "hello"),
    ):
        with werkzeug_server(application) as port:
            client = WebSocketClient(port, path)
            client.send_messages(sent)
            assert client.expect(1) == [expected]
            client.leave()
            if path == "/echo":
                assert migrated["ask"](f"ws://127.0.0.1:{port}/echo", "why?") == "why?"


def test_the_codec_answers_a_request() -> None:
    names = names_of("codec")
    handshake, decoder = names["handshake"], names["RequestDecoder"]()
    request = upgrade("/", ("Sec-WebSocket-Protocol", "chat"))
    assert handshake(decoder, request[:-1]) == (None, None)
    response, connection = handshake(decoder, request[-1:] + b"frames")
    assert response.startswith(b"HTTP/1.1 101 ")
    assert connection.subprotocol == "chat"
    assert decoder.rest == b"frames"
    response, connection = handshake(names["RequestDecoder"](), b"GET / HTTP/1.1\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 400 ")
    assert connection is None
    assert names["connection"].deflate == names["PerMessageDeflate"]()


def test_the_user_of_redis_may_do_what_is_needed(tmp_path: Path) -> None:
    [command] = [
        line
        for block in blocks("console", pages=(DOCS / "redis.md",))
        for line in block.code.splitlines()
        if "ACL SETUSER" in line
    ]
    words = shlex.split(command)
    with RedisServer(tmp_path) as redis:
        with redis.client() as client:
            client.execute_command(*words[words.index("ACL") :])
        url = redis.url.replace("redis://", "redis://shop:password@")
        app, tickets = App(redis=url), Tickets("a secret for the tests", redis=url)
        app.sse("/news", source=app.topic("news"))
        with AppServer(app) as server:
            stream = server.stream("/news")
            stream.read_opening()
            app.topic("news").publish("hello")
            assert stream.expect(1) == ["hello"]
            assert app.topic("news").members() == []
            app.topic("news").close()
            app.flush()
        assert tickets.redeem(tickets.issue("ann")) == "ann"
        tickets.close()
        with redis.client() as client:
            denied = {
                entry[entry.index(b"object") + 1] for entry in client.execute_command("ACL", "LOG")
            }
        # Redis 6.2 denies CLIENT SETINFO, which it does not know. redis-py ignores that.
        assert denied <= {b"client"}


def test_a_renewed_certificate_is_loaded(tmp_path: Path, certificates: Certificates) -> None:
    certificates.write(tmp_path)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    texts = ["not a certificate", cert.read_text()]
    loaded: list[tuple[Path, ...]] = []

    class Context:
        """A context that records the pairs that it loads."""

        def load_cert_chain(self, *pair: Path) -> None:
            loaded.append(pair)

    class Waits(threading.Event):
        """Waits that end at once, each after a change of the file."""

        def wait(self, timeout: float | None = None) -> bool:
            if not texts:
                return True
            cert.write_text(texts.pop(0))
            os.utime(cert, (len(texts), len(texts)))
            return False

    names_of("tls")["renew"](Context(), cert, key, 60.0, Waits())
    assert loaded == [(cert, key)]


def directives(configuration: str) -> set[str]:
    return {line.strip() for line in configuration.splitlines()}


def test_nginx_passes_on_websockets() -> None:
    """Of the configurations in the pages; those of deploy/ have tests of their own."""
    app = App()

    @app.websocket("/")
    def greet(ws: WebSocket) -> None:
        ws.send(f"{ws.request.host} {ws.request.client} {ws.request.scheme}")

    with AppServer(app, trusted_proxies=["127.0.0.1"]) as server:
        for block in blocks("nginx"):
            assert {*nginx.UPGRADE, nginx.HOST} <= directives(block.code)
            http = (
                f"upstream backend {{ server 127.0.0.1:{server.port}; }}\n"
                f"server {{ listen 127.0.0.1:{{port}}; {block.code} }}"
            )
            with nginx_with(http) as proxy:
                client = WebSocketClient(proxy.port, "/")
                assert client.expect(1) == ["localhost 127.0.0.1 http"], str(block)
                client.leave()
