"""Hostile clients: they hold what they can, and nobody else may notice.

The server may refuse them, or cut them off; it may not become slower or larger.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from wsframe import Opcode, UpgradeRequest, encode_frame

from .clients import READ_SIZE, Client

SOURCE = "127.0.0.3"  # an address of their own, so that the limits of an address concern only them
FLOOD = encode_frame(Opcode.BINARY, bytes(1000), masking_key=bytes(4)) * 64


class HostileClient(Client):
    """One that wants no answer, and whose end is no fault of the server."""

    source = SOURCE

    @property
    def waits(self) -> bool:
        """It wants no answer."""
        return False

    def __init__(self, port: int, random: Random, now: float) -> None:
        super().__init__(port, random, now)
        self.port = port
        self.begin()

    def begin(self) -> None:
        """Send what it begins with."""

    def opened(self, head: bytes) -> None:
        """Whatever the answer is."""

    def received(self, data: bytes) -> None:
        """Whatever comes."""

    def ended(self) -> None:
        """The server has cut it off, or refused it."""
        self.close()

    def send(self, data: bytes = b"") -> None:
        """Send, unless the server has closed."""
        try:
            super().send(data)
        except OSError:
            self.close()

    def read(self, now: float) -> None:
        """Take what has come, unless the server has closed."""
        try:
            super().read(now)
        except OSError:
            self.close()

    def act(self, now: float) -> None:
        """Wait for the end that it has planned."""
        self.wake = now + 1
        if now > self.leaves:
            self.close(reset=self.random.random() < 0.5)

    def upgrade(self, target: str) -> bytes:
        """A request for a WebSocket."""
        return UpgradeRequest(f"127.0.0.1:{self.port}", target).encode()

    def get(self, target: str) -> bytes:
        """A request for an event stream."""
        return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode()


class SilentClient(HostileClient):
    """Holds a socket, a half of a head, a thread, or a call of ``authorize``."""

    def begin(self) -> None:
        """Ask for something, or for nothing."""
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
    """Reads a room that others flood, a little every second."""

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
    """Asks for much, and then neither reads nor leaves, as one whose machine was switched off."""

    def begin(self) -> None:
        """Ask, and be gone."""
        self.send(self.random.choice([self.get("/endless"), self.upgrade("/rooms/flooded")]))
        self.reads = False


class FloodingClient(HostileClient):
    """Sends as much as the server takes, and reads all that it sends back."""

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
    """Asks for what is judged in a thread, and leaves at once."""

    def begin(self) -> None:
        """Ask, and leave with the first chance."""
        self.send(self.upgrade("/judged"))
        self.leaves = 0.0


# How many of each kind there are among a thousand honest clients.
SHARES: dict[type[HostileClient], int] = {
    SilentClient: 100,
    SlowClient: 10,
    HalfOpenClient: 20,
    FloodingClient: 2,
    AbandoningClient: 20,
}
