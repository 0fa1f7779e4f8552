"""A chat in FastAPI: ``python examples/fastapi_chat.py``, then http://localhost:8000/?room=tea.

Messages are sent over a WebSocket of FastAPI, and received as events of a topic. A new member
receives the last hundred messages, and a member that reconnects receives all that it has missed.
"""

import json
from pathlib import Path

import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse
from starlette.background import BackgroundTask

from wsframe.asgi import EventStream, Topic, Topics

topics = Topics()  # Topics(redis="redis://localhost:6379/0") with several workers
app = FastAPI(lifespan=topics.lifespan)
PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Return the page, which opens the two connections below."""
    return PAGE


@app.get("/rooms/{room}")
async def receive(room: str, name: str = "somebody") -> EventStream:
    """Send the messages of the room to a member. The stream needs no code while it lasts."""
    topic = topic_of(room)
    ended = BackgroundTask(announce, topic)
    return EventStream(topic, after="", member=name[:20], background=ended)


@app.websocket("/rooms/{room}")
async def send(websocket: WebSocket, room: str, name: str = "somebody") -> None:
    """Publish the messages of a member to the room."""
    await websocket.accept()
    topic = topic_of(room)
    announce(topic)
    async for text in websocket.iter_text():
        topic.publish(json.dumps({"name": name[:20], "text": text[:500]}))


def topic_of(room: str) -> Topic:
    """Return the topic of a room."""
    return topics.topic(f"room {room[:20]}", history=100, max_age=86400.0)


def announce(topic: Topic) -> None:
    """Publish the names of the members."""
    topic.publish(json.dumps(topic.members()), event="members")


if __name__ == "__main__":
    uvicorn.run(app, ws="wsframe.uvicorn:WebSocketProtocol")
