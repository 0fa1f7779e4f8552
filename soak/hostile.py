"""Hostile clients: they occupy resources, which must not affect the honest clients.

The server may refuse or disconnect them; it must not become slower or larger.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from wsframe import Opcode, UpgradeRequest, encode_frame

from .clients import READ_SIZE, Client

SOURCE = "127.0.0.3"  # a separate address, so that limits by address apply only to these clients
FLOOD = encode_frame(Opcode.BINARY, bytes(1000), masking_key=bytes(4)) * 64


class HostileClient(Client):
    """A client that expects no answer and that the server may disconnect."""

    source = SOURCE

    @property
    def expects_answer(self) -> bool:
        """Return False: no answer is expected."""
        return False

    def __init__(self, port: int, random: Random, now: float) -> None:
        super().__init__(port, random, now)
        self.port = port
        self.begin()

    def begin(self) -> None:
        """Send the first bytes."""

    def opened(self, head: bytes) -> None:
        """Accept any response."""

    def received(self, data: bytes) -> None:
        """Accept any data."""

    def ended(self) -> None:
        """Accept that the server has closed."""
        self.close()

    def send(self, data: bytes = b"") -> None:
        """Send, unless the server has closed."""
        try:
            super().send(data)
        except OSError:
            self.close()

    def read(self, now: float) -> None:
        """Read once, unless the server has closed."""
        try:
            super().read(now)
        except OSError:
            self.close()

    def act(self, now: float) -> None:
        """Wait until the planned end."""
        self.wake = now + 1
        if now > self.leaves:
            self.close(reset=self.random.random() < 0.5)

    def upgrade(self, target: str) -> bytes:
        """Return a request for a WebSocket."""
        return UpgradeRequest(f"127.0.0.1:{self.port}", target).encode()

    def get(self, target: str) -> bytes:
        """Return a request for an event stream."""
        return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode()


class SilentClient(HostileClient):
    """A client that holds a socket, half of a head, a thread, or a call of ``authorize``."""

    def begin(self) -> None:
        """Send nothing, half of a request, or a whole one."""
        head = self.upgrade("/plain")
        self.send(
            self.random.choice(
                [
                    b"",
                    head[: len(head) // 2],
                    head,
                    self.get("/events"),
                    self.upgrade("/judged"),
                    head + FLOOD[:100],
                ]
            )
        )


class SlowClient(HostileClient):
    """A client that slowly reads a room that others flood."""

    def begin(self) -> None:
        """Join the room, with a small buffer."""
        self.send(self.upgrade(self.random.choice(["/rooms/flooded", "/rooms/other"])))
        self.reads = False

    def act(self, now: float) -> None:
        """Read a little."""
        super().act(now)
        if not self.over:
            with suppress(BlockingIOError):
                try:
                    if not self.sock.recv(self.random.choice([1, 1000, 30_000])):
                        self.close()
                except ConnectionError:
                    self.close()


class HalfOpenClient(HostileClient):
    """A client that requests much data and then neither reads nor disconnects."""

    def begin(self) -> None:
        """Send a request and stop reading."""
        self.send(self.random.choice([self.get("/endless"), self.upgrade("/rooms/flooded")]))
        self.reads = False


class FloodingClient(HostileClient):
    """A client that sends as much as the server accepts, and reads all messages."""

    def begin(self) -> None:
        """Join the room."""
        self.send(self.upgrade("/rooms/flooded"))

    def act(self, now: float) -> None:
        """Send more."""
        super().act(now)
        self.wake = now + 0.1
        if not self.over and self._opened and len(self._unsent) < READ_SIZE:
            self.send(FLOOD)


class AbandoningClient(HostileClient):
    """A client that disconnects while its request waits for ``authorize``."""

    def begin(self) -> None:
        """Send a request and disconnect at the next action."""
        self.send(self.upgrade("/judged"))
        self.leaves = 0.0


# The number of each kind for a thousand honest clients.
SHARES: dict[type[HostileClient], int] = {
    SilentClient: 100,
    SlowClient: 10,
    HalfOpenClient: 20,
    FloodingClient: 2,
    AbandoningClient: 20,
}
