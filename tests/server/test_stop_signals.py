"""Signals that stop a server."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.server.stopping import GOING_AWAY, next_closed
from tests.support.clients import WebSocketClient
from tests.support.processes import ServerProcess
from wsframe.server import (
    App,
)

PROGRAM = """
import time
from queue import Queue
from wsframe.server import App

app = App()
app.sse("/time", source=Queue())

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

@app.websocket("/stuck")
def stuck(ws):
    ws.send("stuck")
    time.sleep(60)

if __name__ == "__main__":
    app.run("127.0.0.1", 0, drain=60)
    print("run returned")
"""


SIGNALS = [signal.SIGTERM, signal.SIGINT]


signals_are_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.unmeasured
@signals_are_posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_server_gracefully(program: Path, number: signal.Signals) -> None:
    with ServerProcess(str(program)) as process:
        open_ones = [WebSocketClient(process.port, "/echo") for _ in range(5)]
        for client in open_ones:
            client.send_messages("x")
            assert client.next_event() == "x"
        process.signal(number)
        process.expect(re.compile("Shutting down; press Ctrl-C again to force"))
        assert next_closed(open_ones).expect_close() == GOING_AWAY
        for client in open_ones:  # whose turn has not come
            client.send_messages("x")
            assert client.next_event() == "x"
            client.leave()
        assert process.wait() == (0, "run returned\n")


@pytest.mark.slow
@signals_are_posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_forces_the_end(program: Path, number: signal.Signals) -> None:
    with ServerProcess(str(program)) as process:
        client = WebSocketClient(process.port, "/stuck")
        assert client.next_event() == "stuck"
        process.signal(signal.SIGTERM)
        process.expect(re.compile("Shutting down"))
        assert client.next_event() == GOING_AWAY
        process.signal(number)
        code, output = process.wait()
        assert code == 1
        assert "Traceback" not in output
        client.close()


@signals_are_posix
def test_two_simultaneous_signals_count_as_two(program: Path) -> None:
    with ServerProcess(str(program)) as process:
        client = WebSocketClient(process.port, "/stuck")
        assert client.next_event() == "stuck"
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)
        assert process.wait()[0] == 1
        client.close()


def test_run_restores_the_signal_handlers() -> None:
    app = App()
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(OSError, match=r".+"):
        app.run("no such host")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
