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
        ValueError: it is a view that was released.
    """
    view = memoryview(data)
    if view.ndim == 1 or not view.c_contiguous:
        try:
            return view.cast("B")
        except ValueError:  # the format is not native, as in an array of big-endian numbers
            pass
    # This takes what cast refuses: such formats, and empty objects of several dimensions. It is
    # imported here because few programs need it.
    from pickle import PickleBuffer

    return PickleBuffer(view).raw()
