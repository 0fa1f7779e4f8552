"""Both kinds of client, at a server that they bring along: ``python examples/client.py``."""

from queue import Queue

from wsframe.client import connect, events
from wsframe.server import App, WebSocket

app = App()
heard: Queue[str | bytes] = Queue()
app.sse("/heard", source=heard)


@app.websocket("/say")
def say(ws: WebSocket) -> None:
    """Send every message back, and let all who follow the event stream know of it."""
    for message in ws:
        heard.put(message)
        ws.send(message)


def talk(port: int) -> None:
    """Say something, and see what comes of it at both clients."""
    with (
        connect(f"ws://localhost:{port}/say") as ws,
        events(f"http://localhost:{port}/heard") as stream,
    ):
        for message in ("hello", "goodbye"):
            ws.send(message)
            print("WebSocket:", ws.receive(timeout=10))
            print("EventSource:", next(stream).data)


if __name__ == "__main__":
    with app.start() as server:
        talk(server.port)
