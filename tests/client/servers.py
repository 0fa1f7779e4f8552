"""Servers that follow a script, for what no decent server would do."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from email import message_from_bytes
from email.message import Message
from typing import TypeAlias

from wsframe import Acceptance, Close, Connection, Event, PerMessageDeflate, Role, accept

TIMEOUT = 10.0
END_OF_HEAD = b"\r\n\r\n"


class Visit:
    """One client's visit to a scripted server, as the script sees it. Every wait is bounded."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.request_line = ""
        self.headers = Message()
        self.codec = Connection(Role.SERVER)
        self._received = b""
        self._events: deque[Event] = deque()

    def read_head(self) -> None:
        """Read the head of a request."""
        while END_OF_HEAD not in self._received:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f"the client left: {self._received!r}")
            self._received += data
        head, _, self._received = self._received.partition(END_OF_HEAD)
        request_line, _, fields = head.partition(b"\r\n")
        self.request_line = request_line.decode()
        self.headers = message_from_bytes(fields + END_OF_HEAD)

    def judge(
        self, *, deflate: PerMessageDeflate | None = None, subprotocols: Iterable[str] = ()
    ) -> Acceptance:
        """Read an upgrade request, and find it in order."""
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
        """Open the WebSocket; send these frames in one segment with the answer."""
        acceptance = self.judge(deflate=deflate, subprotocols=subprotocols)
        self.codec = Connection(Role.SERVER, max_message_size=1 << 26, deflate=acceptance.deflate)
        self.send(acceptance.encode() + first)

    def send(self, data: bytes) -> None:
        """Send it all."""
        self.sock.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send every byte in a segment of its own."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            self.sock.sendall(bytes([byte]))

    def say(self, *messages: str | bytes) -> None:
        """Send messages, all in one segment."""
        self.send(b"".join(map(self.codec.encode, messages)))

    def next_event(self) -> Event:
        """The next message or whatever else comes."""
        while not self._events:
            data = self._received or self.sock.recv(1 << 16)
            self._received = b""
            if not data:
                raise EOFError("the client left")
            self._events += self.codec.receive(data)
        return self._events.popleft()

    def hear(self, count: int) -> list[Event]:
        """The next events."""
        return [self.next_event() for _ in range(count)]

    def answer_close(self) -> Close:
        """Wait for the client's close frame, which comes next, and answer it."""
        close = self.next_event()
        assert isinstance(close, Close), close
        if not self.codec.close_sent:
            self.send(self.codec.close(close.code))
        return close

    def expect_end(self) -> None:
        """Nothing more comes, and the client closes."""
        assert not self._events
        assert not self._received
        assert self.sock.recv(1) == b""

    def reset(self) -> None:
        """Leave with a reset: RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Close the sending side: FIN."""
        self.sock.shutdown(socket.SHUT_WR)


Script: TypeAlias = "Callable[[Visit], object]"


class ScriptedServer:
    """Serves one client after the other, each by the next of its scripts, in a thread.

    Leaving its context waits for the scripts, and raises what the first failure of them has raised.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self, *scripts: Script, receive_buffer: int | None = None) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer is not None:  # which accepted sockets inherit
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.settimeout(TIMEOUT)
        self.port: int = self._listener.getsockname()[1]
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Where it is."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def stop(self) -> None:
        """Wait for the scripts."""
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
                        script(self._wrap(sock))
        except BaseException as error:
            self._failure = error

    def _wrap(self, sock: socket.socket) -> Visit:
        return Visit(sock)
