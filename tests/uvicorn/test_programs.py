"""uvicorn as a program, with an unchanged application of FastAPI."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.clients import WebSocketClient
from tests.support.processes import ServerProcess
from tests.support.uvicorn_server import STARTED
from wsframe import Close, HandshakeError

pytestmark = pytest.mark.slow


PROGRAM = """
from fastapi import FastAPI, WebSocket, WebSocketException

app = FastAPI()


@app.websocket("/rooms/{room}")
async def talk(websocket: WebSocket, room: str):
    if room == "closed":
        raise WebSocketException(code=1008)
    await websocket.accept(subprotocol="chat")
    await websocket.send_json({"room": room})
    async for text in websocket.iter_text():
        await websocket.send_text(text)
"""


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """The server is another process."""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_application_of_fastapi_runs_unchanged(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = ("-m", "uvicorn", "--ws", "wsframe.uvicorn:WebSocketProtocol", "--loop", loop)
    with ServerProcess(
        *command, "--port", "0", "program:app", directory=tmp_path, until=STARTED
    ) as server:
        protocol = ("Sec-WebSocket-Protocol", "chat")
        clients = [WebSocketClient(server.port, "/rooms/tea", protocol) for _ in range(10)]
        for client in clients:
            assert client.headers["Sec-WebSocket-Protocol"] == "chat"
            client.send_messages("a", "b")
            assert client.expect(3) == ['{"room":"tea"}', "a", "b"]
        with pytest.raises(HandshakeError):
            WebSocketClient(server.port, "/rooms/closed")
        server.signal(signal.SIGTERM)
        for client in clients:
            assert client.expect_close() == Close(1012)
        code, output = server.wait()
        assert code in (0, -signal.SIGTERM), output
        assert '"WebSocket /rooms/closed" 403' in output
        assert "Traceback" not in output
