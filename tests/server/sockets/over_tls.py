"""Clients and servers that use TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

import pytest

from tests.support.certificates import Certificates
from tests.support.handlers import generator_echo, websocket_app
from wsframe.server import App
from wsframe.server.timing import Timing

VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


def client_of(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    return context


def context_of(certificates: Certificates, kind: type[ssl.SSLObject]) -> ssl.SSLContext:
    """Return a context of a server that creates such objects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.configure(context)
    context.sslobject_class = kind
    return context


def send_few_bytes(sock: socket.socket, pieces: Sequence[bytes | memoryview], *flags: int) -> int:
    """Send the first bytes, like a socket that has little room."""
    return sock.send(b"".join(pieces)[:50], *flags)


def page_app(timing: Timing | None = None) -> App:
    app = websocket_app(generator_echo, timing=timing)
    app.page("/", "hello")
    return app
