"""What a supervisor and its workers tell each other: JSON, a line for each message."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from ..reports.stats import Stats

#: What a message is for, and what belongs to it.
Message: TypeAlias = "tuple[str, Any]"

READ_SIZE = 1 << 16


class Channel:
    """One end of a pair of sockets; the other end is another process.

    A supervisor's end never waits: what the socket does not take is kept. There is little of it,
    because each message to a worker is sent once, until it is answered. A worker's end waits, which
    is as short for the same reason.

    Attributes:
        ended: the other end is closed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.ended = False
        self._sock = sock
        self._received = bytearray()
        self._unsent = bytearray()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Any thread: the number of the descriptor."""
        return self._sock.fileno()

    @property
    def has_unsent(self) -> bool:
        """Any thread: whether something is kept that is to be sent."""
        return bool(self._unsent)

    def send(self, kind: str, content: object = None) -> None:
        """Any thread: send a message; one that the other end can no longer read is lost."""
        with self._sending:
            self._unsent += json.dumps([kind, content]).encode() + b"\n"
            self._flush()

    def flush(self) -> None:
        """Any thread: send what is kept, as far as the socket takes it."""
        with self._sending:
            self._flush()

    def receive(self) -> list[Message]:
        """One thread: take the messages that have come; a worker's end waits for some.

        At the end of the channel ``ended`` is set, and there are no more.
        """
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return []
        except OSError:  # reset: the other end has left with something unread
            data = b""
        if not data:
            self.ended = True
            return []
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        return [(kind, content) for kind, content in map(json.loads, lines)]

    def receive_all(self) -> list[Message]:
        """One thread, of an end that does not wait: take all messages that have come."""
        messages: list[Message] = []
        while not self.ended:
            size = len(self._received)
            received = self.receive()
            if not received and len(self._received) == size:
                break
            messages += received
        return messages

    def close(self) -> None:
        """Any thread: close this end."""
        self._sock.close()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # nobody is there
            self._unsent.clear()


def channel_pair() -> tuple[Channel, Channel]:
    """The ends of a supervisor, which never waits, and of a worker, which does.

    Raises:
        OSError: there are too many files.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Channel(ours), Channel(theirs)


def encode_stats(stats: Stats) -> dict[str, object]:
    """Statistics in a form that JSON has."""
    plain: dict[str, object] = {}
    for name in (field.name for field in fields(Stats)):
        value = getattr(stats, name)
        plain[name] = list(value.items()) if isinstance(value, Mapping) else value
    return plain


def decode_stats(plain: dict[str, Any]) -> Stats:
    """The statistics of :func:`encode_stats`."""
    values: dict[str, Any] = {
        name: dict(map(tuple, value)) if isinstance(value, list) else value
        for name, value in plain.items()
    }
    return Stats(**values)
