"""Apps that serve event streams."""

from __future__ import annotations

# More than the kernel's own buffers hold of a connection.
MUCH = 32 << 20


CHUNK = "x" * (1 << 16)
