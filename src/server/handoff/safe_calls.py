"""Function calls whose errors are logged as internal errors, and end only one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..reports.loggers import log

__all__ = ["SafeCalls"]


class SafeCalls:
    """A mixin for loops.

    Attributes:
        place: the part of the server that the log names for an internal error.
    """

    place: ClassVar[str]

    def call_safely(self, function: Callable[..., Any], *arguments: object) -> None:
        """Loop owner: call ``function``; an error ends only the connection whose method it is."""
        try:
            function(*arguments)
        except Exception as error:
            self.report_error(error, getattr(function, "__self__", None))

    def report_error(self, error: Exception, source: object = None) -> None:
        """Loop owner: log an internal error, and end the connection that caused it."""
        log.error("internal error in %s (please report this)", self.place, exc_info=error)
        # If the source is a session or a task, its attribute ``peer`` is the connection.
        source = getattr(source, "peer", source)
        abort: Callable[[], object] | None = getattr(source, "abort", None)
        if abort is not None:
            self.call_safely(abort)
