"""The conversion of a failed request to an error message and an exit code."""

from __future__ import annotations

import socket
import ssl
from http import HTTPStatus

from wsframe import HandshakeError, ProtocolError

from ..exits import Exit
from .terminal import note, printable

# The maximum length of a refusal's body in the message.
MAX_LINES = 20
MAX_CHARACTERS = 2000
EVENT_STREAM = "text/event-stream"
# The types of pages, which are for browsers; and the beginnings of a page with another type.
PAGE_TYPES = ("text/html", "application/xhtml+xml")
PAGE_BEGINNINGS = ("<!doctype html", "<html")
REDIRECTS = (301, 302, 303, 307, 308)
# The causes of TLS alerts of the server, by the reason of the error.
REFUSED = "the server does not accept the certificate of this client"
TLS_ADVICE = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server requires a certificate of the client",
    "TLSV1_ALERT_UNKNOWN_CA": REFUSED,
    "SSLV3_ALERT_BAD_CERTIFICATE": REFUSED,
}
PHRASES = {int(status): status.phrase for status in HTTPStatus}


def exit_code(error: Exception) -> Exit:
    """Return the exit code for the error of a request."""
    return Exit.REFUSED if isinstance(error, HandshakeError) else Exit.UNREACHABLE


def explain(prog: str, url: str, error: Exception, advice: str = "") -> None:
    """Print the failure of a request, with advice for it, to the standard error."""
    note(f"{prog}: {url}", "bad")
    first, *body = describe(error)
    for line in (f"{first}: {advice}" if advice else first, *body):
        note(f"  {line}")


def describe(error: Exception) -> list[str]:
    """Return the description of an error, then the first lines of the response's body, indented.

    Args:
        error: a HandshakeError, a ProtocolError, or an OSError of the connection.
    """
    if isinstance(error, HandshakeError):
        return [_refusal(error), *(f"  {line}" for line in _body(error))]
    if isinstance(error, ProtocolError):
        return [error.reason]
    if isinstance(error, ssl.SSLCertVerificationError):
        return [
            f"the certificate is not valid: {error.verify_message} (--cacert FILE names its "
            "authority, --insecure accepts every certificate)"
        ]
    if isinstance(error, ssl.SSLError):
        advice = TLS_ADVICE.get(error.reason or "", "does this port use TLS?")
        return [f"TLS failed: {error.reason or error} ({advice})"]
    if isinstance(error, socket.gaierror):
        return [f"the host is unknown: {error.strerror}"]
    if isinstance(error, TimeoutError):
        return ["no response in time (--timeout)"]
    strerror = getattr(error, "strerror", None)
    return [strerror[0].lower() + strerror[1:] if strerror else str(error)]


def header_of(error: HandshakeError, name: str) -> str:
    """Return the header of a refusal with a name in lower case; "" if it is missing."""
    return next((value for header, value in error.headers if header.lower() == name), "")


def is_stream(error: HandshakeError) -> bool:
    """Return True if the refusal of an upgrade is the head of an event stream."""
    return error.status == 200 and _type_of(error) == EVENT_STREAM


def _type_of(error: HandshakeError) -> str:
    """Return the media type of a refusal, without its parameters; "" if it is missing."""
    return header_of(error, "content-type").partition(";")[0].strip().lower()


def _is_page(error: HandshakeError, text: str) -> bool:
    """Return True if the body of a refusal is a page for browsers."""
    return _type_of(error) in PAGE_TYPES or text.lstrip().lower().startswith(PAGE_BEGINNINGS)


def _refusal(error: HandshakeError) -> str:
    text = error.reason
    if error.answered and error.status in PHRASES:
        text = f"{text} {PHRASES[error.status]}"
    target = header_of(error, "location") if error.status in REDIRECTS else ""
    return f"{text}: use the URL of the redirect, {target}" if target else text


def _body(error: HandshakeError) -> list[str]:
    text = error.body.decode("utf-8", "replace")
    if is_stream(error) or _is_page(error, text):
        return []
    lines = [line.rstrip() for line in text[:MAX_CHARACTERS].splitlines()]
    lines = [printable(line) for line in lines if line]
    cut = len(text) > MAX_CHARACTERS or len(lines) > MAX_LINES
    return [*lines[:MAX_LINES], *(["..."] if cut else [])]
