"""A client on a plain socket: every received byte is returned or compared."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wsframe import EventStreamDecoder, Opcode, accept_key, encode_frame
from wsframe.fields import Fields, decode_response

END_OF_LINE, END_OF_HEAD = b"\r\n", b"\r\n\r\n"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)
# The longest wait for any byte, in seconds.
TIMEOUT = 15.0


class WrongError(Exception):
    """The server sent something wrong."""


@dataclass(frozen=True)
class Address:
    """The address of a server.

    Attributes:
        port: its port on 127.0.0.1.
        tls: the context of a client, if it uses TLS.
    """

    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    fields: Fields
    body: bytes


def request(
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> bytes:
    """Return a request; a body has a Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def upgrade(target: str, *headers: tuple[str, str], without: str = "") -> bytes:
    """Return an upgrade request, without the header of this name."""
    return request(target, [*(pair for pair in UPGRADE if pair[0] != without), *headers])


def message(payload: str | bytes) -> bytes:
    """Return the frame of a client; the masking key is constant, so that it is not zero."""
    return _frame(payload, b"\x01\x82\x7f\xfc")


def echo(payload: str | bytes) -> bytes:
    """Return the frame with which a server echoes the payload."""
    return _frame(payload, None)


def _frame(payload: str | bytes, masking_key: bytes | None) -> bytes:
    opcode = Opcode.TEXT if isinstance(payload, str) else Opcode.BINARY
    return encode_frame(opcode, payload, masking_key=masking_key)


def close_frame(code: int, *, masked: bool) -> bytes:
    """Return a close frame without a reason."""
    key = b"\x01\x82\x7f\xfc" if masked else None
    return encode_frame(Opcode.CLOSE, struct.pack("!H", code), masking_key=key)


class Wire:
    """A connection to a server; a context manager that closes it."""

    def __init__(self, address: Address) -> None:
        self.sock = socket.create_connection(("127.0.0.1", address.port), TIMEOUT)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                self.sock = address.tls.wrap_socket(self.sock, server_hostname="localhost")
        except BaseException:
            self.sock.close()
            raise
        self._received = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def reset(self) -> None:
        """Abort the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self.sock.sendall(data)

    def has_received(self, seconds: float) -> bool:
        """Return True if bytes, or the end, are received within this time."""
        return bool(self._received or select.select([self.sock], [], [], seconds)[0])

    def read_some(self) -> bytes:
        """Return the next bytes, however many; b"" at the end."""
        if self._received:
            data = bytes(self._received)
            self._received.clear()
            return data
        return self.sock.recv(1 << 16)

    def read(self, count: int) -> bytes:
        """Return exactly this number of bytes."""
        while len(self._received) < count:
            self._read_more(f"{count} bytes")
        return self._take(count)

    def read_until(self, end: bytes) -> bytes:
        """Return the bytes up to and including these."""
        while (found := self._received.find(end)) < 0:
            self._read_more(repr(end))
        return self._take(found + len(end))

    def expect(self, wanted: bytes) -> None:
        """Read as many bytes, and compare them.

        Raises:
            WrongError: they differ.
        """
        received = self.read(len(wanted))
        if received != wanted:
            raise WrongError(f"{wanted[:80]!r} was expected, and {received[:80]!r} received")

    def expect_end(self) -> None:
        """Wait until the server closes the connection.

        Raises:
            WrongError: a byte is received before.
        """
        if data := self.read_some():
            raise WrongError(f"the end was expected, and {data[:80]!r} received")

    # HTTP ----------------------------------------------------------------------------------------

    def head(self) -> tuple[int, Fields]:
        """Return the status and the fields of the next response."""
        status, headers = decode_response(self.read_until(END_OF_HEAD))
        return status, Fields(headers)

    def body(self, fields: Fields) -> Iterator[bytes]:
        """Yield the parts of the body of a response with these fields, as they arrive."""
        length = fields.single("content-length")
        if "chunked" in fields.tokens("transfer-encoding"):
            while size := int(self.read_until(END_OF_LINE), 16):
                yield self.read(size)
                self.expect(END_OF_LINE)
            self.expect(END_OF_LINE)
        elif length is not None:
            yield self.read(int(length))
        else:
            while data := self.read_some():
                yield data

    def response(self) -> Response:
        """Return the next response to a GET or POST."""
        status, fields = self.head()
        return Response(status, fields, b"".join(self.body(fields)))

    def expect_page(self, content: bytes) -> Response:
        """Read a response, and compare its body.

        Raises:
            WrongError: the status is not 200, or the body differs.
        """
        response = self.response()
        if response.status != 200 or response.body != content:
            raise WrongError(f"{len(content)} bytes were expected, and {response} received")
        return response

    def expect_upgrade(self) -> None:
        """Read a response, and check that it is a 101.

        Raises:
            WrongError: it is not.
        """
        status, fields = self.head()
        if status != 101 or fields.single("sec-websocket-accept") != accept_key(KEY):
            body = b"".join(self.body(fields)) if status != 101 else b""
            raise WrongError(f"a 101 was expected, and {status} received: {body[:200]!r}")

    def expect_status(self, *wanted: int) -> Response:
        """Read a response, and check its status.

        Raises:
            WrongError: it is another.
        """
        response = self.response()
        if response.status not in wanted:
            raise WrongError(f"{wanted} was expected, and {response} received")
        return response

    def _read_more(self, wanted: str) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError(f"the connection ended before {wanted}, after {bytes(self._received)!r}")
        self._received += data

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data


class Stream:
    """An event stream on a connection on which the request has been sent.

    Raises:
        WrongError: the response is not an event stream.
    """

    def __init__(self, wire: Wire) -> None:
        status, fields = wire.head()
        self._body = wire.body(fields)
        kind = fields.single("content-type") or ""
        if status != 200 or not kind.startswith("text/event-stream"):
            raise WrongError(f"an event stream was expected, and {status} received ({kind})")
        self._decoder = EventStreamDecoder()
        self._events: list[str] = []

    def wait_for_position(self) -> None:
        """Wait for the position in the topic; events that are published later are received."""
        while not self._decoder.last_event_id:
            if not self._read():
                raise EOFError("the stream ended before its position")

    def expect(self, *wanted: str) -> None:
        """Compare the data of the next events.

        Raises:
            WrongError: they differ.
        """
        for data in wanted:
            while not self._events:
                if not self._read():
                    raise EOFError(f"the stream ended before {data[:80]!r}")
            if (received := self._events.pop(0)) != data:
                raise WrongError(f"{data[:80]!r} was expected, and {received[:80]!r} received")

    def expect_end(self) -> None:
        """Wait until the stream ends.

        Raises:
            WrongError: an event with data is received before.
        """
        while self._read():
            pass
        if self._events:
            raise WrongError(f"the end was expected, and {self._events[0][:80]!r} received")

    def _read(self) -> bool:
        part = next(self._body, b"")
        self._events += [event.data for event in self._decoder.receive(part)]
        return bool(part)
