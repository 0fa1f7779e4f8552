"""The identities of the connections of one loop, and the closing of all connections of one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias
from uuid import UUID

#: The name of a user, as an application has it: a text, or the number or UUID of a database.
Identity: TypeAlias = "str | int | UUID"

MAX_IDENTITY = 512  # bytes of UTF-8
# The number of connections that are closed before sockets are polled again.
STEP = 8


def check_identity(identity: Identity) -> str:
    """Any thread: return the text of an identity.

    Raises:
        TypeError: it is neither a ``str``, an ``int`` nor a ``UUID``; a ``bool`` is not accepted.
        ValueError: it is empty or too long, or contains a lone surrogate.
    """
    text = _text_of(identity)
    if text is None:
        raise TypeError(f"identity must be a str, an int or a UUID, got {type(identity).__name__}")
    size = len(text.encode())
    if not 0 < size <= MAX_IDENTITY:
        raise ValueError(f"identity must have 1 to {MAX_IDENTITY} bytes in UTF-8: {size}")
    return text


def identity_of(value: object) -> str | None:
    """Any thread: return the text of a value that ``authorize`` returned; None if it has none."""
    if value is not None:
        with suppress(TypeError, ValueError):
            return check_identity(value)  # type: ignore[arg-type]
    return None


def _text_of(value: object) -> str | None:
    """Return the text of a value, without calling code of the application, or None."""
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int) and kind is not bool:
        return int.__repr__(value)
    return str(value) if kind is UUID else None


class Connection(Protocol):
    """A connection, as far as its identity needs it; see :class:`Peer`.

    Attributes:
        identity: the text of its identity; None without one. Only :class:`Identities` sets it.
    """

    identity: str | None

    @property
    def closed(self) -> bool:
        """Loop owner: True after the end of the connection."""

    def close_for_good(self, code: int, reason: str) -> None:
        """Loop owner: close for good, without reconnect, because the identity was closed."""


class Caller(Protocol):
    """The methods of a loop that the closing of its connections needs."""

    def call_soon(self, function: Callable[[], object], /) -> None:
        """Any thread: queue ``function`` for the owner."""

    def call_safely(self, function: Callable[..., Any], /, *arguments: object) -> None:
        """Loop owner: call ``function``; an exception ends only the connection concerned."""


class Identities:
    """The index of one loop's connections by their identity.

    An identity takes memory only while a connection has it.

    Args:
        loop: the loop of the connections.
        on_identity: called by the owner when a connection gets an identity.
    """

    def __init__(self, loop: Caller, on_identity: Callable[[], object]) -> None:
        self._loop = loop
        self._on_identity = on_identity
        self._peers: dict[str, set[Connection]] = {}
        # The connections to close, each once; no set is empty.
        self._closing: deque[tuple[set[Connection], int, str]] = deque()

    # Loop owner -------------------------------------------------------------------------------

    def assign(self, peer: Connection, identity: str | None) -> None:
        """Loop owner: set the identity of an open connection; None for no identity."""
        self.remove(peer)
        if identity is not None and not peer.closed:
            peer.identity = identity
            self._peers.setdefault(identity, set()).add(peer)
            self._on_identity()

    def remove(self, peer: Connection) -> None:
        """Loop owner: forget the identity of a connection."""
        identity, peer.identity = peer.identity, None
        peers = self._peers.get(identity) if identity is not None else None
        if identity is not None and peers is not None:
            peers.discard(peer)
            if not peers:
                del self._peers[identity]

    def _close(self, identity: str, code: int, reason: str) -> None:
        """Loop owner: begin to close the connections of an identity."""
        peers = self._peers.pop(identity, None)  # so that each connection is closed once
        if peers:
            self._closing.append((peers, code, reason))
            if len(self._closing) == 1:
                self._close_some()

    def _close_some(self) -> None:
        """Loop owner: close some of the connections; the next ones follow in the next round."""
        for _ in range(STEP):
            peers, code, reason = self._closing[0]
            self._loop.call_safely(peers.pop().close_for_good, code, reason)
            if not peers:
                self._closing.popleft()
                if not self._closing:
                    return
        self._loop.call_soon(self._close_some)

    # Any thread -------------------------------------------------------------------------------

    def assign_soon(self, peer: Connection, identity: str | None) -> None:
        """Any thread: make the owner set the identity of a connection."""
        self._loop.call_soon(lambda: self.assign(peer, identity))

    def close_soon(self, identity: str, code: int, reason: str) -> None:
        """Any thread: make the owner close the connections of an identity, in paced steps."""
        self._loop.call_soon(lambda: self._close(identity, code, reason))
