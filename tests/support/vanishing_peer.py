"""A client that vanishes: its machine acknowledges nothing more, and sends no FIN and no RST."""

from __future__ import annotations

from typing import Any

import pytest

from wsframe.progress import unacknowledged
from wsframe.server.sockets import peer as peer_module
from wsframe.server.sockets.peer import Peer


class VanishingPeer:
    """Replaces the kernel's number of unacknowledged bytes for one connection of a server.

    Data sent after :meth:`vanish` counts as unacknowledged. Another call acknowledges the data
    sent before it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._peer: Peer | None = None
        self._acknowledged = 0
        monkeypatch.setattr(peer_module, "unacknowledged", self._unacknowledged)

    def vanish(self, peer: Peer) -> None:
        """Let the client of this connection acknowledge nothing from now on."""
        self._peer, self._acknowledged = peer, peer.bytes_out

    def _unacknowledged(self, sock: Any) -> int:
        if self._peer is None:
            return unacknowledged(sock)
        return self._peer.bytes_out - self._acknowledged
