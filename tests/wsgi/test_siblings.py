"""The statistics of several processes, each of which finds the others."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.closings import DROPPING, INVALID_CLOSINGS
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App
from wsframe.server.reports.stats import Stats
from wsframe.server.timing import Timing
from wsframe.server.workers.channel import decode_stats, encode_stats
from wsframe.wsgi import Live, WebSocket
from wsframe.wsgi.siblings import Siblings

from .arrived import UPGRADE, Arrived

NUMBER = 1_000_000 + os.getpid()  # of an application; other tests use others
OTHER = 4_194_305  # no process has this number
DEEP = b'{"x":' * 60_000


@pytest.fixture
def siblings() -> Iterator[Siblings]:
    siblings = Siblings(NUMBER, lambda: Stats(accepted=1, websockets=1), Timing())
    siblings.begin()
    yield siblings
    siblings.end()


def names(number: str = str(NUMBER), process: str = r"\d+") -> list[str]:
    """Return the names of the sockets of an application; the arguments are patterns."""
    pattern = rf"@(wsframe/\d+/\d+-\d+/{number}/{process})$"
    with open("/proc/net/unix") as file:
        return re.findall(pattern, file.read(), re.MULTILINE)


@contextmanager
def other_process(
    reply: Callable[[socket.socket], object], name: str | None = None
) -> Iterator[list[bytes]]:
    """Play another process beside that of a name; yield the messages that it receives."""
    name = name or names()[0]
    received: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0" + name.rpartition("/")[0] + f"/{OTHER}")
    listener.listen()
    listener.settimeout(TIMEOUT)

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, closing(listener):
            received.append(sock.recv(1 << 16))
            reply(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    yield received
    thread.join()


def ask(message: bytes) -> Stats:
    """Ask the process under test, as another process would."""
    (name,) = names()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(f"\0{name}")
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return decode_stats(json.loads(file.read()))


def encoded(**values: Any) -> bytes:
    return json.dumps(encode_stats(replace(Stats(), **values))).encode()


def test_a_process_answers_another_one(siblings: Siblings) -> None:
    siblings.begin()  # a second call is ignored
    assert ask(b"") == Stats(accepted=1, websockets=1)


def test_the_numbers_of_all_processes_are_added(siblings: Siblings) -> None:
    with other_process(lambda sock: sock.sendall(encoded(accepted=10, processes=1))) as received:
        stats = siblings.collect()
    assert (stats.accepted, stats.websockets, stats.missing_processes) == (11, 1, 0)
    assert received == [b""]


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"{}1", b"[]", DEEP, b"x" * 1_100_000])
def test_a_process_with_another_answer_is_missing(siblings: Siblings, answer: bytes) -> None:
    def reply(sock: socket.socket) -> None:
        try:
            sock.sendall(answer)
        except OSError:
            assert len(answer) > 1_000_000

    with other_process(reply):
        stats = siblings.collect()
    assert (stats.accepted, stats.missing_processes) == (1, 1)


def test_a_process_that_hangs_is_missing(siblings: Siblings) -> None:
    impatient = Siblings(NUMBER, Stats, Timing(stats_timeout=0.1))
    released = threading.Event()
    with other_process(lambda sock: released.wait(TIMEOUT)):
        assert impatient.collect().missing_processes == 1
        released.set()


def test_a_process_that_does_not_accept_is_missing(siblings: Siblings) -> None:
    (name,) = names()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0" + name.rpartition("/")[0] + f"/{OTHER}")
        assert siblings.collect().missing_processes == 1


def test_the_socket_of_another_user_is_not_asked(
    siblings: Siblings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.getuid()
    with other_process(lambda sock: None) as received:
        uids = iter([own, own + 1])  # this process' name, and the user that it expects
        monkeypatch.setattr(os, "getuid", lambda: next(uids))
        assert siblings.collect().missing_processes == 1
        monkeypatch.undo()
    assert received == [b""]


def test_another_user_gets_no_answer(siblings: Siblings, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = names()
    own = os.getuid()
    with socket.socket(socket.AF_UNIX) as sock:
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        sock.connect(f"\0{name}")
        sock.settimeout(TIMEOUT)
        assert sock.recv(10) == b""


@pytest.mark.parametrize("message", [b"nonsense", b"{}", DEEP])
def test_a_malformed_message_does_no_harm(siblings: Siblings, message: bytes) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        ask(message * 2)
    assert ask(b"") == Stats(accepted=1, websockets=1)


def test_the_counters_of_a_process_that_exits_are_kept(siblings: Siblings) -> None:
    ask(encoded(accepted=5, websockets=0))
    assert ask(b"") == Stats(accepted=6, websockets=1)
    assert siblings.collect().accepted == 6


def test_a_process_that_exits_hands_its_counters_over() -> None:
    siblings = Siblings(NUMBER, lambda: Stats(accepted=3, websockets=2), Timing())
    siblings.begin()
    with socket.socket(socket.AF_UNIX) as dead:
        (name,) = names()
        dead.bind("\0" + name.rpartition("/")[0] + f"/{OTHER - 1}")
        with other_process(lambda sock: sock.sendall(encoded())) as received:
            siblings.end()
    assert decode_stats(json.loads(received[0])) == Stats(accepted=3)
    wait_until(lambda: not names(), "the socket is closed")
    siblings.end()


def test_a_process_that_exits_last_keeps_nothing(siblings: Siblings) -> None:
    siblings.end()
    wait_until(lambda: not names(), "the socket is closed")


def test_a_name_that_is_taken_is_left_alone(siblings: Siblings) -> None:
    second = Siblings(NUMBER, Stats, Timing())
    second.begin()
    assert ask(b"").accepted == 1
    second.end()
    assert len(names()) == 1


def test_without_a_thread_a_process_does_not_listen(
    monkeypatch: pytest.MonkeyPatch, log: ServerLog
) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    siblings = Siblings(NUMBER, Stats, Timing())
    monkeypatch.setattr(threading.Thread, "start", fail)
    siblings.begin()
    assert names() == []
    siblings.end()


def greet(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    yield


def test_a_live_in_several_processes_hands_its_counters_over(live: Live) -> None:
    with Arrived(**UPGRADE, **{"wsgi.multiprocess": True}) as arrived:
        arrived.environ["gunicorn.socket"] = arrived.environ.pop("werkzeug.socket")
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
        metrics = arrived.environ | {"PATH_INFO": "/metrics"}
        arrived.started.clear()
        body = b"".join(live.metrics(metrics, arrived.start_response))
        assert b'wsframe_connections{kind="websocket"} 1\n' in body
        (name,) = names(r"\d{1,5}", str(os.getpid()))
        with other_process(lambda sock: sock.sendall(encoded()), name) as received:
            live.stop()
    stats = decode_stats(json.loads(received[0]))
    assert (stats.accepted, stats.websockets, stats.messages_out) == (1, 0, 1)


def test_a_process_closes_the_identity_that_another_one_sends(log: ServerLog) -> None:
    closed: list[bytes] = []
    siblings = Siblings(NUMBER, Stats, Timing(), closed.append)
    siblings.begin()
    assert ask(b'["x", "ann", 4001, "banned"]') == Stats()
    assert closed == [b'["x", "ann", 4001, "banned"]']
    with other_process(lambda sock: sock.sendall(encoded())) as received:
        siblings.send_closing('["x", "bob", 1008, ""]')
    assert received == [b'["x", "bob", 1008, ""]']
    assert not log.records
    with other_process(lambda sock: None):
        siblings.send_closing('["x", "bob", 1008, ""]')
    log.expect("1 processes have not received the closing of an identity")
    siblings.end()


@pytest.mark.parametrize("message", INVALID_CLOSINGS)
def test_an_invalid_closing_by_another_process_is_dropped(log: ServerLog, message: str) -> None:
    closings, closed = topics_of(App()).closings, []
    closings.add(lambda *closing: closed.append(closing))
    siblings = Siblings(NUMBER, Stats, Timing(), closings.receive_message)
    siblings.begin()
    ask(message.encode())
    log.expect(DROPPING)
    assert not closed
    ask(b'["x", "ann", 4001, "banned"]')
    assert closed == [("ann", 4001, "banned")]
    siblings.end()
