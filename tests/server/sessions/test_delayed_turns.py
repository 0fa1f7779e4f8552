"""A client whose handler's next turn is delayed, as while Redis does not accept its events."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import Queue

import pytest

from tests.support.clients import Clients
from tests.support.handlers import Checkpoint, MessageGenerator
from tests.support.inspection import loops_of, peers_of, session_of
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import ConnectionClosed
from wsframe.server import App, Server, WebSocket
from wsframe.server.handoff.task import WAITING
from wsframe.server.sessions.websocket_session import INBOX_SIZE
from wsframe.server.sockets.peer import Peer
from wsframe.testing import ManualClock

MESSAGE = "x" * 1000
# The number of messages that fill an inbox. The kernel's buffer has room for the rest of the data.
FULL = INBOX_SIZE // len(MESSAGE)


class Scene:
    """A handler whose turns wait at a checkpoint each, and which then only counts its messages."""

    def __init__(self) -> None:
        self.checkpoints = [Checkpoint(), Checkpoint()]
        self.received = 0
        self.ended = threading.Event()
        self.app = App()
        self.app.websocket("/", blocking=True)(self.handler)

    def handler(self, ws: WebSocket) -> MessageGenerator:
        try:
            for checkpoint in self.checkpoints:
                yield
                self.received += 1
                checkpoint.wait()
            while True:
                yield
                self.received += 1
        except ConnectionClosed:
            self.ended.set()

    def delay(self, server: Server, peer: Peer) -> Callable[[], object]:
        """Delay the turn that follows the running one; return a function that ends the delay."""
        (loop,) = loops_of(server)
        ends: Queue[Callable[[], object]] = Queue()
        session = session_of(peer)
        loop.call_soon(lambda: loop.slowdowns.add(session, "test", ends.put))
        end = ends.get(timeout=TIMEOUT)
        self.checkpoints[0].release()
        wait_until(lambda: session.state is WAITING, "the next turn is delayed")
        return end


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports a FIN without a read")
def test_a_client_with_a_full_inbox_is_not_read_before_its_messages_are(
    serve: Serve, clients: Clients
) -> None:
    scene = Scene()
    server = serve(scene.app)
    client = clients.websocket(server, "/")
    (peer,) = peers_of(server)
    client.send_messages("first")
    scene.checkpoints[0].wait_until_reached()
    client.send_messages(*[MESSAGE] * FULL)
    wait_until(lambda: not peer.reading, "the inbox is full")
    before = peer.bytes_in
    end = scene.delay(server, peer)
    client.send_messages("last")
    client.half_close()  # the end of the data is not read either
    ManualClock.let_loops_look(server)
    assert (peer.bytes_in, peer.reading) == (before, False)
    end()
    scene.checkpoints[1].wait_until_reached()
    ManualClock.let_loops_look(server)
    assert (peer.bytes_in, peer.reading) == (before, False)
    scene.checkpoints[1].release()
    assert scene.ended.wait(TIMEOUT)
    assert scene.received == FULL + 2


def test_a_client_is_not_read_while_the_turn_is_delayed(serve: Serve, clients: Clients) -> None:
    scene = Scene()
    server = serve(scene.app)
    client = clients.websocket(server, "/")
    (peer,) = peers_of(server)
    client.send_messages("first")
    scene.checkpoints[0].wait_until_reached()
    end = scene.delay(server, peer)
    before = peer.bytes_in
    client.send_messages("second")
    ManualClock.let_loops_look(server)
    assert (peer.bytes_in, peer.reading) == (before, False)
    end()
    scene.checkpoints[1].wait_until_reached()
    assert peer.reading
    scene.checkpoints[1].release()
    client.leave()
    assert scene.ended.wait(TIMEOUT)
    assert scene.received == 2
