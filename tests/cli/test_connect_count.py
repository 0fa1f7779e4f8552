"""The option --count of the command ``connect``, and the messages to send."""

from __future__ import annotations

import threading
from math import inf

import pytest

from tests.cli.conftest import Input, Run
from tests.support.scripted import ScriptedServer, Visit
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Connection, Role
from wsframe.cli.client.piped import Piped
from wsframe.cli.exits import Exit
from wsframe.client import WebSocket, connect

NOT_SENT = "the connection ended before all messages were sent (--message)"


def exchange(server: ScriptedServer, messages: list[str], rest: float) -> Exit:
    """Run the command with --count 1 and --wait inf."""
    ws = connect(server.url())
    return Piped(ws, messages, binary=False, wait=inf, count=1, rest=rest).run()


def greeting(visit: Visit) -> None:
    """Send a message in the same segment as the response, then expect one, and send more."""
    visit.upgrade(first=Connection(Role.SERVER).encode("welcome"))
    assert visit.next_event() == "x"
    visit.send_messages("more")
    visit.answer_close()


@pytest.mark.parametrize("messages", [["x"], []])
def test_all_messages_are_sent_although_the_server_is_first(
    stdin: Input,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    messages: list[str],
) -> None:
    stdin.write(b"x\n")
    stdin.close()
    closing = threading.Event()
    send, close = WebSocket.send, WebSocket.close

    def send_late(ws: WebSocket, message: str) -> None:
        assert not closing.wait(0.3), "the command has ended before its message was sent"
        send(ws, message)

    def note_and_close(ws: WebSocket) -> None:
        closing.set()
        close(ws)

    monkeypatch.setattr(WebSocket, "send", send_late)
    monkeypatch.setattr(WebSocket, "close", note_and_close)
    server = ScriptedServer(greeting)
    assert exchange(server, messages, rest=TIMEOUT) is Exit.OK
    server.stop()
    assert capfdbinary.readouterr() == (b"welcome\n", b"")


def test_a_message_that_was_not_sent_is_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = WebSocket.send

    def send_after_the_end(ws: WebSocket, message: str) -> None:
        wait_until(lambda: ws.close_code is not None, "the connection has ended")
        send(ws, message)

    monkeypatch.setattr(WebSocket, "send", send_after_the_end)
    frames = Connection(Role.SERVER)
    first = frames.encode("welcome") + frames.close(1000)
    server = ScriptedServer(lambda visit: visit.upgrade(first=first))
    ran = run("connect", server.url(), "-m", "x", "-n", 1)
    server.stop()
    assert (ran.code, ran.out, ran.err) == (1, ["welcome"], [NOT_SENT])


def test_an_input_without_an_end_does_not_delay_the_end_for_long(
    stdin: Input, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=Connection(Role.SERVER).encode("welcome"))
        visit.answer_close()

    server = ScriptedServer(script)
    assert exchange(server, [], rest=0.01) is Exit.OK
    server.stop()
    assert capfdbinary.readouterr() == (b"welcome\n", b"")
