"""Answers that end a connection: fixed ones, and refusals, which are counted and logged."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING

from wsframe import HandshakeError
from wsframe.headers import TEXT_TYPE, encode_final, encode_response

from ..addresses import client_of
from ..headers import layered
from ..reports.refusals import LOGGED_ELSEWHERE, MALFORMED, REASONS, Refusals
from ..reports.text import printable
from .refusals import VALUE, RefusalError, quoted

if TYPE_CHECKING:
    from ..sockets.peer import Peer
    from .request import Request


def respond(
    peer: Peer,
    status: int,
    body: bytes,
    *,
    content_type: str = TEXT_TYPE,
    headers: Iterable[tuple[str, str]] = (),
    with_body: bool = True,
) -> None:
    """Loop owner: send a complete answer, and close the connection."""
    own = (*headers, *peer.record.headers, ("Date", formatdate(usegmt=True)))
    head = layered(own, peer.clients.headers)
    peer.record.status = status
    peer.finish(encode_final(status, head, body, content_type=content_type, with_body=with_body))


def respond_without_content(peer: Peer, headers: Iterable[tuple[str, str]]) -> None:
    """Loop owner: answer with 204, without a Content-Length (RFC 9110 section 8.6), and close."""
    peer.record.status = 204
    date, close = ("Date", formatdate(usegmt=True)), ("Connection", "close")
    own = (*headers, *peer.record.headers, date, close)
    peer.finish(encode_response(204, layered(own, peer.clients.headers)))


def refuse(
    peer: Peer,
    error: HandshakeError,
    *,
    request: Request | None = None,
    with_body: bool,
    kind: str | None = None,
    line: str = "",
) -> None:
    """Loop owner: answer with an error, close the connection, and count and log the reason.

    Args:
        peer: the connection.
        error: the answer.
        request: the request, unless it was malformed.
        with_body: False for the answer to a HEAD request.
        kind: the reason for the statistics; by default the reason of the error, or of its status.
        line: the first line of a head that was too malformed for a request.
    """
    report(peer.clients.refusals, error, request, kind, line=line, address=peer.address)
    body = f"{error.reason}\n".encode()
    respond(peer, error.status, body, headers=error.headers, with_body=with_body)


def refuse_plain_http(peer: Peer) -> None:
    """Loop owner: refuse a client that sends plain HTTP to a server with TLS."""
    refuse(peer, HandshakeError(400, "this port requires TLS: use https"), with_body=True)


def report(
    refusals: Refusals,
    error: HandshakeError,
    request: Request | None,
    kind: str | None = None,
    *,
    line: str = "",
    address: object = None,
) -> None:
    """The thread that owns ``refusals``: count a refusal, and log it.

    Args:
        refusals: the counters.
        error: the answer.
        request: the request, unless it was malformed.
        kind: the reason for the statistics; by default that of the error, or of its status.
        line: the first line of a malformed head.
        address: the address of the client.
    """
    if kind is None:
        kind = (
            error.kind if isinstance(error, RefusalError) else REASONS.get(error.status, MALFORMED)
        )
    refusals.count(error.status, kind)
    if kind in LOGGED_ELSEWHERE:
        return
    if request is None:
        # The query is omitted, because it may contain a secret.
        subject = f'"{quoted(line.partition("?")[0])}" from {client_of(address)}'
    else:
        subject = _describe(request)
    text = f"{subject} is refused with {error.status}: {printable(str(error.reason), VALUE)}"
    advice = error.advice if isinstance(error, RefusalError) else ""
    refusals.log(kind, f"{text}. {advice}" if advice else text)


def _describe(request: Request) -> str:
    """Return the method, path and client of a request, and its Host and Origin, for the log."""
    headers = request.headers
    named = [("Host", request.host), ("Origin", headers.get("Origin"))]
    values = "".join(f', {name} "{quoted(value)}"' for name, value in named if value)
    return f'{request.method} "{quoted(request.path)}" from {request.client}{values}'
