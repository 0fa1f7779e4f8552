"""The checks of a WebSocket, and the checks of any URL."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

from wsframe import CloseCode, ConnectionClosed, HandshakeError
from wsframe.client import WebSocket

from ..client.failures import REDIRECTS, describe, header_of, is_stream
from .examination import FOREIGN, Subject
from .findings import Finding, Grade

EXPIRES_SOON = 14  # days
# The error codes of OpenSSL (verify(1)).
EXPIRED, WRONG_NAME, WRONG_ADDRESS = 10, 62, 64
SELF_SIGNED = 18
UNKNOWN_ISSUER = (2, 19, 20, 21)
# The statuses of proxies that cannot reach the server; 520 to 526 are used by Cloudflare.
NO_SERVER = (502, 504, *range(520, 527))
# The statuses of servers for a request whose upgrade was removed.
NO_UPGRADE = (400, 426)


def check_connection(subject: Subject) -> Finding:
    """Connect, with TLS if the URL requires it."""
    try:
        days = subject.days_of_certificate()
    except ssl.SSLCertVerificationError as error:
        return Finding(Grade.PROBLEM, _sentence(describe(error)[0]), _remedy_of(error))
    except OSError as error:
        return Finding(Grade.PROBLEM, _sentence(f"cannot connect: {describe(error)[0]}"))
    if days is None:
        return Finding(Grade.OK, "The host accepts connections.")
    if days < EXPIRES_SOON:
        return Finding(Grade.PROBLEM, f"The certificate expires in {days} days.", "expires")
    return Finding(Grade.OK, f"The certificate is valid, for {days} more days.")


def _remedy_of(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == EXPIRED:
        return "expired"
    if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
        return "name"
    if error.verify_code == SELF_SIGNED:
        return "self-signed"
    return "chain" if error.verify_code in UNKNOWN_ISSUER else ""


def check_websocket(subject: Subject) -> Iterator[Finding]:
    """Open WebSockets, and observe one of them."""
    try:
        ws = subject.open_websocket(subject.origin)
    except HandshakeError as error:
        subject.recognize(error.headers)
        yield from _explain_refusal(subject, error)
        return
    except OSError as error:
        yield Finding(Grade.PROBLEM, _sentence(f"the upgrade failed: {describe(error)[0]}"))
        return
    with ws:
        yield Finding(Grade.OK, f"The path upgrades for a page of {subject.origin}.")
        yield _check_foreign_page(subject)
        yield from _observe(ws, subject)


def _explain_refusal(subject: Subject, error: HandshakeError) -> Iterator[Finding]:
    """Find the reason of a refused upgrade."""
    if is_stream(error):
        text = "The path is an event stream and not a WebSocket: examine"
        url = f"http{subject.url.removeprefix('ws')}"
        yield Finding(Grade.PROBLEM, f"{text} {url}")
    elif error.status in (403, 421):
        yield _explain_forbidden(subject, error)
    else:
        remedy = "upgrade" if error.status in NO_UPGRADE else ""
        yield explain_status(error) or Finding(
            Grade.PROBLEM, f"The server refused the upgrade: {quote(error)}", remedy
        )


def _explain_forbidden(subject: Subject, error: HandshakeError) -> Finding:
    """Check if the server has refused the request because of its Host."""
    if error.status == 403 and _opens(subject, subject.origin_without_port):
        return Finding(Grade.PROBLEM, "The server receives the Host without its port.", "port")
    if error.status == 421:
        return explain_misdirected(error)
    if _opens(subject, None):
        return Finding(
            Grade.PROBLEM,
            f"The server refuses pages of {subject.origin}, so it receives another Host, or allows "
            f"only other origins: {quote(error)}",
            "host",
        )
    return Finding(
        Grade.PROBLEM,
        f"The server refuses this client: {quote(error)} (--header adds credentials)",
    )


def explain_misdirected(error: HandshakeError) -> Finding:
    """Explain a 421: the host of the URL is not served, or the proxy has replaced it."""
    text = f"The server does not serve the host that it receives: {quote(error)}"
    return Finding(Grade.PROBLEM, text, "hosts")


def explain_status(error: HandshakeError) -> Finding | None:
    """Return the finding for a status that has the same cause for any request, or None."""
    text = quote(error)
    if error.status in REDIRECTS:
        target = header_of(error, "location")
        text = f"The URL redirects to {target}" if target else f"A redirect has no target: {text}"
        return Finding(Grade.PROBLEM, text, "redirect" if target else "")
    if error.status == 200:
        return Finding(Grade.PROBLEM, f"A page answers for this path: {text}", "route")
    if error.status == 404:
        return Finding(Grade.PROBLEM, f"The path does not exist: {text}", "route")
    if error.status in NO_SERVER and error.answered:
        return Finding(Grade.PROBLEM, f"The proxy does not reach the server: {text}", "server")
    if error.status in (429, 503):
        return Finding(Grade.PROBLEM, f"The server is full or does not run: {text}", "full")
    if error.status == 401:
        return Finding(Grade.PROBLEM, f"The server requires credentials (--header): {text}")
    return None


def _check_foreign_page(subject: Subject) -> Finding:
    if _opens(subject, FOREIGN):
        return Finding(Grade.PROBLEM, "A page of any other site may connect.", "origin")
    return Finding(Grade.OK, "Pages of other sites are refused.")


def _opens(subject: Subject, origin: str | None) -> bool:
    """Return True if the WebSocket opens with an Origin, or without Origin for None."""
    with suppress(HandshakeError, OSError), subject.open_websocket(origin):
        return True
    return False


def _observe(ws: WebSocket, subject: Subject) -> Iterator[Finding]:
    """Measure a round trip, then keep the WebSocket open without sending anything."""
    begin = monotonic()
    try:
        seconds = ws.round_trip(subject.timeout)
        yield Finding(Grade.OK, f"A ping is answered after {1000 * seconds:.1f} ms.")
        _receive_for(ws, subject.silence)
    except TimeoutError:
        text = "A ping is not answered: the server is blocked, or a proxy holds data back."
        yield Finding(Grade.PROBLEM, text)
    except ConnectionClosed as end:
        if end.code == CloseCode.ABNORMAL_CLOSURE:
            text = f"The connection was cut after {monotonic() - begin:.1f} s: {end.reason}."
            yield Finding(Grade.PROBLEM, text, "silence")
        else:
            yield Finding(Grade.NOTE, f"The server closed the connection: {end}")
    else:
        yield Finding(Grade.OK, f"The connection stays open for {subject.silence:g} s.")


def _receive_for(ws: WebSocket, seconds: float) -> None:
    """Receive messages for a time; a server that sends many does not prolong it.

    Raises:
        ConnectionClosed: the connection has ended.
    """
    deadline = monotonic() + seconds
    with suppress(TimeoutError):
        while (remaining := deadline - monotonic()) > 0:
            ws.receive(timeout=remaining)


def quote(error: HandshakeError) -> str:
    """Return a refusal in one line, with the first line of its body."""
    first, *body = describe(error)
    line = body[0].strip() if body else ""
    return _sentence(f"{first} ({line})" if line else first)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
