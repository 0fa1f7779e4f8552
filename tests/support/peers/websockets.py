"""websockets: its implementation with threads."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Close
from websockets.protocol import Side
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.sync.server import serve
from websockets.typing import Subprotocol

from tests.support.waiting import TIMEOUT

from .library import Ended, Library, Peer, Script, Terms, Visit
from .terms import NAMES


class WebsocketsPeer(Peer):
    """A connection; its background thread answers pings."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol
        self.terms = terms_of(connection)

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""
        self._connection.send(message)

    def send_in_fragments(self, pieces: Sequence[Any]) -> None:
        """Send a message in these fragments, with pings between them."""
        pongs = []

        def pinging() -> Iterator[Any]:
            for piece in pieces:
                yield piece
                pongs.append(self._connection.ping())

        self._connection.send(pinging())
        assert all(pong.wait(TIMEOUT) for pong in pongs)

    def receive(self) -> str | bytes:
        """Wait for a message."""
        try:
            return self._connection.recv(TIMEOUT)
        except ConnectionClosed as closed:
            end = closed.rcvd or Close(1006, "")
            raise Ended(end.code, end.reason) from None

    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for its pong."""
        assert self._connection.ping(payload).wait(TIMEOUT)

    def close(self, code: int, reason: str) -> int:
        """Send a close frame, and wait for the answer; return its code."""
        self._connection.close(code, reason)
        answer = self._connection.protocol.close_rcvd
        assert answer is not None
        return answer.code


def terms_of(connection: Connection) -> Terms | None:
    """Return the negotiated parameters."""
    if not connection.protocol.extensions:
        return None
    (agreed,) = connection.protocol.extensions
    assert isinstance(agreed, PerMessageDeflate)
    local, remote = "server", "client"
    if connection.protocol.side is Side.CLIENT:
        local, remote = remote, local
    return {
        f"{local}_no_context_takeover": agreed.local_no_context_takeover,
        f"{remote}_no_context_takeover": agreed.remote_no_context_takeover,
        f"{local}_max_window_bits": agreed.local_max_window_bits,
        f"{remote}_max_window_bits": agreed.remote_max_window_bits,
    }


class Websockets(Library):
    """websockets."""

    name = "websockets"
    client_asks = server_asks = frozenset(NAMES)

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
        asked = {"client_max_window_bits": True, **(deflate or {})}
        with connect(
            url,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=None,
            extensions=None if deflate is None else [ClientPerMessageDeflateFactory(**asked)],
            max_size=limit,
            proxy=None,
            open_timeout=TIMEOUT,
            close_timeout=TIMEOUT,
        ) as connection:
            yield WebsocketsPeer(connection)

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
        server = serve(
            lambda connection: visit.run(script, WebsocketsPeer(connection)),
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=None,
            extensions=None if deflate is None else [ServerPerMessageDeflateFactory(**deflate)],
            max_size=limit,
            close_timeout=TIMEOUT,
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
            visit.wait()
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
            gc.collect()  # the library leaves its selector to the garbage collector
            for name in ("shutdown_watcher", "shutdown_notifier"):
                if isinstance(file := vars(server).get(name), int):
                    os.close(file)  # older versions leave it open
