"""wsframe with generator handlers, and a route for event streams.

With ``no_spin`` after the port, its loops block in their first empty poll.
"""

import sys
import time
from collections.abc import Generator
from queue import Queue

from bench.given import compute, files, port
from wsframe.server import App, WebSocket

app = App()
app.sse("/events", source=Queue())


@app.websocket("/")
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message back."""
    while True:
        message = yield
        ws.send(message)


@app.websocket("/block")
def block(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Block for a while in every message."""
    while True:
        message = yield
        time.sleep(0.2)
        ws.send(message)


@app.websocket("/compute")
def computing(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Compute for a while in every message."""
    while True:
        message = yield
        compute()
        ws.send(message)


if "no_spin" in sys.argv:
    from wsframe.server.handoff import loop

    loop.SPIN_POLLS = 0
cert, key = files()
app.run("127.0.0.1", port(), ping_interval=0, cert=cert, key=key)
