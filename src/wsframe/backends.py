"""Backends of permessage-deflate: modules with the interface of zlib."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

__all__ = [
    "MAX_BITS",
    "MAX_SPARE_COMPRESSORS",
    "MODULES",
    "TOO_FAR_BACK",
    "check_levels",
    "has_window",
    "module",
    "new_compressor",
    "new_decompressor",
    "spare_compressors",
]

#: The module of each backend.
MODULES = {"zlib": "zlib", "zlib-ng": "zlib_ng.zlib_ng", "isal": "isal.isal_zlib"}
# The range of windows for raw streams, in bits.
MIN_BITS, MAX_BITS = 9, 15
# The error texts of zlib, zlib-ng and isal for a reference to bytes outside the window.
TOO_FAR_BACK = ("distance too far back", "lookback distance")
# The maximum number of spare compressors with the same settings; each may use about 300 KiB.
MAX_SPARE_COMPRESSORS = 4


@cache
def module(backend: str) -> Any:
    """Return the module of a backend.

    Raises:
        ImportError: the backend is not installed.
    """
    try:
        return importlib.import_module(MODULES[backend])
    except ImportError as error:
        raise ImportError(
            f"{backend} is not installed: pip install 'wsframe[{backend}]'"
        ) from error


def has_window(backend: str, bits: int) -> bool:
    """Return True if the backend can be limited to a window of 2 ** bits bytes.

    No backend has a window of 8 bits for raw streams. With 9 bits, zlib and zlib-ng refer back
    at most 512 - 262 = 250 bytes (MAX_DIST in their deflate.h), which fits a window of 8 bits.
    isal uses the full window.
    """
    return bits >= MIN_BITS or backend != "isal"


def new_compressor(backend: str, level: int | None, memory_level: int, bits: int) -> Any:
    """Return a compressor with an empty window of 2 ** bits bytes."""
    zlib = module(backend)
    if level is None:
        level = zlib.Z_DEFAULT_COMPRESSION
    return zlib.compressobj(level, zlib.DEFLATED, -max(bits, MIN_BITS), memory_level)


def new_decompressor(backend: str, bits: int) -> Any:
    """Return a decompressor with an empty window of at least 2 ** bits bytes."""
    return module(backend).decompressobj(-max(bits, MIN_BITS))


@cache
def spare_compressors(backend: str, level: int | None, memory_level: int, bits: int) -> list[Any]:
    """Return the list of spare compressors with these settings, which all connections share."""
    return []


@cache
def check_levels(backend: str, level: int | None, memory_level: int) -> None:
    """Check the levels of a backend.

    Raises:
        ValueError: a level is out of range.
        TypeError: a level is not an integer.
        ImportError: the backend is not installed.
    """
    try:
        new_compressor(backend, level, memory_level, MAX_BITS)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"level {level} or memory_level {memory_level} is out of range for {backend}: {error}"
        ) from None
    except TypeError:
        raise TypeError(
            f"level and memory_level must be integers, not {level!r} and {memory_level!r}"
        ) from None
