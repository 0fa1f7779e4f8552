"""A client of an event stream in chunks, and a request without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.clients import Client, Response, StreamClient, get, parse_response
from tests.support.uvicorn_server import Message
from wsframe.asgi import EventStream


class ChunkedStream(StreamClient):
    """A client with an open event stream."""

    def opening(self) -> bytes:
        """Return the beginning up to the first id."""
        data = self.more()
        while b"id: " not in data:
            data += self.more()
        self._events += self.decoder.receive(data)
        return data

    def read_rest(self) -> list[str]:
        """Return the data of all events until the end of the stream."""
        events = []
        try:
            while True:
                events.append(self.next_event().data)
        except EOFError:
            return events


def answer(
    port: int, target: str = "/", *headers: tuple[str, str], method: str = "GET"
) -> Response:
    """Return the answer to a request that opens no stream."""
    client = Client(port)
    try:
        client.send(get(target, ("Connection", "close"), *headers, method=method))
        return parse_response(client.read_to_end())
    finally:
        client.close()


class Request:
    """A request to an event stream, without a server.

    Attributes:
        scope: its scope.
        sent: the messages that the application has sent.
        task: the task of the request.
    """

    def __init__(self, response: EventStream, **scope: Any) -> None:
        self.sent: list[Message] = []
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._response = response
        self.scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "client": ("192.0.2.1", 1),
            **scope,
        }
        self.task: asyncio.Task[None] = asyncio.create_task(self._run())

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    async def send(self, message: Message) -> None:
        """Keep a message; tests replace this method."""
        self.sent.append(message)

    async def receive(self) -> Message:
        """Wait for an event of the client."""
        return await self._events.get()

    def disconnect(self) -> None:
        """Let the client disconnect."""
        self._events.put_nowait({"type": "http.disconnect"})

    async def until(self, text: bytes) -> None:
        """Wait until the body contains this text."""
        async with asyncio.timeout(10):
            while text not in self.body:
                await asyncio.sleep(0.001)

    async def _run(self) -> None:
        async def send(message: Message) -> None:
            await self.send(message)

        async def receive() -> Message:
            return await self.receive()

        await self._response(self.scope, receive, send)


@asynccontextmanager
async def opened(request: Request) -> AsyncIterator[Request]:
    """Wait until a stream is open; disconnect at the end, and wait for the end of the request."""
    await request.until(b"id: ")
    yield request
    request.disconnect()
    await request.task
