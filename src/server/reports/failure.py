"""The reason for which the program, or a worker, fails to start."""

from __future__ import annotations

import traceback
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """The reason for which the program, or a worker, fails to start.

    As the code of a SystemExit, it is printed by the interpreter.

    Attributes:
        message: the reason; for an exception its class and text.
        traceback: the traceback of an exception, with the message at its end; "" without one.
    """

    message: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The main thread: return the failure that an exception reports.

        A SystemExit has no traceback, because its text is for users.
        """
        if isinstance(error, SystemExit):
            if isinstance(error.code, Failure):
                return error.code
            return cls(str(error).strip() or "SystemExit")
        # The lines about the place of a SyntaxError are indented, and notes follow the message.
        parts = traceback.format_exception_only(error)
        message = next(part for part in parts if not part.startswith(" "))
        return cls(message.rstrip("\n"), "".join(traceback.format_exception(error)).rstrip("\n"))

    def __str__(self) -> str:
        """The main thread: return the traceback, or the message without one."""
        return self.traceback or self.message
