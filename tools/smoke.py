"""Try an installed package: ``python tools/smoke.py compiled``, or ``pure``.

A server and both kinds of client exchange messages over loopback, on the kernels that the argument
names. The package must be installed with the extra "server". The exit status is 1 after an error.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path

import wsframe
from wsframe.cli.program import version as full_version
from wsframe.client import connect, events
from wsframe.server import App, EventStream, WebSocket
from wsframe.server.rounds import COMPILED

SECONDS = 30  # for an answer

app = App()


@app.websocket("/echo")
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message back."""
    while True:
        ws.send((yield))


@app.sse("/hello")
def hello(_: EventStream) -> Generator[str, None, None]:
    """Send one event."""
    yield "hello"


def require(name: str, found: object, expected: object) -> None:
    """Exit with an error if a value is not the expected one."""
    if found != expected:
        sys.exit(f"{name}: {found!r:.80}, not {expected!r:.80}")


def check_package(kernels: str) -> None:
    """Check the version of the package, and that the kernels of that name are in use."""
    require("version", wsframe.__version__, version("wsframe"))
    require("kernels", "compiled" if wsframe.ACCELERATED else "pure", kernels)
    if sys.platform == "linux":
        require("compiled I/O", COMPILED, wsframe.ACCELERATED)


def check_messages(port: int) -> None:
    """Exchange messages with each form of a frame's length, and an event."""
    with (
        connect(f"ws://127.0.0.1:{port}/echo") as ws,
        events(f"http://127.0.0.1:{port}/hello", read_timeout=SECONDS) as stream,
    ):
        for message in ("hello", b"\x00\xff" * 100, "grün" * 100_000):
            ws.send(message)
            require("echo", ws.receive(timeout=SECONDS), message)
        require("event", next(stream).data, "hello")


def main(kernels: str) -> None:
    """Check the package, and messages over loopback."""
    check_package(kernels)
    with app.start() as server:
        check_messages(server.port)
    print(full_version(), "in", Path(wsframe.__file__).parent)


if __name__ == "__main__":
    main(*sys.argv[1:])
