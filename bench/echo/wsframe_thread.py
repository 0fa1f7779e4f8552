"""wsframe with plain handlers."""

import time

from bench.given import files, port
from wsframe.server import App, WebSocket

app = App()


@app.websocket("/")
def echo(ws: WebSocket) -> None:
    """Send every message back."""
    for message in ws:
        ws.send(message)


@app.websocket("/block")
def block(ws: WebSocket) -> None:
    """Block for a while in every message."""
    for message in ws:
        time.sleep(0.2)
        ws.send(message)


cert, key = files()
app.run(
    "127.0.0.1",
    port(),
    max_handler_threads=4000,
    max_thread_share=1.0,  # all clients of the load have one address
    ping_interval=0,
    cert=cert,
    key=key,
)
