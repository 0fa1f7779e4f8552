"""sse-starlette on uvicorn, uvloop and httptools, with a queue for each client."""

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

queues: set[asyncio.Queue[str]] = set()


async def events(request: Request) -> EventSourceResponse:
    """Join the receivers."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    return EventSourceResponse(take(queue))


async def take(queue: asyncio.Queue[str]) -> AsyncIterator[dict[str, str]]:
    """Yield the published messages until the client disconnects."""
    try:
        while True:
            yield {"data": await queue.get()}
    finally:
        queues.remove(queue)


async def publish(websocket: WebSocket) -> None:
    """Publish every message."""
    await websocket.accept()
    async for message in websocket.iter_text():
        for queue in queues:
            queue.put_nowait(message)


uvicorn.run(
    Starlette(routes=[Route("/events", events), WebSocketRoute("/publish", publish)]),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    ws_ping_interval=None,
    lifespan="off",
    log_level="warning",
)
