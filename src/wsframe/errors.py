"""Errors, one class for each party at fault."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ConnectionClosed", "HandshakeError", "ProtocolError", "StateError", "WSFrameError"]


class WSFrameError(Exception):
    """The base class of all errors that wsframe defines."""


class StateError(WSFrameError):
    """The caller's fault: a call that the state forbids, such as sending after the close frame."""


class ConnectionClosed(WSFrameError):  # noqa: N818 - an end is not always an error
    """The connection is closed: nothing more is received, and nothing can be sent.

    Attributes:
        code: the close code; 1005 if the close frame had none, 1006 if none was received.
        reason: the close reason, or a description of what happened.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{int(self.code)} {self.reason}".rstrip()


class ProtocolError(WSFrameError):
    """The peer's fault: a violation of the protocol.

    Attributes:
        code: the close code to send (RFC 6455 section 7.4.1).
        reason: the violated rule, short enough for a close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({int(self.code)})"


class HandshakeError(WSFrameError):
    """The peer's fault: an opening handshake that is rejected.

    Attributes:
        status: for a server, the HTTP status to respond with; for a client, the status of the
            response, or 502 if the response violates the protocol.
        reason: a description that is suitable as the body of the response.
        headers: for a server, additional headers of the response; for a client, the headers of the
            response; as (name, value) pairs.
    """

    def __init__(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers = tuple(headers)

    def __str__(self) -> str:
        return f"{self.reason} ({self.status})"
