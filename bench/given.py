"""The arguments of a server process, as ``serving.py`` passes them, and a task for its handlers."""

from __future__ import annotations

import os
import sys
import time

CERT, KEY = "BENCH_CERT", "BENCH_KEY"
COMPUTING = 0.001  # seconds of a message to "/compute"


def port() -> int:
    """Return the port to listen on."""
    return int(sys.argv[1])


def files() -> tuple[str | None, str | None]:
    """Return the names of the files with the certificate and with its key; None without TLS."""
    return os.environ.get(CERT), os.environ.get(KEY)


def compute(seconds: float = COMPUTING) -> None:
    """Use the processor for a while."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
