"""wsframe with a plain handler."""

import sys

from wsframe.server import App, WebSocket

app = App()


@app.websocket("/")
def echo(ws: WebSocket) -> None:
    """Send every message back."""
    for message in ws:
        ws.send(message)


app.run("127.0.0.1", int(sys.argv[1]))
