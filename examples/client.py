"""Both kinds of client, with a server in the same process: ``python examples/client.py``."""

from queue import Queue

from wsframe.client import connect, events
from wsframe.server import App, WebSocket

app = App()
messages: Queue[str | bytes] = Queue()
app.sse("/messages", source=messages)


@app.websocket("/echo")
def echo(ws: WebSocket) -> None:
    """Send every message back, and to all event streams."""
    for message in ws:
        messages.put(message)
        ws.send(message)


def talk(port: int) -> None:
    """Send messages, and print what each client receives."""
    with (
        connect(f"ws://localhost:{port}/echo") as ws,
        events(f"http://localhost:{port}/messages") as stream,
    ):
        for message in ("hello", "world"):
            ws.send(message)
            print("WebSocket:", ws.receive(timeout=10))
            print("EventSource:", next(stream).data)


if __name__ == "__main__":
    with app.start() as server:
        talk(server.port)
