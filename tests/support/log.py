"""The server's log, as a test sees it."""

from __future__ import annotations

import logging
import threading

from wsframe.server.reports.loggers import background

from .waiting import TIMEOUT


class ServerLog(logging.Handler):
    """A log handler whose records a test waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        self._arrived = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        with self._arrived:
            self._records.append(record)
            self._arrived.notify_all()

    @property
    def records(self) -> list[logging.LogRecord]:
        """All records logged so far, without the records that :meth:`expect` has removed."""
        assert background.flush(TIMEOUT)
        return self._records

    def discard(self) -> None:
        """Remove all records, and the summaries that are scheduled."""
        assert background.close(TIMEOUT)
        self._records.clear()

    def expect(self, text: str, level: int = logging.ERROR) -> logging.LogRecord:
        """Wait for a record with this text, and remove it, so that it does not fail the test."""

        def find() -> logging.LogRecord | None:
            fits = (r for r in self._records if r.levelno == level and text in r.getMessage())
            return next(fits, None)

        with self._arrived:
            record = self._arrived.wait_for(find, TIMEOUT)
            assert record is not None, f"{text!r} was not logged"
            self._records.remove(record)
            return record
