"""The parameters of permessage-deflate in the headers of a handshake (RFC 7692 section 7.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from .backends import MAX_BITS

__all__ = ["EXTENSION", "Parameters", "read_parameters"]

#: The parameters of an extension, each with its value or None.
Parameters: TypeAlias = "Iterable[tuple[str, str | None]]"

EXTENSION: Final = "permessage-deflate"

SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER, SERVER_BITS, CLIENT_BITS = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)
# Values with leading zeros are invalid.
WINDOW_BITS = {str(bits): bits for bits in range(8, MAX_BITS + 1)}


def read_parameters(parameters: Parameters, *, of_offer: bool) -> dict[str, int]:
    """Parse the parameters of an offer or a response (RFC 7692 section 7.1).

    Raises:
        ValueError: a parameter is unknown, occurs twice, or has an invalid value.
    """
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise ValueError(f"{name} occurs twice")
        if name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER) and value is None:
            found[name] = True
        elif name == CLIENT_BITS and value is None and of_offer:
            found[name] = MAX_BITS
        elif name in (SERVER_BITS, CLIENT_BITS) and value in WINDOW_BITS:
            found[name] = WINDOW_BITS[value]
        else:
            raise ValueError(name if value is None else f"{name}={value}")
    return found
