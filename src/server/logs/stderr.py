"""Where records go that nobody else takes: to standard error, as text or as JSON.

Applications that configure :mod:`logging` have handlers of their own, which get the same records.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from functools import partial

from ..reports.loggers import ACCESS, SERVER, background, rendered, size_of
from ..reports.text import without_margin
from . import access
from .access import timestamp

STDERR = 2
NOTHING = -1  # no file: each record is counted as lost


class TextFormatter(logging.Formatter):
    """A line for a person: the time, the level and the message; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: the line, and those of the traceback."""
        record = rendered(record)
        text = super().format(record)
        if record.name == ACCESS:
            return text  # begins with a time
        return f"{timestamp(record.created)} {record.levelname} {text}"


class JSONFormatter(logging.Formatter):
    """A line for a program: one JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: the line."""
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


class DescriptorHandler(logging.Handler):
    """Writes to a file descriptor, in the log's thread, whichever logger a record comes from.

    A line that cannot be written is lost and counted. As soon as a line has been written again, one
    follows it with the number of those lost. No line is kept in a buffer, where it would be written
    later than the number says.

    Args:
        file: the descriptor; 2 is standard error.
    """

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        self._lost = 0  # since a line said so; the log's thread
        self._torn = False  # the last line has no end

    def createLock(self) -> None:  # noqa: N802
        """Have no lock: one thread writes, and who closes the log must not wait for it."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Any thread: have the record written, as the base class does it under its lock."""
        permitted: object = self.filter(record)
        if isinstance(permitted, logging.LogRecord):  # from Python 3.12 on, in place of this one
            record = permitted
        if permitted:
            self.emit(record)
        return bool(permitted)

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread: have the record written."""
        if background.running_here():
            self._write(record)
        else:
            record = rendered(record)
            background.put(partial(self._write, record), size_of(record))

    def _write(self, record: logging.LogRecord) -> None:
        """The log's thread: write the record, and then how many are lost."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if not self._write_line(line):
            number = getattr(record, "lost", None)  # it has told of others
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
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except BlockingIOError:  # another process that has the file has made it non-blocking
                _wait_for_room(self._file)
            except OSError:
                self._torn = self._torn or len(left) < len(data)
                return False
        self._torn = False
        return True


def _wait_for_room(file: int) -> None:
    poller = select.poll()
    poller.register(file, select.POLLOUT)
    poller.poll()


def configure(*, access_log: bool = False, as_json: bool = False) -> None:
    """The main thread: log to standard error, unless the program has configured logging itself.

    It can be called again; then it looks anew whether the program has.

    Args:
        access_log: the request log is wanted.
        as_json: records are JSON, whatever else is configured.
    """
    if access_log:
        logging.getLogger(ACCESS).setLevel(logging.INFO)
    logger = logging.getLogger("wsframe")
    for handler in tuple(logger.handlers):
        if isinstance(handler, DescriptorHandler):
            logger.removeHandler(handler)
            logger.propagate = True
    if as_json or not logger.hasHandlers():
        # Without standard error, the descriptor of this number may be a client's.
        handler = DescriptorHandler(STDERR if sys.__stderr__ is not None else NOTHING)
        handler.setFormatter(JSONFormatter() if as_json else TextFormatter())
        logger.addHandler(handler)
        logger.propagate = False


def configure_by_default() -> None:
    """The main thread: :meth:`configure`, unless that has been done already."""
    if not logging.getLogger("wsframe").hasHandlers():
        configure()
