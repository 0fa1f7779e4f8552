"""The demo: a chat over WebSockets with history and presence, an event stream, and live statistics.

``wsframe serve`` serves it. The page is ``page.html``, in the folder of this file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from html import escape
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from queue import Queue

from ..server import App, BrokerRefused, BrokerUnavailable, Topic, WebSocket

app: App = App()
ticks: Queue[str] = Queue()
chat_room: Topic = app.topic("chat", history=50, max_age=3600)
# Each process publishes its numbers with its own key, and new clients begin with the newest
# numbers.
status: Topic = app.topic("status", policy="latest", max_age=3)
# The number of names is limited, because every client receives them each second.
MAX_PEOPLE = 50


def documentation() -> str:
    """Return HTML that leads to the documentation: a link, if the project has a public address."""
    with suppress(PackageNotFoundError):  # the package is used without being installed
        for url in metadata("wsframe").get_all("Project-URL", ()):
            label, _, address = url.partition(", ")
            if label == "Source":
                return f'<a href="{escape(address)}">documentation and source of wsframe</a>'
    return "documentation: <code>README.md</code> and <code>docs/</code> in the source of wsframe"


_folder = files(__package__)
page: str = _folder.joinpath("page.html").read_text("utf-8")
app.page("/", page.replace("<!-- documentation -->", documentation()))
source: str = _folder.joinpath("__init__.py").read_text("utf-8")
app.page("/source", source, content_type="text/plain; charset=utf-8")
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


@app.websocket("/chat", max_message_size=4096)
def chat(ws: WebSocket) -> Generator[None, str | bytes, None]:
    """Publish the client's texts, and send it the events of the chat and the statistics.

    The query contains ``name``, the client's name, and ``after``, the id from which it resumes.
    """
    query = {key: values[0] for key, values in ws.request.query.items()}
    name = query.get("name", "").strip()[:24] or "guest"
    after = query.get("after", "")  # with "", the client begins with the whole history
    ws.subscribe(status, after="", envelope=True)
    ws.subscribe(chat_room, after=after, otherwise="", envelope=True, member=name)
    while True:
        text = yield
        chat_room.publish({"name": name, "text": str(text), "time": time.time()})


@app.on_start
def start_the_clock() -> None:
    """Start the clock in the process that serves the app."""
    threading.Thread(target=tick, name="demo-clock", daemon=True).start()


def tick() -> None:
    """Publish the time and the statistics once per second."""
    while True:
        second = round(time.time())
        ticks.put(time.strftime("%H:%M:%S", time.localtime(second)))
        with suppress(BrokerUnavailable, BrokerRefused):  # the server logs both errors
            publish_status()
        time.sleep(max(0.0, second + 1 - time.time()))


def publish_status() -> None:
    """Publish the numbers of this process, and the first names of the people in the chat."""
    stats, process = app.stats(), os.getpid()
    numbers = {
        "process": process,
        "connections": stats.websockets + stats.event_streams,
        "threads": threading.active_count(),
        "people": chat_room.members()[:MAX_PEOPLE],
    }
    status.publish(numbers, key=str(process))
