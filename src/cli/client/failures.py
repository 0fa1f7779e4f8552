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
PHRASES = {int(status): status.phrase for status in HTTPStatus}


def exit_code(error: Exception) -> Exit:
    """Return the exit code for the error of a request."""
    return Exit.REFUSED if isinstance(error, HandshakeError) else Exit.UNREACHABLE


def explain(prog: str, url: str, error: Exception) -> None:
    """Print the failure of a request to the standard error."""
    note(f"{prog}: {url}", "bad")
    for line in describe(error):
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
        return [f"TLS failed: {error.reason or error} (does this port use TLS?)"]
    if isinstance(error, socket.gaierror):
        return [f"the host is unknown: {error.strerror}"]
    if isinstance(error, TimeoutError):
        return ["no response in time (--timeout)"]
    strerror = getattr(error, "strerror", None)
    return [strerror[0].lower() + strerror[1:] if strerror else str(error)]


def _refusal(error: HandshakeError) -> str:
    if error.answered and error.status in PHRASES:
        return f"{error.reason} {PHRASES[error.status]}"
    return error.reason


def _body(error: HandshakeError) -> list[str]:
    text = error.body.decode("utf-8", "replace")
    lines = [line.rstrip() for line in text[:MAX_CHARACTERS].splitlines()]
    lines = [printable(line) for line in lines if line]
    cut = len(text) > MAX_CHARACTERS or len(lines) > MAX_LINES
    return [*lines[:MAX_LINES], *(["..."] if cut else [])]
