"""Loading the server's certificate and key, with clear errors."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ..settings import Settings


class CertificateError(OSError):
    """The error for a file that does not contain the expected certificate or key."""


class _EncryptedError(Exception):
    """The error for a key that is encrypted with a pass phrase."""


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for TLS; None if TLS is not configured.

    Raises:
        CertificateError: a file does not contain the expected data, the key is encrypted, or
            the key does not belong to the certificate.
        OSError: a file cannot be read; ``filename`` contains its name.
    """
    if settings.cert is None:
        return settings.ssl_context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With renegotiation a client could cause unlimited work.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1  # a client may use a ticket for several connections
    cert = os.fspath(settings.cert)
    key = cert if settings.key is None else os.fspath(settings.key)
    try:
        context.load_cert_chain(cert, key, _refuse)
    except _EncryptedError:
        raise CertificateError(
            f"the key in {key} is encrypted, and the server has no pass phrase; decrypt it with "
            "openssl pkey, or pass an ssl_context that has loaded it"
        ) from None
    except ssl.SSLError as error:
        raise CertificateError(_explain(cert, key, error)) from None
    except OSError:  # OpenSSL's error lacks the file's name, which the error of open() contains.
        for name in (cert, key):
            with open(name, "rb"):
                pass
        raise
    if settings.client_ca is not None:
        _verify_clients(context, os.fspath(settings.client_ca), settings.client_cert)
    return context


def _verify_clients(context: ssl.SSLContext, authorities: str, certificate: str) -> None:
    """Let a context request a client's certificate, and verify it with the authorities' file."""
    _text(authorities)  # OpenSSL's error for a file that cannot be read lacks its name
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError:
        raise CertificateError(
            f"{authorities} does not contain certificates of authorities in PEM format (client_ca)"
        ) from None
    optional = certificate == "optional"
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED


def _refuse() -> NoReturn:
    """Replace the prompt of OpenSSL on the terminal, because a server runs unattended."""
    raise _EncryptedError


def _explain(cert: str, key: str, error: ssl.SSLError) -> str:
    """Return the message for an OpenSSL error that does not name a file."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} does not belong to the certificate in {cert}"
    if "CERTIFICATE-----" not in _text(cert):
        return f"{cert} does not contain a certificate in PEM format"
    if "PRIVATE KEY-----" not in _text(key):
        return f"{key} does not contain a private key in PEM format"
    reason = error.reason or "OpenSSL cannot read the files"
    return f"the certificate in {cert} and the key in {key} cannot be used: {reason}"


def _text(name: str) -> str:
    return Path(name).read_text(encoding="latin-1")
