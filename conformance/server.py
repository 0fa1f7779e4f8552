"""The server under test: ``python -m conformance.server HOST PORT``."""

from __future__ import annotations

import sys
from collections.abc import Generator

from wsframe import PerMessageDeflate
from wsframe.server import App, WebSocket

from . import MAX_MESSAGE_SIZE

app = App()


@app.websocket("/", deflate=PerMessageDeflate(min_size=0), max_message_size=MAX_MESSAGE_SIZE)
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message back."""
    while True:
        message = yield
        ws.send(message)


if __name__ == "__main__":
    app.run(sys.argv[1], int(sys.argv[2]))
