"""A chat with rooms: ``python examples/chat.py``, then http://localhost:9292/?room=tea.

A new member receives the last hundred messages, a reconnecting one all that it missed.
"""

import json
from collections.abc import Generator
from pathlib import Path

from wsframe.server import App, WebSocket

app = App()
app.page("/", Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


@app.websocket("/rooms/{room}", max_message_size=2000)
def chat(ws: WebSocket, room: str) -> Generator[None, str | bytes, None]:
    """Publish each message to the room. The wait at ``yield`` uses no thread."""
    name = ws.request.query.get("name", ["somebody"])[0][:20]
    after = ws.request.query.get("after", [""])[0]
    topic = app.topic(f"room {room[:20]}", history=100, max_age=86400.0)
    try:
        with ws.subscribe(topic, after=after, envelope=True, member=name):
            topic.publish(json.dumps(topic.members()), event="members")
            while True:
                text = yield
                topic.publish(json.dumps({"name": name, "text": str(text)}), event="message")
    finally:
        topic.publish(json.dumps(topic.members()), event="members")


if __name__ == "__main__":
    app.run()
