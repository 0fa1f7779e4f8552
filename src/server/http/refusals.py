"""Refusals: the answer, its reason, and for the log what the operator can do about it."""

from __future__ import annotations

from collections.abc import Sequence

from wsframe import HandshakeError

from ..reports.refusals import THREADS
from ..reports.text import printable

# Characters of a value in the log: long enough for a name of the DNS, with a port.
VALUE = 300


class RefusalError(HandshakeError):
    """An answer with more for the log than its client is sent.

    Attributes:
        kind: the reason, as the statistics name it.
        advice: for the operator: what was compared, and which setting decides.
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
    """The answer where no thread is free for what the request asks for."""
    return RefusalError(503, "no thread is left for this", [("Retry-After", "5")], kind=THREADS)


def quoted(value: str) -> str:
    """A value of a stranger's, to stand between double quotes."""
    return printable(value, VALUE, quoted=True)
