"""The handler that writes the log to a file descriptor, and where it is installed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.waiting import TIMEOUT
from wsframe.server.logs.stderr import DescriptorHandler, configure
from wsframe.server.reports.loggers import background, log, log_losses

LOST = "%d log records were lost because they could not be written"


class Device:
    """A file descriptor with limited space.

    Attributes:
        file: the descriptor.
        space: the number of bytes that each of the next writes accepts; then there is no limit.
        written: the bytes that were written.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self.space: list[int] = []
        self.written = b""

    def write(self, data: bytes) -> int:
        """Write as much as there is space for."""
        size = self.space.pop(0) if self.space else len(data)
        if not size:
            raise OSError("no space left on device")
        self.written += bytes(data[:size])
        return min(size, len(data))

    @property
    def lines(self) -> list[str]:
        """The lines that were written."""
        assert background.flush(TIMEOUT)
        return self.written.decode().splitlines()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    file = os.open(os.devnull, os.O_WRONLY)
    device = Device(file)
    write = os.write

    def write_to_device(target: int, data: bytes) -> int:
        return device.write(data) if target == file else write(target, data)

    monkeypatch.setattr(os, "write", write_to_device)
    yield device
    os.close(file)


@pytest.fixture
def handler(device: Device) -> Iterator[DescriptorHandler]:
    """A handler of the server's log that writes to the device."""
    handler = DescriptorHandler(device.file)
    logger = logging.getLogger("wsframe.server")
    logger.addHandler(handler)
    yield handler
    assert background.close(TIMEOUT)
    logger.removeHandler(handler)


@pytest.mark.usefixtures("handler")
def test_the_line_after_an_incomplete_one_begins_at_the_margin(device: Device) -> None:
    device.space = [4, 0]
    log.warning("incomplete")
    log.warning("complete")
    assert device.lines == ["inco", "complete", LOST % 1]


@pytest.mark.usefixtures("handler")
def test_a_report_of_lost_lines_that_cannot_be_written_is_repeated(device: Device) -> None:
    device.space = [0, 100, 0]
    log.warning("lost")
    log.warning("first")
    log.warning("second")
    log.warning("third")
    assert device.lines == ["first", "second", LOST % 1, "third"]


@pytest.mark.usefixtures("handler")
def test_the_records_of_a_lost_report_are_reported(device: Device) -> None:
    before = background.lost.total()
    device.space = [0]
    background.put(partial(log_losses, 7), 0)
    log.warning("written")
    assert device.lines == ["written", LOST % 7]
    assert background.lost.total() == before  # they were counted when they were dropped


def test_a_filter_may_reject_records(device: Device, handler: DescriptorHandler) -> None:
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    log.warning("secret")
    log.warning("public")
    assert device.lines == ["public"]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="needs Python 3.12: filters that return records"
)
def test_a_filter_may_replace_records(device: Device, handler: DescriptorHandler) -> None:
    def replace(record: logging.LogRecord) -> Any:
        return logging.makeLogRecord({**record.__dict__, "msg": "replaced"})

    handler.addFilter(replace)
    log.warning("original")
    assert device.lines == ["replaced"]


def test_a_record_that_cannot_be_formatted_is_counted_as_lost(
    device: Device, handler: DescriptorHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise LookupError("no such field")

    before = background.lost.total()
    handler.setFormatter(Failing())
    log.warning("lost")
    assert not device.lines
    assert "LookupError: no such field" in capfd.readouterr().err
    assert background.lost.total() == before + 1


def test_a_second_configuration_replaces_only_the_handler_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = logging.getLogger("wsframe")
    own = logging.NullHandler()
    monkeypatch.setattr(logger, "handlers", [own])
    monkeypatch.setattr(logger, "propagate", True)
    configure(as_json=True)
    (first,) = set(logger.handlers) - {own}
    assert not logger.propagate
    configure()
    assert logger.handlers == [own]
    assert logger.propagate
    assert isinstance(first, DescriptorHandler)
