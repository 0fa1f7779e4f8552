"""An echo server, in both styles of handler: ``python examples/echo.py``."""

from collections.abc import Generator

from wsframe.server import App, WebSocket

app = App()


@app.websocket("/thread")
def in_a_thread(ws: WebSocket) -> None:
    """Run in its own thread, which may block."""
    for message in ws:
        ws.send(message)


@app.websocket("/loop")
def on_the_loop(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Run on the loop's thread: a handler that waits at ``yield`` uses no thread."""
    while True:
        message = yield
        ws.send(message)


if __name__ == "__main__":
    app.run()
