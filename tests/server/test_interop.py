"""Other libraries' clients, each of which has its own idea of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import wsframe
from tests.support.handlers import BOTH_KINDS, MessageGenerator, generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.peers import (
    ALL_TERMS,
    CLOSES,
    FRAGMENTING,
    LIMITING,
    MESSAGES,
    Library,
    Peer,
    Terms,
    Watch,
    converse,
    libraries,
)
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import ConnectionClosed, PerMessageDeflate
from wsframe.server import Server, WebSocket

Dial = Callable[..., Peer]


@pytest.fixture
def dial(serve: Serve) -> Iterator[Dial]:
    """Starts a server with this handler, and opens connections of other libraries to it."""
    with ExitStack() as peers:

        def open_peer(
            library: Library,
            handler: Callable[..., Any],
            *,
            offer: Terms | None = None,
            names: tuple[str, ...] = (),
            limit: int = 1 << 20,
            **options: Any,
        ) -> Peer:
            url = f"ws://127.0.0.1:{serve(websocket_app(handler, **options)).port}/echo"
            client = library.connect(url, subprotocols=names, deflate=offer, limit=limit)
            return peers.enter_context(client)

        yield open_peer


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Sees what the server compresses and inflates."""
    return Watch(wsframe, monkeypatch)


@pytest.mark.unmeasured
@BOTH_KINDS
@libraries()
@pytest.mark.parametrize("offer", [{}, None], ids=["offered", "not-offered"])
@pytest.mark.parametrize(
    "deflate", [False, True, PerMessageDeflate()], ids=["no", "yes", "context"]
)
def test_messages_of_all_kinds_are_echoed(
    dial: Dial,
    watch: Watch,
    echo: Callable[..., Any],
    library: Library,
    offer: Terms | None,
    deflate: bool | PerMessageDeflate,
) -> None:
    peer = dial(library, echo, offer=offer, deflate=deflate)
    for message in MESSAGES:
        peer.send(message)
        assert peer.receive() == message
    agreed = bool(deflate) and offer is not None
    assert (peer.terms is not None, bool(watch.sent), bool(watch.received)) == (agreed,) * 3


@BOTH_KINDS
@libraries(FRAGMENTING)
@pytest.mark.parametrize("offer", [{}, None], ids=["compressed", "plain"])
def test_fragments_are_echoed_as_one_message(
    dial: Dial, watch: Watch, echo: Callable[..., Any], library: Library, offer: Terms | None
) -> None:
    peer = dial(library, echo, offer=offer, deflate=PerMessageDeflate())
    for pieces in (["one ", "twö ", "", "three"], ["", "x" * 70_000, "ü"]):
        peer.send_in_fragments(pieces)
        assert peer.receive() == "".join(pieces)
    for data in ([b"one ", b"\xff"], [b"\xfe" * 65536] * 3):
        peer.send_in_fragments(data)
        assert peer.receive() == b"".join(data)
    assert bool(watch.received) == (offer is not None)


@BOTH_KINDS
@libraries()
def test_pings_are_answered(dial: Dial, echo: Callable[..., Any], library: Library) -> None:
    peer = dial(library, echo)
    for payload in (b"x" * 125, b"\x00\xff", b"y"):
        peer.ping(payload)
    peer.send("still there")
    assert peer.receive() == "still there"


@libraries()
def test_a_client_answers_pings_without_its_user(
    dial: Dial, watch: Watch, library: Library
) -> None:
    def ping(ws: WebSocket) -> MessageGenerator:
        ws.ping(b"x" * 125)
        ws.ping()
        ws.send("pinged")
        ws.send((yield))

    peer = dial(library, ping)
    assert peer.receive() == "pinged"
    peer.send("yes")
    assert peer.receive() == "yes"
    assert watch.pongs == [b"x" * 125, b""]


@BOTH_KINDS
@libraries()
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_clients_close_is_answered(
    dial: Dial, echo: Callable[..., Any], library: Library, code: int, reason: str
) -> None:
    assert dial(library, echo).close(code, reason) == code


@libraries()
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_handler_receives_the_clients_close(
    dial: Dial, library: Library, code: int, reason: str
) -> None:
    ends: SimpleQueue[tuple[int, str]] = SimpleQueue()

    def wait(ws: WebSocket) -> None:
        try:
            ws.receive()
        except ConnectionClosed as end:
            ends.put((end.code, end.reason))

    dial(library, wait).close(code, reason)
    assert ends.get(timeout=TIMEOUT) == (code, reason)


@libraries()
@pytest.mark.parametrize(("code", "reason"), [*CLOSES, (1005, "")])
def test_a_client_understands_the_close_of_the_server(
    dial: Dial, library: Library, code: int, reason: str
) -> None:
    def close(ws: WebSocket) -> None:
        ws.send("before")
        ws.close(code, reason)

    peer = dial(library, close)
    assert peer.receive() == "before"
    assert peer.end() == (code, reason)


@BOTH_KINDS
@libraries()
@pytest.mark.parametrize("offer", [{}, None], ids=["compressed", "plain"])
def test_a_message_over_the_limit_is_refused(
    dial: Dial, echo: Callable[..., Any], library: Library, offer: Terms | None
) -> None:
    peer = dial(library, echo, offer=offer, deflate=True, max_message_size=1000)
    peer.send("x" * 1000)
    assert peer.receive() == "x" * 1000
    peer.send("x" * 1001)
    code, reason = peer.end()
    assert code == 1009
    assert "limit of 1000" in reason


@libraries(LIMITING)
@pytest.mark.parametrize("offer", [{}, None], ids=["compressed", "plain"])
def test_the_handler_receives_the_close_of_a_client_with_a_limit(
    dial: Dial, library: Library, offer: Terms | None
) -> None:
    ends: SimpleQueue[int] = SimpleQueue()

    def send(ws: WebSocket) -> None:
        ws.send("x" * 2000)
        with pytest.raises(ConnectionClosed) as caught:
            ws.receive()
        ends.put(caught.value.code)

    peer = dial(library, send, offer=offer, deflate=True, limit=1000)
    peer.end()
    assert ends.get(timeout=TIMEOUT) == 1009


@libraries()
def test_a_subprotocol_is_agreed_on(dial: Dial, library: Library) -> None:
    def tell(ws: WebSocket) -> None:
        ws.send(str(ws.subprotocol))

    peer = dial(library, tell, names=("a", "b", "c"), subprotocols=["c", "b"])
    assert peer.subprotocol == peer.receive() == "b"


@pytest.mark.slow
@pytest.mark.unmeasured
@libraries()
@pytest.mark.parametrize("terms", ALL_TERMS.values(), ids=ALL_TERMS)
@pytest.mark.parametrize("who", ["client", "server"])
def test_both_ends_keep_the_negotiated_compression_parameters(
    dial: Dial, watch: Watch, library: Library, terms: Terms, who: str
) -> None:
    offer, ready = {}, PerMessageDeflate(min_size=0)
    if who == "client":
        offer = terms = {name: terms[name] for name in terms if name in library.client_asks}
    else:
        ready = PerMessageDeflate(min_size=0, **terms)
    peer = dial(library, generator_echo, offer=offer, deflate=ready)

    def echoed(message: str | bytes) -> str | bytes:
        peer.send(message)
        return peer.receive()

    converse(watch, "server", echoed, peer.terms, terms)


# With the package websockets ----------------------------------------------------------------------


def open_websockets(server: Server, path: str = "/echo", **options: Any) -> ClientConnection:
    """Return a client of the package websockets."""
    options = {"open_timeout": TIMEOUT, "close_timeout": TIMEOUT, "proxy": None} | options
    return connect(f"ws://127.0.0.1:{server.port}{path}", **options)


def test_a_client_understands_the_end_of_a_handler(serve: Serve, log: ServerLog) -> None:
    def end(ws: WebSocket) -> None:
        if ws.receive() == "fail":
            raise RuntimeError

    server = serve(websocket_app(end))
    with open_websockets(server) as client:
        client.send("return")
        with pytest.raises(ConnectionClosedOK):
            client.recv(TIMEOUT)
    with open_websockets(server) as client:
        client.send("fail")
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(TIMEOUT)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1011, "the handler failed")
    log.expect("the handler of /echo failed")


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [("/nothing", None, 404), ("/echo", "https://evil.example", 403)],
)
def test_a_client_understands_a_refused_upgrade(
    serve: Serve, path: str, origin: str | None, status: int
) -> None:
    server = serve(websocket_app(lambda ws: None))
    with pytest.raises(InvalidStatus) as caught:
        open_websockets(server, path, origin=origin)
    assert caught.value.response.status_code == status
    assert caught.value.response.body


def test_clients_understand_that_the_server_stops(serve: Serve) -> None:
    server = serve(websocket_app(generator_echo), drain=60)
    with open_websockets(server) as client:
        client.send("x")
        assert client.recv(TIMEOUT) == "x"
        server.stop()
        with pytest.raises(ConnectionClosedOK) as caught:
            client.recv(TIMEOUT)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
