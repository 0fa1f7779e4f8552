"""wsframe with generator handlers, and a route for event streams."""

import sys
import time
from collections.abc import Generator
from queue import Queue

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


app.run("127.0.0.1", int(sys.argv[1]), ping_interval=0)
