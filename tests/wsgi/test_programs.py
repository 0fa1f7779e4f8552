"""Servers that run as programs: gunicorn, gevent and eventlet."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import Client, WebSocketClient, get, masked, upgrade
from tests.support.processes import ServerProcess
from tests.support.tools import missing_tool
from wsframe import Close, Opcode

from .running import gunicorn

pytestmark = pytest.mark.slow

SITE = """
import os
from wsframe.wsgi import Live

live = Live(loops=1, drain=2.0)
news = live.topic("news")

def echo(ws):
    ws.send("hello")
    while True:
        ws.send((yield))

def count(stream):
    yield from range(3)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/echo":
        name = environ.get("QUERY_STRING") or None
        return live.websocket(echo, identity=name)(environ, start_response)
    if path == "/close":
        live.close_identity("ann", reason="banned")
    if path == "/count":
        return live.events(count)(environ, start_response)
    if path == "/metrics":
        return live.metrics(environ, start_response)
    if path == "/exit":
        os._exit(0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"page"]
"""
GEVENT = (
    "from gevent import monkey; monkey.patch_all()\n"
    + SITE
    + """
from gevent.pywsgi import WSGIServer
server = WSGIServer(("127.0.0.1", 0), application, log=None)
server.start()
print("listening", server.server_port, flush=True)
server.serve_forever()
"""
)
EVENTLET = (
    "import eventlet; eventlet.monkey_patch()\n"
    + SITE
    + """
from eventlet import wsgi
sock = eventlet.listen(("127.0.0.1", 0))
print("listening", sock.getsockname()[1], flush=True)
wsgi.server(sock, application, log_output=False)
"""
)
LISTENING = re.compile(r"listening (?P<port>\d+)")
EARLY = b"".join(masked(Opcode.TEXT, f"{number}") for number in range(30))


def exercise(port: int) -> None:
    """Check a WebSocket with early frames, an event stream of a POST, and a page."""
    client = Client(port)
    client.send(upgrade("/echo") + EARLY)
    client.read_until(b"hello")
    client.read_until(b"\x81\x0229")
    client.close()
    chunked = (("Transfer-Encoding", "chunked"), ("Connection", "keep-alive"))
    client = Client(port)
    body = b"5\r\nhello\r\n0\r\n\r\n"
    client.send(get("/count", *chunked, method="POST") + body + get("/page"))
    data = client.read_to_end()
    assert data.count(b"HTTP/1.1") == 1
    assert b"data: 2\n\n" in data
    client.close()
    client = Client(port)
    client.send(get("/page", ("Connection", "close")))
    assert client.read_to_end().endswith(b"page")
    client.close()


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(tmp_path: Path, worker: str) -> None:
    with gunicorn(tmp_path, SITE, "--worker-class", worker) as server:
        exercise(server.port)


@pytest.mark.parametrize(("library", "program"), [("gevent", GEVENT), ("eventlet", EVENTLET)])
def test_a_server_of_greenlets(tmp_path: Path, library: str, program: str) -> None:
    if importlib.util.find_spec(library) is None:
        missing_tool(library)
    path = tmp_path / "program.py"
    path.write_text(program)
    with ServerProcess("-W", "ignore", str(path), until=LISTENING) as server:
        exercise(server.port)
        client = Client(server.port)
        client.send(get("/exit"))
        client.read_to_end()
        client.close()
        server.wait()


def test_workers_of_gunicorn_answer_for_each_other_and_close_with_1001(
    tmp_path: Path, stack: ExitStack
) -> None:
    options = ("--worker-class", "gthread", "--workers", "2", "--threads", "4")
    with gunicorn(tmp_path, SITE, *options) as server:
        clients: list[WebSocketClient] = []
        while True:  # until each worker has one
            clients.append(WebSocketClient(server.port, "/echo"))
            clients[-1].expect(1)
            stack.callback(clients[-1].close)
            metrics = Client(server.port)
            metrics.send(get("/metrics", ("Connection", "close")))
            answer = metrics.read_to_end().decode()
            metrics.close()
            assert f'wsframe_connections{{kind="websocket"}} {len(clients)}\n' in answer
            if 'wsframe_processes{state="answering"} 2\n' in answer:
                break
        server.expect(re.compile("topics are used in several processes without Redis"))
        server.signal(signal.SIGTERM)
        ends = [client.expect(1)[0] for client in clients]
        assert {end.code for end in ends if isinstance(end, Close)} == {1001}
        for client in clients:
            client.close()
        assert server.wait()[0] == 0


@pytest.mark.slow
def test_workers_of_gunicorn_close_the_connections_of_a_user(
    tmp_path: Path, stack: ExitStack
) -> None:
    options = ("--worker-class", "gthread", "--workers", "2", "--threads", "4")
    with gunicorn(tmp_path, SITE, *options) as server:
        clients: list[WebSocketClient] = []
        answer = ""
        while 'wsframe_processes{state="answering"} 2\n' not in answer:
            clients.append(WebSocketClient(server.port, "/echo?ann"))
            clients[-1].expect(1)
            stack.callback(clients[-1].close)
            answer = request(server.port, "/metrics")
        bob = WebSocketClient(server.port, "/echo?bob")
        bob.expect(1)
        assert request(server.port, "/close").endswith("page")
        assert {client.expect_close() for client in clients} == {Close(1008, "banned")}
        bob.send_messages("open")
        assert bob.expect(1) == ["open"]
        bob.leave()


def request(port: int, path: str) -> str:
    """Return the answer to a request."""
    client = Client(port)
    client.send(get(path, ("Connection", "close")))
    answer = client.read_to_end().decode()
    client.close()
    return answer


def test_settings_of_gunicorn_that_surprise_are_logged(tmp_path: Path) -> None:
    options = ("--worker-class", "sync", "--max-requests", "6", "--graceful-timeout", "2")
    with gunicorn(tmp_path, SITE, *options) as server:
        clients = [WebSocketClient(server.port, "/echo") for _ in range(3)]
        server.expect(re.compile(r"gunicorn ends a sync worker, .* longer than 30 s \(timeout\)"))
        server.expect(re.compile(r"gunicorn kills a worker after 2 s \(graceful_timeout\)"))
        server.expect(re.compile(r"3 clients are connected, and .* after 6 requests"))
        for client in clients:
            client.close()
        server.signal(signal.SIGTERM)
        server.wait()


def test_a_worker_that_is_preloaded_before_gevent_patches_it_refuses(tmp_path: Path) -> None:
    if importlib.util.find_spec("gevent") is None:
        missing_tool("gevent")
    options = ("--worker-class", "gevent", "--preload")
    with gunicorn(tmp_path, SITE, *options) as server:
        client = Client(server.port)
        client.send(upgrade("/echo"))
        assert client.read_until(b"\r\n").split()[1] == b"503"
        client.close()
        server.expect(re.compile("gevent or eventlet has patched Python after"))


def test_a_worker_that_is_preloaded_starts_its_own_loop(tmp_path: Path) -> None:
    options = ("--worker-class", "gthread", "--preload", "--workers", "2")
    with gunicorn(tmp_path, SITE, *options) as server:
        exercise(server.port)
        assert not Path(f"/proc/{server.pid}/task").exists() or (
            len(os.listdir(f"/proc/{server.pid}/task")) <= 2
        )
