"""The attributes of log records."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.reports.calls import SERVER, Failure, echoes, fail, handled_by
from tests.support.clients import Clients, masked, upgrade
from tests.support.handlers import Checkpoint, generator_echo, plain_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close, ConnectionClosed, Opcode
from wsframe.server import App, WebSocket
from wsframe.server.reports.loggers import MAX_EXCEPTIONS, background
from wsframe.server.reports.loggers import log as server_log
from wsframe.server.reports.throttled import ThrottledLog


def test_arguments_are_rendered_before_the_record_is_queued(log: ServerLog) -> None:
    names = ["before"]
    server_log.warning("names: %s", names)
    names[0] = "after"
    record = log.expect("names: ['before']", logging.WARNING)
    assert not record.args


def test_untrusted_text_cannot_forge_a_record(log: ServerLog) -> None:
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


def test_a_record_whose_argument_cannot_be_rendered_is_logged(log: ServerLog) -> None:
    class Fails:
        def __str__(self) -> str:
            raise LookupError("nothing there")

    server_log.warning("it is %s", Fails())
    log.expect("it is %s (rendering it raised LookupError)", logging.WARNING)
    server_log.warning(Fails())
    log.expect("Fails (rendering it raised LookupError)", logging.WARNING)
    ThrottledLog().log(logging.WARNING, "it is %s", Fails())
    log.expect("it is %s (rendering it raised LookupError)", logging.WARNING)


def test_an_exception_that_cannot_be_rendered_is_logged(log: ServerLog) -> None:
    class TextlessError(Exception):
        __cause__ = 1  # type: ignore[assignment]

        def __str__(self) -> str:
            raise LookupError("nothing there")

    try:
        raise TextlessError
    except TextlessError:
        server_log.exception("failed")
    assert "TextlessError" in str(log.expect("failed").exc_text)


def test_a_traceback_is_requested_without_an_exception(log: ServerLog) -> None:
    server_log.exception("failed")
    assert log.expect("failed").exc_text == "  no exception"


def test_exceptions_of_waiting_records_take_bounded_memory(log: ServerLog) -> None:
    begun, go_on = threading.Event(), threading.Event()
    count = 4 * MAX_EXCEPTIONS
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
        assert sum(error() is not None for error in errors) <= MAX_EXCEPTIONS + 2
        go_on.set()
    # All records have the text. Only the first ones have the exception itself.
    assert all("it failed" in str(record.exc_text) for record in seen)
    assert seen[0].exc_info is not None
    assert seen[-1].exc_info is None
    del log.records[:count]


def test_an_idle_log_keeps_nothing_alive(log: ServerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVER, "propagate", False)  # because pytest keeps all records
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
    """An exception whose text blocks until the test releases it."""

    held: Checkpoint

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
def test_rendering_an_exception_may_block_like_its_handler(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
    handler: Callable[..., Any],
    authorize: Callable[..., Any] | None,
) -> None:
    held = Checkpoint()
    monkeypatch.setattr(SlowTextError, "held", held, raising=False)
    app = websocket_app(generator_echo)
    app.websocket("/fails", authorize=authorize)(handler)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/fails") + masked(Opcode.TEXT, "x"))
    held.wait_until_reached()
    try:
        echoes(clients, server)  # no other connection waits for it
    finally:
        held.release()
    assert "at last" in str(log.expect("of /fails failed").exc_text)


class UnreadableError(Exception):
    """An exception whose attributes cannot be read."""

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


class UnreadableEnd(ConnectionClosed):
    """The same for an error that the owner logs."""

    def __getattribute__(self, name: str) -> Any:
        raise LookupError(name)


def raise_unreadable_end(_: object) -> None:
    """Raise it."""
    raise UnreadableEnd(1000, "")


def raise_unreadable_end_in_turn(_: object) -> Any:
    """Raise it on the loop."""
    yield
    raise UnreadableEnd(1000, "")


@pytest.mark.parametrize("handler", [raise_unreadable_end, raise_unreadable_end_in_turn])
def test_an_unreadable_error_of_another_connection_ends_its_handler(
    serve: Serve, clients: Clients, log: ServerLog, handler: Callable[..., Any]
) -> None:
    client = clients.websocket(serve(websocket_app(handler, "/socket")), "/socket")
    client.send_messages("go")
    assert client.expect_close() == Close(1011, "the handler failed")
    assert "UnreadableEnd" in str(log.expect("the handler of /socket failed").exc_text)


def test_the_truth_value_of_an_identity_may_block(serve: Serve, clients: Clients) -> None:
    held = Checkpoint()

    class Identity:
        def __bool__(self) -> bool:
            held.wait()
            return False

    app = websocket_app(generator_echo)
    app.websocket("/judged", authorize=lambda request: Identity())(plain_echo)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade("/judged"))
    held.wait_until_reached()
    try:
        echoes(clients, server)
    finally:
        held.release()
    assert client.answer().status == 403
