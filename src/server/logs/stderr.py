"""The default output of the log: standard error, as text or as JSON.

Applications that configure :mod:`logging` receive the same records in their own handlers.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from functools import partial

from ..reports.loggers import ACCESS, SERVER, background, rendered, size_of
from ..reports.output import use_form
from ..reports.text import block, without_margin
from . import access
from .access import timestamp

STDERR = 2
NO_FILE = -1  # without a file, every record is counted as lost


class TextFormatter(logging.Formatter):
    """Lines for people: the time, the level and the message, and a traceback below them."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: return the line, and the lines of the traceback."""
        record = rendered(record)
        text = super().format(record)
        if record.name == ACCESS:
            return text  # a line of the request log begins with its own time
        return f"{timestamp(record.created)} {record.levelname} {text}"


class JSONFormatter(logging.Formatter):
    """Lines for programs: each line is a JSON object in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: return the line."""
        record = rendered(record)
        fields: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
        }
        if record.name == ACCESS:
            fields |= {name: getattr(record, name) for name in access.FIELDS}
        else:
            fields["message"] = record.getMessage()
        if record.exc_text:
            fields["traceback"] = without_margin(record.exc_text)
        if record.stack_info:
            fields["stack"] = without_margin(record.stack_info)
        return json.dumps(fields)


def json_line(message: str, level: int, traceback: str) -> str:
    """Any thread: return a message of the program as a line of the log in JSON.

    Args:
        message: the message.
        level: its level, as in :mod:`logging`.
        traceback: the traceback of an exception; "" without one.
    """
    record = rendered(logging.LogRecord(SERVER, level, __file__, 0, message, None, None))
    record.exc_text = block(traceback) if traceback else None
    return JSONFormatter().format(record)


class DescriptorHandler(logging.Handler):
    """Writes the records of all loggers to a file descriptor, in the log's thread.

    A line that cannot be written is lost and counted. After the next line that can be written, a
    line with the number of lost lines follows. No line stays in a buffer, because it could then be
    counted as lost and still be written later.

    Args:
        file: the descriptor; 2 is standard error.
    """

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        # The number of lost lines since the last report; only the log's thread uses it.
        self._lost = 0
        self._torn = False  # True if the last line is incomplete

    def createLock(self) -> None:  # noqa: N802
        """Create no lock, because only one thread writes, and closing must not wait for it."""
        self.lock: None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Any thread: filter the record and emit it, without the lock of the base class."""
        permitted: object = self.filter(record)
        if permitted:
            # On Python 3.12 and later a filter may return a replacement.
            self.emit(permitted if isinstance(permitted, logging.LogRecord) else record)
        return bool(permitted)

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread: write the record, or queue it for the log's thread."""
        if background.running_here():
            self._write(record)
        else:
            record = rendered(record)
            background.put(partial(self._write, record), size_of(record))

    def _write(self, record: logging.LogRecord) -> None:
        """The log's thread: write the record, and then the number of lost records."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            background.lost.add()
            return
        if not self._write_line(line):
            number = getattr(record, "lost", None)  # set if this record reports lost records
            if number is None:
                background.lost.add()
            self._lost += number or 1
        elif self._lost:
            lost = logging.LogRecord(
                SERVER,
                logging.WARNING,
                __file__,
                0,
                "%d log records were lost because they could not be written",
                (self._lost,),
                None,
            )
            if self._write_line(self.format(lost)):
                self._lost = 0

    def _write_line(self, line: str) -> bool:
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        if self._torn:
            data = b"\n" + data
        remaining = memoryview(data)
        while remaining:
            try:
                remaining = remaining[os.write(self._file, remaining) :]
            except BlockingIOError:  # another process that shares the file has set O_NONBLOCK
                _wait_for_room(self._file)
            except OSError:
                self._torn = self._torn or len(remaining) < len(data)
                return False
        self._torn = False
        return True


def _wait_for_room(file: int) -> None:
    poller = select.poll()
    poller.register(file, select.POLLOUT)
    poller.poll()


def configure(*, access_log: bool = False, as_json: bool = False, level: str | None = None) -> None:
    """The main thread: log to standard error, unless the program has configured logging itself.

    A second call checks again whether the program has configured logging.

    Args:
        access_log: True to enable the request log.
        as_json: True to log JSON, even if the program has configured logging. The lines of
            :mod:`wsframe.server.reports.output` are JSON, too.
        level: the lowest level of the records of ``wsframe.server``, such as "INFO"; None for that
            of the program.
    """
    use_form(json_line if as_json else None)
    if level is not None:
        logging.getLogger(SERVER).setLevel(level)
    if access_log:
        logging.getLogger(ACCESS).setLevel(logging.INFO)
    logger = logging.getLogger("wsframe")
    for handler in tuple(logger.handlers):
        if isinstance(handler, DescriptorHandler):
            logger.removeHandler(handler)
            logger.propagate = True
    if as_json or not logger.hasHandlers():
        # If standard error was closed, descriptor 2 may be the socket of a client.
        handler = DescriptorHandler(STDERR if sys.__stderr__ is not None else NO_FILE)
        handler.setFormatter(JSONFormatter() if as_json else TextFormatter())
        logger.addHandler(handler)
        logger.propagate = False


def configure_by_default() -> None:
    """The main thread: call :func:`configure`, unless logging is configured already."""
    if not logging.getLogger("wsframe").hasHandlers():
        configure()
