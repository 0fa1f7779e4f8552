"""Loggers that fail nobody: what a handler of the user's raises ends with the record.

Most handlers report a fault themselves. Some do not: one that opens its file late, or again, raises
on a full disk, and it raises it on the loop's thread.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress


class SafeLogger(logging.Logger):
    """A logger whose methods raise nothing."""

    def handle(self, record: logging.LogRecord) -> None:
        """Any thread: hand the record to the handlers; a fault is printed, as logging does it."""
        try:
            super().handle(record)
        except Exception:
            if logging.raiseExceptions:
                with suppress(Exception):  # standard error may be on that disk, too
                    traceback.print_exc()


def safe_logger(name: str) -> logging.Logger:
    """The logger of this name, made safe for everyone who has it."""
    logger = logging.getLogger(name)
    logger.__class__ = SafeLogger
    return logger
