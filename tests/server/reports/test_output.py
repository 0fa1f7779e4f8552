"""The server does not depend on standard output and error, even if they are full or closed."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.clients import WebSocketClient
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.server.reports import output
from wsframe.testing import ReservedPort

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")

PROGRAM = """
import sys
from wsframe.server import App

app = App()
print("text in the buffer of the stream")

@app.websocket("/print")
def print_much(ws):
    ws.send("hello")
    print("x" * 1_000_000)

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), workers=int(sys.argv[2]), drain=1)
"""


def gone(stack: ExitStack) -> int:
    """Return a pipe whose reader has closed it."""
    reading, writing = os.pipe()
    stack.callback(os.close, writing)
    os.close(reading)
    return writing


def full(stack: ExitStack) -> int:
    """Return a full pipe that is not read."""
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(1 << 12))
    os.set_blocking(writing, True)
    return writing


def without_space(stack: ExitStack) -> int:
    """Return a file on a full disk."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    file = os.open("/dev/full", os.O_WRONLY)
    stack.callback(os.close, file)
    return file


def closed(stack: ExitStack) -> int:
    """Return no file."""
    return -1


# Every output with both commands, and with and without workers.
SERVED = [
    pytest.param(gone, "run", "0"),
    pytest.param(gone, "command line", "2", marks=pytest.mark.unmeasured),
    pytest.param(closed, "run", "2"),
    pytest.param(closed, "command line", "0", marks=pytest.mark.unmeasured),
    pytest.param(full, "run", "2", marks=pytest.mark.unmeasured),
    pytest.param(full, "command line", "0", marks=pytest.mark.unmeasured),
    pytest.param(without_space, "run", "0", marks=pytest.mark.unmeasured),
    pytest.param(without_space, "command line", "2", marks=pytest.mark.unmeasured),
]


def is_served(port: int) -> bool:
    """Return True if the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Served:
    """The program, served by a process with this output.

    Attributes:
        process: the process of the server.
        port: the port that it listens on.
    """

    def __init__(
        self, directory: Path, file: int, command: str, workers: str, stack: ExitStack
    ) -> None:
        (directory / "program.py").write_text(PROGRAM, encoding="utf-8")
        self.port = stack.enter_context(ReservedPort())
        options = ["-m", "wsframe.server", "program:app", "--host", "127.0.0.1", "--drain", "1"]
        arguments = {
            "run": ["program.py", str(self.port), workers],
            "command line": [*options, "--port", str(self.port), "--workers", workers],
        }
        shell = 'exec "$@"' if file >= 0 else 'exec "$@" >&- 2>&-'
        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", sys.executable, *arguments[command]],
            stdin=subprocess.DEVNULL,
            stdout=file if file >= 0 else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # as if it were not set
        )
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        wait_until(lambda: is_served(self.port), "the port accepts connections")


@pytest.mark.slow
@pytest.mark.parametrize(("output_to", "command", "workers"), SERVED)
def test_unusable_output_changes_neither_the_stop_nor_the_exit_code(
    tmp_path: Path,
    stack: ExitStack,
    output_to: Callable[[ExitStack], int],
    command: str,
    workers: str,
) -> None:
    served = Served(tmp_path, output_to(stack), command, workers, stack)
    client = WebSocketClient(served.port, "/echo")
    stack.callback(client.close)
    client.send_messages("hello")
    assert client.next_event() == "hello"
    served.process.send_signal(signal.SIGTERM)
    assert client.expect_close() == Close(1001, "the server is shutting down")
    assert served.process.wait(TIMEOUT) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_handler_blocked_in_print_does_not_keep_the_process_alive(
    tmp_path: Path, stack: ExitStack, workers: str
) -> None:
    served = Served(tmp_path, full(stack), "command line", workers, stack)
    client = WebSocketClient(served.port, "/print")
    stack.callback(client.close)
    assert client.next_event() == "hello"
    served.process.send_signal(signal.SIGTERM)
    assert client.expect_close() == Close(1001, "the server is shutting down")
    assert served.process.wait(TIMEOUT) == 0


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("workers", ["0", "2"])
def test_earlier_output_of_the_application_comes_first(tmp_path: Path, workers: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "program.py", "0", workers],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # as if it were not set
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "text in the buffer of the stream\n"
            assert process.stdout.readline().startswith("Serving on ")
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "Shutting down; press Ctrl-C again to force.\n"
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()


class Failing(io.StringIO):
    """An object that an application has assigned to ``sys.stdout``."""

    def write(self, text: str) -> int:
        """Fail."""
        raise RuntimeError(text)


class Unflushable(io.StringIO):
    """Such an object whose text cannot be flushed."""

    def flush(self) -> None:
        """Fail."""
        raise OSError("no space left on device")


@pytest.mark.parametrize("stream", [None, Failing(), Unflushable(), io.StringIO()])
def test_output_may_be_any_object_or_none(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    output.announce("hello")
    output.flush()
    assert output.flush_at_exit()
    if type(stream) is io.StringIO:
        assert stream.getvalue() == "hello\n"
