"""The project under the servers of its users: runserver, with and without reloader; gunicorn."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clients import Client, StreamClient, WebSocketClient, get
from tests.support.processes import ServerProcess, run
from tests.wsgi.running import GUNICORN
from wsframe import Close

from .project import DATABASE

pytestmark = pytest.mark.slow

PATIENCE = 60.0  # seconds; the reloader looks for changes from time to time
ROOT = Path(__file__).parent.parent.parent
RUNSERVER = re.compile(r"http://127\.0\.0\.1:(?P<port>[1-9]\d*)/")


@pytest.fixture(autouse=True)
def environment(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.django.project.settings")
    monkeypatch.setenv(DATABASE, str(database))
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)


def exercise(port: int) -> WebSocketClient:
    """Check a WebSocket, an event stream and a page; return a WebSocket that is open."""
    client = WebSocketClient(port, "/echo/")
    assert client.expect(1) == ["hello AnonymousUser"]
    client.send_messages("a")
    assert client.expect(1) == ["a"]
    stream = StreamClient(port, "/count/3/")
    assert stream.expect(3) == ["0", "1", "2"]
    stream.close()
    page = Client(port)
    page.send(get("/", ("Connection", "close")))
    assert page.read_to_end().endswith(b"page")
    page.close()
    return client


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Change a file again and again: a change before the reloader's first look has no effect."""
    noticed = threading.Event()

    def change() -> None:
        while not noticed.wait(0.1):
            os.utime(file)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        noticed.set()
        thread.join()


def end_of(client: WebSocketClient) -> Close:
    """Wait for the close frame of a server that ends."""
    (close,) = client.expect(1, PATIENCE)
    assert isinstance(close, Close)
    return close


@pytest.mark.parametrize("options", [(), ("--noreload",), ("--noreload", "--nothreading")])
def test_runserver(options: tuple[str, ...]) -> None:
    command = ("-W", "ignore", "-m", "django", "runserver", "127.0.0.1:0", *options)
    with ServerProcess(*command, until=RUNSERVER) as server:
        exercise(server.port).close()


def test_the_reloader_closes_connections_with_1001(tmp_path: Path) -> None:
    settings = tmp_path / "settings_of_this_test.py"
    settings.write_text("from tests.django.project.settings import *\nDEBUG = True\n")
    command = ("-W", "ignore", "-m", "django", "runserver", "127.0.0.1:0")
    options = ("--pythonpath", str(tmp_path), "--settings", "settings_of_this_test")
    with ServerProcess(*command, *options, until=RUNSERVER) as server:
        client = exercise(server.port)
        with changing(settings):
            assert end_of(client).code == 1001
        client.close()
        server.expect(RUNSERVER)


def test_gunicorn_closes_connections_with_1001() -> None:
    command = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread")
    wsgi = "tests.django.project.wsgi:application"
    with ServerProcess(*command, "--threads", "4", wsgi, until=GUNICORN) as server:
        clients = [exercise(server.port) for _ in range(6)]
        server.signal(signal.SIGTERM)
        assert {end_of(client).code for client in clients} == {1001}
        for client in clients:
            client.close()
        assert server.wait()[0] == 0


LIVE_SERVER = """
from django.contrib.auth.models import User
from django.test import LiveServerTestCase
from wsframe.client import connect

class ChatTest(LiveServerTestCase):
    def test_echo(self):
        User.objects.create_user("ada")
        self.client.force_login(User.objects.get())
        cookie = "sessionid=" + self.client.cookies["sessionid"].value
        url = self.live_server_url.replace("http", "ws") + "/echo/"
        with connect(url, headers=[("Cookie", cookie)]) as ws:
            self.assertEqual(ws.receive(), "hello ada")
            ws.send("a")
            self.assertEqual(ws.receive(), "a")
"""


def test_a_live_server_of_django_serves_the_tests_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "test_chat.py").write_text(LIVE_SERVER)
    command = (sys.executable, "-W", "error", "-m", "django", "test", "test_chat", "--noinput")
    done = run([*command, "--pythonpath", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr
