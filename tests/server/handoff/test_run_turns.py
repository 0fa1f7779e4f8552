"""Turns of generators: the compiled function and the loop's own rules give the same results.

Each test runs with ``run_turns`` of both implementations. The Python one leaves every turn to the
loop.
"""

from __future__ import annotations

import contextvars
import threading
from types import ModuleType
from typing import Any

import pytest

from tests.server.handoff.blocking import Blocking, sessions
from tests.support.clients import Clients
from tests.support.handlers import NO_HANDOFFS, Checkpoint, MessageGenerator, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close
from wsframe.server import WebSocket, pure_rounds
from wsframe.server.handoff.task import MAX_WORK_PER_TURN
from wsframe.server.rounds import COMPILED, chosen
from wsframe.server.sessions.generator import GeneratorSession

MISSING = "wsframe.server._rounds (compiled with gcc and python3-dev) is missing"

compiled = pytest.param(
    chosen, id="compiled", marks=pytest.mark.skipif(not COMPILED, reason=MISSING)
)


@pytest.fixture(params=[compiled, pytest.param(pure_rounds, id="pure")], autouse=True)
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The implementation of ``run_turns`` that the loops use."""
    module: ModuleType = request.param
    monkeypatch.setattr("wsframe.server.handoff.loop.run_turns", module.run_turns)
    return module


class Script:
    """A handler that echoes, and acts on some messages."""

    def __init__(self) -> None:
        self.seen: list[str | bytes] = []

    def handle(self, ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            self.seen.append(message)
            match message:
                case "return":
                    return
                case "raise":
                    raise ValueError("on purpose")
                case "exit":
                    raise SystemExit
                case "value":
                    yield 1  # type: ignore[misc]
                case "close":
                    ws.close(4000, "bye")
                case "large":
                    ws.send(b"x" * 200_000)
            ws.send(message)


@pytest.fixture
def script() -> Script:
    return Script()


def test_all_messages_of_a_read_are_answered_in_order(
    serve: Serve, clients: Clients, script: Script
) -> None:
    client = clients.websocket(serve(websocket_app(script.handle)), "/echo")
    messages = [f"message {n}" for n in range(3 * MAX_WORK_PER_TURN + 1)]
    for _ in range(2):
        client.send_messages(*messages)
        assert client.expect(len(messages)) == messages
    client.send_messages("text", b"bytes", "\u00e9")
    assert client.expect(3) == ["text", b"bytes", "\u00e9"]


@pytest.mark.parametrize(
    ("word", "close", "logged"),
    [
        ("return", Close(1000, ""), None),
        ("raise", Close(1011, "the handler failed"), ValueError),
        ("exit", Close(1011, "the handler failed"), SystemExit),
        ("value", Close(1011, "the handler failed"), TypeError),
        ("close", Close(4000, "bye"), None),
    ],
)
@pytest.mark.parametrize("before", [[], ["a", "b"]])
def test_the_end_of_a_handler_leaves_the_later_messages(
    serve: Serve,
    clients: Clients,
    log: ServerLog,
    script: Script,
    before: list[str],
    word: str,
    close: Close,
    logged: type[BaseException] | None,
) -> None:
    client = clients.websocket(serve(websocket_app(script.handle, timing=NO_HANDOFFS)), "/echo")
    client.send_messages("first")
    assert client.next_event() == "first"
    client.send_messages(*before, word, "later")
    assert client.expect(len(before)) == before
    assert client.expect_close() == close
    assert script.seen == ["first", *before, word]
    if logged is not None:
        record = log.expect("the handler of /echo failed")
        assert record.exc_info is not None
        assert record.exc_info[0] is logged


def test_a_turn_ends_early_while_much_is_unsent(
    serve: Serve, clients: Clients, script: Script
) -> None:
    client = clients.websocket(serve(websocket_app(script.handle, timing=NO_HANDOFFS)), "/echo")
    client.send_messages("first")
    assert client.next_event() == "first"
    client.send_messages(*["large"] * 20)
    assert client.expect(40) == [b"x" * 200_000, "large"] * 20


def test_each_connection_keeps_its_context_variables(serve: Serve, clients: Clients) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def remember(ws: WebSocket) -> MessageGenerator:
        while True:
            message = yield
            ws.send(variable.get())
            variable.set(str(message))

    server = serve(websocket_app(remember))
    one, two = clients.websocket(server, "/echo"), clients.websocket(server, "/echo")
    for client, words in ((one, ["a", "b"]), (two, ["c"]), (one, ["d"])):
        client.send_messages(*words)
    assert one.expect(3) == ["unset", "a", "b"]
    assert two.next_event() == "unset"


def test_an_internal_error_in_a_turn_keeps_the_loop(
    serve: Serve, clients: Clients, log: ServerLog, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("on purpose")

    server = serve(websocket_app(script.handle, timing=NO_HANDOFFS))
    client, other = clients.websocket(server, "/echo"), clients.websocket(server, "/echo")
    for each in (client, other):
        each.send_messages("first")
        assert each.next_event() == "first"
    monkeypatch.setattr(GeneratorSession, "after_resume", fail)
    client.send_messages("raise")
    record = log.expect("internal error in a turn of /echo")
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError
    other.send_messages("second")
    assert other.next_event() == "second"
    monkeypatch.undo()


def test_an_internal_error_in_a_turn_that_has_lost_the_loop_is_logged(
    serve: Serve, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError("on purpose")]
    after_resume = GeneratorSession.after_resume

    def fail_once(session: GeneratorSession, *result: Any) -> None:
        if failures:
            raise failures.pop()
        after_resume(session, *result)

    handler = Blocking()
    server = serve(handler.app())
    client = clients.websocket(server, "/block")
    client.send_messages("first")
    assert client.next_event() == "first"
    held = handler.block(server, client)
    handler.sockets.get(timeout=TIMEOUT).close(4000)  # the turn ends with ``after_resume``
    monkeypatch.setattr(GeneratorSession, "after_resume", fail_once)
    held.release()
    record = log.expect("internal error in a turn of /block")
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_a_handler_whose_context_is_in_use_ends(
    serve: Serve, clients: Clients, log: ServerLog, script: Script
) -> None:
    server = serve(websocket_app(script.handle, timing=NO_HANDOFFS))
    client = clients.websocket(server, "/echo")
    client.send_messages("first")
    assert client.next_event() == "first"
    (session,) = sessions(server)
    held = Checkpoint()
    user = threading.Thread(target=session.context.run, args=(held.wait,))
    user.start()
    held.wait_until_reached()
    client.send_messages("second", "third")
    assert client.expect_close() == Close(1011, "the handler failed")
    for text in ("the handler of /echo failed", "the handler of /echo did not end"):
        record = log.expect(text)
        assert record.exc_info is not None
        assert record.exc_info[0] is RuntimeError
    assert script.seen == ["first"]
    held.release()
    user.join(TIMEOUT)
