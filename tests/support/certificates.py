"""A certificate for this machine, and who vouches for it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme


class Certificates:
    """A server's certificate.

    Args:
        *hosts: for which hosts; by default, this machine.

    Attributes:
        authority: who vouches for it.
        server: the context of a server that has it.
        client: the context of a client that trusts it.
    """

    def __init__(self, *hosts: str) -> None:
        self.authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.set_alpn_protocols(["h2", "http/1.1"])
        self._certificate = self.authority.issue_cert(*hosts or ("localhost", "127.0.0.1", "::1"))
        self.configure(self.server)
        self.client = self.client_context()

    def configure(self, context: ssl.SSLContext) -> None:
        """Give the certificate to a server's context."""
        self._certificate.configure_cert(context)

    def client_context(self) -> ssl.SSLContext:
        """A context of its own for a client, to be changed."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def write(self, directory: Path) -> None:
        """Write ``cert.pem``, ``key.pem``, ``both.pem``, and the authority's ``ca.pem``."""
        (cert,) = self._certificate.cert_chain_pems
        cert.write_to_path(directory / "cert.pem")
        self._certificate.private_key_pem.write_to_path(directory / "key.pem")
        self._certificate.private_key_and_cert_chain_pem.write_to_path(directory / "both.pem")
        self.authority.cert_pem.write_to_path(directory / "ca.pem")


# The ssl module does not close what it is given to wrap and finds to be reset; that is closed when
# it is forgotten, which is at once.
resets_under_tls = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
