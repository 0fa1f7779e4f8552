"""The head of a message from a decoder, for any split of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .inputs import Draw


def decode_all_ways(
    codec: ModuleType, new_decoder: Callable[[], Any], draw: Draw, stream: bytes
) -> tuple[Any, Any]:
    """Decode a head whole, in pieces and byte by byte, with equal results; return this result."""
    whole = decoded(codec, new_decoder(), [stream])
    assert decoded(codec, new_decoder(), draw.chunks(stream)) == whole
    if len(stream) < 500:
        single = [stream[i : i + 1] for i in range(len(stream))]
        assert decoded(codec, new_decoder(), single) == whole
    return whole


def decoded(codec: ModuleType, decoder: Any, chunks: list[bytes]) -> tuple[Any, Any]:
    """Return the head and the bytes after it, or the status and reason of the error."""
    for number, chunk in enumerate(chunks):
        try:
            head = decoder.receive(chunk)
        except codec.HandshakeError as error:
            return error.status, error.reason
        if head is not None:
            return head, decoder.rest + b"".join(chunks[number + 1 :])
    return None, None
