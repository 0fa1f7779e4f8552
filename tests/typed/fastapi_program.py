"""A program for FastAPI that uses all of ``wsframe.asgi`` and ``wsframe.uvicorn``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.routing import Route

from wsframe.asgi import ConnectionInfo, EventStream, Stats, Topic, Topics
from wsframe.server import Published
from wsframe.uvicorn import Timing, WebSocketProtocol

topics = Topics(redis="redis://localhost:6379/0", redis_prefix="typed:")
news: Topic = topics.topic("news", history=100, max_age=60.0, policy="latest")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Start the topics among other things."""
    async with topics.lifespan(app):
        yield


app = FastAPI(lifespan=lifespan)
simple = FastAPI(lifespan=topics.lifespan)


def user_of(name: str | None = None) -> str:
    """Return the name of the user."""
    if name is None:
        raise HTTPException(401)
    return name


@app.get("/news")
async def stream(user: Annotated[str, Depends(user_of)]) -> EventStream:
    """Send all news, with every option."""
    response = EventStream(
        news,
        topics.topic("weather"),
        after="",
        member=user,
        identity=user,
        retry=1.0,
        heartbeat=10,
        send_timeout=5.0,
        headers={"X-User": user},
        background=BackgroundTask(publish, "gone"),
    )
    response.set_cookie("seen", "yes")
    return response


@app.get("/either", response_model=None)
def either(name: str) -> EventStream | Response:
    """Send a stream or another response."""
    return Response(status_code=404) if name == "none" else EventStream(topics.topic(name))


@app.post("/news")
def publish(text: str) -> int:
    """Publish, and return the number of clients."""
    published: Published = news.publish(text, event="news", key="one")
    return published.reached + published.queued


@app.post("/logout")
async def log_out(user: Annotated[str, Depends(user_of)]) -> None:
    """Close the streams of a user."""
    topics.close_identity(user)


@app.get("/streams")
def streams() -> list[str]:
    """Return the paths of all open streams."""
    found: list[ConnectionInfo] = topics.connections()
    return [info.path for info in found]


@app.websocket("/talk")
async def talk(websocket: WebSocket) -> None:
    """Publish what a client sends."""
    await websocket.accept()
    async for text in websocket.iter_text():
        news.publish(text)


async def of_starlette(request: Request) -> EventStream:
    """Send the topic of the path."""
    topic: str = request.path_params["topic"]
    return EventStream(topics.topic(topic))


starlette = Starlette(routes=[Route("/{topic}", of_starlette)], lifespan=topics.lifespan)
# A response is an application of its own.
bare: EventStream = EventStream(news)


class Patient(WebSocketProtocol):
    """A protocol with other durations."""

    timing = Timing(close_timeout=60.0)


def main() -> None:
    """Serve."""
    statistics: Stats = topics.stats()
    print(statistics.event_streams, statistics.subscriptions)  # noqa: T201
    for application in (app, starlette, bare):
        uvicorn.run(application, ws=Patient)
    uvicorn.run(simple, ws="wsframe.uvicorn:WebSocketProtocol")
    topics.close(timeout=1.0)
