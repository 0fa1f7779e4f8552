"""The terms of compression (RFC 7692 section 7.1): agreed on alike by both ends, and kept to."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

NAMES = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
SERVER_FORGETS, CLIENT_FORGETS, SERVER_BITS, CLIENT_BITS = NAMES

ALL_TERMS: dict[str, dict[str, Any]] = {
    "any": {},
    "server-forgets": {SERVER_FORGETS: True},
    "client-forgets": {CLIENT_FORGETS: True},
    "both-forget": {SERVER_FORGETS: True, CLIENT_FORGETS: True},
    **{f"{b}-and-{24 - b}-bits": {SERVER_BITS: b, CLIENT_BITS: 24 - b} for b in range(9, 16)},
    "all": {SERVER_FORGETS: True, CLIENT_FORGETS: True, SERVER_BITS: 9, CLIENT_BITS: 9},
}

# It shrinks by half; and to next to nothing where it has been seen before, in any window.
SHORT = Random(1).randbytes(100).hex()
# What it repeats is in the largest window alone, so a sender that takes a larger one is found out.
LONG = Random(2).randbytes(20_000) * 2 + bytes(20_000)


class Watch:
    """What an end of ours compresses and inflates, and the pongs that come to it.

    Attributes:
        sent: how long each compressed message is that it has sent.
        received: how long each is that has come.
        pongs: the payloads.
    """

    def __init__(self, codec: Any, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []
        self.pongs: list[bytes] = []
        self._agreements: list[Any] = []
        self._coming = 0
        deflater, inflater = codec.deflate.Deflater, codec.deflate.Inflater
        make_frame, inflate = deflater._frame, inflater.inflate
        receive = codec.Connection.receive

        def see_frame(deflater: Any, opcode: int, compressed: bytes) -> Any:
            self._agreements.append(deflater._settings)
            self.sent.append(len(compressed))
            return make_frame(deflater, opcode, compressed)

        def see_inflate(inflater: Any, data: bytes, last: bool) -> Any:
            self._agreements.append(inflater._settings)
            self._coming += len(data)
            if last:
                self.received.append(self._coming)
                self._coming = 0
            return inflate(inflater, data, last)

        def see_receive(connection: Any, data: Any) -> Any:
            events = receive(connection, data)
            self.pongs += [event.payload for event in events if isinstance(event, codec.Pong)]
            return events

        patch.setattr(deflater, "_frame", see_frame)
        patch.setattr(inflater, "inflate", see_inflate)
        patch.setattr(codec.Connection, "receive", see_receive)

    @property
    def terms(self) -> dict[str, Any]:
        """What was agreed on, and used."""
        (terms,) = {tuple(getattr(a, name) for name in NAMES) for a in self._agreements}
        return dict(zip(NAMES, terms, strict=True))


def converse(
    watch: Watch, role: str, echoed: Callable[[Any], Any], known: Any, asked: dict[str, Any]
) -> None:
    """Check that both ends mean the same, and what becomes of some messages.

    Args:
        watch: over our end.
        role: of our end.
        echoed: sends a message to the other end, and returns what comes back.
        known: what the other library knows of what was agreed on.
        asked: what one of the two has asked for, and the other can keep.
    """
    for message in (SHORT, SHORT, LONG):
        assert echoed(message) == message
    assert asked.items() <= watch.terms.items()
    assert known.items() <= watch.terms.items()
    peer = "client" if role == "server" else "server"
    for sender, sizes in ((role, watch.sent), (peer, watch.received)):
        first, again, _ = sizes
        assert (again < first / 4) != watch.terms[f"{sender}_no_context_takeover"]
