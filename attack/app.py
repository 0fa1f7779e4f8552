"""The server under attack: ``python -m attack.app [--run] [name=value ...]``.

It prints its port, and serves until its standard input is closed.
"""

from __future__ import annotations

import ast
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Queue
from typing import Any, TypeAlias

from wsframe.server import App, EventStream, Request, WebSocket

Waits: TypeAlias = Generator[None, "str | bytes", None]

app = App()
app.metrics()
app.page("/page", "a page")
ENDED = threading.Event()  # never set: a wait for it lasts until the process ends


# Routes that hold a thread -----------------------------------------------------------------------


@app.websocket("/plain")
def plain(ws: WebSocket) -> None:
    """Echo every message from a thread that lives as long as the connection."""
    for message in ws:
        ws.send(message)


@app.websocket("/other-plain")
def other_plain(ws: WebSocket) -> None:
    """Do the same on another route."""
    plain(ws)


@app.sse("/events")
def events(stream: EventStream) -> Iterator[object]:
    """Send one event, then wait until the client disconnects."""
    yield "first"
    queue: Queue[str] = Queue()
    while True:
        yield stream.get(queue)


@app.sse("/other-events")
def other_events(stream: EventStream) -> Iterator[object]:
    """Do the same on another route."""
    yield from events(stream)


def judge(request: Request) -> bool:
    """Admit every request, but block forever if its query contains ``hold``."""
    if "hold" in request.query:
        ENDED.wait()
    return True


def judge_others(request: Request) -> bool:
    """Do the same on another route."""
    return judge(request)


@app.websocket("/echo")
@app.websocket("/judged", authorize=judge)
@app.websocket("/other-judged", authorize=judge_others)
def echo(ws: WebSocket) -> Waits:
    """Echo every message on the loop's thread."""
    while True:
        message = yield
        ws.send(message)


@app.websocket("/blocking")
def blocking(ws: WebSocket) -> Waits:
    """Echo every message, but block forever on the message "hold"."""
    while True:
        message = yield
        if message == "hold":
            ENDED.wait()
        ws.send(message)


@app.websocket("/other-blocking", blocking=True)
def other_blocking(ws: WebSocket) -> Waits:
    """Echo every message; each turn runs in a worker thread."""
    yield from echo(ws)


# Topics ------------------------------------------------------------------------------------------


@app.websocket("/rooms/{name}")
def room(ws: WebSocket, name: str) -> Waits:
    """A chat room: every member receives every message."""
    ws.subscribe(name)
    topic = app.topic(name)
    while True:
        topic.publish((yield))


@app.websocket("/switch")
def switch(ws: WebSocket) -> Waits:
    """Subscribe to the topic that each message names, and leave the previous topic."""
    before = None
    while True:
        name = yield
        if before is not None:
            before.close()
        before = ws.subscribe(str(name))


@app.sse("/news")
def news(stream: EventStream) -> None:
    """Subscribe to the topics that the query names."""
    for name in stream.request.query:
        with suppress(ValueError):
            stream.subscribe(name)


@app.sse("/endless")
def endless(stream: EventStream) -> Iterator[str]:
    """Send events as fast as the client reads them."""
    while True:
        yield "x" * 1000


# Every kind of route with parameters -------------------------------------------------------------


@app.websocket("/ws/{a}.{b}")
def parameters(ws: WebSocket, a: str, b: str) -> Waits:
    """Do nothing."""
    yield


@app.sse("/sse/{a}-{b}/{c}")
def more_parameters(stream: EventStream, a: str, b: str, c: str) -> None:
    """Do nothing."""


# Failures and logs -------------------------------------------------------------------------------


@app.websocket("/fails")
def fails(ws: WebSocket) -> Waits:
    """Raise an error that contains the first message."""
    message = yield
    raise ValueError(message)


class Tail(logging.Handler):
    """A log handler that publishes every record to a topic."""

    def emit(self, record: logging.LogRecord) -> None:
        """Publish the record; logging calls this under the handler's lock."""
        app.topic("log").publish(self.format(record))


# Publishing from unusual contexts ----------------------------------------------------------------


class PublishesWhenCollected:
    """An object whose destructor publishes."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.itself = self  # a cycle: only the garbage collector can free it

    def __del__(self) -> None:
        """Publish, on the thread on which the garbage collector happens to run."""
        app.topic(self.topic).publish("from __del__")


def from_del(count: int) -> int:
    """Publish from ``count`` destructors, during calls of ``publish`` for the same topic."""
    threshold = gc.get_threshold()
    gc.set_threshold(10)  # makes collections happen within publish itself
    try:
        for _ in range(count):
            PublishesWhenCollected("odd")
            app.topic("odd").publish("plain")
        gc.collect()
    finally:
        gc.set_threshold(*threshold)
    return 2 * count


def from_signal(count: int) -> int:
    """Publish from a signal handler that interrupts calls of ``publish`` on the main thread."""
    handled = threading.Semaphore(0)

    def handle(number: int, frame: object) -> None:
        app.topic("odd").publish("from a signal")
        handled.release()

    with MAIN_THREAD_PUBLISHES:
        on_signal.append(handle)
        for done in range(count):
            os.kill(os.getpid(), signal.SIGUSR1)
            if not handled.acquire(timeout=30):
                return done
    return count


class MainThread:
    """A context manager within which the main thread publishes continuously."""

    def __init__(self) -> None:
        self.wanted = threading.Event()

    def __enter__(self) -> None:
        self.wanted.set()

    def __exit__(self, *error: object) -> None:
        self.wanted.clear()

    def serve(self, ended: threading.Event) -> None:
        """The main thread: publish within the context, until ``ended`` is set."""
        while not ended.is_set():
            if self.wanted.wait(0.1):
                app.topic("odd").publish("from the main thread")


MAIN_THREAD_PUBLISHES = MainThread()
on_signal: list[Callable[[int, object], None]] = []


def from_children(count: int) -> int:
    """Fork while other threads publish; return how many children did not hang in ``publish``."""
    stop = threading.Event()

    def publish_repeatedly() -> None:
        while not stop.is_set():
            app.topic("odd").publish("x")

    threads = [threading.Thread(target=publish_repeatedly) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        return sum(_fork_and_publish() for _ in range(count))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _fork_and_publish() -> bool:
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(30)  # kills a child that is deadlocked
            with suppress(Exception):
                app.topic("odd").publish("from a child")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


ODD_PLACES: dict[str, Callable[[int], int]] = {
    "del": from_del,
    "signal": from_signal,
    "fork": from_children,
}


@app.websocket("/publish")
def publish(ws: WebSocket) -> None:
    """Publish from the context that a message names, and send the number of publications."""
    for message in ws:
        where, _, count = str(message).partition(" ")
        ws.send(str(ODD_PLACES[where](int(count))))


def main() -> None:
    """Serve until standard input is closed."""
    arguments = sys.argv[1:]
    runs = "--run" in arguments
    settings: dict[str, Any] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "tail":
            logging.getLogger("wsframe").addHandler(Tail())
            logging.getLogger("wsframe").setLevel(logging.DEBUG)
        elif name != "--run":
            settings[name] = ast.literal_eval(value)
    signal.signal(signal.SIGUSR1, lambda number, frame: on_signal[-1](number, frame))
    if runs:
        _end_with_input(lambda: os.kill(os.getpid(), signal.SIGTERM))
        app.run("127.0.0.1", _free_port(), **settings)
        return
    ended = threading.Event()
    _end_with_input(ended.set)
    with app.start("127.0.0.1", 0, drain=0.5, **settings) as server:
        print(server.port, flush=True)
        MAIN_THREAD_PUBLISHES.serve(ended)
    os._exit(0)  # some handler threads wait forever


def _free_port() -> int:
    """Print and return a free port for ``app.run``."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    print(port, flush=True)
    return port


def _end_with_input(end: Callable[[], object]) -> None:
    def wait() -> None:
        sys.stdin.read()
        end()

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
