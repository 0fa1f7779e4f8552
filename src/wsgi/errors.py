"""The errors for a connection that cannot be taken over."""

from __future__ import annotations


class CannotTakeError(Exception):
    """The connection of a request cannot be taken over; the message is the reason, for the log."""


class NoServerError(CannotTakeError):
    """A test client has called the application, so the request has no connection."""
