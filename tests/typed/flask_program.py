"""A program with everything of wsframe.flask, for type checkers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Queue

from flask import Blueprint, Flask, Response, abort, request, session, url_for

from wsframe.flask import ConnectionClosed, EventStream, Live, Sock, SockWebSocket, WebSocket

live = Live(loops=1, ping_interval=25.0)
sock = Sock()
rooms = Blueprint("rooms", __name__)
news = live.topic("news", history=100, policy="latest")
jobs: Queue[int] = Queue()
ends: list[int] = []


def create_app() -> Flask:
    """Return the application."""
    app = Flask(__name__)
    app.config.from_mapping(WSFRAME_REDIS="redis://localhost", SECRET_KEY="secret")
    live.init_app(app)
    sock.init_app(app)
    app.register_blueprint(rooms)
    app.add_url_rule("/metrics", "metrics", lambda: live.metrics)
    return app


@rooms.get("/news")
def stream() -> Response:
    """Return an event stream of a topic."""
    return live.events(news)


@rooms.post("/jobs/<job>")
def start(job: str) -> Response:
    """Answer a POST with an event stream."""
    return live.events(progress, job=job, first=int(request.form["first"]))


@rooms.get("/rooms/<room>", websocket=True)
def enter(room: str) -> Response:
    """Return a WebSocket."""
    if "name" not in session:
        abort(401)
    return live.websocket(talk, room=room)


@live.handler(subprotocols=["chat"], origins=["https://example.com"], keep_context=True)
def talk(ws: WebSocket, room: str) -> Generator[None, str | bytes, None]:
    """Publish each message to the room."""
    with ws.subscribe(room, after="", member=str(session["name"])):
        while True:
            message = yield
            live.topic(room).publish(f"{url_for('.enter', room=room)} {message!r}")


def progress(stream: EventStream, job: str, first: int) -> Iterator[object]:
    """Yield the progress of a job."""
    yield {"job": job, "percent": first}
    while True:
        yield stream.get(jobs, timeout=10.0)


def collect(ws: WebSocket) -> None:
    """Receive in a thread."""
    for message in ws:
        size: int = len(message)
        ws.send(f"{size} bytes, {ws.close_code} {ws.close_reason}")


@sock.route("/echo", bp=rooms)
def echo(ws: SockWebSocket) -> None:
    """Echo each message."""
    try:
        while ws.connected:
            message = ws.receive(timeout=10)
            if message is not None:
                ws.send(message)
    except ConnectionClosed as closed:
        ends.append(closed.code)
    ws.close(1000, message="bye")
