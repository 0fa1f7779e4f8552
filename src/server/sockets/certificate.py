"""The server's certificate and key: the context that TLS is spoken with, and why there is none."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ..settings import Settings


class CertificateError(OSError):
    """A file does not hold the certificate or the key that it should."""


class _EncryptedError(Exception):
    """OpenSSL asks for a pass phrase."""


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for TLS; None where TLS is not spoken.

    Raises:
        CertificateError: a file does not hold what it should, the key is encrypted, or it belongs
            to another certificate.
        OSError: a file cannot be read; it is the ``filename``.
    """
    if settings.cert is None:
        return settings.ssl_context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # which lets a client ask for work without end
    context.set_alpn_protocols(["http/1.1"])
    cert = os.fspath(settings.cert)
    key = cert if settings.key is None else os.fspath(settings.key)
    try:
        context.load_cert_chain(cert, key, _refuse)
    except _EncryptedError:
        raise CertificateError(
            f"the key in {key} is encrypted, and the server has no pass phrase for it; decrypt it "
            "with openssl pkey, or start the server with an ssl_context that has loaded it"
        ) from None
    except ssl.SSLError as error:
        raise CertificateError(_explain(cert, key, error)) from None
    except OSError:  # which does not name the file
        for name in (cert, key):
            with open(name, "rb"):
                pass
        raise
    return context


def _refuse() -> NoReturn:
    """Take the place of OpenSSL's question on the terminal, where nobody may be."""
    raise _EncryptedError


def _explain(cert: str, key: str, error: ssl.SSLError) -> str:
    """Return what is wrong with the files, which OpenSSL says of none of them."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} does not belong to the certificate in {cert}"
    if "CERTIFICATE-----" not in _text(cert):
        return f"{cert} holds no certificate in PEM format"
    if "PRIVATE KEY-----" not in _text(key):
        return f"{key} holds no private key in PEM format"
    reason = error.reason or "OpenSSL cannot read what they hold"
    return f"the certificate in {cert} and the key in {key} cannot be used: {reason}"


def _text(name: str) -> str:
    return Path(name).read_text(encoding="latin-1")
