"""Clients and servers that use TLS."""

from __future__ import annotations

import ssl

import pytest

from tests.support.certificates import Certificates
from tests.support.handlers import generator_echo, websocket_app
from wsframe.server import App

VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


def client_of(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    return context


def context_of(certificates: Certificates, kind: type[ssl.SSLSocket]) -> ssl.SSLContext:
    """Return a context of a server that creates such sockets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.configure(context)
    context.sslsocket_class = kind
    return context


def page_app() -> App:
    app = websocket_app(generator_echo)
    app.page("/", "hello")
    return app
