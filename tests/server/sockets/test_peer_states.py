"""The states of a connection: every transition of the table in docs/design.md."""

from __future__ import annotations

import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.log import ServerLog
from tests.support.polling import StubPoller
from wsframe.server.handoff.loop import READ, RECEIVE_BUFFER, WRITE, Loop
from wsframe.server.pure_rounds import BROKEN
from wsframe.server.settings import Settings
from wsframe.server.sockets.clients import Clients
from wsframe.server.sockets.peer import Peer
from wsframe.server.sockets.session import Session
from wsframe.server.sockets.states import CLOSED, FINISHING, OPEN, SEALED, SHUT, PeerState
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

TRANSITIONS = {
    (OPEN, SEALED),
    (OPEN, CLOSED),
    (SEALED, FINISHING),
    (SEALED, CLOSED),
    (FINISHING, SHUT),
    (FINISHING, CLOSED),
    (SHUT, CLOSED),
}
MUCH = bytes(8 << 20)  # more than the buffers of a socket pair


class StubLoop:
    """A loop that never runs: the test calls the peer in its place."""

    poller = StubPoller()

    def __init__(self, clock: ManualClock) -> None:
        self.timing = Timing(clock=clock)
        self.clock = clock
        self.unfinished: set[object] = set()
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER))

    def owned(self) -> bool:
        return True

    def instant(self, seconds: float) -> float:
        return self.clock() + seconds

    def register(self, *ignored: object) -> None: ...

    modify = unregister = start_ticks = call_soon = expect_data = register


class Recorded(Peer):
    """A peer that records its states."""

    __slots__ = ("_state", "states")

    @property
    def state(self) -> PeerState:
        return self._state

    @state.setter
    def state(self, state: PeerState) -> None:
        if not hasattr(self, "states"):
            self.states: list[PeerState] = []
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
        self._state = state


class Silent(Session):
    """A session that does nothing, except that it finishes when its deadline has passed."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def data_received(self, data: memoryview) -> None: ...

    def disconnected(self) -> None: ...

    def deadline_passed(self) -> None:
        self.peer.finish(b"too late")

    def shut_down(self) -> None:
        self.peer.finish(b"bye")


class Case:
    """One connection whose loop is the test, and its client."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        loop = StubLoop(self.clock)
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        clients = Clients(cast(Loop, loop), Settings())
        self.peer = Recorded(clients, ours, "client")
        self.peer.open(Silent(self.peer), 10)

    def seal(self) -> None:
        self.peer.close_send(b"last")

    def finish(self) -> None:
        self.peer.finish(b"last")

    def finish_slowly(self) -> None:
        """Finish while the client does not read, so that the last words stay unsent."""
        self.peer.out.append(MUCH)
        self.peer.finish(b"last")

    def client_reads(self) -> None:
        self.client.setblocking(False)
        while self.peer.has_unsent:
            self.client.recv(1 << 20)
            self.peer.ready(WRITE)

    def client_leaves(self) -> None:
        self.client.close()
        self.peer.ready(READ)

    def deadline(self) -> None:
        self.clock.now += 100
        self.peer.deadline_passed()

    def shut_down(self) -> None:
        self.peer.shut_down()

    def abort(self) -> None:
        self.peer.abort()


@pytest.fixture
def case() -> Iterator[Case]:
    case = Case()
    yield case
    case.peer.abort()
    case.client.close()


Step = Callable[[Case], None]
WALKS: dict[str, tuple[list[Step], list[PeerState]]] = {
    "abort": ([Case.abort], [OPEN, CLOSED]),
    "the client leaves": ([Case.client_leaves], [OPEN, CLOSED]),
    "seal, then abort": ([Case.seal, Case.abort], [OPEN, SEALED, CLOSED]),
    "seal, then the client leaves": (
        [Case.seal, Case.client_leaves],
        [OPEN, SEALED, FINISHING, CLOSED],
    ),
    "finish": ([Case.finish], [OPEN, SEALED, FINISHING, SHUT]),
    "seal, then finish": ([Case.seal, Case.finish], [OPEN, SEALED, FINISHING, SHUT]),
    "the server stops": ([Case.shut_down], [OPEN, SEALED, FINISHING, SHUT]),
    "the session's deadline passes": ([Case.deadline], [OPEN, SEALED, FINISHING, SHUT]),
    "finish slowly": ([Case.finish_slowly], [OPEN, SEALED, FINISHING]),
    "finish slowly, and the client reads": (
        [Case.finish_slowly, Case.client_reads],
        [OPEN, SEALED, FINISHING, SHUT],
    ),
    "finish slowly, and the client does not read": (
        [Case.finish_slowly, Case.deadline],
        [OPEN, SEALED, FINISHING, CLOSED],
    ),
    "finish slowly, and the client leaves": (
        [Case.finish_slowly, Case.client_leaves, Case.deadline],
        [OPEN, SEALED, FINISHING, CLOSED],
    ),
    "finish, and the client leaves": (
        [Case.finish, Case.client_leaves],
        [OPEN, SEALED, FINISHING, SHUT, CLOSED],
    ),
    "finish, and the client stays": (
        [Case.finish, Case.deadline],
        [OPEN, SEALED, FINISHING, SHUT, CLOSED],
    ),
    "finish, then abort": (
        [Case.finish, Case.abort],
        [OPEN, SEALED, FINISHING, SHUT, CLOSED],
    ),
}


@pytest.mark.parametrize("walk", WALKS)
def test_a_connection_passes_through_these_states(case: Case, walk: str) -> None:
    steps, states = WALKS[walk]
    for step in steps:
        step(case)
    assert case.peer.states == states


def test_the_walks_make_every_transition_of_the_table_and_no_other() -> None:
    seen = {pair for _, states in WALKS.values() for pair in pairwise(states)}
    assert seen == TRANSITIONS


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("step", [Case.seal, Case.finish, Case.shut_down, Case.abort])
def test_no_step_leads_back(case: Case, walk: str, step: Step) -> None:
    for first in WALKS[walk][0]:
        first(case)
    before = case.peer.state
    step(case)
    assert case.peer.state >= before
    assert case.peer.states == sorted(case.peer.states)


def test_only_an_open_connection_sends_what_is_queued_later(case: Case) -> None:
    case.peer.send(b"first")
    case.peer.flush()
    case.seal()
    case.peer.send(b"too late")
    case.peer.send_control(b"too late")
    case.peer.finish()
    case.client.settimeout(10)
    received = b"".join(iter(lambda: case.client.recv(100), b""))
    assert received == b"firstlast"


def test_a_closed_connection_keeps_no_queued_data(case: Case) -> None:
    case.abort()
    case.peer.send_control(b"too late")
    case.peer.close_send(b"too late")
    assert not case.peer.has_unsent


@pytest.mark.skipif(sys.platform != "linux", reason="no system call reports unread data elsewhere")
def test_a_client_that_has_closed_its_side_is_kept_until_it_has_read_everything(case: Case) -> None:
    case.finish()
    case.client.shutdown(socket.SHUT_WR)
    case.peer.ready(READ)
    case.peer.check_progress(case.clock())
    assert case.peer.state is SHUT
    assert not case.peer.reading
    assert case.client.recv(100) == b"last"
    case.peer.check_progress(case.clock())
    assert case.peer.state is CLOSED


def test_a_connection_that_has_ended_is_not_cut_off(case: Case, log: ServerLog) -> None:
    case.abort()
    case.peer.cut_off("is too slow")
    assert not log.records
    assert not case.peer.clients.totals.slow_clients


def test_a_socket_whose_receive_call_failed_in_the_round_is_closed(case: Case) -> None:
    case.peer.ready(BROKEN)
    assert case.peer.state is CLOSED


def test_messages_that_were_received_before_the_end_are_discarded(case: Case) -> None:
    case.abort()
    assert case.peer.session.messages_received(["late"], None) is None


def test_an_unusual_error_of_a_receive_call_ends_the_connection(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = case.peer.sock

    def fail(buffer: memoryview, size: int) -> int:
        raise OSError("on purpose")

    failing = SimpleNamespace(
        recv_into=fail, fileno=sock.fileno, shutdown=sock.shutdown, close=sock.close
    )
    monkeypatch.setattr(case.peer, "sock", failing)
    case.peer.ready(READ)
    assert case.peer.state is CLOSED


@pytest.mark.unmeasured
def test_short_answers_to_a_client_that_reads_nothing_take_little_memory(case: Case) -> None:
    case.peer.out.append(MUCH)
    case.peer.flush()
    assert case.peer.has_unsent
    number = 20_000
    tracemalloc.start()
    try:
        for _ in range(number):
            case.peer.send_control(b"ab")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 5 * number
    case.client.setblocking(False)
    received = bytearray()
    while case.peer.has_unsent:
        received += case.client.recv(1 << 20)
        case.peer.ready(WRITE)
    with suppress(BlockingIOError):
        while data := case.client.recv(1 << 20):
            received += data
    assert received == MUCH + b"ab" * number
