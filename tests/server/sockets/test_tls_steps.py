"""The thread that computes TLS handshakes, and the connections that end meanwhile."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.server.sockets.over_tls import context_of, page_app
from tests.support.certificates import Certificates
from tests.support.clients import Client, Clients, get, parse_response
from tests.support.handlers import Checkpoint
from tests.support.inspection import loops_of, peers_of
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import Server
from wsframe.server.handoff.loop import READ
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock


class Held:
    """A server whose handshakes wait for the test.

    Attributes:
        server: the server.
        held: the point where each step of a handshake waits, once the test has called `hold`.
        threads: the names of the threads of all steps, in order.
        ended: set when a step that was held has ended.
    """

    def __init__(
        self, serve: Serve, certificates: Certificates, timing: Timing | None = None
    ) -> None:
        self.held: Checkpoint | None = None
        self.ended = threading.Event()
        self.threads: list[str] = []
        scene = self

        class HeldObject(ssl.SSLObject):
            def do_handshake(self) -> None:
                scene.threads.append(threading.current_thread().name)
                if scene.held is not None:
                    scene.held.wait()
                try:
                    super().do_handshake()
                finally:
                    if scene.held is not None:
                        scene.ended.set()

        self.context = context_of(certificates, HeldObject)
        self.server: Server = serve(page_app(timing), ssl_context=self.context)

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


def read_of(server: Server) -> list[int]:
    """Return the number of bytes that each connection has received."""
    return [peer.bytes_in for peer in peers_of(server)]


def begin_handshake(client: Client) -> None:
    """Send a record with the first byte of a message, so that the server begins a step."""
    client.send(b"\x16\x03\x01\x00\x01\x01")


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
    # Steps with a signature are computed by the thread, and the short end of a handshake is not.
    assert scene.threads == ["wsframe-tls", "wsframe-loop", "wsframe-tls"]


def test_a_handshake_that_checks_a_client_is_computed_by_the_thread(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    scene = Held(serve, certificates)
    scene.context.verify_mode = ssl.CERT_OPTIONAL
    client = clients.connect(scene.server, tls=certificates.client_context())
    client.send(get("/"))
    assert parse_response(client.read_to_end()).body == b"hello"
    assert scene.threads == ["wsframe-tls", "wsframe-tls"]


def test_data_that_arrives_during_a_step_is_read_after_it(
    scene: Held, clients: Clients, certificates: Certificates
) -> None:
    held = scene.hold()
    client = clients.connect(scene.server)
    begin_handshake(client)
    held.wait_until_reached()
    client.send(b"garbage")
    (peer,) = peers_of(scene.server)
    wait_until(lambda: not peer.reading, "the socket is not polled")
    held.release()
    assert b"\x15" in client.read_to_end()[:1]  # an alert


def test_a_connection_that_ends_during_a_step_is_closed_after_it(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    clock = ManualClock()
    scene = Held(serve, certificates, Timing(clock=clock))
    held = scene.hold()
    client = clients.connect(scene.server)
    begin_handshake(client)
    held.wait_until_reached()
    clock.pass_time(scene.server, 2 * scene.server.settings.handshake_timeout)
    assert not peers_of(scene.server)
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # the thread of the handshake still uses the socket
        client.receive()
    client.sock.settimeout(TIMEOUT)
    held.release()
    assert client.read_to_end() == b""


def test_a_stale_event_during_a_handshake_is_ignored(
    scene: Held, clients: Clients, certificates: Certificates
) -> None:
    client = clients.connect(scene.server)
    wait_until(lambda: peers_of(scene.server), "it is accepted")
    (peer,) = peers_of(scene.server)
    checked = threading.Event()
    for call in (partial(peer.ready, READ), checked.set):
        loops_of(scene.server)[0].call_soon(call)
    assert checked.wait(TIMEOUT)
    client.sock = certificates.client_context().wrap_socket(
        client.sock, server_hostname="127.0.0.1"
    )
    client.send(get("/"))
    assert parse_response(client.read_to_end()).body == b"hello"


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
    assert scene.ended.is_set()


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
    assert parse_response(client.read_to_end()).body == b"hello"
    assert all(name.startswith("wsframe-loop") for name in scene.threads)
    log.expect("because no thread can be started: can't start new thread", logging.WARNING)


def test_an_error_in_a_step_ends_only_its_own_connection(
    serve: Serve, clients: Clients, certificates: Certificates, log: ServerLog
) -> None:
    failing: list[bool] = [True]

    class FailingObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            if failing:
                failing.pop()
                raise ValueError("on purpose")
            super().do_handshake()

    server = serve(page_app(), ssl_context=context_of(certificates, FailingObject))
    broken = clients.connect(server)
    begin_handshake(broken)
    assert broken.read_to_end() == b""
    log.expect("internal error")
    client = clients.connect(server, tls=certificates.client_context())
    client.send(get("/"))
    assert parse_response(client.read_to_end()).body == b"hello"


def test_the_steps_of_connections_that_have_ended_take_no_time(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    clock = ManualClock()
    scene = Held(serve, certificates, Timing(clock=clock))
    held = scene.hold()
    begin_handshake(clients.connect(scene.server))
    held.wait_until_reached()
    for _ in range(3):
        begin_handshake(clients.connect(scene.server))
    wait_until(lambda: read_of(scene.server) == [6] * 4, "their steps are queued")
    clock.pass_time(scene.server, 2 * scene.server.settings.handshake_timeout)
    assert not peers_of(scene.server)
    held.release()
    stop_within(scene.server, 20)
    assert len(scene.threads) == 1
