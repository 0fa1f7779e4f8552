"""The end of the server, as a program."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess
from tests.support.uvicorn_server import STARTED
from tests.support.waiting import wait_until

from .streams import ChunkedStream, answer

pytestmark = pytest.mark.slow

WORKER_STARTED = re.compile("Application startup complete")

PROGRAM = """
from starlette.applications import Starlette
from starlette.routing import Route
from wsframe.asgi import EventStream, Topics

topics = Topics()
news = topics.topic("news")


async def stream(request):
    return EventStream(news, after="")


app = Starlette(routes=[Route("/", stream)], lifespan=topics.lifespan)
news.publish("hello")
"""


def is_listening(port: int) -> bool:
    """Return True if the port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """The server is another process."""


def test_the_end_of_a_worker_after_its_last_request_ends_its_streams(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ("-m", "uvicorn", "--port", "0", "--limit-max-requests", "1", "program:app")
    with ServerProcess(*command, directory=tmp_path, until=STARTED) as server:
        client = ChunkedStream(server.port)
        assert client.expect(1) == ["hello"]
        assert answer(server.port, "/missing").status == 404  # the last request
        assert client.read_rest() == []
        client.close()
        code, output = server.wait()
        assert code == 0, output


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_of_uvicorn_ends_its_streams(tmp_path: Path, workers: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ("-m", "uvicorn", "--port", "0", "--workers", str(workers), "program:app")
    with ServerProcess(*command, directory=tmp_path, until=STARTED) as server:
        if workers > 1:  # they listen after the supervisor has printed the port
            for _ in range(workers):
                server.expect(WORKER_STARTED)
            wait_until(lambda: is_listening(server.port), "a worker listens")
        clients = [ChunkedStream(server.port) for _ in range(100)]
        for client in clients:
            assert client.expect(1) == ["hello"]
        server.signal(signal.SIGTERM)
        for client in clients:
            assert client.read_rest() == []
            client.close()
        code, output = server.wait()
        assert code in (0, -signal.SIGTERM), output
        assert "Application shutdown complete." in output
        assert "Traceback" not in output
