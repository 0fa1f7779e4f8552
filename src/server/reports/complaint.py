"""What is worth a word in the log, but not one for every client that meets with it."""

from __future__ import annotations

import logging
from math import inf
from time import monotonic

log = logging.getLogger("wsframe.server")

SILENCE = 1.0  # seconds between two words


class Complaint:
    """One kind of trouble; logged when it is met, and then not for a second."""

    def __init__(self) -> None:
        self._next = -inf

    def log(self, level: int, text: str, *arguments: object) -> None:
        """One thread at a time: log it, unless that was done just now."""
        now = monotonic()
        if now >= self._next:
            self._next = now + SILENCE
            log.log(level, text, *arguments)
