"""The clients of a test, which are closed together."""

from __future__ import annotations

import ssl
from typing import Protocol, TypedDict, TypeVar, Unpack

from wsframe.closing import Closing

from .client import Client
from .stream import StreamClient
from .websocket import WebSocketClient


class Listening(Protocol):
    """The interface of a server on this machine."""

    @property
    def port(self) -> int:
        """The port that the server listens on."""


class ClientOptions(TypedDict, total=False):
    """The options of :class:`Client`."""

    host: str
    receive_buffer: int | None
    tls: ssl.SSLContext | None
    source: str | None
    unix: str | None


class StreamOptions(TypedDict, total=False):
    """The options of :class:`StreamClient`."""

    receive_buffer: int | None
    tls: ssl.SSLContext | None
    method: str
    body: bytes


class WebSocketOptions(TypedDict, total=False):
    """The options of :class:`WebSocketClient`."""

    receive_buffer: int | None
    tls: ssl.SSLContext | None
    first: bytes
    bytewise: bool
    answer_pings: bool


AnyClient = TypeVar("AnyClient", bound=Client)


class Clients(Closing):
    """A context manager that opens clients and closes all of them at its end.

    Example::

        with Clients() as clients:
            alice, bob = (clients.websocket(server, "/echo") for _ in range(2))
            alice.send_messages("hello")
            assert alice.expect(1) == ["hello"]
    """

    def __init__(self) -> None:
        self._open: list[Client] = []

    def connect(self, server: Listening, **options: Unpack[ClientOptions]) -> Client:
        """Connect a socket, and send nothing."""
        return self.keep(Client(server.port, **options))

    def websocket(
        self,
        server: Listening,
        target: str,
        *headers: tuple[str, str],
        **options: Unpack[WebSocketOptions],
    ) -> WebSocketClient:
        """Open a WebSocket."""
        return self.keep(WebSocketClient(server.port, target, *headers, **options))

    def stream(
        self,
        server: Listening,
        target: str,
        *headers: tuple[str, str],
        **options: Unpack[StreamOptions],
    ) -> StreamClient:
        """Open an event stream."""
        return self.keep(StreamClient(server.port, target, *headers, **options))

    def keep(self, client: AnyClient) -> AnyClient:
        """Add a client that is closed together with the others; return the client."""
        self._open.append(client)
        return client

    def receive_available(self) -> None:
        """Let all clients receive the data that has arrived, and answer close frames."""
        for client in self._open:
            client.receive_available()

    def close(self) -> None:
        """Close all clients."""
        while self._open:
            self._open.pop().close()
