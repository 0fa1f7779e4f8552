"""The kernels in use: the compiled ones if they were built, unless WSFRAME_PURE=1 disables them.

Kernels are functions over bytes without protocol state. Each has two implementations, ``_pure.py``
and ``_kernels.pyx``; the rest of the codec has only one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

__all__ = [
    "ACCELERATED",
    "INSTRUCTION_SET",
    "accept_key",
    "encode_frame",
    "mask",
    "mask_into",
    "parse_frame",
    "take_frame",
    "take_messages",
]

if TYPE_CHECKING:
    from . import _pure as chosen
    from ._pure import (
        accept_key,
        encode_frame,
        mask,
        mask_into,
        parse_frame,
        take_frame,
        take_messages,
    )
else:
    chosen = None
    if os.environ.get("WSFRAME_PURE", "") in ("", "0"):
        with suppress(ImportError):  # the compiled kernels were not built
            from . import _kernels as chosen
    if chosen is None:
        from . import _pure as chosen
    accept_key = chosen.accept_key
    encode_frame = chosen.encode_frame
    mask = chosen.mask
    mask_into = chosen.mask_into
    parse_frame = chosen.parse_frame
    take_frame = chosen.take_frame
    take_messages = chosen.take_messages

#: True if the compiled kernels are in use.
ACCELERATED: bool = chosen.__name__.endswith("._kernels")
#: The kernels' instruction set: "AVX-512", "AVX2", "SSE2", "NEON", "portable" or "pure Python".
INSTRUCTION_SET: str = chosen.INSTRUCTION_SET
