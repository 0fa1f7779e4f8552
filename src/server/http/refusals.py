"""Refusals: the answer, its reason, and advice for the operator in the log."""

from __future__ import annotations

from collections.abc import Sequence

from wsframe import HandshakeError

from ..reports.refusals import THREADS
from ..reports.text import printable

# The maximum number of characters of a value in the log: enough for a DNS name and a port.
VALUE = 300


class RefusalError(HandshakeError):
    """An answer with details for the log that the client does not receive.

    Attributes:
        kind: the reason, by its name in the statistics.
        advice: the values that were compared and the setting that applies, for the operator.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        kind: str,
        advice: str = "",
    ) -> None:
        super().__init__(status, reason, headers)
        self.kind = kind
        self.advice = advice


def no_thread() -> RefusalError:
    """Return the answer to a request for which no thread is free."""
    return RefusalError(
        503, "server is out of threads, try again later", [("Retry-After", "5")], kind=THREADS
    )


def quoted(value: str) -> str:
    """Return a client's value, escaped and shortened for a log line with double quotes."""
    return printable(value, VALUE, quoted=True)
