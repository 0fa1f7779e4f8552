"""Bytes-like objects, seen as the bytes that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["octets"]


def octets(data: Buffer) -> memoryview:
    """Return a view of an object's memory, without a copy: one dimension of unsigned bytes.

    Args:
        data: any C-contiguous bytes-like object, of any shape and format.

    Raises:
        TypeError: the object is not bytes-like, or not C-contiguous.
        ValueError: it is a released view.
    """
    view = memoryview(data)
    if view.ndim != 1 and not view.nbytes:  # which cast refuses
        return memoryview(b"" if view.readonly else bytearray())
    return view.cast("B")
