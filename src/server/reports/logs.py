"""Logging for the command line: on a thread of its own, as text or as JSON.

The loop's thread must not wait for a log. :class:`Background` leaves a record to another thread, so
that the server goes on though the disk is full, or whoever reads the log stands still.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import suppress
from queue import Empty, Full, Queue

from . import access

# How many records may wait to be written; what comes then is lost, and counted.
CAPACITY = 10_000
# How long the end of the program waits for them, in seconds.
FLUSH_TIME = 1.0
STDERR = 2


class TextFormatter(logging.Formatter):
    """A line for a person: the time, and what happened."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: the line; more than one for what has a traceback."""
        text = super().format(record)
        if record.name == access.NAME:
            return text  # begins with a time
        return f"{access.timestamp(record.created)} {record.levelname} {text}"


class JSONFormatter(logging.Formatter):
    """A line for a program: one JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Any thread: the line."""
        said: dict[str, object] = {
            "time": access.timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
        }
        if record.name == access.NAME:
            said |= {name: getattr(record, name) for name in access.FIELDS}
        else:
            said["message"] = record.getMessage()
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


class Background(logging.Handler):
    """Writes to a file on a thread of its own, which begins with the first record.

    Args:
        file: the number of its descriptor; 2 is standard error.
        capacity: how many records may wait; what does not fit is lost, and the log says so as soon
            as it can.
    """

    def __init__(self, file: int, capacity: int = CAPACITY) -> None:
        super().__init__()
        self._file = file
        self._capacity = capacity
        self._lines: Queue[str | None] = Queue()
        self._thread: threading.Thread | None = None
        self._counting = threading.Lock()
        self._lost = 0  # since the log said so; under that lock

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread: leave the record to the thread."""
        try:
            line = self.format(record)
            if self._thread is None or not self._thread.is_alive():  # it does not survive a fork
                self._begin()
            self._lines.put_nowait(line)
        except Full:
            self._lose(1)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Any thread: write what waits, unless that takes too long; the program's end calls it."""
        lines, thread = self._lines, self._thread
        self._thread = None
        if thread is not None:
            try:
                lines.put(None, timeout=FLUSH_TIME)
            except Full:
                with suppress(Empty, Full):  # one makes room for the end
                    lines.get_nowait()
                    lines.put_nowait(None)
            thread.join(FLUSH_TIME)
        super().close()

    def _begin(self) -> None:
        self._lines = Queue(self._capacity)
        self._counting = threading.Lock()  # the thread that a fork has ended may have held it
        self._thread = threading.Thread(
            target=self._run, args=(self._lines,), name="wsframe-log", daemon=True
        )
        self._thread.start()

    def _lose(self, count: int) -> None:
        with self._counting:
            self._lost += count

    # Its own thread ---------------------------------------------------------------------------

    def _run(self, lines: Queue[str | None]) -> None:
        while (line := lines.get()) is not None:
            if self._write(line):
                self._tell_what_is_lost()
            else:
                self._lose(1)

    def _tell_what_is_lost(self) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        if not lost:
            return
        note = {
            "name": "wsframe.server",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "%d records of the log are lost, which could not be written",
            "args": (lost,),
        }
        if not self._write(self.format(logging.makeLogRecord(note))):
            self._lose(lost)

    def _write(self, line: str) -> bool:
        # No file object: one would keep what it could not write, and write it later.
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            return False
        return True


def configure(*, access_log: bool, as_json: bool) -> None:
    """The main thread, once: log to standard error, as it is right for a program.

    A program that has configured logging itself keeps what it has, unless JSON is asked for.

    Args:
        access_log: whether the request log is wanted.
        as_json: whether records are JSON.
    """
    if access_log:
        access.log.setLevel(logging.INFO)
    logger = logging.getLogger("wsframe")
    if as_json or not logger.hasHandlers():
        handler = Background(STDERR)
        handler.setFormatter(JSONFormatter() if as_json else TextFormatter())
        logger.addHandler(handler)
        logger.propagate = False
