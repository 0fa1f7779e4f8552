"""The URL and the options of a request, and their values."""

from __future__ import annotations

import argparse
import re
import ssl
from argparse import ArgumentTypeError
from pathlib import Path

from wsframe.headers import check_field

SECURE = {"ws": "wss", "http": "https"}
# The kind of each scheme; a kind is named by its scheme without TLS.
PLAIN = {scheme: kind for kind, secure in SECURE.items() for scheme in (kind, secure)}
KINDS = {"ws": "for a WebSocket", "http": "for an event stream"}
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every request: headers, TLS and the time limit."""
    group = parser.add_argument_group("request")
    group.add_argument(
        "-H",
        "--header",
        dest="headers",
        type=headers,
        action="extend",
        default=[],
        metavar='"NAME: VALUE"',
        help="a header of the request; @FILE reads headers from a file, one a line, so that "
        "secrets do not appear in the list of processes; may be repeated",
    )
    group.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="time limit for the connection and the server's response (default: %(default)s)",
    )
    tls = parser.add_argument_group("TLS")
    tls.add_argument(
        "--cacert",
        metavar="FILE",
        help="PEM file of the trusted authorities (default: the system's)",
    )
    tls.add_argument("--cert", metavar="FILE", help="certificate of the client, with its key")
    tls.add_argument("--key", metavar="FILE", help="key of the client, if it is in another file")
    tls.add_argument(
        "-k", "--insecure", action="store_true", help="accept every certificate of the server"
    )


def tls_context(parser: argparse.ArgumentParser, options: argparse.Namespace) -> ssl.SSLContext:
    """Return the context that the options describe; exit with a message if a file is not valid."""
    try:
        context = ssl.create_default_context(cafile=options.cacert)
        context.set_alpn_protocols(["http/1.1"])
        if options.cert is not None:
            context.load_cert_chain(options.cert, options.key)
    except ssl.SSLError as error:
        parser.error(
            f"cannot use the client certificate (--cert) with its key: {error.reason or error}"
        )
    except OSError as error:
        parser.error(f"cannot read a certificate or a key: {error.strerror}")
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def add_url(
    parser: argparse.ArgumentParser, *kinds: str, nargs: str | None = None, dest: str = "url"
) -> None:
    """Add the argument for a URL, or for several ones.

    Args:
        parser: the parser of a command.
        *kinds: "ws" for WebSockets, "http" for event streams, or both, the default first.
        nargs: as for argparse.
        dest: the name of the result.
    """
    forms = ", or ".join(f"{kind}:// or {SECURE[kind]}:// {KINDS[kind]}" for kind in kinds)
    parser.add_argument(
        dest,
        metavar="URL",
        nargs=nargs,
        type=lambda text: complete(text, *kinds),
        help=f"{forms}; without a scheme, {kinds[0]}:// (no TLS) is used",
    )


def complete(url: str, *kinds: str) -> str:
    """Return a URL with a scheme of the command.

    A URL without a scheme gets the first kind as its scheme. A URL of a kind that the command does
    not support gets the first kind, with or without TLS as before. Other schemes remain.

    Args:
        url: the URL as the user has given it.
        *kinds: the supported kinds, "ws", "http" or both, the default first.
    """
    found = SCHEME.match(url)
    if found is None:
        return f"{kinds[0]}://{url}"
    scheme, rest = found[1].lower(), url[found.end() :]
    kind = PLAIN.get(scheme)
    if kind is not None and kind not in kinds:
        scheme = SECURE[kinds[0]] if scheme in SECURE.values() else kinds[0]
    return f"{scheme}://{rest}"


def headers(text: str) -> list[tuple[str, str]]:
    """Return the headers of an option: "NAME: VALUE", or "@" and the name of a file."""
    if not text.startswith("@"):
        return [_header(text)]
    try:
        lines = Path(text[1:]).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentTypeError(f"cannot read headers from {text[1:]!r}: {error}") from None
    return [_header(line) for line in lines if line.strip()]


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError(f'expected "NAME: VALUE", got {text!r}')
    value = value.strip(" \t")
    try:
        check_field(name, value)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return name, value


def seconds(text: str) -> float:
    """Return a number of seconds, which may be "inf"."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise ArgumentTypeError(f"expected a number of seconds or inf, got {text!r}")
    return number


def positive(text: str) -> int:
    """Return an integer that is at least 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ArgumentTypeError(f"expected an integer that is at least 1, got {text!r}")
    return int(text)
