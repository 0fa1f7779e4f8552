"""The log lines of functions of the application that have raised an error."""

from __future__ import annotations

from logging import ERROR

from ..reports.loggers import log
from ..reports.throttled import ThrottledLog
from .errors import BROKER_ERRORS

# The errors of the broker in functions of the application.
broker_errors: ThrottledLog = ThrottledLog()


def log_failure(error: BaseException, text: str, *arguments: object) -> None:
    """Any thread that may run code of the application: log an error of one of its functions.

    An outage of the broker may fail many calls. So an error of the broker is one line, at a bounded
    rate; any other error has its traceback.

    Args:
        error: the error.
        text: the event, with "%s" and the like for the arguments.
        *arguments: the arguments of the text.
    """
    kind = type(error)
    if issubclass(kind, BROKER_ERRORS):
        text = f"{text} (it may catch %s): %s"
        broker_errors.log(ERROR, text, *arguments, kind.__name__, error)
        return
    # The class of the exception may define __traceback__ as a property that raises an error.
    traceback = BaseException.__dict__["__traceback__"].__get__(error)
    log.error(text, *arguments, exc_info=(kind, error, traceback))
