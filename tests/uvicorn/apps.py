"""ASGI applications for the tests, and a client that floods them."""

from __future__ import annotations

import asyncio
import threading

from tests.support.clients import Client
from tests.support.uvicorn_server import Message, Receive, Send
from tests.support.waiting import TIMEOUT


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Accept, and send every message back."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await echo_all(receive, send)


async def echo_all(receive: Receive, send: Send) -> Message:
    """Send every message back; return the last event."""
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    return message


class Gate:
    """An event that the test sets for the application, or the application for the test."""

    def __init__(self) -> None:
        self._set = threading.Event()

    def open(self) -> None:
        """Set it."""
        self._set.set()

    @property
    def is_open(self) -> bool:
        """True once it is set."""
        return self._set.is_set()

    def wait(self) -> None:
        """The test: wait for the application."""
        assert self._set.wait(TIMEOUT)

    async def passed(self) -> None:
        """The application: wait for the test, without blocking the loop."""
        while not self._set.is_set():
            await asyncio.sleep(0.002)


class Ending:
    """An application that echoes, and keeps its last event.

    Attributes:
        last: the last event, after the end.
    """

    def __init__(self) -> None:
        self.last: Message = {}
        self._ended = Gate()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.last = await echo_all(receive, send)
        self._ended.open()

    def end(self) -> Message:
        """Wait for the end, and return the last event."""
        self._ended.wait()
        return self.last


def flood(client: Client, data: bytes) -> OSError:
    """Send this data again and again; return the error that ends it."""
    while True:
        try:
            client.send(data)
        except OSError as error:
            return error
