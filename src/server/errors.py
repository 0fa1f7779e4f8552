"""What a handler can meet."""

from __future__ import annotations

from wsframe import WSFrameError

__all__ = ["ConnectionClosed"]


class ConnectionClosed(WSFrameError):  # noqa: N818 - an end is not always an error
    """The connection is over: nothing more comes, and nothing can be sent.

    Attributes:
        code: the close code; 1005 where the client gave none, 1006 where it left without a word.
        reason: the close reason, or what happened.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{int(self.code)} {self.reason}".rstrip()
