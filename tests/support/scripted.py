"""Servers that run a script, for behavior of defective and hostile servers."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from email.message import Message
from email.parser import HeaderParser
from typing import Any, TypeAlias

from tests.support.waiting import TIMEOUT
from wsframe import Acceptance, Close, Connection, Event, PerMessageDeflate, Ping, Role, accept
from wsframe.headers import encode_response

END_OF_HEAD = b"\r\n\r\n"


class Visit:
    """A script's view of one client's connection. Every wait has a limit."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.request_line = ""
        self.headers = Message()
        self.codec = Connection(Role.SERVER)
        self.unread = b""
        self._events: deque[Event] = deque()

    def read_head(self) -> None:
        """Read the head of a request, and set ``request_line`` and ``headers``."""
        while END_OF_HEAD not in self.unread:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f"the client left: {self.unread!r}")
            self.unread += data
        head, _, self.unread = self.unread.partition(END_OF_HEAD)
        request_line, _, fields = head.partition(b"\r\n")
        self.request_line = request_line.decode()
        self.headers = HeaderParser().parsestr(fields.decode("latin-1"))

    def answer(self, status: int, *headers: tuple[str, str], body: bytes = b"") -> None:
        """Read the head of a request unless it was read, and respond."""
        if not self.request_line:
            self.read_head()
        self.send(encode_response(status, headers, body))

    def stream(self, body: bytes = b"", content_type: str = "text/event-stream") -> None:
        """Read the head of a request, and begin an event stream."""
        self.answer(200, ("Content-Type", content_type), body=body)

    def judge(
        self, *, deflate: PerMessageDeflate | None = None, subprotocols: Iterable[str] = ()
    ) -> Acceptance:
        """Read an upgrade request, and accept it."""
        self.read_head()
        return accept(
            self.headers.items(), origins="*", deflate=deflate, subprotocols=list(subprotocols)
        )

    def upgrade(
        self,
        *,
        deflate: PerMessageDeflate | None = None,
        subprotocols: Iterable[str] = (),
        first: bytes = b"",
    ) -> None:
        """Open the WebSocket; send these frames in the same segment as the response."""
        acceptance = self.judge(deflate=deflate, subprotocols=subprotocols)
        self.codec = Connection(Role.SERVER, max_message_size=1 << 26, deflate=acceptance.deflate)
        self.send(acceptance.encode() + first)

    def send(self, data: bytes) -> None:
        """Send all of these bytes."""
        self.sock.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send every byte in a separate segment."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            self.sock.sendall(bytes([byte]))

    def trickle(self, data: bytes) -> None:
        """Send this, then single bytes at intervals until the client disconnects."""
        end = time.monotonic() + TIMEOUT
        with suppress(ConnectionError):
            while time.monotonic() < end:
                self.sock.sendall(data)
                data = b"x"
                time.sleep(0.02)

    def send_messages(self, *messages: str | bytes) -> None:
        """Send messages, all in one segment."""
        self.send(b"".join(map(self.codec.encode, messages)))

    def next_event(self) -> Event:
        """Wait for the next event, and return it."""
        while not self._events:
            data = self.unread or self.sock.recv(1 << 16)
            self.unread = b""
            if not data:
                raise EOFError("the client left")
            self._events += self.codec.receive(data)
        return self._events.popleft()

    def expect(self, count: int) -> list[Event]:
        """Wait for the next events, and return them."""
        return [self.next_event() for _ in range(count)]

    def answer_close(self) -> Close:
        """Wait for the client's close frame, which must be next, and answer it."""
        close = self.next_event()
        assert isinstance(close, Close), close
        if not self.codec.close_sent:
            self.send(self.codec.close(close.code))
        return close

    def answer_pings_until_the_end(self) -> None:
        """Answer pings and the close frame until the client closes or disconnects."""
        with suppress(EOFError, ConnectionError):
            while True:
                match self.next_event():
                    case Ping(payload):
                        self.send(self.codec.pong(payload))
                    case Close(code):
                        self.send(self.codec.close(code))
                        return

    def expect_end(self) -> None:
        """Expect that the client disconnects without more data."""
        assert not self._events
        assert not self.unread
        assert self.sock.recv(1) == b""

    def expect_silence(self) -> None:
        """Expect that the client neither sends nor disconnects for a while."""
        assert not self._events
        assert not self.unread
        self.sock.settimeout(0.05)
        with suppress(TimeoutError):
            raise AssertionError(self.sock.recv(1))
        self.sock.settimeout(TIMEOUT)

    def wait_for_end(self) -> None:
        """Wait until the client disconnects in any way, and discard its data."""
        with suppress(ConnectionError):
            while self.sock.recv(1 << 16):
                pass

    def reset(self) -> None:
        """Disconnect with a reset (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Close the sending side (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)


Script: TypeAlias = "Callable[[Visit], object]"


class ScriptedServer:
    """Serves one client after the other, each with the next script, in a thread.

    Args:
        *scripts: the scripts, one per client.
        receive_buffer: the size of the receive buffer; if it is small, the client blocks early.
        tls: the context, for a server with TLS.
        host: the address to listen on.

    Attributes:
        port: the port of the server.
    """

    def __init__(
        self,
        *scripts: Script,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._scripts = scripts
        self._tls = tls
        self._host = f"[{host}]" if ":" in host else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        if receive_buffer is not None:  # accepted sockets inherit it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.settimeout(TIMEOUT)
        self.port: int = self._listener.getsockname()[1]
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def url(self, path: str = "/") -> str:
        """Return the URL of a WebSocket of this server."""
        return f"{'wss' if self._tls else 'ws'}://{self._host}:{self.port}{path}"

    def http_url(self, path: str = "/") -> str:
        """Return the URL of an event stream of this server."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}{path}"

    def stop(self) -> None:
        """Wait for the scripts, and raise the exception of the first one that failed."""
        self._thread.join(3 * TIMEOUT)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with self._listener:
                for script in self._scripts:
                    sock, _ = self._listener.accept()
                    with sock:
                        self._serve(script, sock)
        except BaseException as error:
            self._failure = error

    def _serve(self, script: Script, sock: socket.socket) -> None:
        if self._tls is None:
            script(Visit(sock))
        else:
            sock.settimeout(TIMEOUT)
            with self._tls.wrap_socket(sock, server_side=True) as secured:
                script(Visit(secured))


def end(call: Any, *arguments: object) -> tuple[int, str]:
    """Return the code and the reason of the ConnectionClosed that this call raises."""
    try:
        call(*arguments)
    except Exception as error:
        if type(error).__name__ != "ConnectionClosed":
            raise
        return error.code, error.reason  # type: ignore[attr-defined]
    raise AssertionError("the connection is not over")
