"""A proxy on this machine whose connections can fall silent, as if the network had lost them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from wsframe.server import Server


class SilentRelay:
    """A proxy in front of a server; a context manager.

    Args:
        server: the server.

    Attributes:
        url: the URL of the server through the proxy.
    """

    def __init__(self, server: Server) -> None:
        self._to = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._silent: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def fall_silent(self) -> None:
        """Discard everything on the connections that are open now, and keep them open."""
        self._silent.update(self._sockets)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._copy, args=pair)
                    self._threads.append(thread)
                    thread.start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if one not in self._silent:
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def __enter__(self) -> SilentRelay:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()
