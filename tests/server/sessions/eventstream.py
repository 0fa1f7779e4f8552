"""Apps that serve event streams."""

from __future__ import annotations

# More bytes than the kernel buffers for one connection.
MUCH = 32 << 20


CHUNK = "x" * (1 << 16)
