"""wsframe with one topic, for WebSockets and event streams."""

from collections.abc import Generator

from bench.given import port
from wsframe.server import App, WebSocket

app = App()
topic = app.topic("events")
app.sse("/events", source=topic)


@app.websocket("/")
def receive(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Subscribe, and send every message back."""
    with ws.subscribe(topic):
        while True:
            message = yield
            ws.send(message)


@app.websocket("/publish")
def publish(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Publish every message."""
    while True:
        message = yield
        topic.publish(message)


app.run("127.0.0.1", port(), ping_interval=0)
