"""The log of the command line: written on a thread of its own, as text or JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from wsframe.server import App
from wsframe.server.reports import logs
from wsframe.server.reports.logs import Background, JSONFormatter, TextFormatter

from .clients import TIMEOUT, get
from .conftest import Clients, Serve, wait_until
from .processes import run

FULL = Path("/dev/full")
LOST = re.compile(r"(\d+) records of the log are lost")


class Pipe:
    """A pipe, and a logger that writes to it in the background."""

    def __init__(self, capacity: int) -> None:
        self.reading, self.writing = os.pipe()
        self.handler = Background(self.writing, capacity)
        self.handler.setFormatter(TextFormatter())
        self.logger = logging.Logger("wsframe.server")
        self.logger.addHandler(self.handler)
        self.thread: threading.Thread | None = None

    def close_handler(self) -> None:
        """End the log."""
        self.thread = self.thread or self.handler._thread
        self.handler.close()

    def close(self) -> list[str]:
        """End, and return the lines that have come."""
        texts: list[bytes] = []

        def read() -> None:
            while data := os.read(self.reading, 1 << 16):
                texts.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        self.close_handler()
        assert self.thread is not None
        self.thread.join(TIMEOUT)
        os.close(self.writing)
        reader.join()
        os.close(self.reading)
        return b"".join(texts).decode().splitlines()


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written, however slow the machine is."""
    monkeypatch.setattr(logs, "FLUSH_TIME", TIMEOUT)


@pytest.fixture
def pipe() -> Pipe:
    """A pipe that holds less than is written, behind few records that may wait."""
    return Pipe(capacity=4)


def fill(pipe: Pipe) -> None:
    """Fill the pipe, and have the log's thread stand before it."""
    os.set_blocking(pipe.writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe.writing, b"-" * 4095 + b"\n")
    os.set_blocking(pipe.writing, True)
    pipe.logger.warning("first")
    wait_until(pipe.handler._lines.empty, "the thread has taken the first record")


def test_records_are_written_in_order() -> None:
    pipe = Pipe(capacity=1000)
    for number in range(500):
        pipe.logger.warning("record %d", number)
    lines = pipe.close()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for number, line in enumerate(lines):
        assert re.fullmatch(rf"{time} WARNING record {number}", line)
    assert len(lines) == 500


def test_who_logs_does_not_wait_and_what_is_lost_is_counted(pipe: Pipe) -> None:
    fill(pipe)
    for number in range(1000):
        pipe.logger.warning("record %d", number)
    lines = [line for line in pipe.close() if not line.startswith("-")]
    said = [line.split(" WARNING ")[1] for line in lines]
    lost = "996 records of the log are lost, which could not be written"
    assert said == ["first", lost, "record 0", "record 1", "record 2", "record 3"]


@pytest.mark.skipif(not FULL.exists(), reason="no file that is always full")
def test_what_a_full_disk_has_lost_is_told_when_there_is_room(tmp_path: Path) -> None:
    target = os.open(FULL, os.O_WRONLY)
    handler = Background(target)
    handler.setFormatter(JSONFormatter())
    logger = logging.Logger("wsframe.server")
    logger.addHandler(handler)
    for _ in range(3):
        logger.warning("lost")
    wait_until(lambda: handler._lost == 3, "the disk has taken one of them")
    room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(room, target)
    logger.warning("written")
    handler.close()
    os.close(room)
    os.close(target)
    written = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert [line["message"] for line in written] == [
        "written",
        "3 records of the log are lost, which could not be written",
    ]


def test_the_end_does_not_wait_for_a_reader_for_ever(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FLUSH_TIME", 0.05)
    fill(pipe)
    for number in range(100):
        pipe.logger.warning("record %d", number)
    pipe.close_handler()
    assert pipe.thread is not None
    assert pipe.thread.is_alive()  # it was not waited for
    pipe.close()


def test_a_server_whose_log_nobody_reads_serves(serve: Serve, clients: Clients, pipe: Pipe) -> None:
    app = App()
    app.page("/", "page")
    server = serve(app)
    fill(pipe)
    access = logging.getLogger("wsframe.access")
    access.addHandler(pipe.handler)
    access.setLevel(logging.INFO)
    try:
        for _ in range(20):
            client = clients.connect(server)
            client.send(get("/"))
            assert client.answer().status == 200
        server.stop()
    finally:
        access.setLevel(logging.NOTSET)
        access.removeHandler(pipe.handler)
        lines = pipe.close()
    assert any(LOST.search(line) for line in lines)


def test_json_is_one_line_whatever_is_in_it() -> None:
    try:
        raise LookupError("two\nlines")
    except LookupError:
        record = logging.Logger("x").makeRecord(
            "wsframe.server", logging.ERROR, "", 1, "%s\n\x1b\u2028", ("é",), sys.exc_info()
        )
    line = JSONFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("time"))
    assert said.pop("traceback").endswith("LookupError: two\nlines")
    assert said == {"level": "ERROR", "logger": "wsframe.server", "message": "é\n\x1b\u2028"}


FORK = """
import logging, os, sys
from wsframe.server.reports.logs import configure

configure(access_log=True, as_json=False)
log = logging.getLogger("wsframe.server")
log.warning("before")
child = os.fork()
log.warning("child" if child == 0 else "parent")
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_was_forked_logs() -> None:
    # The one thread beside the main one, that of the log, is what the test is about.
    result = run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK])
    assert result.returncode == 0, result.stderr
    words = [line.split()[-1] for line in result.stderr.splitlines()]
    assert sorted(words) == ["before", "child", "parent"]
