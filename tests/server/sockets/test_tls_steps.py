"""The thread that computes TLS handshakes, and the connections that end meanwhile."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.server.sockets.over_tls import context_of, page_app
from tests.support.certificates import Certificates
from tests.support.clients import Client, Clients, get, parse_answer
from tests.support.handlers import Checkpoint
from tests.support.inspection import loops_of, peers_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import wait_until
from wsframe.server import Server
from wsframe.server.handoff.loop import READ


class Held:
    """A server whose handshakes wait for the test.

    Attributes:
        server: the server.
        held: the point where each step of a handshake waits, once the test has called `hold`.
        closed: set when a socket whose step has been held is closed.
    """

    def __init__(self, serve: Serve, certificates: Certificates, **settings: Any) -> None:
        self.held: Checkpoint | None = None
        self.closed = threading.Event()
        self.threads: list[str] = []
        scene = self

        class HeldSocket(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                scene.threads.append(threading.current_thread().name)
                if scene.held is not None:
                    scene.held.wait()
                super().do_handshake(block)

            def close(self) -> None:
                super().close()
                if scene.held is not None:
                    scene.closed.set()

        self.server: Server = serve(
            page_app(), ssl_context=context_of(certificates, HeldSocket), **settings
        )

    def hold(self) -> Checkpoint:
        """Let all steps from now on wait."""
        self.held = Checkpoint()
        return self.held


@pytest.fixture
def scene(serve: Serve, certificates: Certificates) -> Iterator[Held]:
    scene = Held(serve, certificates)
    yield scene
    if scene.held is not None:
        scene.held.release()


def begin_handshake(client: Client) -> None:
    """Send the beginning of a TLS record, so that the server begins a step."""
    client.send(b"\x16")


def test_a_handshake_delays_no_other_client(
    scene: Held, clients: Clients, certificates: Certificates
) -> None:
    tls = certificates.client_context()
    other = clients.websocket(scene.server, "/echo", tls=tls)
    held = scene.hold()
    begin_handshake(clients.connect(scene.server))
    held.wait_until_reached()
    # An event of a closed file with the same descriptor.
    (peer,) = (peer for peer in peers_of(scene.server) if peer.awaiting_request)
    loops_of(scene.server)[0].call_soon(partial(peer.ready, READ))
    other.send_messages("served")
    assert other.next_event() == "served"
    assert set(scene.threads) == {"wsframe-tls"}


def test_a_connection_that_ends_during_a_step_is_closed_after_it(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    scene = Held(serve, certificates, handshake_timeout=0.2)
    held = scene.hold()
    begin_handshake(clients.connect(scene.server))
    held.wait_until_reached()
    wait_until(lambda: not peers_of(scene.server), "the handshake has timed out")
    assert not scene.closed.is_set()  # the thread of the handshake still uses the socket
    held.release()
    assert scene.closed.wait(10)


def test_a_stop_waits_for_the_step_that_runs(scene: Held, clients: Clients) -> None:
    held = scene.hold()
    begin_handshake(clients.connect(scene.server))
    held.wait_until_reached()
    stopping = threading.Thread(target=stop_within, args=(scene.server, 20))
    stopping.start()
    wait_until(lambda: not peers_of(scene.server), "the connections are closed")
    assert stopping.is_alive()
    held.release()
    stopping.join(20)
    assert scene.closed.is_set()


def test_without_a_thread_the_handshake_runs_on_the_loop(
    scene: Held,
    clients: Clients,
    certificates: Certificates,
    log: ServerLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "wsframe-tls":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    client = clients.connect(scene.server, tls=certificates.client_context())
    client.send(get("/"))
    assert parse_answer(client.read_to_end()).body == b"hello"
    assert all(name.startswith("wsframe-loop") for name in scene.threads)
    log.expect("TLS handshakes run on the loop: can't start new thread", logging.WARNING)


def test_an_error_in_a_step_ends_only_its_own_connection(
    serve: Serve, clients: Clients, certificates: Certificates, log: ServerLog
) -> None:
    failing: list[bool] = [True]

    class FailingSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            if failing:
                failing.pop()
                raise ValueError("on purpose")
            super().do_handshake(block)

    server = serve(page_app(), ssl_context=context_of(certificates, FailingSocket))
    broken = clients.connect(server)
    begin_handshake(broken)
    assert broken.read_to_end() == b""
    log.expect("internal error")
    client = clients.connect(server, tls=certificates.client_context())
    client.send(get("/"))
    assert parse_answer(client.read_to_end()).body == b"hello"


def test_the_steps_of_connections_that_have_ended_take_no_time(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    scene = Held(serve, certificates, handshake_timeout=0.2)
    held = scene.hold()
    begin_handshake(clients.connect(scene.server))
    held.wait_until_reached()
    for _ in range(3):
        begin_handshake(clients.connect(scene.server))
    wait_until(lambda: len(peers_of(scene.server)) == 4, "their steps are queued")
    wait_until(lambda: not peers_of(scene.server), "the handshakes have timed out")
    held.release()
    stop_within(scene.server, 20)
    assert len(scene.threads) == 1
