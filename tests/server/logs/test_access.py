"""The request log: a record for each connection with a request."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, get, head, masked, upgrade
from tests.support.handlers import BOTH_KINDS, generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from wsframe import Opcode
from wsframe.server import App, EventStream, WebSocket
from wsframe.server.handoff.quotas import Shortage
from wsframe.server.handoff.threads import Threads
from wsframe.server.logs import access
from wsframe.server.logs.stderr import JSONFormatter, TextFormatter

LOGGER = logging.getLogger("wsframe.access")


@pytest.fixture
def lines() -> Iterator[ServerLog]:
    """Enable the request log, and return its records."""
    handler = ServerLog()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.removeHandler(handler)


def next_line(lines: ServerLog, text: str = "") -> Any:
    """Return the next record; its type is Any, because mypy does not know its attributes."""
    return lines.expect(text, logging.INFO)


def values_of(record: Any) -> dict[str, object]:
    """Return the values of a record, except the times."""
    return {name: getattr(record, name) for name in access.FIELDS if name[:2] not in ("st", "se")}


@BOTH_KINDS
def test_a_websocket_has_one_record(
    serve: Serve, clients: Clients, lines: ServerLog, echo: Callable[..., Any]
) -> None:
    server = serve(websocket_app(echo, subprotocols=["chat"]))
    client = clients.connect(server)
    request = upgrade(
        "/echo?token=secret", ("Sec-WebSocket-Protocol", "chat"), ("User-Agent", "test/1.0")
    )
    frames = b"".join(
        [
            masked(Opcode.TEXT, "one"),
            masked(Opcode.PING, b"no message"),
            masked(Opcode.BINARY, b"two"),
            masked(Opcode.PONG, b"neither"),
            masked(Opcode.CLOSE, b"\x0f\xa0bye"),
        ]
    )
    before = datetime.now(UTC)
    client.send(request + frames)
    received = client.read_to_end()
    client.close()
    record = next_line(lines)
    assert values_of(record) == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/echo",
        "bytes_in": len(request + frames),
        "bytes_out": len(received),
        "messages_in": 2,
        "messages_out": 2,
        "close_code": 4000,
        "close_reason": "bye",
        "subprotocol": "chat",
        "user_agent": "test/1.0",
    }
    assert record.status == 101
    # In milliseconds, rounded down.
    start = datetime.fromisoformat(record.start)
    assert -1 < (start - before).total_seconds() < 10
    assert 0 <= record.seconds < 10
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        f'{record.start} 127.0.0.1 "GET /echo" 101 seconds={record.seconds:.3f}'
        f" bytes={record.bytes_in}/{record.bytes_out} messages=2/2"
        ' close=4000 close_reason="bye" subprotocol="chat" user_agent="test/1.0"'
    )


def test_events_of_a_stream_count_as_messages(
    serve: Serve, clients: Clients, lines: ServerLog
) -> None:
    app = App()

    @app.sse("/events")
    def events(stream: EventStream) -> Iterator[str]:
        yield from "abc"

    server = serve(app)
    client = clients.connect(server)
    client.send(get("/events"))
    received = client.read_to_end()
    client.close()
    record = next_line(lines)
    assert (record.status, record.messages_in, record.messages_out) == (200, 0, 3)
    assert record.bytes_out == len(received)
    assert (record.close_code, record.close_reason) == (None, None)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/"), ("GET", "/", 200)),
        (get("/?a=b"), ("GET", "/", 200)),
        (get("/", method="HEAD"), ("HEAD", "/", 200)),
        (get("/events", method="HEAD"), ("HEAD", "/events", 200)),
        (get("/nothing"), ("GET", "/nothing", 404)),
        (get("/", method="POST"), ("POST", "/", 405)),
        (get("/echo"), ("GET", "/echo", 426)),
        (upgrade("/echo", ("Origin", "http://evil.example")), ("GET", "/echo", 403)),
        (head("GET / HTTP/1.1", []), ("GET", "/", 400)),
        (b"hello there\r\n\r\n", (None, None, 400)),
        (get("/", ("X", "x" * 17000)), (None, None, 431)),
    ],
)
def test_a_page_has_one_record(
    serve: Serve,
    clients: Clients,
    lines: ServerLog,
    request_: bytes,
    expected: tuple[str | None, str | None, int],
) -> None:
    app = websocket_app(generator_echo)
    app.page("/", "page")
    app.sse("/events", source=Queue())
    client = clients.connect(serve(app))
    client.send(request_)
    status = client.receive()[9:12]
    client.close()
    record = next_line(lines)
    assert (record.method, record.path, record.status) == expected
    assert status == str(record.status).encode()
    assert (record.messages_in, record.messages_out) == (0, 0)
    assert '"-"' in record.getMessage() or '"- ' not in record.getMessage()


def test_a_connection_without_a_request_is_not_logged(
    serve: Serve, clients: Clients, lines: ServerLog
) -> None:
    app = App()
    app.page("/", "page")
    server = serve(app)
    for word in (b"", b"GET / HT"):
        client = clients.connect(server)
        client.send(word)
        client.close()
    client = clients.connect(server)
    client.send(get("/"))
    assert client.answer().status == 200
    assert next_line(lines).path == "/"
    server.stop()
    assert not lines.records


def test_no_record_is_made_without_the_access_log(
    serve: Serve, clients: Clients, lines: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOGGER.setLevel(logging.WARNING)
    monkeypatch.setattr(access, "timestamp", None)  # not even the values of a record are computed
    app = App()
    app.page("/", "page")
    server = serve(app)
    client = clients.connect(server)
    client.send(get("/"))
    assert client.answer().status == 200
    server.stop()
    assert not lines.records


def closes(ws: WebSocket) -> None:
    """Close with an application code."""
    ws.close(4001, "enough")


def fails(ws: WebSocket) -> None:
    """End with an error."""
    raise LookupError("nothing there")


@pytest.mark.parametrize(
    ("handler", "code", "reason"),
    [(closes, 4001, "enough"), (fails, 1011, "the handler failed")],
)
def test_the_record_contains_the_close_of_the_server(
    serve: Serve,
    clients: Clients,
    lines: ServerLog,
    log: ServerLog,
    handler: Callable[[WebSocket], None],
    code: int,
    reason: str,
) -> None:
    server = serve(websocket_app(handler))
    client = clients.websocket(server, "/echo")
    assert client.expect_close().code == code
    record = next_line(lines)
    assert (record.close_code, record.close_reason) == (code, reason)
    if handler is fails:
        log.expect("failed")


def test_the_record_contains_the_end_by_the_client(
    serve: Serve, clients: Clients, lines: ServerLog
) -> None:
    server = serve(websocket_app(generator_echo))
    clients.websocket(server, "/echo").reset()
    assert next_line(lines).close_code == 1006
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.TEXT, b"\xff"))
    client.expect_close()
    assert next_line(lines).close_code == 1007


def test_a_refused_upgrade_has_a_record(
    serve: Serve, clients: Clients, lines: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(websocket_app(closes))
    monkeypatch.setattr(Threads, "engage_handler", lambda *_: Shortage.SYSTEM)
    client = clients.connect(server)
    client.send(upgrade("/echo"))
    assert client.read_to_end().startswith(b"HTTP/1.1 503 ")
    assert (server.stats().websockets, server.stats().requests) == (0, 1)
    client.close()
    record = next_line(lines)
    assert (record.status, record.messages_out, record.close_code) == (503, 0, None)
    assert server.stats().refused == {503: 1}


# Values of clients --------------------------------------------------------------------------------

HOSTILE = 'x" 200\r\n"forged\x1b[2J\x9b2K\x7f\x00\\\u2028\u202e\ud7ff'


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_a_close_reason_cannot_forge_a_record(
    serve: Serve, clients: Clients, lines: ServerLog, formatter: logging.Formatter
) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(server, "/echo")
    client.leave(4000, HOSTILE)
    record = next_line(lines)
    line = formatter.format(record)
    assert line.isprintable()
    assert line.isascii()
    assert record.close_reason.isprintable()
    # Escaping loses no information.
    assert record.close_reason.encode().decode("unicode_escape") == HOSTILE


def test_a_user_agent_cannot_forge_a_record(
    serve: Serve, clients: Clients, lines: ServerLog
) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.connect(server)
    client.send(get('/"%0a\\', ("User-Agent", 'a" status=200 \\"\x9b\x85é')))
    assert client.answer().status == 404
    record = next_line(lines)
    assert record.getMessage().isprintable()
    assert ' "GET /\\"%0A\\\\" 404 ' in record.getMessage()
    assert record.getMessage().endswith(' user_agent="a\\" status=200 \\\\\\"\\x9b\\x85é"')


@pytest.mark.parametrize("character", ["\\", '"', "\x9b", "é"])
def test_long_values_are_cut_before_they_are_escaped(
    serve: Serve, clients: Clients, lines: ServerLog, character: str
) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.connect(server)
    path = "/" + "\\" * 1999
    client.send(get(path, ("User-Agent", character * 7000)))
    assert client.answer().status == 404
    record = next_line(lines)
    for formatter in (TextFormatter(), JSONFormatter()):
        assert len(formatter.format(record)) < 8000
    assert re.fullmatch(r"/(\\\\){511}\.\.\.\(\+1488 characters\)", record.path)
    assert re.search(r"\.\.\.\(\+[67]\d\d\d characters\)$", record.user_agent)


# Handlers that fail -------------------------------------------------------------------------------


class Raises(logging.Handler):
    """A log handler that raises, as one does whose file cannot be reopened."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Raise an error."""
        self.called.set()
        raise OSError("no space left on device")


def test_a_failing_log_handler_affects_no_client(
    serve: Serve, clients: Clients, lines: ServerLog, log: ServerLog, capfd: Any
) -> None:
    handlers = {name: Raises() for name in ("wsframe.access", "wsframe.server")}
    server = serve(websocket_app(fails))
    for name, handler in handlers.items():
        logging.getLogger(name).addHandler(handler)
    try:
        for _ in range(3):
            client = clients.websocket(server, "/echo")
            assert client.expect_close().code == 1011
            log.expect("failed")
            next_line(lines)
        server.stop()
    finally:
        for name, handler in handlers.items():
            logging.getLogger(name).removeHandler(handler)
    assert all(handler.called.is_set() for handler in handlers.values())
    assert "no space left on device" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_full_disk_loses_only_log_records(
    serve: Serve, clients: Clients, lines: ServerLog, log: ServerLog, capfd: Any
) -> None:
    server = serve(websocket_app(generator_echo))
    with open("/dev/full", "wb", buffering=0) as full:
        handler = logging.StreamHandler(Unbuffered(full))
        LOGGER.addHandler(handler)
        logging.getLogger("wsframe.server").addHandler(handler)
        try:
            for _ in range(3):
                client = clients.websocket(server, "/echo")
                client.send_messages("still here")
                assert client.next_event() == "still here"
                client.leave()
                next_line(lines)
            server.stop()
        finally:
            LOGGER.removeHandler(handler)
            logging.getLogger("wsframe.server").removeHandler(handler)
    assert "No space left on device" in capfd.readouterr().err


class Unbuffered:
    """A handler that writes text to a file at once."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write the record at once."""
        written: int = self._file.write(text.encode())
        return written

    def flush(self) -> None:
        """Do nothing, because no record is buffered."""
