"""The honest clients: each acts at random and verifies all that it receives."""

from __future__ import annotations

import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from random import Random

from wsframe import (
    Close,
    Connection,
    EventStreamDecoder,
    Opcode,
    PerMessageDeflate,
    Pong,
    Role,
    UpgradeRequest,
    encode_frame,
)
from wsframe.fields import decode_response

END_OF_HEAD = b"\r\n\r\n"
WEBSOCKETS = ("/echo", "/echo", "/echo", "/echo", "/echo", "/block", "/plain", "/deflate")
STREAMS = ("/ticks", "/ticks", "/count")
READ_SIZE = 1 << 16
# Defers the choice of a local port to connect, which may reuse ports in TIME_WAIT.
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module lacks this constant before 3.13
# Most bytes of messages in flight on one connection.
WINDOW = 1 << 18
# The longest pause of an honest client's reading, in seconds; shorter than send_timeout.
LONGEST_PAUSE = 5.0


class WrongError(Exception):
    """The server sent something wrong."""


class Client(ABC):
    """One connection, driven by readiness and by the clock.

    Attributes:
        sock: its socket.
        over: True once the connection has ended and the socket must be closed.
        wake: the time of its next action.
        reads: True while it reads.
        verified: the number of correct messages or events.
        progress: the latest time at which data was received or no answer was expected.
        source: its local address.
    """

    source = "127.0.0.1"

    def __init__(self, port: int, random: Random, now: float) -> None:
        self.random = random
        self.sock = socket.socket()
        self.over = False
        if random.random() < 0.1:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.sock.bind((self.source, 0))
        self.sock.connect_ex(("127.0.0.1", port))
        self.wake = now
        self.reads = True
        self.verified = 0
        self.progress = now
        self.leaves = now + random.expovariate(1 / 15)
        self._head = b""
        self._opened = False
        self._unsent = b""

    @property
    def has_unsent(self) -> bool:
        """True if bytes are unsent."""
        return bool(self._unsent)

    @property
    @abstractmethod
    def expects_answer(self) -> bool:
        """True if the server must send an answer."""

    @abstractmethod
    def opened(self, head: bytes) -> None:
        """Check the response to the request."""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Compare the received data with the expected."""

    @abstractmethod
    def act(self, now: float) -> None:
        """Do the planned action, and plan the next."""

    def send(self, data: bytes = b"") -> None:
        """Send these bytes after the unsent ones; sometimes only a part at first."""
        self._unsent += data
        if not self._unsent:
            return
        cut = self.random.randrange(1, len(self._unsent) + 1)
        piece = self._unsent[:cut] if self.random.random() < 0.2 else self._unsent
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self.sock.send(piece) :]

    def read(self, now: float) -> None:
        """Read once."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self.ended()
            return
        self.progress = now
        if not self._opened:
            self._head += data
            head, end, data = self._head.partition(END_OF_HEAD)
            if not end:
                return
            self._opened = True
            self.opened(head + end)
        if data:
            self.received(data)

    def ended(self) -> None:
        """Handle the end of the stream."""
        raise WrongError(f"{type(self).__name__}: the server closed unexpectedly")

    def close(self, *, reset: bool = False) -> None:
        """Disconnect, with a reset or without."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.over = True


class WebSocketClient(Client):
    """A client that sends messages and expects each echo."""

    def __init__(self, port: int, random: Random, now: float) -> None:
        super().__init__(port, random, now)
        self.path = random.choice(WEBSOCKETS)
        deflate = PerMessageDeflate() if self.path == "/deflate" else None
        self._request = UpgradeRequest(f"127.0.0.1:{port}", self.path, deflate=deflate)
        self._expected: deque[str | bytes] = deque()
        self._closing = False
        self._codec: Connection | None = None
        self._pings = 0
        self.send(self._request.encode())

    @property
    def expects_answer(self) -> bool:
        """True if a response, an echo, a pong or a close frame is expected."""
        return bool(self._expected or self._pings or self._closing or not self._opened)

    def opened(self, head: bytes) -> None:
        """Check that the response is a valid 101."""
        acceptance = self._request.confirm(*decode_response(head))
        self._codec = Connection(Role.CLIENT, deflate=acceptance.deflate)

    def received(self, data: bytes) -> None:
        """Check that the messages are echoed in order."""
        assert self._codec is not None
        for event in self._codec.receive(data):
            if isinstance(event, (str, bytes)):
                if not self._expected or event != self._expected.popleft():
                    raise WrongError(f"{self.path}: a wrong echo")
                self.verified += 1
            elif isinstance(event, Pong):
                self._pings -= 1
            elif isinstance(event, Close) and self._closing and not self._expected:
                self._closing = False
            else:
                raise WrongError(f"{self.path}: {event!r}, {len(self._expected)} echoes expected")

    def ended(self) -> None:
        """Check that the server closes only after the closing handshake."""
        if self._codec is None or not (self._codec.close_sent and self._codec.close_received):
            raise WrongError(f"{self.path}: the server closed unexpectedly")
        self.close()

    def act(self, now: float) -> None:
        """Send, pause, read slowly, or disconnect."""
        random = self.random
        self.wake = now + min(random.expovariate(1), LONGEST_PAUSE)
        if self._codec is None or self._codec.close_sent:
            return
        if now > self.leaves:
            self._leave()
            return
        self.reads = random.random() < 0.9 or not self.reads
        count = random.choice((1, 1, 1, 1, 5, 200))
        for _ in range(count):
            if sum(map(len, self._expected)) > WINDOW:
                break
            size = int(random.choice((0, 1, 20, 125, 126, 2000, 2000, 70_000)) / count**0.5)
            message: str | bytes
            message = random.randbytes(size) if random.random() < 0.5 else "é" * (size // 2)
            self._expected.append(message)
            self._unsent += self._codec.encode(message)
        if random.random() < 0.1:
            self._pings += 1
            self._unsent += self._codec.ping(b"are you there?")
        self.send()

    def _leave(self) -> None:
        assert self._codec is not None
        match self.random.choice(("close", "close", "end", "reset", "frame")):
            case "close":
                self._closing = True
                self.reads = True
                self.send(self._codec.close(1000))
            case "end":
                self.close()
            case "reset":
                self.close(reset=True)
            case "frame":  # disconnect within a frame
                self.send(encode_frame(Opcode.TEXT, "x" * 200, masking_key=True)[:100])
                self.close()


class StreamClient(Client):
    """A client of an event stream, whose events are consecutive numbers."""

    def __init__(self, port: int, random: Random, now: float) -> None:
        super().__init__(port, random, now)
        self.path = random.choice(STREAMS)
        self._decoder = EventStreamDecoder()
        self._last: int | None = None
        self.send(f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())

    @property
    def expects_answer(self) -> bool:
        """Return True: a next event is always expected."""
        return True

    def opened(self, head: bytes) -> None:
        """Check that the response is a 200."""
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongError(f"{self.path}: {head!r}")

    def received(self, data: bytes) -> None:
        """Check that every number is one more than the last."""
        for event in self._decoder.receive(data):
            number = int(event.data)
            if self._last is not None and number != self._last + 1:
                raise WrongError(f"{self.path}: {number} after {self._last}")
            self._last = number
            self.verified += 1

    def ended(self) -> None:
        """Check that the stream is a complete one of ``/count``."""
        if self.path != "/count" or self._last != 199:
            raise WrongError(f"{self.path}: the server closed after {self._last}")
        self.close()

    def act(self, now: float) -> None:
        """Read, pause, or disconnect."""
        self.wake = now + min(self.random.expovariate(1), LONGEST_PAUSE)
        self.reads = self.random.random() < 0.9 or not self.reads
        if now > self.leaves:
            self.close(reset=self.random.random() < 0.3)
