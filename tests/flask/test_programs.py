"""Programs of Flask: the development server with its reloader, and gunicorn."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.clients import Client, StreamClient, WebSocketClient, get
from tests.support.processes import ServerProcess
from tests.wsgi import running
from wsframe import Close

pytestmark = pytest.mark.slow

RUNNING = re.compile(r"Running on (?P<url>http://\S+:(?P<port>\d+))")
PROGRAM = """
from flask import Flask, session
from wsframe.flask import Live

application = Flask(__name__)
application.secret_key = "secret"
live = Live(application, loops=1, drain=2.0)

@application.get("/echo/<name>", websocket=True)
def echo(name):
    session["name"] = name
    return live.websocket(talk)

def talk(ws):
    while True:
        ws.send(f"{session['name']} {(yield)}")

def count(stream):
    yield from range(3)

@application.route("/count", methods=["GET", "POST"])
def counting():
    return live.events(count)

@application.get("/fail")
def fail():
    raise LookupError("a failing page")
"""


def exercise(port: int) -> WebSocketClient:
    """Check an event stream and a WebSocket; return the WebSocket."""
    stream = StreamClient(port, "/count")
    assert stream.expect(3) == ["0", "1", "2"]
    stream.expect_end()
    client = WebSocketClient(port, "/echo/ann")
    client.send_messages("a", "b")
    assert client.expect(2) == ["ann a", "ann b"]
    return client


def test_the_development_server_reloads_with_1001_and_has_its_debugger(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ("-m", "flask", "--app", "program:application", "run", "--debug", "--port", "0")
    with ServerProcess(*command, directory=tmp_path, until=RUNNING) as server:
        client = exercise(server.port)
        page = Client(server.port)
        page.send(get("/fail", ("Connection", "close")))
        answer = page.read_to_end()
        assert b"Werkzeug Debugger" in answer
        page.close()
        program.write_text(PROGRAM.replace("{session", "again, {session"))
        assert client.expect_close() == Close(1001, "the server is shutting down")
        client = WebSocketClient(server.port, "/echo/ann")
        client.send_messages("a")
        assert client.expect(1) == ["again, ann a"]
        client.close()


def test_workers_of_gunicorn_close_with_1001(tmp_path: Path) -> None:
    options = ("--worker-class", "gthread", "--threads", "4", "--preload")
    with running.gunicorn(tmp_path, PROGRAM, *options) as server:
        client = exercise(server.port)
        server.signal(signal.SIGTERM)
        assert client.expect_close().code == 1001
        assert server.wait()[0] == 0
