"""The example of an echo server on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.pages import load_example
from wsframe import Close, Connection, Pong, Role, UpgradeRequest, encode_frame
from wsframe.fields import decode_response

TIMEOUT = 30.0
example = load_example("asyncio_echo")


class Client:
    """A client of the example.

    Attributes:
        served: the server's end of the connection.
    """

    served: asyncio.StreamWriter

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = Connection(Role.CLIENT, max_message_size=1 << 30)
        self.events: list[Any] = []

    async def upgrade(self, then: bytes = b"", step: int = 1 << 16) -> None:
        """Open the WebSocket, and send these bytes with the request."""
        request = UpgradeRequest("localhost")
        wire = request.encode() + then
        for begin in range(0, len(wire), step):
            self.writer.write(wire[begin : begin + step])
            await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        request.confirm(*decode_response(head))

    async def event(self) -> Any:
        """Return the next event; None at the end of the connection."""
        while not self.events:
            data = await self.reader.read(65536)
            if not data:
                return None
            self.events = self.codec.receive(data)
        return self.events.pop(0)

    async def ask(self, frame: bytes) -> Any:
        """Send a frame, and return the event that answers it."""
        self.writer.write(frame)
        return await self.event()


def play(script: Callable[[Client], Awaitable[None]]) -> None:
    """Run a client against the example."""

    async def run() -> None:
        async with asyncio.timeout(TIMEOUT), connected() as client:
            await script(client)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """Yield a client; at the end, wait until the server has closed its side."""
    begun: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set_result(writer)
        try:
            await example.serve(reader, writer)
            finished.set_result(None)
        except BaseException as error:
            finished.set_exception(error)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        client.served = await begun
        try:
            yield client
        finally:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
            await finished


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_messages_are_echoed_and_the_connection_is_closed(step: int) -> None:
    async def script(client: Client) -> None:
        codec = client.codec
        first = codec.encode("with the request")
        await client.upgrade(first, step)
        assert await client.event() == "with the request"
        for message in ("h\xe9", b"\0", "", "x" * 1_000_000):
            assert await client.ask(codec.encode(message)) == message
        assert await client.ask(codec.ping(b"x")) == Pong(b"x")
        assert await client.ask(codec.close(4000, "bye")) == Close(4000, "bye")
        assert await client.event() is None

    play(script)


def test_a_violation_of_the_protocol_is_answered() -> None:
    async def script(client: Client) -> None:
        await client.upgrade()
        wire = client.codec.encode("valid") + encode_frame(0x1, b"not masked") + bytes(50_000)
        assert await client.ask(wire) == "valid"
        assert await client.event() == Close(1002, "a client's frame must be masked")
        assert await client.event() is None

    play(script)


def test_a_message_over_the_limit_is_refused() -> None:
    async def script(client: Client) -> None:
        await client.upgrade()
        answer = await client.ask(client.codec.encode(bytes((1 << 20) + 1)))
        assert isinstance(answer, Close)
        assert answer.code == 1009

    play(script)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426 Upgrade Required"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, b"431 Request Header Fields Too Large"),
        (b"\x16\x03\x01", b"400 Bad Request"),
    ],
    ids=["page", "long-head", "tls"],
)
def test_another_request_gets_a_complete_response(request_: bytes, status: bytes) -> None:
    async def script(client: Client) -> None:
        client.writer.write(request_)
        answer = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head

    play(script)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_client_may_disconnect_before_its_request_is_complete(data: bytes) -> None:
    async def script(client: Client) -> None:
        client.writer.write(data)
        client.writer.write_eof()
        assert await client.reader.read() == b""

    play(script)


def test_a_client_may_reset_the_connection() -> None:
    async def script(client: Client) -> None:
        await client.upgrade()
        client.writer.write(client.codec.encode(bytes(100_000)))
        client.writer.transport.abort()

    play(script)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_not_read() -> None:
    count, message = 40, bytes(1 << 20)

    async def script(client: Client) -> None:
        await client.upgrade()
        wire = client.codec.encode(message)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def write() -> None:
            for _ in range(count):
                client.writer.write(wire)
                await client.writer.drain()

        writing = asyncio.create_task(write())
        done, _ = await asyncio.wait([writing], timeout=1)
        assert not done
        assert client.served.transport.get_write_buffer_size() < 1.1 * len(message)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert await client.event() == message
        await writing

    play(script)


def test_a_silent_client_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(client: Client) -> None:
        assert await client.reader.read() == b""

    hurried = SimpleNamespace(
        timeout=lambda seconds: asyncio.timeout(seconds / 1000),
        get_running_loop=asyncio.get_running_loop,
    )
    monkeypatch.setattr(example, "asyncio", hurried)
    play(script)
