"""How a server stops: everyone is told, nobody is waited for too long, nothing stays behind."""

from __future__ import annotations

import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import TIMEOUT, StreamClient, WebSocketClient, get, upgrade
from tests.support.handlers import (
    BOTH_KINDS,
    NO_STEALS,
    Waits,
    generator_echo,
    plain_echo,
    websocket_app,
)
from tests.support.processes import ServerProcess
from wsframe import Close
from wsframe.server import (
    App,
    ConnectionClosed,
    EventStream,
    Request,
    Server,
    WebSocket,
)
from wsframe.server.sockets.shutdown import PacedShutdown
from wsframe.server.timing import Timing

from .conftest import AnyClient, Clients, Serve, ServerLog, wait_until

# More than the kernel's own buffers hold of a connection.
MUCH = 1 << 24
GOING_AWAY = Close(1001, "the server stops")
# A spread of as many seconds: after the first, no client's turn comes while a test runs.
AGES = 1e6


@contextmanager
def stopping(server: Server, spread: float = 0) -> Iterator[None]:
    """Stop the server meanwhile; it must have ended soon after."""
    thread = threading.Thread(target=server.stop, kwargs={"spread": spread}, daemon=True)
    thread.start()
    yield
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the server does not stop"


@BOTH_KINDS
def test_websockets_are_closed_with_1001(
    serve: Serve, clients: Clients, echo: Callable[..., Any]
) -> None:
    server = serve(websocket_app(echo), drain=60)
    open_ones = [clients.websocket(server, "/echo") for _ in range(20)]
    with stopping(server):
        for client in open_ones:
            assert client.closed_by_server() == GOING_AWAY


@BOTH_KINDS
def test_handlers_are_told(serve: Serve, clients: Clients, echo: Callable[..., Any]) -> None:
    told: Queue[object] = Queue()

    def plain(ws: WebSocket) -> None:
        try:
            while True:
                ws.receive()
        except ConnectionClosed as end:
            told.put((end.code, end.reason, ws.close_code))
            raise
        finally:
            told.put("finally")

    def generator(ws: WebSocket) -> Waits:
        try:
            yield
        except ConnectionClosed as end:
            told.put((end.code, end.reason, ws.close_code))
            raise
        finally:
            told.put("finally")

    server = serve(websocket_app(plain if echo is plain_echo else generator), drain=60)
    client = clients.websocket(server, "/echo")
    with stopping(server):
        # Before the client has answered.
        assert told.get(timeout=TIMEOUT) == (1001, "the server stops", 1001)
        assert told.get(timeout=TIMEOUT) == "finally"
        assert client.closed_by_server() == GOING_AWAY
    assert told.empty()


def test_what_a_client_was_sent_before_still_arrives(serve: Serve, clients: Clients) -> None:
    def send(ws: WebSocket) -> Waits:
        ws.send(bytes(MUCH))
        ws.send("last")
        yield

    # A handler without the loop would wait in send.
    server = serve(websocket_app(send, timing=NO_STEALS), drain=60)
    client = clients.websocket(server, "/echo", receive_buffer=1 << 16)
    with stopping(server):
        assert client.hear(2) == [bytes(MUCH), "last"]
        assert client.closed_by_server() == GOING_AWAY


def test_streams_end(serve: Serve, clients: Clients) -> None:
    opened: Queue[EventStream] = Queue()
    app = App()
    app.sse("/time", source=Queue())
    app.sse("/job")(opened.put)
    server = serve(app, drain=60)
    streams: list[StreamClient] = [clients.stream(server, path) for path in ("/time", "/job")]
    stream = opened.get(timeout=TIMEOUT)
    with stopping(server):
        for client in streams:
            client.expect_end()
    assert stream.closed
    with pytest.raises(ConnectionClosed):
        stream.send("too late")


@pytest.mark.parametrize("spread", [0, AGES])
def test_new_connections_are_refused_and_old_ones_still_drain(
    serve: Serve, clients: Clients, spread: float
) -> None:
    server = serve(websocket_app(generator_echo), drain=60)
    client = clients.websocket(server, "/echo")
    silent = clients.connect(server)
    begun = clients.connect(server)
    begun.send(get("/")[:10])
    wait_until(lambda: len(server.clients[0].peers) == 3, "all are there")
    with stopping(server, spread):
        assert client.next_event() == GOING_AWAY
        for other in (silent, begun):
            with suppress(ConnectionResetError):  # if what it had said was not read to the end
                assert other.read_to_end() == b""
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            clients.connect(server).read_to_end()
        client.send(client.codec.close(1001))
        client.expect_end()


def test_an_answer_on_its_way_still_arrives(serve: Serve, clients: Clients) -> None:
    app = App()
    body = bytes(MUCH)
    app.page("/", body)
    server = serve(app, drain=60)
    client = clients.connect(server, receive_buffer=1 << 16)
    client.send(get("/"))
    wait_until(
        lambda: any(peer.congested for peer in tuple(server.clients[0].peers)), "it is on its way"
    )
    with stopping(server):
        assert client.answer().body == body


def test_a_handler_that_goes_on_is_waited_for(serve: Serve, clients: Clients) -> None:
    release, done = threading.Event(), threading.Event()

    def finish(ws: WebSocket) -> None:
        for _ in ws:
            pass
        assert release.wait(TIMEOUT)
        done.set()

    server = serve(websocket_app(finish), drain=60)
    client = clients.websocket(server, "/echo")
    with stopping(server):
        client.closed_by_server()
        wait_until(lambda: not server.clients[0].peers, "all clients have gone")
        release.set()
    assert done.is_set()


@pytest.mark.parametrize("kind", ["websocket", "stream"])
def test_a_handler_is_not_waited_for_longer_than_drain(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    release = threading.Event()
    entered = threading.Event()

    def stick(connection: object) -> None:
        entered.set()
        release.wait(TIMEOUT)

    app = websocket_app(stick)
    app.sse("/echo")(stick)
    server = serve(app, drain=0.3)
    client = (
        clients.websocket(server, "/echo")
        if kind == "websocket"
        else clients.stream(server, "/echo")
    )
    assert entered.wait(TIMEOUT)
    begin = time.monotonic()
    server.stop()
    assert 0.3 <= time.monotonic() - begin < 2
    log.expect("wsframe-handler /echo has not ended and is left behind")
    release.set()
    client.close()


def test_a_client_that_does_not_answer_is_cut_off_after_drain(
    serve: Serve, clients: Clients
) -> None:
    server = serve(websocket_app(plain_echo), drain=0.3)
    client = clients.websocket(server, "/echo")
    begin = time.monotonic()
    server.stop()
    assert 0.3 <= time.monotonic() - begin < 2
    assert client.next_event() == GOING_AWAY
    assert client.read_to_end() == b""


def test_stop_may_be_given_another_drain(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo), drain=60)
    clients.websocket(server, "/echo")
    begin = time.monotonic()
    server.stop(drain=0)
    assert time.monotonic() - begin < 2


def test_a_handler_that_blocks_is_named_and_left_behind(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    entered, release = threading.Event(), threading.Event()

    def block(ws: WebSocket) -> Waits:
        yield
        entered.set()
        release.wait(TIMEOUT)

    server = serve(websocket_app(block), drain=0.2)
    client = clients.websocket(server, "/echo")
    client.say("block")
    assert entered.wait(TIMEOUT)
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 4
    record = log.expect("wsframe-handler /echo has not ended and is left behind")
    assert "release.wait(TIMEOUT)" in str(record.stack_info)
    release.set()


def push_without_end(ws: WebSocket) -> None:
    while True:
        ws.send(bytes(1 << 16))


def stream_without_end(stream: EventStream) -> Iterator[str]:
    while True:
        yield "x" * (1 << 16)


def test_senders_that_wait_for_their_clients_end_with_the_server(
    serve: Serve, clients: Clients
) -> None:
    app = websocket_app(push_without_end, "/push")
    app.sse("/stream")(stream_without_end)
    server = serve(app, drain=0.5)
    clients.websocket(server, "/push", receive_buffer=1 << 16)
    clients.stream(server, "/stream", receive_buffer=1 << 16)
    wait_until(
        lambda: [peer.congested for peer in tuple(server.clients[0].peers)] == [True, True],
        "both wait to send",
    )
    begin = time.monotonic()
    server.stop()
    assert 0.5 <= time.monotonic() - begin < 2
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-")]


def test_no_thread_is_left_after_a_busy_time(serve: Serve, clients: Clients) -> None:
    ticks: Queue[str] = Queue()
    app = websocket_app(generator_echo)
    app.websocket("/thread")(plain_echo)
    app.sse("/time", source=ticks)
    server = serve(app, drain=60)
    talking: list[WebSocketClient] = [
        clients.websocket(server, path) for path in ("/echo", "/thread") * 10
    ]
    streams = [clients.stream(server, "/time") for _ in range(5)]
    for client in talking:
        client.say("x")
    ticks.put("x")
    for client in talking:
        assert client.next_event() == "x"
    for stream in streams:
        assert stream.hear(1) == ["x"]
    with stopping(server):
        for client in talking:
            client.closed_by_server()
        for stream in streams:
            stream.expect_end()
    assert not [t for t in threading.enumerate() if t.name.startswith("wsframe-")]


# The pace of the goodbyes ------------------------------------------------------------------------


def the_one_that_was_told(open_ones: list[AnyClient]) -> AnyClient:
    """Wait for the server to say something to one of them, and take that one off the list."""
    (sock, *_), _, _ = select.select([client.sock for client in open_ones], [], [], TIMEOUT)
    told = next(client for client in open_ones if client.sock is sock)
    open_ones.remove(told)
    return told


def let_all_loops_turn(server: Server) -> None:
    """Wait until every loop has done what it was asked to, and has looked at the time."""
    for each in server.loops * 2:
        turned = threading.Event()
        each.call_soon(turned.set)
        assert turned.wait(TIMEOUT)


@pytest.mark.parametrize("loops", [1, 3])
def test_who_has_not_been_told_is_served_on(serve: Serve, clients: Clients, loops: int) -> None:
    server = serve(websocket_app(generator_echo), drain=60, loops=loops)
    open_ones = [clients.websocket(server, "/echo") for _ in range(12)]
    with stopping(server, spread=AGES):
        assert the_one_that_was_told(open_ones).closed_by_server() == GOING_AWAY
        let_all_loops_turn(server)
        for client in open_ones:
            client.say("x")
            assert client.next_event() == "x"
            client.leave()


def test_a_request_that_is_being_judged_waits_for_its_turn(serve: Serve, clients: Clients) -> None:
    judging: Queue[object] = Queue()
    release = threading.Event()

    def judge(request: Request) -> bool:
        judging.put(request)
        return release.wait(TIMEOUT)

    server = serve(websocket_app(generator_echo, authorize=judge), drain=60)
    waiting = [clients.connect(server) for _ in range(2)]
    for client in waiting:
        client.send(upgrade("/echo"))
        judging.get(timeout=TIMEOUT)
    with stopping(server, spread=AGES):
        with suppress(ConnectionResetError):
            assert the_one_that_was_told(waiting).read_to_end() == b""
        release.set()
        assert waiting[0].read_until(b"\r\n").startswith(b"HTTP/1.1 101 ")
        waiting[0].close()


def test_a_queue_still_reaches_the_streams_that_have_not_been_told(
    serve: Serve, clients: Clients
) -> None:
    ticks: Queue[str] = Queue()
    app = App()
    app.sse("/time", source=ticks)
    server = serve(app, drain=60)
    streams = [clients.stream(server, "/time") for _ in range(3)]
    with stopping(server, spread=AGES):
        the_one_that_was_told(streams).expect_end()
        ticks.put("x")
        for stream in streams:
            assert stream.hear(1) == ["x"]
            stream.close()


def test_in_the_end_everyone_has_been_told(serve: Serve, clients: Clients) -> None:
    timing = Timing(sweep_interval=AGES)  # the goodbyes have an interval of their own
    server = serve(websocket_app(generator_echo, timing=timing), drain=60, loops=2)
    open_ones = [clients.websocket(server, "/echo") for _ in range(20)]
    with stopping(server, spread=0.3):
        for client in open_ones:
            assert client.closed_by_server() == GOING_AWAY


def test_whose_turn_has_not_come_is_cut_off_after_drain(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo), drain=0.3)
    open_ones = [clients.websocket(server, "/echo") for _ in range(2)]
    with stopping(server, spread=AGES):
        assert the_one_that_was_told(open_ones).closed_by_server() == GOING_AWAY
        assert open_ones[0].read_to_end() == b""


def test_goodbyes_are_spread_evenly_over_all_loops() -> None:
    loops = [
        PacedShutdown([(k, n) for n in range(50)], 8, k / 4, 100.0)  # type: ignore[misc]
        for k in range(4)
    ]
    told: list[Any] = []
    for step in range(200):
        now = 100.0 + step * 8 / 200
        told += [peer for each in loops for peer in each.due(now + 0.001)]
        assert len(told) == step + 1
    assert len(set(told)) == 200
    of_one_loop = told[::4]
    assert list(range(50)) not in ([n for _, n in of_one_loop], [n for _, n in of_one_loop[::-1]])


def test_a_spread_is_not_negative(serve: Serve) -> None:
    server = serve(App())
    with pytest.raises(ValueError, match="spread must not be negative"):
        server.stop(spread=-1)


@pytest.mark.parametrize("drain", [1e12, float("inf")])
def test_a_stop_may_wait_for_as_long_as_it_takes(
    serve: Serve, clients: Clients, drain: float
) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(server, "/echo")
    stopping = threading.Thread(target=server.stop, args=(drain,))
    stopping.start()
    client.closed_by_server()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


@pytest.mark.parametrize("setting", ["drain", "send_timeout", "ping_interval"])
def test_a_duration_is_a_number(setting: str) -> None:
    options: dict[str, Any] = {setting: float("nan")}
    with pytest.raises(ValueError, match=f"{setting} must be"):
        App().start(**options)


# Signals -----------------------------------------------------------------------------------------

PROGRAM = """
import time
from queue import Queue
from wsframe.server import App

app = App()
app.sse("/time", source=Queue())

@app.websocket("/echo")
def echo(ws):
    while True:
        ws.send((yield))

@app.websocket("/stuck")
def stuck(ws):
    ws.send("stuck")
    time.sleep(60)

if __name__ == "__main__":
    app.run("127.0.0.1", 0, drain=60)
    print("run returned")
"""

SIGNALS = [signal.SIGTERM, signal.SIGINT]
signals_are_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


@signals_are_posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_in_order(program: Path, number: signal.Signals) -> None:
    with ServerProcess(str(program)) as process:
        open_ones = [WebSocketClient(process.port, "/echo") for _ in range(5)]
        for client in open_ones:
            client.say("x")
            assert client.next_event() == "x"
        process.signal(number)
        process.expect(re.compile("Stopping; once more forces the end"))
        assert the_one_that_was_told(open_ones).closed_by_server() == GOING_AWAY
        for client in open_ones:  # whose turn has not come
            client.say("x")
            assert client.next_event() == "x"
            client.leave()
        assert process.wait() == (0, "run returned\n")


@signals_are_posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_forces_the_end(program: Path, number: signal.Signals) -> None:
    with ServerProcess(str(program)) as process:
        client = WebSocketClient(process.port, "/stuck")
        assert client.next_event() == "stuck"
        process.signal(signal.SIGTERM)
        process.expect(re.compile("Stopping"))
        assert client.next_event() == GOING_AWAY
        process.signal(number)
        code, output = process.wait()
        assert code == 1
        assert "Traceback" not in output
        client.close()


@signals_are_posix
def test_two_signals_at_once_are_two(program: Path) -> None:
    with ServerProcess(str(program)) as process:
        client = WebSocketClient(process.port, "/stuck")
        assert client.next_event() == "stuck"
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)
        assert process.wait()[0] == 1
        client.close()


def test_run_gives_the_signal_handlers_back() -> None:
    app = App()
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(OSError, match=r".+"):
        app.run("no such host")
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
