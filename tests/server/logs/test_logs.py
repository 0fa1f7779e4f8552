"""The default output of the log: a file descriptor, text or JSON, without blocking a thread."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Client, Clients, WebSocketClient, get
from tests.support.processes import ServerProcess, run
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App
from wsframe.server.logs.stderr import DescriptorHandler, JSONFormatter, TextFormatter
from wsframe.server.reports import loggers
from wsframe.server.reports.background import Background
from wsframe.server.reports.loggers import BackgroundLogger

FULL = Path("/dev/full")
LOST = re.compile(r"(\d+) log records were lost")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
CAPACITY = 16


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    """A small queue instead of the queue of the process."""
    background = Background(loggers.log_losses, CAPACITY)
    for module in ("reports.loggers", "logs.stderr", "service"):
        monkeypatch.setattr(f"wsframe.server.{module}.background", background)
    yield background
    assert background.close(TIMEOUT)


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> BackgroundLogger:
    """A logger for this test instead of the logger of the server."""
    logger = BackgroundLogger(logging.Logger("wsframe.server"))
    monkeypatch.setattr(loggers, "log", logger)
    return logger


def fill(pipe: int) -> None:
    """Fill a pipe, so that a thread that writes to it blocks."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"-" * 4095 + b"\n")
    os.set_blocking(pipe, True)


class Pipe:
    """A pipe, and a handler that writes to it."""

    def __init__(self, background: Background) -> None:
        self.reading, self.writing = os.pipe()
        self.handler = DescriptorHandler(self.writing)
        self.handler.setFormatter(TextFormatter())
        self._background = background

    def close(self) -> list[str]:
        """Close the pipe, and return the lines written to it."""
        texts: list[bytes] = []

        def read() -> None:
            while data := os.read(self.reading, 1 << 16):
                texts.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        assert self._background.close(TIMEOUT)
        os.close(self.writing)
        reader.join()
        os.close(self.reading)
        lines = b"".join(texts).decode().splitlines()
        return [line for line in lines if not line.startswith("--")]


@pytest.fixture
def pipe(background: Background, logger: BackgroundLogger) -> Pipe:
    """A pipe to which the logger writes."""
    pipe = Pipe(background)
    logger.target.addHandler(pipe.handler)
    return pipe


def without_time(lines: list[str]) -> list[str]:
    assert all(re.match(TIME, line) for line in lines), lines
    return [line.split(" ", 1)[1] for line in lines]


def test_records_are_written_in_order(
    pipe: Pipe, background: Background, logger: BackgroundLogger
) -> None:
    for number in range(500):
        logger.warning("record %d", number)
        assert background.flush(TIMEOUT)
    lines = without_time(pipe.close())
    assert lines == [f"WARNING record {number}" for number in range(500)]


def test_logging_does_not_wait_for_the_reader_and_lost_records_are_counted(
    pipe: Pipe, background: Background, logger: BackgroundLogger
) -> None:
    fill(pipe.writing)
    for number in range(1000):
        logger.warning("record %d", number)
    lost = background.lost.total()
    assert lost >= 1000 - CAPACITY
    *written, told = without_time(pipe.close())
    assert written == [f"WARNING record {number}" for number in range(1000 - lost)]
    assert told == f"WARNING {lost} log records were lost because log handlers are too slow"


def test_long_records_are_cut_and_bounded_in_bytes(
    pipe: Pipe, background: Background, logger: BackgroundLogger
) -> None:
    logger.warning("%s", "x" * (1 << 20))
    assert background.flush(TIMEOUT)
    fill(pipe.writing)
    for _ in range(CAPACITY):
        logger.warning("%s", "x" * 4000)
    assert background.lost.total() >= CAPACITY * 3 / 4
    first, *_ = without_time(pipe.close())
    assert re.fullmatch(r"WARNING x{4096}\.\.\.\(\+1044480 characters\)", first)


@pytest.mark.skipif(not FULL.exists(), reason="no file that is always full")
@pytest.mark.parametrize("broken", ["full disk", "broken pipe", "closed"])
def test_lost_records_are_reported_when_writing_is_possible_again(
    tmp_path: Path, background: Background, logger: BackgroundLogger, broken: str
) -> None:
    reading, target = os.pipe()
    os.close(reading)
    if broken == "full disk":
        full = os.open(FULL, os.O_WRONLY)
        os.dup2(full, target)
        os.close(full)
    elif broken == "closed":
        os.close(target)
    handler = DescriptorHandler(target)
    handler.setFormatter(JSONFormatter())
    logger.target.addHandler(handler)
    for _ in range(3):
        logger.warning("lost")
    assert background.flush(TIMEOUT)
    assert background.lost.total() == 3
    room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(room, target)
    logger.warning("written")
    assert background.flush(TIMEOUT)
    os.close(room)
    os.close(target)
    written = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert [line["message"] for line in written] == [
        "written",
        "3 log records were lost because they could not be written",
    ]


def test_a_non_blocking_descriptor_loses_no_records(
    pipe: Pipe, background: Background, logger: BackgroundLogger
) -> None:
    fill(pipe.writing)
    os.set_blocking(pipe.writing, False)
    logger.warning("written")
    assert not background.flush(0.05)
    assert without_time(pipe.close()) == ["WARNING written"]


def test_records_of_other_loggers_are_written_in_the_background_too(
    pipe: Pipe, background: Background
) -> None:
    other = logging.Logger("another")
    other.addHandler(pipe.handler)
    arguments = ["before"]
    fill(pipe.writing)
    other.warning("%s\x1b", arguments)  # returns while the pipe is not read
    arguments[0] = "after"
    assert without_time(pipe.close()) == [r"WARNING ['before']\x1b"]


def test_a_server_with_an_unread_log_serves_and_counts_lost_records(
    serve: Serve, clients: Clients, pipe: Pipe
) -> None:
    app = App()
    app.page("/", "page")
    app.metrics()
    server = serve(app)
    fill(pipe.writing)
    access = logging.getLogger("wsframe.access")
    access.addHandler(pipe.handler)
    access.setLevel(logging.INFO)
    try:
        for _ in range(2 * CAPACITY):
            client = clients.connect(server)
            client.send(get("/"))
            assert client.answer().status == 200
        wait_until(lambda: app.stats().lost_log_records, "some records are lost")
        client = clients.connect(server)
        client.send(get("/metrics"))
        assert re.search(rb"\nwsframe_lost_log_records_total [1-9]", client.answer().body)
    finally:
        access.setLevel(logging.NOTSET)
        access.removeHandler(pipe.handler)
        lines = pipe.close()
    assert any(LOST.search(line) for line in lines)


# The lines ----------------------------------------------------------------------------------------

HOSTILE = "a\n2000-01-01T00:00:00.000Z ERROR forged\r\x1b[2J\x9b2K\x00\x85\u2028\u202e\ud800é"
ESCAPED = r"a\n2000-01-01T00:00:00.000Z ERROR forged\r\x1b[2J\x9b2K\x00\x85\u2028\u202e\ud800é"


def failed(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def record_of(message: str, *arguments: object, error: BaseException | None = None) -> Any:
    """A record of another logger, which has not been rendered."""
    exc_info = None if error is None else failed(error)
    return logging.LogRecord("x", logging.ERROR, "", 1, message, arguments, exc_info)


def test_a_message_is_one_line_of_text() -> None:
    line = TextFormatter().format(record_of("%s", HOSTILE))
    assert re.fullmatch(rf"{TIME} ERROR {re.escape(ESCAPED)}", line)


def test_no_line_of_a_traceback_looks_like_a_record() -> None:
    error = ValueError(HOSTILE)
    error.__cause__ = LookupError(HOSTILE)
    error.add_note(HOSTILE)
    first, *others = TextFormatter().format(record_of("failed", error=error)).split("\n")
    assert re.fullmatch(rf"{TIME} ERROR failed", first)
    assert all(line.startswith("  ") and line.isprintable() for line in others)
    end = "ERROR forged" + ESCAPED.partition("forged")[2]
    assert sum(line.endswith(end) for line in others) == 3


def test_a_json_record_is_always_one_line() -> None:
    line = JSONFormatter().format(record_of("%s", HOSTILE, error=LookupError("two\nlines\x1b")))
    assert line.isascii()
    assert line.isprintable()
    fields = json.loads(line)
    assert re.fullmatch(TIME, fields.pop("time"))
    trace = fields.pop("traceback")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("LookupError: two\nlines\\x1b")
    assert fields == {"level": "ERROR", "logger": "x", "message": ESCAPED}


def test_a_json_record_contains_the_stack() -> None:
    record = record_of("slow")
    record.stack_info = "Stack (most recent call last):\n  held.wait()"
    line = JSONFormatter().format(record)
    assert line.isprintable()
    assert json.loads(line)["stack"] == record.stack_info


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_a_record_is_not_changed_for_other_handlers(
    formatter: logging.Formatter,
) -> None:
    record = record_of("%s\n", HOSTILE, error=LookupError(HOSTILE))
    before = dict(record.__dict__)
    formatter.format(record)
    assert record.__dict__ == before


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
@pytest.mark.parametrize("text", ["x", "\x00", "\U000e0001", "\n", "é", "\u2028"])
def test_long_texts_are_stored_in_few_bytes(formatter: logging.Formatter, text: str) -> None:
    error = ValueError(text * (1 << 20))
    line = formatter.format(record_of("%s", text * (1 << 20), error=error))
    assert len(line) < 150_000


# Programs -----------------------------------------------------------------------------------------

PROGRAM = """
import logging, sys
from wsframe.server import App

app = App()

@app.websocket("/fail")
def fail(ws):
    raise ValueError("x" * 16_000)
    yield

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

app.metrics()
if "own" in sys.argv:
    logging.basicConfig(level=logging.DEBUG)
app.run("127.0.0.1", 0, workers=2 if "workers" in sys.argv else 0)
print("run returned", flush=True)
"""
WITHOUT_STDERR = """
import os, sys

os.close(2)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# More records than a full pipe and the queue of records can hold.
FAILURES = 700


def fail(process: ServerProcess, count: int) -> None:
    for _ in range(count):
        client = WebSocketClient(process.port, "/fail")
        assert client.expect_close().code == 1011


def serves(process: ServerProcess) -> None:
    client = WebSocketClient(process.port, "/echo")
    client.send_messages("still here")
    assert client.next_event() == "still here"
    client.leave()


def lost_records(process: ServerProcess) -> int:
    client = Client(process.port)
    client.send(get("/metrics"))
    found = re.search(rb"\nwsframe_lost_log_records_total (\d+)\n", client.answer().body)
    assert found is not None
    return int(found[1])


def stops(process: ServerProcess) -> None:
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert code == 0, output
    assert "run returned" in output


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program that configures logging only with the argument "own"."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return str(path)


@contextmanager
def unread_pipe() -> Iterator[tuple[int, int]]:
    """Return the read end and the write end of a full pipe."""
    reading, writing = os.pipe()
    try:
        fill(writing)
        yield reading, writing
    finally:
        os.close(writing)
        os.close(reading)


@pytest.mark.slow
@pytest.mark.skipif(
    not (hasattr(os, "fork") and hasattr(socket, "SO_REUSEPORT")), reason="no workers here"
)
@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(["own"], marks=pytest.mark.unmeasured),
        pytest.param(["workers"], marks=pytest.mark.unmeasured),
        pytest.param(["own", "workers"], marks=pytest.mark.unmeasured),
    ],
)
def test_a_program_with_an_unread_log_serves_and_stops(program: str, options: list[str]) -> None:
    with (
        unread_pipe() as (_, writing),
        ServerProcess(program, *options, stderr=writing) as process,
    ):
        fail(process, 20)
        serves(process)
        stops(process)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_log_and_metrics_contain_the_number_of_lost_records(program: str) -> None:
    with (
        unread_pipe() as (reading, writing),
        ServerProcess(program, stderr=writing) as process,
    ):
        fail(process, FAILURES)
        client = Client(process.port)
        client.send(get("/metrics"))
        count = re.search(r"\nwsframe_lost_log_records_total (\d+)", client.answer().body.decode())
        assert count is not None
        lost = int(count[1])
        assert lost > 0
        text = b""
        while not LOST.search(text[-(1 << 17) :].decode(errors="replace")):
            text += os.read(reading, 1 << 16)
        lines = text.decode().splitlines()
        assert (
            sum(line.endswith("the handler of /fail failed") for line in lines) + lost == FAILURES
        )
        told = [found for line in lines if (found := LOST.search(line))]
        assert [int(found[1]) for found in told] == [lost]
        stops(process)


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no file that is always full")
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("broken pipe", marks=pytest.mark.unmeasured),
        pytest.param("full disk", marks=pytest.mark.unmeasured),
        "closed",
    ],
)
def test_a_program_without_standard_error_serves_and_stops(program: str, broken: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if broken == "full disk":
        os.close(writing)
        writing = os.open(FULL, os.O_WRONLY)
    command = [program]
    if broken == "closed":
        command = ["-c", WITHOUT_STDERR, program]
    try:
        with ServerProcess(*command, stderr=writing) as process:
            fail(process, 100)
            serves(process)
            wait_until(lambda: lost_records(process) == 100, "100 records are counted as lost")
            stops(process)
    finally:
        os.close(writing)


FORK = """
import os
from wsframe.server.logs.stderr import configure
from wsframe.server.reports.loggers import log

configure(access_log=True, as_json=False)
log.warning("before")
child = os.fork()
log.warning("child" if child == 0 else "parent")
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_can_log() -> None:
    # This test forks beside a thread on purpose: the thread of the log.
    result = run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK])
    assert result.returncode == 0, result.stderr
    words = [line.split()[-1] for line in result.stderr.splitlines()]
    assert sorted(words) == ["before", "child", "parent"]
