"""The certificate of the servers over TLS: ECDSA on P-256, made for one run."""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


@cache
def certificate() -> tuple[str, str]:
    """Return the names of the files with a certificate and with its key; both end with the run."""
    import trustme

    directory = TemporaryDirectory()
    atexit.register(directory.cleanup)
    cert, key = Path(directory.name, "cert.pem"), Path(directory.name, "key.pem")
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(
        "localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA
    )
    for blob in issued.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    issued.private_key_pem.write_to_path(key)
    return str(cert), str(key)
