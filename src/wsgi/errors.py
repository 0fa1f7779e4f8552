"""The errors of taking a connection over."""

from __future__ import annotations


class CannotTakeError(Exception):
    """The connection of a request cannot be taken over; the text is the reason, for the log."""
