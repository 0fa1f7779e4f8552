"""An echo server, in both styles of handler: ``python examples/echo.py``."""

from collections.abc import Generator

from wsframe.server import App, WebSocket

app = App()


@app.websocket("/thread")
def in_a_thread(ws: WebSocket) -> None:
    """Run in a thread of its own, and block in it as you like."""
    for message in ws:
        ws.send(message)


@app.websocket("/loop")
def on_the_loop(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Run on the loop's thread: ten thousand that wait at ``yield`` hold no thread."""
    while True:
        message = yield
        ws.send(message)


if __name__ == "__main__":
    app.run()
