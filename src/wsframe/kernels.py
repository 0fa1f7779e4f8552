"""The kernels in use: the compiled ones if they were built, unless WSFRAME_PURE=1 forbids them.

Kernels are functions over bytes with no state of the protocol. Each exists twice, in ``_pure.py``
and in ``_kernels.pyx``; everything else of the codec exists once.
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
else:
    chosen = None
    if os.environ.get("WSFRAME_PURE", "") in ("", "0"):
        with suppress(ImportError):  # not built
            from . import _kernels as chosen
    if chosen is None:
        from . import _pure as chosen

#: Whether the compiled kernels are in use.
ACCELERATED: bool = chosen.__name__.endswith("._kernels")
#: What they run on: "AVX-512", "AVX2", "SSE2", "NEON", "portable", or "pure Python".
INSTRUCTION_SET: str = chosen.INSTRUCTION_SET

accept_key = chosen.accept_key
encode_frame = chosen.encode_frame
mask = chosen.mask
mask_into = chosen.mask_into
parse_frame = chosen.parse_frame
take_frame = chosen.take_frame
take_messages = chosen.take_messages
