"""The loggers of the server. All modules log with ``from .reports.loggers import log``.

The calling thread renders the record, which is then text and numbers, and queues it for the
background thread. Filters, handlers and record factories belong to the application and run only
there. So any code of the server may log: on a loop, under a lock, in ``__del__``, in a signal
handler.

Arguments are values of built-in types, or errors of the server or of a library. Rendering an object
of the application calls its ``__str__``, which may block. This happens only where the application's
code runs anyway: in a turn or in a handler's thread, without a lock.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from copy import copy
from functools import partial
from sys import getsizeof
from typing import Any

from .background import Background, register
from .text import block, printable, traceback_of

SERVER, ACCESS = "wsframe.server", "wsframe.access"

# The name of the attribute that marks a record whose objects were already replaced by text.
RENDERED = "wsframe_rendered"
# The memory of a record besides its text, in bytes.
OVERHEAD = 1536
# The number of waiting records that keep their exception object. Further records keep only its
# text, because the frames of an exception may hold much memory.
MAX_EXCEPTIONS = 16


class BackgroundLogger(logging.Logger):
    """A logger whose handlers run in the background thread.

    This logger is not registered with :mod:`logging`. The registered logger, its target, has the
    level, filters and handlers that applications configure.

    Attributes:
        target: the registered logger of the same name.
    """

    def __init__(self, target: logging.Logger) -> None:
        super().__init__(target.name)
        self.target = target

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Any thread: return the target's ``isEnabledFor``, without the lock of its cache."""
        target = self.target
        return (
            not target.disabled
            and level > target.manager.disable
            and level >= target.getEffectiveLevel()
        )

    def makeRecord(  # noqa: N802
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Any = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Any thread: return a standard record; the application's record factory runs later."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.__dict__.update(extra or {})
        return record

    def handle(self, record: logging.LogRecord) -> None:
        """Any thread: render the record and queue it for the background thread."""
        _render(record)
        background.put(partial(self.handle_here, record), size_of(record))

    def handle_here(self, record: logging.LogRecord) -> None:
        """The background thread: filter the record and call the handlers; print their errors."""
        try:
            self.target.handle(_from_factory(record))
        except BaseException:
            if logging.raiseExceptions:
                with suppress(Exception):  # writing to standard error may also fail
                    traceback.print_exc()
            raise


def logger(name: str) -> BackgroundLogger:
    """Return a logger for the server's own records, which the handlers of this name receive."""
    return BackgroundLogger(logging.getLogger(name))


def rendered(record: logging.LogRecord) -> logging.LogRecord:
    """Any thread: return the record with its objects replaced by text, bounded and escaped.

    The message becomes one line. A ``stack`` attribute, of several lines, becomes the
    ``stack_info``, which formatters print below the message. A record of another logger is copied,
    because other handlers receive it, too.
    """
    if RENDERED not in record.__dict__:
        record = copy(record)
        _render(record)
    return record


def message_of(text: object, arguments: Any) -> str:
    """Any thread: return a message with its arguments, a tuple or a mapping, as one line."""
    try:
        # As in :mod:`logging`, a message without arguments is not formatted.
        message = str(text) % arguments if arguments else str(text)
    except Exception as error:  # for example, an error in an argument's __str__
        what = text if type(text) is str else type(text).__name__
        message = f"{what} (rendering it raised {type(error).__name__})"
    return printable(message)


def _render(record: logging.LogRecord) -> None:
    record.msg, record.args = message_of(record.msg, record.args), None
    record.exc_text = traceback_of(record.exc_info) if record.exc_info else None
    if background.has_backlog(MAX_EXCEPTIONS):
        record.exc_info = None
    stack = record.__dict__.pop("stack", record.stack_info)
    record.stack_info = None if stack is None else block(stack)
    record.__dict__[RENDERED] = True


def size_of(record: logging.LogRecord) -> int:
    """Any thread: estimate the memory of a rendered record, in bytes."""
    texts = (value for value in record.__dict__.values() if type(value) is str)
    return OVERHEAD + sum(map(getsizeof, texts))


def _from_factory(record: logging.LogRecord) -> logging.LogRecord:
    """Return the record that the application's factory makes, with the original's attributes."""
    factory = logging.getLogRecordFactory()
    if factory is logging.LogRecord:
        return record
    made = factory(
        record.name,
        record.levelno,
        record.pathname,
        record.lineno,
        record.msg,
        (),
        record.exc_info,
        record.funcName,
        record.stack_info,
    )
    made.__dict__.update(record.__dict__)
    return made


def log_losses(number: int) -> None:
    """The background thread: log that records were dropped."""
    text = f"{number} log records were lost because log handlers are too slow"
    record = logging.LogRecord(SERVER, logging.WARNING, __file__, 0, text, None, None)
    record.__dict__["lost"] = number
    log.handle_here(record)


background: Background = Background(log_losses)
register(background)
log: BackgroundLogger = logger(SERVER)
