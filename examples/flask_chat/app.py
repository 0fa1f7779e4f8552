"""A chat in Flask: login, rooms with history, presence, and notifications.

    gunicorn --worker-class gthread --threads 4 --chdir examples/flask_chat app:app

A room is a WebSocket: htmx swaps its fragments of HTML into the page. Notifications are an event
stream of Turbo Streams. No client holds one of the four threads. With Redis, several workers share
the rooms, and the history survives a restart: FLASK_WSFRAME_REDIS=redis://localhost.
"""

import json
import re
import time
from collections.abc import Generator
from typing import Any

from flask import Flask, Response, abort, redirect, render_template, request, session, url_for

from wsframe.flask import Live, Topic, WebSocket

DAY = 86400.0
ROOMS = ("lobby", "tea", "books")
NAME = re.compile(r"\w{1,20}")

app = Flask(__name__)
app.config.from_mapping(SECRET_KEY="replace me", SESSION_COOKIE_SAMESITE="Lax")
app.config.from_prefixed_env()  # such as FLASK_SECRET_KEY
live = Live(app)


@app.before_request
def require_login() -> Any:
    """Every page requires a name, and so do WebSockets and event streams."""
    if "name" not in session and request.endpoint not in ("login", "static"):
        return redirect(url_for("login"))
    return None


@app.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """Set the name; a real application checks a password."""
    name = request.form.get("name", "")
    if NAME.fullmatch(name):
        session["name"] = name
        return redirect(url_for("room", room=ROOMS[0]))
    return render_template("login.html", refused=bool(name))


@app.post("/logout")
def logout() -> Any:
    """Forget the name."""
    session.clear()
    return redirect(url_for("login"))


@app.get("/")
@app.get("/rooms/<room>")
def room(room: str = ROOMS[0]) -> str:
    """The page of a room."""
    if room not in ROOMS:
        abort(404)
    return render_template("room.html", room=room, rooms=ROOMS)


@app.get("/rooms/<room>/talk", websocket=True)
def talk(room: str) -> Response:
    """The WebSocket of a room."""
    if room not in ROOMS:
        abort(404)
    return live.websocket(chat, room=room)


@app.get("/notifications")
def notifications() -> Response:
    """The event stream of a user. A topic holds no thread."""
    return live.events(notes_of(session["name"]))


@live.handler(max_message_size=4096)
def chat(ws: WebSocket, room: str) -> Generator[None, str, None]:
    """Publish the messages of a client. The wait at ``yield`` holds no thread."""
    messages = live.topic(f"messages {room}", history=100, max_age=DAY)
    people = live.topic(f"people {room}", policy="latest", max_age=DAY)
    ws.send(render_template("messages.html"))  # an empty list, also after a reconnect
    try:
        with ws.subscribe(people, after="", member=session["name"]):
            show(people)
            with ws.subscribe(messages, after=""):  # the history first
                while True:
                    text = text_in((yield))
                    if text:
                        publish(messages, room, text)
    finally:
        show(people)


def publish(messages: Topic, room: str, text: str) -> None:
    """Send a message to a room, and notify the users with an "@" before their name."""
    now = time.strftime("%H:%M")
    messages.publish(render_template("message.html", name=session["name"], text=text, now=now))
    for name in set(re.findall(r"@(\w{1,20})", text)):
        note = render_template("notification.html", name=session["name"], room=room, text=text)
        notes_of(name).publish(note)


def show(people: Topic) -> None:
    """Send the names of all members to a room."""
    names = sorted(set(people.members()))
    people.publish(render_template("people.html", names=names), key="people")


def notes_of(name: str) -> Topic:
    """Return the topic of a user's notifications."""
    return live.topic(f"notes {name}", history=20)


def text_in(message: str) -> str:
    """Return the text that htmx has sent; "" if the message is not from its form."""
    try:
        text = str(json.loads(message)["text"]).strip()[:500]
        text.encode()  # an error for half of a surrogate pair
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return text
