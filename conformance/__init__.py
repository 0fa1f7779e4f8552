"""The reference suite, run against the server and the client on both kernels."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
AGENT = "wsframe"
MAX_MESSAGE_SIZE = 16 << 20  # bytes; the largest message of the suite
