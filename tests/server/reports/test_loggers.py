"""The server's loggers: handlers and filters of applications run in one thread alone."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import wsframe.server
from tests.server.reports.calls import ACCESS, SERVER, echoes, handled_by
from tests.support.clients import Clients, masked
from tests.support.handlers import BOTH_KINDS, generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT
from wsframe import Opcode
from wsframe.server import App, EventStream, Server
from wsframe.server.reports.background import THREAD_NAME
from wsframe.server.reports.loggers import background
from wsframe.server.reports.loggers import log as server_log
from wsframe.server.timing import Timing


def violate_the_protocol(clients: Clients, server: Server) -> None:
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, b"\xff"))
    assert client.expect_close().code == 1007


@BOTH_KINDS
def test_handlers_filters_and_factories_run_only_in_the_background_thread(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, echo: Callable[..., Any]
) -> None:
    ran_in: dict[str, set[str]] = {"handler": set(), "filter": set(), "factory": set()}
    records = []

    def note(what: str) -> None:
        ran_in[what].add(threading.current_thread().name)

    def handle(record: logging.LogRecord) -> None:
        note("handler")
        records.append(record)

    def permit(record: logging.LogRecord) -> bool:
        note("filter")
        return True

    def make(*arguments: Any, **options: Any) -> logging.LogRecord:
        note("factory")
        record = logging.LogRecord(*arguments, **options)
        record.__dict__["trace_id"] = 42
        return record

    server = serve(websocket_app(echo))
    logging.setLogRecordFactory(make)
    SERVER.addFilter(permit)
    try:
        with handled_by(handle, SERVER, ACCESS):
            violate_the_protocol(clients, server)
            server.stop()
    finally:
        SERVER.removeFilter(permit)
        logging.setLogRecordFactory(logging.LogRecord)
    assert ran_in == {what: {THREAD_NAME} for what in ran_in}
    # The records name the thread and the module that have logged them.
    assert {record.name for record in records} == {"wsframe.server", "wsframe.access"}
    for record in records:
        assert record.threadName == "wsframe-loop"
        assert Path(record.pathname).is_relative_to(Path(wsframe.server.__file__).parent)
        assert record.__dict__["trace_id"] == 42


def test_a_log_handler_may_publish_to_a_topic(serve: Serve, clients: Clients) -> None:
    app = App()

    app.websocket("/echo")(generator_echo)

    @app.sse("/log")
    def tail(stream: EventStream) -> None:
        stream.subscribe("log")

    def publish(record: logging.LogRecord) -> None:
        app.topic("log").publish(record.getMessage())

    server = serve(app)
    reader = clients.stream(server, "/log")
    reader.read_opening()
    other = logging.Logger("of the application")

    def log_much() -> None:
        for _ in range(200):
            other.warning("%s", "x" * 8000)  # enough that publishing waits for the loop

    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(reader.expect(500)))
    application = threading.Thread(target=log_much)
    with handled_by(publish, SERVER, ACCESS, other):
        reading.start()
        application.start()
        for _ in range(100):
            violate_the_protocol(clients, server)
            echoes(clients, server)
        application.join(TIMEOUT)
        assert not application.is_alive()
        reading.join(TIMEOUT)
    assert sum("protocol error" in event for event in seen) == 100
    assert sum('"GET /echo" 101' in event for event in seen) == 200


def test_a_blocked_log_handler_costs_only_log_records(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    begun, unblocked = threading.Event(), threading.Event()

    def block(record: logging.LogRecord) -> None:
        begun.set()
        assert unblocked.wait(3 * TIMEOUT)

    server = serve(websocket_app(lambda ws: ws.receive(), timing=Timing(log_flush_timeout=0.01)))
    with handled_by(block, SERVER, ACCESS), ExitStack() as stack:
        stack.callback(unblocked.set)
        for _ in range(20):
            violate_the_protocol(clients, server)
        assert begun.wait(TIMEOUT)
        stop_within(server, TIMEOUT)


def test_a_log_handler_may_stop_the_server(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(lambda ws: ws.receive()))
    stopped = threading.Event()

    def stop(record: logging.LogRecord) -> None:
        server.stop(0)
        stopped.set()

    with handled_by(stop, SERVER):
        clients.websocket(server, "/echo").send(masked(Opcode.TEXT, b"\xff"))
        assert stopped.wait(TIMEOUT)


def test_logging_does_not_wait_for_the_lock_of_the_logging_module() -> None:
    # dictConfig() builds handlers under this lock, which Logger.isEnabledFor() takes.
    logs = threading.Thread(target=server_log.info, args=("not held up",))

    class Slow(logging.Logger):
        """A logger whose constructor, which runs under the lock, waits for another thread."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            logs.start()
            logs.join(TIMEOUT)

    loggers = logging.Manager(logging.RootLogger(logging.WARNING))
    loggers.setLoggerClass(Slow)
    SERVER.setLevel(logging.INFO)  # clears the cache of enabled levels
    try:
        loggers.getLogger("slow")
        assert not logs.is_alive()
    finally:
        SERVER.setLevel(logging.NOTSET)


def test_all_modules_of_the_server_use_these_loggers() -> None:
    package = Path(wsframe.server.__file__).parent
    others = [
        path.name
        for path in package.rglob("*.py")
        if "getLogger(" in path.read_text(encoding="utf-8")
        and path.parent.name not in ("logs", "reports")
    ]
    assert not others


def test_a_log_handler_may_log_without_endless_recursion() -> None:
    records = []

    def log_too(record: logging.LogRecord) -> None:
        records.append(record.getMessage())
        server_log.warning("handled: %s", record.getMessage())

    before = background.lost.total()
    with handled_by(log_too, SERVER):
        server_log.warning("first")
        server_log.warning("second")
        assert background.flush(TIMEOUT)  # which waits for the records of the handler, too
    assert sorted(records) == ["first", "handled: first", "handled: second", "second"]
    assert background.lost.total() == before + 2


@pytest.mark.parametrize("error", [OSError("no space left on device"), SystemExit(1)])
@pytest.mark.parametrize("wanted", [True, False])
def test_an_exception_in_a_log_handler_costs_only_the_record(
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    error: BaseException,
    *,
    wanted: bool,
) -> None:
    def fail(record: logging.LogRecord) -> None:
        raise error

    monkeypatch.setattr(logging, "raiseExceptions", wanted)
    before = background.lost.total()
    with handled_by(fail, SERVER):
        for _ in range(3):
            server_log.warning("lost")
    server_log.warning("kept")
    log.expect("kept", logging.WARNING)
    assert background.lost.total() == before + 3
    assert (str(error) in capfd.readouterr().err) == wanted


def test_a_log_handler_may_fail_while_standard_error_fails(
    log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(record: logging.LogRecord) -> None:
        raise OSError("no space left on device")

    class Broken:
        def write(self, text: str) -> None:
            raise OSError("nor here")

    with handled_by(fail, SERVER), monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Broken())
        server_log.warning("lost")
        assert background.flush(TIMEOUT)
    server_log.warning("kept")
    log.expect("kept", logging.WARNING)
