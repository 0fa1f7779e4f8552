"""The demo: a page with an event stream and a chat over WebSockets.

``python -m wsframe.server`` serves it. The page is ``page.html``, in the folder of this file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from importlib.resources import files
from queue import Queue

from ..server import App, WebSocket

app = App()
ticks: Queue[str] = Queue()
chat_room = app.topic("chat")

app.page("/", files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
app.sse("/time", source=ticks)


@app.websocket("/hello")
def hello(ws: WebSocket) -> None:
    """Send a greeting and wait until the client disconnects."""
    ws.send("Hello world!")
    for _ in ws:
        pass


@app.websocket("/echo")
def echo(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message back. The wait at ``yield`` uses no thread."""
    while True:
        message = yield
        ws.send(message)


@app.websocket("/chat")
def chat(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Send every message to all clients of the chat."""
    with ws.subscribe(chat_room):
        while True:
            message = yield
            chat_room.publish(message)


@app.on_start
def start_the_clock() -> None:
    """Start the clock in the process that serves the app."""
    threading.Thread(target=publish_the_time, name="demo-clock", daemon=True).start()


def publish_the_time() -> None:
    """Put the time on the queue once per second; the server sends it to every client."""
    while True:
        ticks.put(time.strftime("%H:%M:%S"))
        time.sleep(1 - time.time() % 1)
