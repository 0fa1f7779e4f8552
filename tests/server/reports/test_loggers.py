"""The server's loggers: handlers, filters and factories of applications run in one thread alone."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import wsframe.server
from tests.server.conftest import Clients, Serve, ServerLog, stop_within
from tests.support.clients import TIMEOUT, masked, upgrade
from tests.support.handlers import BOTH_KINDS, Held, generator_echo, plain_echo, websocket_app
from wsframe import Close, Opcode
from wsframe.server import App, EventStream, Server, WebSocket
from wsframe.server.reports.background import THREAD_NAME
from wsframe.server.reports.loggers import EXCEPTIONS, background
from wsframe.server.reports.loggers import log as server_log
from wsframe.server.reports.throttled import ThrottledLog
from wsframe.server.timing import Timing

SERVER, ACCESS = logging.getLogger("wsframe.server"), logging.getLogger("wsframe.access")


class Calls(logging.Handler):
    """A handler that calls a function with each record."""

    def __init__(self, function: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.emit = function  # type: ignore[method-assign, assignment]


@contextmanager
def handled_by(
    function: Callable[[logging.LogRecord], object], *loggers: logging.Logger
) -> Iterator[None]:
    """Have a function called with the records of these loggers, INFO and above."""
    handler = Calls(function)
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
        assert background.flush(TIMEOUT)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def breaks_a_rule(clients: Clients, server: Server) -> None:
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, b"\xff"))
    assert client.closed_by_server().code == 1007


def echoes(clients: Clients, server: Server) -> None:
    client = clients.websocket(server, "/echo")
    client.say("still here")
    assert client.next_event() == "still here"
    assert client.leave() == Close(1000, "")


# Where handlers run -------------------------------------------------------------------------------


@BOTH_KINDS
def test_handlers_filters_and_factories_run_in_one_thread_alone(
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
            breaks_a_rule(clients, server)
            server.stop()
    finally:
        SERVER.removeFilter(permit)
        logging.setLogRecordFactory(logging.LogRecord)
    assert ran_in == {what: {THREAD_NAME} for what in ran_in}
    # Yet they say who has logged, and where.
    assert {record.name for record in records} == {"wsframe.server", "wsframe.access"}
    for record in records:
        assert record.threadName == "wsframe-loop"
        assert Path(record.pathname).is_relative_to(Path(wsframe.server.__file__).parent)
        assert record.__dict__["trace_id"] == 42


def test_a_handler_that_publishes_to_a_topic_stops_nothing(serve: Serve, clients: Clients) -> None:
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
            other.warning("%s", "x" * 8000)  # so much that publishing waits for the loop

    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(reader.hear(500)))
    application = threading.Thread(target=log_much)
    with handled_by(publish, SERVER, ACCESS, other):
        reading.start()
        application.start()
        for _ in range(100):
            breaks_a_rule(clients, server)
            echoes(clients, server)
        application.join(TIMEOUT)
        assert not application.is_alive()
        reading.join(TIMEOUT)
    assert sum("broke a rule" in event for event in seen) == 100
    assert sum('"GET /echo" 101' in event for event in seen) == 200


def test_a_handler_that_does_not_come_back_costs_lines_alone(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def block(record: logging.LogRecord) -> None:
        begun.set()
        assert go_on.wait(3 * TIMEOUT)

    server = serve(websocket_app(lambda ws: ws.receive(), timing=Timing(log_flush_timeout=0.01)))
    with handled_by(block, SERVER, ACCESS), ExitStack() as stack:
        stack.callback(go_on.set)
        for _ in range(20):
            breaks_a_rule(clients, server)
        assert begun.wait(TIMEOUT)
        stop_within(server, TIMEOUT)


def test_a_handler_that_stops_the_server_does_not_wait_for_itself(
    serve: Serve, clients: Clients
) -> None:
    server = serve(websocket_app(lambda ws: ws.receive()))
    stopped = threading.Event()

    def stop(record: logging.LogRecord) -> None:
        server.stop(0)
        stopped.set()

    with handled_by(stop, SERVER):
        clients.websocket(server, "/echo").send(masked(Opcode.TEXT, b"\xff"))
        assert stopped.wait(TIMEOUT)


def test_who_configures_logging_holds_up_nobody_who_logs() -> None:
    # dictConfig() builds handlers under this lock, which Logger.isEnabledFor() asks for.
    logging._lock.acquire()  # type: ignore[attr-defined]
    try:
        SERVER.setLevel(logging.INFO)  # forgets what is enabled
        logs = threading.Thread(target=server_log.info, args=("not held up",))
        logs.start()
        logs.join(TIMEOUT)
        assert not logs.is_alive()
    finally:
        logging._lock.release()  # type: ignore[attr-defined]
        SERVER.setLevel(logging.NOTSET)


def test_all_of_the_server_logs_by_these_loggers() -> None:
    package = Path(wsframe.server.__file__).parent
    others = [
        path.name
        for path in package.rglob("*.py")
        if "getLogger(" in path.read_text(encoding="utf-8")
        and path.parent.name not in ("logs", "reports")
    ]
    assert not others


def test_a_handler_may_log_but_not_without_end() -> None:
    records = []

    def log_too(record: logging.LogRecord) -> None:
        records.append(record.getMessage())
        server_log.warning("handled: %s", record.getMessage())

    before = background.lost.total()
    with handled_by(log_too, SERVER):
        server_log.warning("first")
        server_log.warning("second")
        assert background.flush(TIMEOUT)  # behind which the handler's own records are
    assert sorted(records) == ["first", "handled: first", "handled: second", "second"]
    assert background.lost.total() == before + 2


# What a handler raises ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no space left on device"), SystemExit(1)])
@pytest.mark.parametrize("wanted", [True, False])
def test_what_a_handler_raises_ends_with_the_record(
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


def test_standard_error_may_be_as_broken_as_the_handler(
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


# What a record has --------------------------------------------------------------------------------


def test_arguments_are_text_when_the_record_leaves(log: ServerLog) -> None:
    names = ["before"]
    server_log.warning("names: %s", names)
    names[0] = "after"
    record = log.expect("names: ['before']", logging.WARNING)
    assert not record.args


def test_text_of_strangers_forges_nothing_whatever_the_format(log: ServerLog) -> None:
    hostile = "a\nERROR forged\r\x1b[2J\u2028\u202e"
    try:
        raise ValueError(hostile)
    except ValueError as error:
        error.add_note(hostile)
        server_log.exception("failed: %s", hostile)
    formatter = logging.Formatter("%(levelname)s %(message)s")
    first, *others = formatter.format(log.expect("failed")).split("\n")
    assert first == r"ERROR failed: a\nERROR forged\r\x1b[2J\u2028\u202e"
    assert sum("ERROR forged" in line for line in others) == 2
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_an_argument_without_text_costs_no_more_than_its_text(log: ServerLog) -> None:
    class Fails:
        def __str__(self) -> str:
            raise LookupError("nothing there")

    server_log.warning("it is %s", Fails())
    log.expect("it is %s (its text raises LookupError)", logging.WARNING)
    server_log.warning(Fails())
    log.expect("Fails (its text raises LookupError)", logging.WARNING)
    ThrottledLog().log(logging.WARNING, "it is %s", Fails())
    log.expect("it is %s (its text raises LookupError)", logging.WARNING)


def test_an_exception_without_text_is_logged(log: ServerLog) -> None:
    class TextlessError(Exception):
        __cause__ = 1  # type: ignore[assignment]

        def __str__(self) -> str:
            raise LookupError("nothing there")

    try:
        raise TextlessError
    except TextlessError:
        server_log.exception("failed")
    assert "TextlessError" in str(log.expect("failed").exc_text)


class Failure(Exception):  # noqa: N818
    """Raised by tests; unlike built-in exceptions it can be referred to weakly."""


def fail() -> None:
    """Raise it."""
    raise Failure("it failed")


def test_exceptions_in_records_that_wait_take_bounded_memory(log: ServerLog) -> None:
    begun, go_on = threading.Event(), threading.Event()
    count = 4 * EXCEPTIONS
    seen: list[logging.LogRecord] = []
    errors: list[weakref.ref[Failure]] = []

    def block(record: logging.LogRecord) -> None:
        seen.append(record)
        begun.set()
        assert go_on.wait(TIMEOUT)

    with handled_by(block, SERVER):
        for _ in range(count):
            try:
                fail()
            except Failure as error:
                errors.append(weakref.ref(error))
                server_log.exception("failed")
        assert begun.wait(TIMEOUT)
        assert sum(error() is not None for error in errors) <= EXCEPTIONS + 2
        go_on.set()
    # All have the text, and in a log that is not behind handlers have the exception itself, too.
    assert all("it failed" in str(record.exc_text) for record in seen)
    assert seen[0].exc_info is not None
    assert seen[-1].exc_info is None
    del log.records[:count]


def test_an_idle_log_keeps_nothing_alive(log: ServerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVER, "propagate", False)  # pytest keeps all records
    try:
        fail()
    except Failure as error:
        alive = weakref.ref(error)
        server_log.exception("failed")
    log.expect("failed")
    assert background.flush(TIMEOUT)
    gc.collect()
    assert alive() is None


class SlowTextError(Exception):
    """An exception whose text is only known when the test permits it."""

    held: Held

    def __str__(self) -> str:
        self.held.wait()
        return "at last"


def raise_slow_text(*_: object) -> None:
    """Raise it."""
    raise SlowTextError


def raise_slow_text_in_turn(ws: WebSocket) -> Any:
    """Raise it on the loop."""
    yield
    raise SlowTextError


@pytest.mark.parametrize(
    ("handler", "authorize"),
    [(raise_slow_text, None), (raise_slow_text_in_turn, None), (plain_echo, raise_slow_text)],
)
def test_the_text_of_an_exception_may_block_as_its_handler_may(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
    handler: Callable[..., Any],
    authorize: Callable[..., Any] | None,
) -> None:
    held = Held()
    monkeypatch.setattr(SlowTextError, "held", held, raising=False)
    app = websocket_app(generator_echo)
    app.websocket("/fails", authorize=authorize)(handler)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/fails") + masked(Opcode.TEXT, "x"))
    held.wait_for()
    try:
        echoes(clients, server)  # nobody waits for it
    finally:
        held.release()
    assert "at last" in str(log.expect("of /fails failed").exc_text)


class UnreadableError(Exception):
    """An exception of which nothing can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise LookupError(name)


def raise_unreadable(*_: object) -> None:
    """Raise it."""
    raise UnreadableError


def raise_unreadable_in_turn(_: object) -> Any:
    """Raise it, on the loop or in the thread of an event stream."""
    yield from ()
    raise UnreadableError


@pytest.mark.parametrize("handler", [raise_unreadable, raise_unreadable_in_turn])
def test_an_exception_that_cannot_be_read_ends_its_handler(
    serve: Serve, clients: Clients, log: ServerLog, handler: Callable[..., Any]
) -> None:
    app = App()
    app.websocket("/socket")(handler)
    app.sse("/stream")(handler)
    app.websocket("/judged", authorize=raise_unreadable)(generator_echo)
    server = serve(app)
    client = clients.websocket(server, "/socket")
    assert client.next_event() == Close(1011, "the handler failed")
    clients.stream(server, "/stream").expect_end()
    refused = clients.connect(server)
    refused.send(upgrade("/judged"))
    assert refused.answer().status == 500
    for path in ("/socket", "/stream", "/judged"):
        assert "UnreadableError" in str(log.expect(f"of {path} failed").exc_text)


def test_what_authorize_returns_may_block_when_it_is_judged(serve: Serve, clients: Clients) -> None:
    held = Held()

    class Identity:
        def __bool__(self) -> bool:
            held.wait()
            return False

    app = websocket_app(generator_echo)
    app.websocket("/judged", authorize=lambda request: Identity())(plain_echo)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/judged"))
    held.wait_for()
    try:
        echoes(clients, server)
    finally:
        held.release()
    assert client.answer().status == 403


# ThrottledLog ------------------------------------------------------------------------------------


def test_a_flood_of_lines_becomes_two_lines_with_their_number(log: ServerLog) -> None:
    throttled = ThrottledLog(silence=3600)
    for number in range(1000):
        throttled.log(logging.WARNING, "trouble %d", number)
    assert [record.getMessage() for record in log.records] == ["trouble 0"]
    assert background.close(TIMEOUT)
    log.expect("trouble 0", logging.WARNING)
    log.expect("trouble 999 (the last of 999 like it)", logging.WARNING)
    assert not log.records


def test_what_is_left_out_is_told_when_the_silence_is_over(log: ServerLog) -> None:
    throttled = ThrottledLog(silence=0.05)
    for number in range(3):
        throttled.log(logging.WARNING, "trouble %d", number)
    log.expect("trouble 2", logging.WARNING)


def test_throttled_lines_of_many_threads_are_all_counted(log: ServerLog) -> None:
    throttled = ThrottledLog(silence=3600)

    def complain() -> None:
        for _ in range(500):
            throttled.log(logging.WARNING, "trouble")

    threads = [threading.Thread(target=complain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert background.close(TIMEOUT)
    *lines, last = [record.getMessage() for record in log.records]
    assert last == f"trouble (the last of {2000 - len(lines)} like it)"


def test_nobody_complains_below_the_level(log: ServerLog) -> None:
    throttled = ThrottledLog(silence=3600)
    throttled.log(logging.DEBUG, "nothing %s", "wrong", "with the arguments")
    throttled.log(logging.WARNING, "trouble")
    log.expect("trouble", logging.WARNING)
