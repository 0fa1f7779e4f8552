"""The error for a connection that cannot be taken over."""

from __future__ import annotations


class CannotTakeError(Exception):
    """The connection of a request cannot be taken over; the message is the reason, for the log."""
