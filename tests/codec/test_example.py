"""The complete use of a Connection: two ends, joined by a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from tests.support.tools import normal, normals

TIMEOUT = 30.0


def serve(codec: ModuleType, sock: socket.socket) -> None:
    connection = codec.Connection(codec.Role.SERVER)
    open_still = True
    while open_still and (data := sock.recv(1000)):
        for event in connection.receive(data):
            match event:
                case str() | bytes():
                    sock.sendall(connection.encode(event))
                case codec.Ping(payload):
                    sock.sendall(connection.pong(payload))
                case codec.Close(code, _):
                    sock.sendall(connection.close(code))
                    open_still = False
                    break
                case codec.Failure(code, reason):
                    sock.sendall(connection.close(code, reason))
                    open_still = False
                    break
    sock.shutdown(socket.SHUT_WR)


class Client:
    def __init__(self, codec: ModuleType, sock: socket.socket) -> None:
        self.sock = sock
        self.connection = codec.Connection(codec.Role.CLIENT)
        self.events: list[Any] = []

    def next_event(self) -> Any:
        while not self.events:
            data = self.sock.recv(1000)
            assert data, "the server is gone"
            self.events += self.connection.receive(data)
        return normal(self.events.pop(0))

    def ask(self, data: bytes) -> Any:
        self.sock.sendall(data)
        return self.next_event()


@contextmanager
def connected(codec: ModuleType) -> Iterator[Client]:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(TIMEOUT)
        there.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve, args=(codec, there))
        thread.start()
        try:
            yield Client(codec, here)
        finally:
            here.shutdown(socket.SHUT_WR)
            thread.join()


def test_messages_are_echoed_and_pings_answered(codec: ModuleType) -> None:
    with connected(codec) as client:
        connection = client.connection
        for message in ("Hello", "", "grüße 😀", b"", b"\0\xff", "x" * 100_000, bytes(100_000)):
            assert client.ask(connection.encode(message)) == message
        assert client.ask(connection.ping(b"there?")) == ("Pong", b"there?")
        assert client.ask(connection.close(1001, "away")) == ("Close", 1001, "")
        assert client.sock.recv(1) == b""


def test_many_messages_in_one_write(codec: ModuleType) -> None:
    with connected(codec) as client:
        wire = b"".join(client.connection.encode(str(i)) for i in range(200))
        client.sock.sendall(wire + client.connection.close())
        events = [client.next_event() for _ in range(201)]
        assert events == [*(str(i) for i in range(200)), ("Close", 1000, "")]


def test_a_close_without_a_code_is_answered_without_a_code(codec: ModuleType) -> None:
    with connected(codec) as client:
        assert client.ask(client.connection.close(1005)) == ("Close", 1005, "")


def test_a_failure_is_sent_after_the_answers_to_earlier_messages(
    codec: ModuleType,
) -> None:
    with connected(codec) as client:
        unmasked = codec.encode_frame(codec.Opcode.TEXT, "no")
        assert client.ask(client.connection.encode("yes") + unmasked) == "yes"
        assert client.next_event() == ("Close", 1002, "a client's frame must be masked")
        assert normals(client.events) == []
        assert client.sock.recv(1) == b""
