"""The errors that end the command ``serve``, as text or in JSON."""

from __future__ import annotations

from typing import NoReturn

from ..server.reports.failure import Failure
from ..server.reports.loggers import background
from ..server.reports.output import is_plain, print_failure
from ..server.timing import Timing
from .exits import Exit
from .parsers import Parser


class ServerParser(Parser):
    """A parser that prints its errors in the format of the log."""

    def error(self, message: str) -> NoReturn:
        """Print the error, after the usage unless the format is JSON; exit."""
        if is_plain():
            super().error(message)
        print_failure(Failure(message))
        self.exit(Exit.USAGE)


def report(error: Exception | SystemExit) -> None:
    """Print an error, after the lines of the log."""
    background.flush(Timing.log_flush_timeout)
    print_failure(Failure.of(error))
