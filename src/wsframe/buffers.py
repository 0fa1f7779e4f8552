"""Views of bytes-like objects as flat bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["octets"]


def octets(data: Buffer) -> memoryview:
    """Return a flat view of an object's memory as unsigned bytes, without a copy.

    Args:
        data: any C-contiguous bytes-like object, of any shape and format.

    Raises:
        TypeError: the object is not bytes-like, or not C-contiguous.
        ValueError: the object is a released memoryview.
    """
    view = memoryview(data)
    if view.ndim != 1 and not view.nbytes:  # cast() rejects these
        return memoryview(b"" if view.readonly else bytearray())
    return view.cast("B")
