"""Views of bytes-like objects as flat bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import wrong_type

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["octets"]


def octets(data: Buffer, name: str = "data") -> memoryview:
    """Return a flat view of an object's memory as unsigned bytes, without a copy.

    Args:
        data: any C-contiguous bytes-like object, of any shape and format.
        name: the name of the argument, for the error.

    Raises:
        TypeError: the object is not bytes-like, or not C-contiguous.
        ValueError: the object is a released memoryview.
    """
    try:
        view = memoryview(data)
        if view.ndim != 1 and not view.nbytes:  # cast() rejects empty views with several dimensions
            return memoryview(b"" if view.readonly else bytearray())
        return view.cast("B")
    except TypeError:
        raise wrong_type(name, "a C-contiguous bytes-like object", data) from None
