"""Clients on blocking sockets: plain HTTP, WebSockets and event streams, decoded by the codec.

Every socket has a timeout, so that missing data is an error and no test hangs.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from typing import Any, TypeAlias, TypeVar

from wsframe import (
    Close,
    Connection,
    Event,
    EventStreamDecoder,
    Opcode,
    Pong,
    Role,
    ServerSentEvent,
    accept_key,
    encode_frame,
)
from wsframe.server import Server

from .waiting import TIMEOUT

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
END_OF_HEAD = b"\r\n\r\n"
UPGRADE = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)

Pairs: TypeAlias = Iterable[tuple[str, str]]


def head(first_line: str, headers: Pairs) -> bytes:
    """Return the head of a request."""
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def get(target: str, *headers: tuple[str, str], method: str = "GET") -> bytes:
    """Return a valid request."""
    return head(f"{method} {target} HTTP/1.1", [("Host", "localhost"), *headers])


def upgrade(
    target: str,
    *more: tuple[str, str],
    changes: dict[str, str | None] | None = None,
    version: str = "1.1",
    method: str = "GET",
) -> bytes:
    """Return a valid upgrade request with these changes (None removes a header) and additions."""
    changed: dict[str, str | None] = {**dict(UPGRADE), **(changes or {})}
    headers = [(name, value) for name, value in changed.items() if value is not None]
    return head(f"{method} {target} HTTP/{version}", [*headers, *more])


def masked(opcode: Opcode, payload: bytes | str, *, fin: bool = True) -> bytes:
    """Return a frame of a client."""
    return encode_frame(opcode, payload, fin=fin, masking_key=b"\x01\x82\x7f\xfc")


@dataclass
class Answer:
    """A response of the server."""

    status: int
    headers: Message
    body: bytes


def parse_answer(data: bytes) -> Answer:
    """Return the response; fail if bytes follow it."""
    status_line, _, rest = data.partition(b"\r\n")
    version, status, phrase = status_line.decode().split(" ", 2)
    assert version == "HTTP/1.1", data
    assert phrase, data
    fields, _, body = rest.partition(END_OF_HEAD)
    return Answer(int(status), message_from_bytes(fields + END_OF_HEAD), body)


class Client:
    """A socket that is connected to a server on this machine.

    Args:
        receive_buffer: the size of the socket's buffer; a small one fills the server's side early.
        tls: the context for TLS; an end without close_notify is an error.
        source: the local address.
        unix: the path of a Unix socket, instead of host and port.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        source: str | None = None,
        unix: str | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(socket.AF_UNIX if unix else family, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(TIMEOUT)
            if not unix:
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if source is not None:
                self.sock.bind((source, 0))
            self.sock.connect(unix or (host, port))
            if tls is not None:
                self.sock = tls.wrap_socket(
                    self.sock, server_hostname=host, suppress_ragged_eofs=False
                )
        except BaseException:
            self.sock.close()
            raise
        self._received = bytearray()

    @contextmanager
    def timeout(self, seconds: float) -> Iterator[None]:
        """Limit each wait within it to this time."""
        self.sock.settimeout(seconds)
        try:
            yield
        finally:
            self.sock.settimeout(TIMEOUT)

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self.sock.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send the bytes one by one, with time for the server to read each of them."""
        for byte in data:
            self.sock.sendall(bytes([byte]))
            time.sleep(0.0002)

    def receive(self, most: int = 1 << 16) -> bytes:
        """Return the next bytes, however many; b"" at the end."""
        if self._received:
            data = bytes(self._received[:most])
            del self._received[:most]
            return data
        return self.sock.recv(most)

    def read_until(self, end: bytes) -> bytes:
        """Return all bytes up to and including these."""
        while (found := self._received.find(end)) < 0:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f"the end came before {end!r}: {bytes(self._received)!r}")
            self._received += data
        result = bytes(self._received[: found + len(end)])
        del self._received[: found + len(end)]
        return result

    def read_to_end(self) -> bytes:
        """Return all bytes until the server closes its side; a reset is an error."""
        data = bytearray(self.receive())
        while chunk := self.sock.recv(1 << 16):
            data += chunk
        return bytes(data)

    def answer(self) -> Answer:
        """Return the response to a request, after which the server must close the connection."""
        answer = parse_answer(self.read_to_end())
        self.close()
        connection = ",".join(answer.headers.get_all("Connection", []))
        assert "close" in connection.replace(" ", "").split(",")
        return answer

    def half_close(self) -> None:
        """Close the sending side: FIN."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Abort the connection with a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class WebSocketClient(Client):
    """A client with an open WebSocket.

    Args:
        first: bytes that are sent in one segment with the request.
        bytewise: send the request and these bytes one by one.
    """

    def __init__(
        self,
        port: int,
        target: str,
        *headers: tuple[str, str],
        first: bytes = b"",
        bytewise: bool = False,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, receive_buffer=receive_buffer, tls=tls)
        try:
            self.codec = Connection(Role.CLIENT, max_message_size=1 << 26)
            self._events: deque[Event] = deque()
            request = upgrade(target, *headers) + first
            if bytewise:
                self.send_bytewise(request)
            else:
                self.send(request)
            answer = parse_answer(self.read_until(END_OF_HEAD))
            assert answer.status == 101
            assert answer.headers["Sec-WebSocket-Accept"] == accept_key(KEY)
            self.headers = answer.headers
        except BaseException:
            self.sock.close()
            raise

    def send_messages(self, *messages: str | bytes) -> None:
        """Send the messages, all in one segment."""
        self.send(b"".join(map(self.codec.encode, messages)))

    def next_event(self) -> Event:
        """Return the next event: a message, a pong, a close."""
        while not self._events:
            data = self.receive()
            if not data:
                raise EOFError("the connection ended")
            self._events += self.codec.receive(data)
        return self._events.popleft()

    def expect(self, count: int, timeout: float = TIMEOUT) -> list[Event]:
        """Return the next events; raise TimeoutError if one takes longer."""
        with self.timeout(timeout):
            return [self.next_event() for _ in range(count)]

    def leave(self, code: int = 1000, reason: str = "") -> Close:
        """Send a close frame; return the close frame with which the server answers."""
        self.send(self.codec.close(code, reason))
        close = self.next_event()
        assert isinstance(close, Close), close
        self.expect_end()
        return close

    def expect_close(self) -> Close:
        """Wait until the server closes; answer its close frame and return it."""
        while not isinstance(event := self.next_event(), Close):
            assert isinstance(event, Pong), event
        if not self.codec.close_sent:
            self.send(self.codec.close(event.code))
        self.expect_end()
        return event

    def expect_end(self) -> None:
        """Fail if more data arrives before the server closes; close the socket."""
        assert self.read_to_end() == b""
        assert not self._events
        self.close()


class StreamClient(Client):
    """A client with an open event stream."""

    def __init__(
        self,
        port: int,
        target: str,
        *headers: tuple[str, str],
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, receive_buffer=receive_buffer, tls=tls)
        try:
            self.decoder = EventStreamDecoder()
            self._events: deque[ServerSentEvent] = deque()
            self.send(get(target, ("Accept", "text/event-stream"), *headers))
            answer = parse_answer(self.read_until(END_OF_HEAD))
            assert answer.status == 200
            self.headers = answer.headers
        except BaseException:
            self.sock.close()
            raise

    @property
    def last_event_id(self) -> str:
        """The value of ``Last-Event-ID`` when it reconnects."""
        return self.decoder.last_event_id

    def read_opening(self) -> bytes:
        """Return the beginning of a stream with a topic: the reconnection time and its position."""
        opening = self.read_until(b"\n\n")
        if opening.startswith(b"retry: "):
            opening += self.read_until(b"\n\n")
        assert b"id: " in opening, opening
        assert b"data" not in opening, opening
        self.decoder.receive(opening)
        return opening

    def next_event(self) -> ServerSentEvent:
        """Return the next event."""
        while not self._events:
            data = self.receive()
            if not data:
                raise EOFError("the stream ended")
            self._events += self.decoder.receive(data)
        return self._events.popleft()

    def expect(self, count: int, timeout: float = TIMEOUT) -> list[str]:
        """Return the data of the next events; raise TimeoutError if one takes longer."""
        with self.timeout(timeout):
            return [self.next_event().data for _ in range(count)]

    def expect_end(self) -> None:
        """Fail if more events arrive before the server ends the stream; close the socket."""
        assert not self.decoder.receive(self.read_to_end())
        assert not self._events
        self.close()


AnyClient = TypeVar("AnyClient", bound=Client)


class Clients:
    """Opens clients that are closed at the end of the test, before the servers stop."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def connect(self, server: Server, **options: Any) -> Client:
        """Connect a socket, and send nothing."""
        return self._keep(Client(server.port, **options))

    def websocket(
        self, server: Server, target: str, *headers: tuple[str, str], **options: Any
    ) -> WebSocketClient:
        """Open a WebSocket."""
        return self._keep(WebSocketClient(server.port, target, *headers, **options))

    def stream(
        self, server: Server, target: str, *headers: tuple[str, str], **options: Any
    ) -> StreamClient:
        """Open an event stream."""
        return self._keep(StreamClient(server.port, target, *headers, **options))

    def _keep(self, client: AnyClient) -> AnyClient:
        self._stack.callback(client.close)
        return client
