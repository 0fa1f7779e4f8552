"""Tests of the chat, as an application has them: ``cd examples; python -m pytest test_chat.py``."""

import json
from typing import Any

import chat

from wsframe import Close, Ping
from wsframe.testing import AppServer, ManualClock, ServeApp, WebSocketClient, wait_until

# In a project with several test files, this line belongs in its conftest.py.
pytest_plugins = ["wsframe.testing.fixtures"]


def join(server: AppServer, room: str, name: str) -> WebSocketClient:
    """Open the WebSocket of a room; its first message is the client's position."""
    client = server.websocket(f"/rooms/{room}?name={name}", answer_pings=False)
    assert "data" not in json.loads(str(*client.expect(1)))
    return client


def heard(client: WebSocketClient) -> tuple[str, Any]:
    """Return the kind and the data of the next message."""
    (message,) = client.expect(1, timeout=10)
    envelope = json.loads(str(message))
    return envelope["event"], json.loads(envelope["data"])


def test_a_member_receives_what_another_one_writes(serve_app: ServeApp) -> None:
    server = serve_app(chat.app)
    ann = join(server, "tea", "ann")
    assert heard(ann) == ("members", ["ann"])
    bob = join(server, "tea", "bob")
    assert heard(ann) == ("members", ["ann", "bob"])
    bob.send_messages("hello")
    assert heard(ann) == ("message", {"name": "bob", "text": "hello"})


def test_a_member_whose_browser_crashes_leaves_the_room(serve_app: ServeApp) -> None:
    server = serve_app(chat.app)
    ann = join(server, "hall", "ann")
    assert heard(ann) == ("members", ["ann"])
    bob = join(server, "hall", "bob")
    assert heard(ann) == ("members", ["ann", "bob"])
    bob.reset()  # a reset, without a close frame
    assert heard(ann) == ("members", ["ann"])


def test_a_silent_member_is_disconnected(serve_app: ServeApp, manual_clock: ManualClock) -> None:
    server = serve_app(chat.app, clock=manual_clock, ping_interval=20, ping_timeout=20)
    ann = join(server, "pub", "ann")
    assert heard(ann) == ("members", ["ann"])
    server.pass_time(60)  # no minute passes in reality
    assert ann.expect(2) == [Ping(b""), Close(1011, "no pong within 20 s (ping_timeout)")]
    wait_until(lambda: not chat.app.topic("room pub").members(), "the room is empty")
