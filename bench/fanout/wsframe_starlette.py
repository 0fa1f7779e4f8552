"""wsframe's EventStream in Starlette on uvicorn, uvloop and httptools, with one topic."""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bench.given import port
from wsframe.asgi import EventStream, Topics

topics = Topics()
topic = topics.topic("events")


async def events(request: Request) -> EventStream:
    """Subscribe."""
    return EventStream(topic)


async def publish(websocket: WebSocket) -> None:
    """Publish every message."""
    await websocket.accept()
    async for message in websocket.iter_text():
        topic.publish(message)


uvicorn.run(
    Starlette(routes=[Route("/events", events), WebSocketRoute("/publish", publish)]),
    host="127.0.0.1",
    port=port(),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    ws_ping_interval=None,
    lifespan="off",
    log_level="warning",
)
