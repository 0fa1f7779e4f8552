"""A service manager that receives notifications, as systemd does."""

from __future__ import annotations

import re
import socket

from .waiting import TIMEOUT


class FakeManager:
    """A context manager: a socket for notifications.

    Args:
        address: a path, or an abstract name that begins with @, for NOTIFY_SOCKET.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> FakeManager:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(TIMEOUT)
        self._sock.bind(re.sub("^@", "\0", self.address))
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def receive(self) -> str:
        """Wait for the next notification."""
        return self._sock.recv(4096).decode()

    def expect(self, pattern: str, *, skip: str = "WATCHDOG=1") -> None:
        """Wait for a notification; the others before it must be ``skip``."""
        while (received := self.receive()) == skip != pattern:
            pass
        assert re.fullmatch(pattern, received), received
