"""What can go wrong, by whose fault it is."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ConnectionClosed", "HandshakeError", "ProtocolError", "StateError", "WSFrameError"]


class WSFrameError(Exception):
    """Every error that wsframe defines."""


class StateError(WSFrameError):
    """The caller asked for what the connection's state forbids: to send after its close frame."""


class ConnectionClosed(WSFrameError):  # noqa: N818 - an end is not always an error
    """The connection is over: nothing more comes, and nothing can be sent.

    Attributes:
        code: the close code; 1005 where the peer gave none, 1006 where it left without a word.
        reason: the close reason, or what happened.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{int(self.code)} {self.reason}".rstrip()


class ProtocolError(WSFrameError):
    """The peer broke a rule.

    Attributes:
        code: the close code that says so on the wire (RFC 6455 section 7.4.1).
        reason: the rule, in words short enough for a close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({int(self.code)})"


class HandshakeError(WSFrameError):
    """The peer's opening handshake is refused.

    Attributes:
        status: for a server, the HTTP status to answer with; for a client, the one that was
            answered, or 502 where the answer breaks a rule.
        reason: why, in words fit for the body of the answer.
        headers: what a server's answer must carry besides, or what was answered, as (name, value)
            pairs.
    """

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers = tuple(headers)

    def __str__(self) -> str:
        return f"{self.reason} ({self.status})"
