"""A client on a blocking socket, for plain HTTP and as the base of the other clients.

Every wait has a time limit, so missing data raises an error instead of blocking a test.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from http import HTTPStatus
from typing import TypeVar

from wsframe import HandshakeError
from wsframe.closing import Closing

from .silence import accept_received, discard_received
from .waiting import TIMEOUT

END_OF_HEAD = b"\r\n\r\n"
BLOCK = 1 << 16  # the maximum number of bytes of one read
WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
# The pause between two bytes, in seconds, so that the server reads each byte alone.
PAUSE = 0.0002
# The values of SO_LINGER: ``close`` resets the connection, or sends the unsent data and a FIN.
RESET, LINGER = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)

T = TypeVar("T")


@dataclass
class Response:
    r"""An HTTP response that a server has sent.

    Example::

        client = server.connect()
        client.send(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response().status == 404

    Attributes:
        status: the status.
        headers: the headers; names are case-insensitive.
        body: the body.
        version: the HTTP version, as in "HTTP/1.1".
    """

    status: int
    headers: Message
    body: bytes
    version: str


def parse_response(data: bytes) -> Response:
    """Return the response in the data; all bytes after its head are the body.

    Raises:
        AssertionError: the data is not a response of HTTP/1.0 or 1.1.
    """
    status_line, _, rest = data.partition(b"\r\n")
    version, _, status = status_line.decode("latin-1").partition(" ")
    code, _, phrase = status.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not code.isdigit() or not phrase:
        raise AssertionError(f"not a response of HTTP/1.0 or HTTP/1.1: {data!r}")
    fields, _, body = rest.partition(END_OF_HEAD)
    return Response(int(code), message_from_bytes(fields + END_OF_HEAD), body, version)


class Client(Closing):
    r"""A socket that is connected to a server on this machine.

    Example::

        with Client(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.response().status == 200

    Args:
        port: the port of the server.
        host: its address.
        receive_buffer: the size of the socket's receive buffer in bytes. A small buffer is soon
            full, so that the server must wait for the client.
        tls: the context for TLS, which treats an end without close_notify as an error.
        source: the local address that the socket is bound to.
        unix: the path of a Unix socket, instead of host and port.

    Attributes:
        sock: the socket. Each of its waits is limited to ``TIMEOUT``.

    Raises:
        OSError: the server does not accept the connection.
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
        kind = socket.AF_UNIX if unix else family
        self.sock: socket.socket = socket.socket(kind, socket.SOCK_STREAM)
        self._received = bytearray()
        self._deadline: float | None = None
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

    @contextmanager
    def timeout(self, seconds: float) -> Iterator[None]:
        """A context manager that sets the time limit of each wait in its body, in seconds."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            yield
        finally:
            self.sock.settimeout(before)

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self.sock.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send the bytes one by one, with time for the server to read each of them."""
        for byte in data:
            self.sock.sendall(bytes([byte]))
            time.sleep(PAUSE)

    def receive(self, most: int = BLOCK) -> bytes:
        """Return the next received bytes, at least one; b"" at the end of the data."""
        return self._take(most) if self._received else self._read(most)

    def read_until(self, end: bytes) -> bytes:
        """Receive and return all bytes up to and including a separator.

        Raises:
            EOFError: the server has closed its side earlier.
        """
        while (found := self._received.find(end)) < 0:
            data = self._read(BLOCK)
            if not data:
                raise EOFError(f"the connection ended before {end!r}: {bytes(self._received)!r}")
            self._received += data
        return self._take(found + len(end))

    def read_to_end(self) -> bytes:
        """Return all bytes until the server closes its side; a reset is an error."""
        data = bytearray(self.receive())
        while chunk := self._read(BLOCK):
            data += chunk
        return bytes(data)

    def response(self) -> Response:
        """Return the next response, with a Content-Length, a chunked body, or a body up to the end.

        Raises:
            EOFError: the connection has ended before the response was complete.
        """
        with self._within():
            return self._with_body(self._head())

    def answer(self) -> Response:
        """Return the last response, and close the socket.

        An ``App`` closes the connection after each response.

        Raises:
            AssertionError: the response is not HTTP/1.1, or has no ``Connection: close``.
        """
        with self._within():
            response = parse_response(self.read_to_end())
        self.close()
        options = ",".join(response.headers.get_all("Connection", []))
        if response.version != "HTTP/1.1" or "close" not in re.split(r"[\s,]+", options):
            raise AssertionError(
                f"expected an HTTP/1.1 response with Connection: close, received: {response!r}"
            )
        return response

    def _head(self) -> Response:
        return parse_response(self.read_until(END_OF_HEAD))

    def _with_body(self, response: Response) -> Response:
        size = response.headers["Content-Length"]
        if "chunked" in response.headers.get("Transfer-Encoding", ""):
            response.body = b"".join(iter(self.read_chunk, b""))
        elif size is not None or response.status in WITHOUT_BODY:
            response.body = self._read_exactly(int(size or 0))
        else:
            response.body = self.read_to_end()
        return response

    def read_chunk(self) -> bytes:
        """Return the next chunk (RFC 9112 section 7.1); b"" after the last one.

        Raises:
            EOFError: the server has closed its side earlier.
        """
        size = int(self.read_until(b"\r\n"), 16)
        return self._read_exactly(size + 2)[:-2]

    def _read_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.receive(size - len(data))
            if not more:
                raise EOFError(
                    f"the connection ended after {len(data)} of {size} bytes: {bytes(data)!r}"
                )
            data += more
        return bytes(data)

    def _open(self, status: int, send: Callable[[bytes], None], request: bytes) -> Response:
        """Send a request; return the head of its response, and fail if it has another status."""
        try:
            send(request)
            response = self._head()
            if response.status != status:
                with self._within():
                    refusal = self._with_body(response)
                reason = f"the server has refused the request: {refusal.body[:200]!r}"
                headers = refusal.headers.items()
                error = HandshakeError(refusal.status, reason, headers, refusal.body)
                error.answered = True
                raise error
        except BaseException:
            self.close()
            raise
        return response

    def _check_end(self, unread: object) -> None:
        """Close the socket; fail if there is unread data."""
        self.close()
        if unread:
            raise AssertionError(f"expected the end of the connection, received: {unread!r}")

    def receive_available(self) -> None:
        """Receive data without waiting; close the socket if the server has closed its side."""
        if self._receive_arrived():
            with suppress(OSError):  # the connection has ended already
                self.half_close()

    def _receive_arrived(self) -> bool:
        """Receive data without waiting; return True if the server has closed its side."""
        # An OSError means that no more data has arrived, or that the connection is already closed.
        with suppress(OSError), self.timeout(0.0):
            while data := self.sock.recv(BLOCK):
                self._received += data
            return True
        return False

    def half_close(self) -> None:
        """Shut down the sending side of the connection (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Abort the connection with a reset (RST), without a close frame."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def vanish(self) -> None:
        """Receive and acknowledge nothing more, and send no FIN and no RST, as after a power loss.

        The data that has arrived until now is received and acknowledged first.

        A server notices only that its data is not acknowledged. With a :class:`ManualClock` no test
        waits for that::

            server = AppServer(app, clock=ManualClock(), ping_interval=20, ping_timeout=20)
            client = server.websocket("/echo")
            client.vanish()
            server.pass_time(60)
            assert server.connections == 0

        The client must not send until :meth:`reappear`. If it is closed before, the close resets
        the connection.

        Raises:
            NotImplementedError: the connection is not a TCP connection, or this system is not
                Linux.
        """
        self._receive_arrived()  # a system may delay the acknowledgement of unread data
        discard_received(self.sock)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def reappear(self) -> None:
        """Undo :meth:`vanish`, as after an interruption of the network.

        The client receives the data that the server has sent meanwhile. The system of the server
        repeats it in real time, at growing intervals.
        """
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        accept_received(self.sock)

    def close(self) -> None:
        """Close the socket, without a close frame; closing twice does nothing."""
        self.sock.close()

    def _take(self, most: int) -> bytes:
        """Remove and return some of the received bytes."""
        data = bytes(self._received[:most])
        del self._received[:most]
        return data

    def _read(self, most: int) -> bytes:
        """Read from the socket, within the time limit of :meth:`_within`."""
        if self._deadline is not None:
            # A time-out of 0 would make the socket non-blocking, which raises another error.
            self.sock.settimeout(max(0.001, self._deadline - time.monotonic()))
        return self.sock.recv(most)

    def _collect(self, next_one: Callable[[], T], count: int, seconds: float | None) -> list[T]:
        """Return the next events; on a time-out, raise an error that contains the events so far."""
        found: list[T] = []
        try:
            with nullcontext() if seconds is None else self._within(seconds):
                while len(found) < count:
                    found.append(next_one())
        except TimeoutError:
            limit = self.sock.gettimeout() if seconds is None else seconds
            raise TimeoutError(
                f"received {len(found)} of {count} events within {limit:g} s: {found!r}"
            ) from None
        return found

    @contextmanager
    def _within(self, seconds: float | None = None) -> Iterator[None]:
        """Limit the total time of all waits in the body, unless an outer call has limited it.

        With a limit for each wait alone, each ping or heartbeat of the server would extend the
        time.

        Args:
            seconds: the time limit; None for ``TIMEOUT``.
        """
        before = self.sock.gettimeout()
        limit = before if seconds is None else seconds
        if self._deadline is not None or limit is None:
            yield
            return
        self._deadline = time.monotonic() + limit
        try:
            yield
        finally:
            self._deadline = None
            self.sock.settimeout(before)
