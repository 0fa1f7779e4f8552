"""Refusals: the answer, its reason, and for the log what the operator can do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsframe import HandshakeError

from ..reports.refusals import LOGGED_ELSEWHERE, MALFORMED, REASONS, THREADS
from ..reports.text import printable
from .proxies import client_of

if TYPE_CHECKING:
    from ..sockets.peer import Peer
    from .request import Request

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


def report(peer: Peer, error: HandshakeError, kind: str | None, line: str) -> None:
    """Owner: count a refusal, and log it.

    Args:
        peer: the connection.
        error: the answer.
        kind: the reason, unless the error has it, or its status.
        line: the beginning of the head, where that was too malformed for a request.
    """
    if kind is None:
        kind = (
            error.kind if isinstance(error, RefusalError) else REASONS.get(error.status, MALFORMED)
        )
    refusals = peer.clients.refusals
    refusals.count(error.status, kind)
    if kind in LOGGED_ELSEWHERE:
        return
    if peer.request is None:
        # A query may be a secret, and is left out.
        what = f'"{quoted(line.partition("?")[0])}" from {client_of(peer.address)}'
    else:
        what = _described(peer.request)
    text = f"{what} is refused with {error.status}: {printable(str(error.reason), VALUE)}"
    advice = error.advice if isinstance(error, RefusalError) else ""
    refusals.log(kind, f"{text}. {advice}" if advice else text)


def quoted(value: str) -> str:
    """A value of a stranger's, to stand between double quotes."""
    return printable(value, VALUE, quoted=True)


def _described(request: Request) -> str:
    """Method, path and client of a request, and what tells whether a page sends it, and which."""
    headers = request.headers
    named = [("Host", request.host), ("Origin", headers.get("Origin"))]
    values = "".join(f', {name} "{quoted(value)}"' for name, value in named if value)
    return f'{request.method} "{quoted(request.path)}" from {request.client}{values}'
