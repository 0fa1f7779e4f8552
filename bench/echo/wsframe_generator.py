"""wsframe with a generator handler."""

import sys
from collections.abc import Generator

from wsframe.server import App, WebSocket

app = App()


@app.websocket("/")
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message back."""
    while True:
        message = yield
        ws.send(message)


app.run("127.0.0.1", int(sys.argv[1]))
