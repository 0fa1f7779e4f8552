"""Interoperability with the servers of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

from tests.support.peers import (
    ALL_TERMS,
    CLOSES,
    FRAGMENTING,
    LIMITING,
    MESSAGES,
    Ended,
    Library,
    Peer,
    Terms,
    Watch,
    converse,
    echo,
    libraries,
)
from tests.support.waiting import TIMEOUT

from .conftest import Connect

Dial = Callable[..., Any]


@pytest.fixture
def servers(leak_check: None) -> Iterator[ExitStack]:
    """The servers of a test, which are stopped after its clients."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def dial(servers: ExitStack, connect: Connect) -> Dial:
    """Starts a library's server with this script, and opens a WebSocket to it."""

    def open_websocket(
        library: Library,
        script: Callable[[Peer], object],
        *,
        ready: Terms | None = None,
        names: tuple[str, ...] = (),
        limit: int = 1 << 20,
        **options: Any,
    ) -> Any:
        server = library.serve(script, subprotocols=names, deflate=ready, limit=limit)
        return connect(servers.enter_context(server), **options)

    return open_websocket


@pytest.fixture
def watch(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Records the data that the client compresses and decompresses."""
    return Watch(codec, monkeypatch)


@libraries()
@pytest.mark.parametrize("ready", [{}, None], ids=["ready", "not-ready"])
@pytest.mark.parametrize("deflate", [True, False], ids=["offered", "not-offered"])
def test_messages_of_all_kinds_are_echoed(
    dial: Dial, watch: Watch, library: Library, ready: Terms | None, deflate: bool
) -> None:
    known: list[Terms | None] = []

    def script(peer: Peer) -> None:
        known.append(peer.terms)
        echo(peer)

    ws = dial(library, script, ready=ready, deflate=deflate)
    for message in MESSAGES:
        ws.send(message)
        assert ws.receive(TIMEOUT) == message
    agreed = deflate and ready is not None
    assert (ws.deflate is not None, known != [None]) == (agreed, agreed)
    assert (bool(watch.sent), bool(watch.received)) == (agreed, agreed)


@libraries(FRAGMENTING)
@pytest.mark.parametrize("ready", [{}, None], ids=["compressed", "plain"])
def test_fragments_come_as_one_message(
    dial: Dial, watch: Watch, library: Library, ready: Terms | None
) -> None:
    texts = (["one ", "twö ", "", "three"], ["", "x" * 70_000, "ü"])
    data = ([b"one ", b"\xff"], [b"\xfe" * 65536] * 3)

    def script(peer: Peer) -> None:
        for pieces in (*texts, *data):
            peer.send_in_fragments(pieces)
        peer.close(1000, "")

    ws = dial(library, script, ready=ready)
    assert list(ws) == [*map("".join, texts), *map(b"".join, data)]
    assert bool(watch.received) == (ready is not None)


@libraries()
def test_pings_are_answered(dial: Dial, library: Library) -> None:
    def script(peer: Peer) -> None:
        for payload in (b"x" * 125, b"\x00\xff", b"y"):
            peer.ping(payload)
        peer.send("all answered")
        echo(peer)

    assert dial(library, script).receive(TIMEOUT) == "all answered"


@libraries()
def test_a_ping_of_the_client_is_answered(dial: Dial, watch: Watch, library: Library) -> None:
    ws = dial(library, echo)
    ws.round_trip(TIMEOUT)
    ws.ping(b"x" * 125)
    ws.ping()
    ws.send("pinged")
    assert ws.receive(TIMEOUT) == "pinged"
    assert watch.pongs[1:] == [b"x" * 125, b""]


@libraries()
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_close_of_the_server_is_answered(
    dial: Dial, library: Library, code: int, reason: str
) -> None:
    answers: SimpleQueue[int] = SimpleQueue()

    def script(peer: Peer) -> None:
        peer.send("before")
        answers.put(peer.close(code, reason))

    ws = dial(library, script)
    assert list(ws) == ["before"]
    assert (ws.close_code, ws.close_reason) == (code, reason)
    assert answers.get(timeout=TIMEOUT) == code


@libraries()
@pytest.mark.parametrize(("code", "reason"), [*CLOSES, (1005, "")])
def test_the_server_accepts_the_close_of_the_client(
    dial: Dial, library: Library, code: int, reason: str
) -> None:
    ends: SimpleQueue[Any] = SimpleQueue()

    def script(peer: Peer) -> None:
        ends.put(peer.receive())
        ends.put(peer.end())

    ws = dial(library, script)
    ws.send("before")
    ws.close(code, reason)
    assert ends.get(timeout=TIMEOUT) == "before"
    assert ends.get(timeout=TIMEOUT) == (code, reason)


@libraries()
@pytest.mark.parametrize("ready", [{}, None], ids=["compressed", "plain"])
def test_a_message_over_the_limit_fails(
    dial: Dial, codec: ModuleType, library: Library, ready: Terms | None
) -> None:
    ends: SimpleQueue[tuple[int, str]] = SimpleQueue()

    def script(peer: Peer) -> None:
        peer.send("x" * 1000)
        peer.send("x" * 1001)
        ends.put(peer.end())

    ws = dial(library, script, ready=ready, max_message_size=1000)
    assert ws.receive(TIMEOUT) == "x" * 1000
    with pytest.raises(codec.ConnectionClosed, match="limit of 1000"):
        ws.receive(TIMEOUT)
    code, reason = ends.get(timeout=TIMEOUT)
    assert code == ws.close_code == 1009
    assert "limit of 1000" in reason


@libraries(LIMITING)
@pytest.mark.parametrize("ready", [{}, None], ids=["compressed", "plain"])
def test_the_client_sees_the_limit_of_the_server(
    dial: Dial, codec: ModuleType, library: Library, ready: Terms | None
) -> None:
    def script(peer: Peer) -> None:
        with pytest.raises(Ended):
            peer.receive()

    ws = dial(library, script, ready=ready, limit=1000)
    ws.send("x" * 2000)
    with pytest.raises(codec.ConnectionClosed):
        ws.receive(TIMEOUT)
    assert ws.close_code == 1009


@libraries()
def test_a_subprotocol_is_negotiated(dial: Dial, library: Library) -> None:
    def script(peer: Peer) -> None:
        peer.send(str(peer.subprotocol))
        echo(peer)

    ws = dial(library, script, names=("x", "b"), subprotocols=["a", "b", "c"])
    assert ws.subprotocol == ws.receive(TIMEOUT) == "b"


@pytest.mark.slow
@pytest.mark.unmeasured
@libraries()
@pytest.mark.parametrize("terms", ALL_TERMS.values(), ids=ALL_TERMS)
@pytest.mark.parametrize("who", ["client", "server"])
def test_both_ends_respect_the_negotiated_compression(
    dial: Dial, watch: Watch, codec: ModuleType, library: Library, terms: Terms, who: str
) -> None:
    known: SimpleQueue[Terms | None] = SimpleQueue()

    def script(peer: Peer) -> None:
        known.put(peer.terms)
        echo(peer)

    ready, offer = {}, codec.PerMessageDeflate(min_size=0)
    if who == "server":
        ready = terms = {name: terms[name] for name in terms if name in library.server_asks}
    else:
        offer = codec.PerMessageDeflate(min_size=0, **terms)
    ws = dial(library, script, ready=ready, deflate=offer)

    def echoed(message: str | bytes) -> Any:
        ws.send(message)
        return ws.receive(TIMEOUT)

    converse(watch, "client", echoed, known.get(timeout=TIMEOUT), terms)
