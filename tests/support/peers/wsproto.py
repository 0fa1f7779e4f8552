"""wsproto: a library without I/O, with sockets added here."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

import wsframe
from tests.support.waiting import TIMEOUT

from .library import EventPeer, Library, Peer, Script, Terms, Visit
from .terms import NAMES


class WsprotoPeer(EventPeer):
    """A connection and its socket."""

    def __init__(self, sock: socket.socket, role: ConnectionType, deflate: Terms | None) -> None:
        super().__init__()
        sock.settimeout(TIMEOUT)
        self._sock = sock
        self._ws = WSConnection(role)
        self._events: deque[Event] = deque()
        self._extensions = [] if deflate is None else [PerMessageDeflate(**deflate)]

    def request(self, url: str, subprotocols: Sequence[str]) -> None:
        """Open the connection as a client."""
        host, target = urlsplit(url)[1:3]
        self._say(
            Request(
                host=host,
                target=target,
                extensions=self._extensions,
                subprotocols=list(subprotocols),
            )
        )
        accepted = self._next()
        assert isinstance(accepted, AcceptConnection), accepted
        self._opened(accepted.subprotocol)

    def accept(self, subprotocols: Sequence[str]) -> None:
        """Open the connection as a server."""
        request = self._next()
        assert isinstance(request, Request), request
        fitting = (name for name in request.subprotocols if name in subprotocols)
        subprotocol = next(fitting, None)
        self._say(AcceptConnection(subprotocol=subprotocol, extensions=list(self._extensions)))
        self._opened(subprotocol)

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""
        self._say(fragment(message))

    def send_in_fragments(self, pieces: Sequence[str] | Sequence[bytes]) -> None:
        """Send a message in these fragments, with pings between them."""
        *firsts, last = pieces
        for piece in firsts:
            self._say(fragment(piece, finished=False))
            self._say(Ping(b"between"))
        self._say(fragment(last))
        for _ in firsts:
            self.wait_for_pong(b"between")

    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for its pong."""
        self._say(Ping(payload))
        self.wait_for_pong(payload)

    def close(self, code: int, reason: str) -> int:
        """Send a close frame, and wait for the answer; return its code."""
        self._say(CloseConnection(code, reason))
        return self.end()[0]

    def next_event(self) -> str | bytes | wsframe.Pong | wsframe.Close:
        """Wait for the next event."""
        pieces: list[str | bytes | bytearray] = []
        while True:
            match event := self._next():
                case Ping():
                    self._say(event.response())
                case Pong(payload):
                    return wsframe.Pong(bytes(payload))
                case CloseConnection(code, reason):
                    if self._ws.state is ConnectionState.REMOTE_CLOSING:
                        self._say(event.response())
                    return wsframe.Close(int(code), reason or "")
                case Message():
                    pieces.append(event.data)
                    if event.message_finished and isinstance(event, TextMessage):
                        return "".join(map(str, pieces))
                    if event.message_finished:
                        return b"".join(piece for piece in pieces if not isinstance(piece, str))
                case _:
                    raise AssertionError(event)

    def _opened(self, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        agreed = [extension for extension in self._extensions if extension.enabled()]
        self.terms = {name: getattr(agreed[0], name) for name in NAMES} if agreed else None

    def _say(self, event: Event) -> None:
        self._sock.sendall(self._ws.send(event))

    def _next(self) -> Event:
        while not self._events:
            self._ws.receive_data(self._sock.recv(1 << 16) or None)
            self._events += self._ws.events()
        return self._events.popleft()


def fragment(piece: str | bytes, *, finished: bool = True) -> Event:
    """Process a message or a part of it."""
    if isinstance(piece, str):
        return TextMessage(piece, message_finished=finished)
    return BytesMessage(piece, message_finished=finished)


class Wsproto(Library):
    """wsproto. It has no limits.

    Its server does not announce its own window, although it would respect a smaller one.
    """

    name = "wsproto"
    limits = False
    client_asks = frozenset(NAMES)
    server_asks = frozenset(NAMES) - {"server_max_window_bits"}

    @contextmanager
    def connect(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> Iterator[Peer]:
        """Open a connection, and close it at the end."""
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), TIMEOUT) as sock:
            peer = WsprotoPeer(sock, ConnectionType.CLIENT, deflate)
            peer.request(url, subprotocols)
            yield peer

    @contextmanager
    def serve(
        self,
        script: Script,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> Iterator[str]:
        """Serve one client with this script."""
        visit = Visit()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(TIMEOUT)

            def serve() -> None:
                sock, _ = listener.accept()
                with sock:
                    peer = WsprotoPeer(sock, ConnectionType.SERVER, deflate)
                    peer.accept(subprotocols)
                    script(peer)

            thread = threading.Thread(target=visit.run, args=(serve,))
            thread.start()
            try:
                yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
                visit.wait()
            finally:
                thread.join(TIMEOUT)
