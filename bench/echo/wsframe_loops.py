"""wsframe with a number of I/O loops, and a generator handler that computes in every message."""

import sys
from collections.abc import Generator

from bench.given import compute, port
from wsframe.server import App, WebSocket

COMPUTING = 0.0001  # seconds

app = App()


@app.websocket("/")
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Compute for a while, and send the message back."""
    while True:
        message = yield
        compute(COMPUTING)
        ws.send(message)


app.run("127.0.0.1", port(), loops=int(sys.argv[2]), ping_interval=0)
