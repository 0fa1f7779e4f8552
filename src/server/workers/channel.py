"""The messages between a supervisor and its workers: one line of JSON each."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from ..reports.stats import Stats

#: The kind of a message and its content.
Message: TypeAlias = "tuple[str, Any]"

READ_SIZE = 1 << 16
# The limit of the data that waits to be sent to one worker, in bytes. Above the limit, the
# supervisor drops requests to close the connections of an identity.
MAX_UNSENT = 1 << 20


class Channel:
    """One end of a pair of sockets; the other end belongs to another process.

    The supervisor's end never blocks: data that the socket does not accept is kept. This data is
    small, because a request to a worker is not repeated before its answer. A worker's end blocks,
    but only briefly for the same reason.

    Attributes:
        closed: True once the other end is closed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.closed: bool = False
        self._sock = sock
        self._received = bytearray()
        self._unsent = bytearray()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Any thread: return the file descriptor."""
        return self._sock.fileno()

    @property
    def has_unsent(self) -> bool:
        """Any thread: True while data waits to be sent."""
        return bool(self._unsent)

    @property
    def is_full(self) -> bool:
        """Any thread: True if so much data waits that further closings must be dropped."""
        return len(self._unsent) > MAX_UNSENT

    def send(self, kind: str, content: object = None) -> None:
        """Any thread: send a message; it is lost if the other end is closed."""
        with self._sending:
            self._unsent += json.dumps([kind, content]).encode() + b"\n"
            self._flush()

    def flush(self) -> None:
        """Any thread: send as much waiting data as the socket accepts."""
        with self._sending:
            self._flush()

    def receive(self) -> list[Message]:
        """One thread: return the messages that have arrived; a worker's end waits for data.

        When the other end is closed, set ``closed`` and return no messages.
        """
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return []
        except OSError:  # a reset: the other end was closed with unread data
            data = b""
        if not data:
            self.closed = True
            return []
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        return [(kind, content) for kind, content in map(json.loads, lines)]

    def receive_all(self) -> list[Message]:
        """One thread, of the supervisor's end: return all messages that have arrived."""
        messages: list[Message] = []
        while not self.closed:
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
        except OSError:  # the other end is closed
            self._unsent.clear()


def channel_pair() -> tuple[Channel, Channel]:
    """Return the supervisor's end, which never blocks, and the worker's end, which blocks.

    Raises:
        OSError: too many files are open.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Channel(ours), Channel(theirs)


def encode_stats(stats: Stats) -> dict[str, object]:
    """Return statistics as a value that JSON can represent."""
    plain: dict[str, object] = {}
    for name in (field.name for field in fields(Stats)):
        value = getattr(stats, name)
        plain[name] = list(value.items()) if isinstance(value, Mapping) else value
    return plain


def decode_stats(plain: dict[str, Any]) -> Stats:
    """Return the statistics that :func:`encode_stats` has encoded."""
    values: dict[str, Any] = {
        name: dict(map(tuple, value)) if isinstance(value, list) else value
        for name, value in plain.items()
    }
    return Stats(**values)
