"""The server of the soak: ``python -m soak.app`` prints its port; it ends with standard input."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from queue import Queue
from typing import TypeAlias

from wsframe.server import App, EventStream, Request, WebSocket

Waits: TypeAlias = Generator[None, "str | bytes", None]

app = App()
ticks: Queue[str] = Queue()
app.sse("/ticks", source=ticks)


@app.websocket("/echo")
@app.websocket("/deflate", deflate=True)
def echo(ws: WebSocket) -> Waits:
    """Send every message back."""
    while True:
        message = yield
        ws.send(message)


@app.websocket("/block")
def block(ws: WebSocket) -> Waits:
    """Echo every message; sometimes block first."""
    while True:
        message = yield
        if random.random() < 0.05:
            time.sleep(random.expovariate(50))
        ws.send(message)


@app.websocket("/plain")
def plain(ws: WebSocket) -> None:
    """Echo every message from a thread."""
    for message in ws:
        ws.send(message)


@app.sse("/count")
def count(stream: EventStream) -> Iterator[str]:
    """Send 200 numbers from a thread, as fast as the client reads."""
    for number in range(200):
        yield str(number)


@app.sse("/events")
def events(stream: EventStream) -> Iterator[object]:
    """Wait for events that never arrive, until the client disconnects."""
    queue: Queue[str] = Queue()
    while True:
        yield stream.get(queue)


@app.sse("/endless")
def endless(stream: EventStream) -> Iterator[str]:
    """Send events as fast as the client reads them."""
    while True:
        yield "x" * 1000


@app.websocket("/rooms/{name}")
def room(ws: WebSocket, name: str) -> Waits:
    """A chat room: every member receives every message."""
    ws.subscribe(name)
    topic = app.topic(name)
    while True:
        topic.publish((yield))


def judge(request: Request) -> bool:
    """Admit every request after a random delay."""
    time.sleep(random.expovariate(20))
    return True


app.websocket("/judged", authorize=judge)(echo)


def tick() -> None:
    """Put twenty numbers a second on the queue."""
    for number in range(1 << 62):
        ticks.put(str(number))
        time.sleep(0.05)


def main() -> None:
    """Serve until SIGTERM, or until the parent process ends."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())

    def stop_at_the_end_of_input() -> None:
        sys.stdin.read()
        stop.set()

    for task in (tick, stop_at_the_end_of_input):
        threading.Thread(target=task, daemon=True).start()
    with app.start("127.0.0.1", 0, send_timeout=10, drain=5) as server:
        print(server.port, flush=True)
        stop.wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
