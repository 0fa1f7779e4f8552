"""Clients for the attacks: plain sockets with a timeout, and measurements by honest clients."""

from __future__ import annotations

import resource
import socket
from contextlib import closing
from time import monotonic

from wsframe import Opcode, encode_frame

END_OF_HEAD = b"\r\n\r\n"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# Seconds that an honest client waits for an answer; a slower server has failed.
TIMEOUT = 30.0
# Defers the choice of a local port to connect, which may reuse ports in TIME_WAIT.
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module lacks this constant before 3.13
ATTACKER, HONEST = "127.0.0.1", "127.0.0.2"


class RefusedError(Exception):
    """The server answered with an unexpected status."""

    def __init__(self, head: bytes) -> None:
        super().__init__(head.partition(b"\r\n")[0].decode("latin-1"))
        self.head = head
        self.status = int(head.split(b" ", 2)[1])


def allow_many_files() -> None:
    """Raise the open-file limit of this process to the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connect(port: int, source: str = ATTACKER, receive_buffer: int | None = None) -> socket.socket:
    """Connect from this address; a small receive buffer fills early."""
    sock = socket.socket()
    try:
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def request(target: str, *headers: str, upgrade: bool = False) -> bytes:
    """Return the head of a request for a target."""
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *headers]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([*lines, "", ""]).encode()


def text(message: str) -> bytes:
    """Return a client's text frame; the masking key is zero, so the payload is unchanged."""
    return encode_frame(Opcode.TEXT, message, masking_key=bytes(4))


def binary(message: bytes) -> bytes:
    """Return a client's binary frame, masked with zeros."""
    return encode_frame(Opcode.BINARY, message, masking_key=bytes(4))


def read_head(sock: socket.socket) -> bytes:
    """Read the head of a response, and the bytes received with it."""
    head = b""
    while END_OF_HEAD not in head:
        data = sock.recv(4096)
        if not data:
            raise ConnectionError(f"the server closed after {head!r}")
        head += data
    return head


def websocket(
    port: int, target: str, source: str = ATTACKER, receive_buffer: int | None = None
) -> socket.socket:
    """Open a WebSocket.

    Raises:
        RefusedError: the answer is not 101.
    """
    return _open(port, request(target, upgrade=True), 101, source, receive_buffer)


def stream(
    port: int, target: str, source: str = ATTACKER, receive_buffer: int | None = None
) -> socket.socket:
    """Open an event stream.

    Raises:
        RefusedError: the answer is not 200.
    """
    return _open(port, request(target), 200, source, receive_buffer)


def _open(
    port: int, head: bytes, status: int, source: str, receive_buffer: int | None
) -> socket.socket:
    sock = connect(port, source, receive_buffer)
    try:
        sock.sendall(head)
        answer = read_head(sock)
        if int(answer.split(b" ", 2)[1]) != status:
            raise RefusedError(answer)
    except BaseException:
        sock.close()
        raise
    return sock


def get(port: int, target: str, source: str = HONEST) -> bytes:
    """Return the body of a small response.

    Raises:
        RefusedError: the answer is not 200.
    """
    with closing(connect(port, source)) as sock:
        sock.sendall(request(target, "Connection: close"))
        answer = read_head(sock)
        while data := sock.recv(1 << 16):
            answer += data
    head, _, body = answer.partition(END_OF_HEAD)
    if head.split(b" ", 2)[1] != b"200":
        raise RefusedError(answer)
    return body


def time_of_echo(port: int, target: str, source: str = HONEST) -> float:
    """Return the seconds from an honest client's request to the echo of its first message."""
    begin = monotonic()
    with closing(websocket(port, target, source)) as sock:
        sock.sendall(text("hello"))
        _expect(sock, encode_frame(Opcode.TEXT, "hello"))
    return monotonic() - begin


def time_of_event(port: int, target: str, source: str = HONEST) -> float:
    """Return the seconds from an honest client's request to the first event with data."""
    begin = monotonic()
    with closing(connect(port, source)) as sock:
        sock.sendall(request(target))
        _expect(sock, b"data:")
    return monotonic() - begin


def time_of_answer(port: int, target: str, source: str = HONEST) -> float:
    """Return the seconds from an honest client's request to the end of a small response."""
    begin = monotonic()
    get(port, target, source)
    return monotonic() - begin


def _expect(sock: socket.socket, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        data = sock.recv(4096)
        if not data:
            raise ConnectionError(f"the server closed after {received!r}")
        received += data


def is_open(sock: socket.socket) -> bool:
    """Return True if a connection is still open; received data is discarded."""
    sock.setblocking(False)
    try:
        while True:
            data = sock.recv(1 << 16)
            if not data:
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(TIMEOUT)
