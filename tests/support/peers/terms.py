"""Negotiated compression (RFC 7692 section 7.1): equal at both ends, and respected."""

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

# It shrinks by half, and to almost nothing if any window already contains it.
SHORT = Random(1).randbytes(100).hex()
# Only the largest window contains its repetition, so a sender with a too large window is detected.
LONG = Random(2).randbytes(20_000) * 2 + bytes(20_000)


class Watch:
    """Records the compressed messages and the pongs of an end of wsframe.

    Attributes:
        sent: the lengths of the sent compressed messages.
        received: the lengths of the received compressed messages.
        pongs: the payloads of the received pongs.
    """

    def __init__(self, codec: Any, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []
        self.pongs: list[bytes] = []
        self._agreements: list[Any] = []
        self._coming = 0
        deflater, inflater = codec.deflate.Deflater, codec.deflate.Inflater
        set_up_deflater, set_up_inflater = deflater.__init__, inflater.__init__
        encode_frame, inflate = codec.deflate.encode_frame, inflater.inflate
        receive = codec.Connection.receive

        def see_deflater(deflater: Any, settings: Any, role: Any) -> None:
            self._agreements.append(settings)
            set_up_deflater(deflater, settings, role)

        def see_inflater(inflater: Any, settings: Any, role: Any) -> None:
            self._agreements.append(settings)
            set_up_inflater(inflater, settings, role)

        def see_frame(opcode: int, payload: Any, **options: Any) -> Any:
            if options.get("rsv"):  # otherwise it is not compressed
                self.sent.append(len(payload))
            return encode_frame(opcode, payload, **options)

        def see_inflate(inflater: Any, data: bytes, last: bool) -> Any:
            self._coming += len(data)
            if last:
                self.received.append(self._coming)
                self._coming = 0
            return inflate(inflater, data, last)

        def see_receive(connection: Any, data: Any) -> Any:
            events = receive(connection, data)
            self.pongs += [event.payload for event in events if isinstance(event, codec.Pong)]
            return events

        patch.setattr(deflater, "__init__", see_deflater)
        patch.setattr(inflater, "__init__", see_inflater)
        patch.setattr(codec.deflate, "encode_frame", see_frame)
        patch.setattr(inflater, "inflate", see_inflate)
        patch.setattr(codec.Connection, "receive", see_receive)

    @property
    def terms(self) -> dict[str, Any]:
        """Return the negotiated parameters."""
        (terms,) = {tuple(getattr(a, name) for name in NAMES) for a in self._agreements}
        return dict(zip(NAMES, terms, strict=True))


def converse(
    watch: Watch, role: str, echoed: Callable[[Any], Any], known: Any, asked: dict[str, Any]
) -> None:
    """Check that both ends negotiated the same parameters, and respect them.

    Args:
        watch: the record of our end.
        role: the role of our end.
        echoed: sends a message to the other end, and returns its echo.
        known: the negotiated parameters, as far as the other library reports them.
        asked: the parameters that one end requests and the other supports.
    """
    for message in (SHORT, SHORT, LONG):
        assert echoed(message) == message
    assert asked.items() <= watch.terms.items()
    assert known.items() <= watch.terms.items()
    peer = "client" if role == "server" else "server"
    for sender, sizes in ((role, watch.sent), (peer, watch.received)):
        first, again, _ = sizes
        assert (again < first / 4) != watch.terms[f"{sender}_no_context_takeover"]
