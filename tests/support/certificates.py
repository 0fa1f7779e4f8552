"""A certificate for this machine, and its authority."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme


class Certificates:
    """A server's certificate.

    Args:
        *hosts: the hosts of the certificate; by default, this machine.

    Attributes:
        authority: the authority that issued it.
        server: the context of a server with the certificate.
        client: the context of a client that trusts the authority.
    """

    def __init__(self, *hosts: str) -> None:
        self.authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.set_alpn_protocols(["h2", "http/1.1"])
        self._certificate = self.authority.issue_cert(*hosts or ("localhost", "127.0.0.1", "::1"))
        self.configure(self.server)
        self.client = self.client_context()

    def configure(self, context: ssl.SSLContext) -> None:
        """Add the certificate to a server's context."""
        self._certificate.configure_cert(context)

    def server_context(self) -> ssl.SSLContext:
        """Return a new context for a server that accepts certificates of clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.configure(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.authority.configure_trust(context)
        return context

    def client_context(self, name: str | None = None) -> ssl.SSLContext:
        """Return a new context for a client; with a name, one with a certificate for this name."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if name is not None:
            self.authority.issue_cert("localhost", common_name=name).configure_cert(context)
        return context

    def write(self, directory: Path) -> None:
        """Write ``cert.pem``, ``key.pem``, ``both.pem``, and the authority's ``ca.pem``."""
        (cert,) = self._certificate.cert_chain_pems
        cert.write_to_path(directory / "cert.pem")
        self._certificate.private_key_pem.write_to_path(directory / "key.pem")
        self._certificate.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
        self.authority.cert_pem.write_to_path(directory / "ca.pem")


# The ssl module does not close a socket that was reset before it is wrapped. The garbage collector
# closes it at once.
resets_under_tls = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
