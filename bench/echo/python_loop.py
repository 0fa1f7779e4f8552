"""The limit of Python for short messages: a bare loop on wsframe's kernels.

It validates nothing, closes nothing, and has no threads, deadlines or handling of slow clients. The
difference to a complete server is the cost of these features.
"""

from __future__ import annotations

import re
import select
import socket
import sys
from collections.abc import Callable, Generator

from wsframe import accept_key
from wsframe.frames import BINARY, TEXT
from wsframe.headers import encode_response
from wsframe.kernels import encode_frame, take_messages

LIMIT = 1 << 20
KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)


def echo(out: list[bytes]) -> Generator[None, str | bytes, None]:
    """Send every message back."""
    while True:
        message = yield
        out.append(encode_frame(TEXT if isinstance(message, str) else BINARY, message))


class Client:
    """One open connection."""

    __slots__ = ("kept", "out", "receive", "resume", "send")

    def __init__(self, sock: socket.socket) -> None:
        self.receive: Callable[[bytearray], int] = sock.recv_into
        self.send: Callable[[bytes], object] = sock.sendall
        self.kept = b""
        self.out: list[bytes] = []
        handler = echo(self.out)
        next(handler)
        self.resume = handler.send


def main() -> None:
    """Serve until the process is terminated."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients: dict[int, Client | socket.socket] = {}
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while True:
        for fd, _ in epoll.poll():
            client = clients.get(fd)
            if client is None:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                epoll.register(sock, select.EPOLLIN)
                clients[sock.fileno()] = sock
                continue
            if isinstance(client, socket.socket):
                key = KEY.search(client.recv(4096))
                if key is not None:
                    accept = ("Sec-WebSocket-Accept", accept_key(key[1].decode()))
                    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), accept]
                    client.sendall(encode_response(101, headers))
                    clients[fd] = Client(client)
                else:
                    del clients[fd]
                continue
            size = client.receive(buffer)
            if not size:
                del clients[fd]
                continue
            data = client.kept + view[:size] if client.kept else view[:size]
            messages: list[str | bytes] = []
            left = take_messages(data, 0, messages, LIMIT, True)
            client.kept = bytes(data[-left:]) if left else b""
            for message in messages:
                client.resume(message)
            out = client.out
            if out:
                client.send(out.pop() if len(out) == 1 else b"".join(out))
                out.clear()


if __name__ == "__main__":
    main()
