"""The reference suite, run against the server and the client on either kernels."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
AGENT = "wsframe"
MAX_MESSAGE_SIZE = 16 << 20  # bytes; of the largest message that the suite sends
