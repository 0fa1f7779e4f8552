"""A load for echo servers: every byte that comes back is compared, and the load ends by itself."""

from __future__ import annotations

import os
import selectors
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter

from .data import KEY, TEXT, frame

UPGRADE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TIMEOUT = 10.0  # seconds without an echo: the server is taken for dead


@dataclass
class Echoes:
    """What one run has shown.

    Attributes:
        per_second: messages echoed in a second.
        per_cpu_second: messages echoed in a second of the server's own time.
        busy: the share of a core that the server used.
        events_per_poll: how many connections were ready when the load looked. With one message in
            flight a server can get into step with the load, and is then faster: compare it too.
    """

    per_second: float
    per_cpu_second: float
    busy: float
    events_per_poll: float


class Client:
    """One connection, with the bytes that are to come back over and over."""

    def __init__(self, port: int, echo: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(UPGRADE.format(port=port).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self.sock.recv(4096)
            if not more:
                raise ConnectionError(f"the server refused the upgrade: {answer!r}")
            answer += more
        if not answer.startswith(b"HTTP/1.1 101 ") or not answer.endswith(b"\r\n\r\n"):
            raise ConnectionError(f"the server refused the upgrade: {answer!r}")
        self._echoes = _repeated(echo)
        self._size = len(echo)
        self._offset = 0

    def receive(self) -> int:
        """Read and compare; return how many messages are complete now."""
        data = self.sock.recv(65536)
        if not data or data != self._echoes[self._offset : self._offset + len(data)]:
            raise AssertionError("an echo differs from what was sent")
        messages, self._offset = divmod(self._offset + len(data), self._size)
        return messages


@cache
def _repeated(echo: bytes) -> bytes:
    """Enough of it to compare any read with, whatever byte it begins at."""
    return echo * (65536 // len(echo) + 2)


def run(
    port: int, pid: int, *, connections: int, in_flight: int, seconds: float, size: int = 125
) -> Echoes:
    """Keep messages in flight on every connection, and count what comes back.

    Args:
        port: the server's, on the loopback interface.
        pid: the server's process, whose processor time is read.
        connections: how many clients.
        in_flight: how many messages each has under way.
        seconds: how long to measure, after a tenth of that to warm up.
        size: of the text messages, in bytes.
    """
    message = frame(TEXT, b"x" * size, KEY)
    echo = frame(TEXT, b"x" * size)
    clients = [Client(port, echo) for _ in range(connections)]
    try:
        with selectors.DefaultSelector() as selector:
            for client in clients:
                client.sock.setblocking(False)
                selector.register(client.sock, selectors.EVENT_READ, client)
                client.sock.send(message * in_flight)
            _exchange(selector, message, seconds / 10)
            before = _processor_time(pid)
            count, elapsed, events_per_poll = _exchange(selector, message, seconds)
            used = _processor_time(pid) - before
    finally:
        for client in clients:
            client.sock.close()
    return Echoes(count / elapsed, count / used, used / elapsed, events_per_poll)


def _exchange(
    selector: selectors.BaseSelector, message: bytes, seconds: float
) -> tuple[int, float, float]:
    count = polls = events = 0
    begin = now = perf_counter()
    while now < begin + seconds:
        ready = selector.select(TIMEOUT)
        if not ready:
            raise TimeoutError("the server has stopped to echo")
        polls += 1
        events += len(ready)
        for key, _ in ready:
            messages = key.data.receive()
            if messages:
                count += messages
                key.data.sock.send(message * messages)
        now = perf_counter()
    return count, now - begin, events / polls


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
