"""The checks of a server's resources, and of its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from time import monotonic, sleep

from .exchanges import (
    expect_closing_handshake,
    expect_echo,
    expect_numbers,
    expect_page,
    websocket,
)
from .form import Form
from .kinds import Ending
from .running import Running
from .state import State
from .wire import TIMEOUT, Stream, Wire, WrongError, close_frame, request

# The end of a connection, maybe by a reset or in the middle of a chunk.
ENDED = (ConnectionResetError, EOFError)
# A server starts so many threads of its own when it needs them.
OWN_THREADS = 4
# The share of a processor that a server without work may use, for its own timers.
REST = 0.3


def pages_beside_connections(server: Running, form: Form) -> None:
    """Pages while more connections are open than the server has threads."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(websocket(server, target))
            for _ in range(6)
            for target in ("/echo", "/plain")
        ]
        for _ in range(12):
            wire = stack.enter_context(server.connect())
            wire.send(request("/topic?name=held"))
            Stream(wire).wait_for_position()
        for number in range(10):
            with server.connect() as wire:
                expect_page(wire, 1000 * number)
        for wire in sockets:
            expect_echo(wire, "held")


def released(server: Running, form: Form) -> None:
    """No file, thread or use of the processor after many connections."""
    _connect_many(server, 1)
    before = _settled(server)
    _connect_many(server, form.connections // 8)
    deadline = monotonic() + TIMEOUT
    while not _is_released(after := server.state(), before):
        if monotonic() > deadline:
            raise WrongError(f"not released: {after} (before {before})")
        sleep(0.05)
    begin = monotonic()
    sleep(form.seconds)
    used = (server.state().seconds - after.seconds) / (monotonic() - begin)
    if used > REST:
        raise WrongError(f"{used:.0%} of a processor are used without a connection")


def _settled(server: Running) -> State:
    """Return the resources when their numbers have not changed for a tenth of a second."""
    state, unchanged = server.state(), 0
    while unchanged < 5:
        sleep(0.02)
        before, state = state, server.state()
        same = (before.files, before.threads) == (state.files, state.threads)
        unchanged = unchanged + 1 if same else 0
    return state


def _is_released(after: State, before: State) -> bool:
    return after.files <= before.files and after.threads <= before.threads + OWN_THREADS


def _connect_many(server: Running, rounds: int) -> None:
    """Open eight connections in each round, and end them in several ways."""
    for _ in range(rounds):
        with ExitStack() as stack:
            sockets = [
                stack.enter_context(websocket(server, target))
                for target in ("/echo", "/plain", "/echo", "/plain")
            ]
            for wire in sockets:
                expect_echo(wire, "one of many")
            for target in ("/topic?name=many", "/topic?name=many", "/count?number=5"):
                wire = stack.enter_context(server.connect())
                wire.send(request(target))
                if "topic" in target:
                    Stream(wire).wait_for_position()
                else:
                    expect_numbers(wire, 5)
            wire = stack.enter_context(server.connect())
            expect_page(wire, 1000)
            expect_closing_handshake(sockets[0])
            expect_closing_handshake(sockets[1])
            sockets[2].reset()


def reload(server: Running, form: Form) -> None:
    """A restart by the reloader."""

    def change_until_noticed(wire: Wire) -> None:
        deadline = monotonic() + TIMEOUT
        # A change before the reloader has seen the file has no effect.
        while not wire.has_received(1.0) and monotonic() < deadline:
            server.touch()

    _expect_restart(server, change_until_noticed)


def restart(server: Running, form: Form) -> None:
    """A restart by SIGHUP, as at a deploy."""
    _expect_restart(server, lambda _: server.hang_up())


def _expect_restart(server: Running, begin: Callable[[Wire], object]) -> None:
    """Restart a server: clients receive 1001, and a new process serves them."""
    pid = server.state().pid
    with websocket(server, "/echo") as first, websocket(server, "/plain") as second:
        begin(first)
        for wire in (first, second):
            _expect_going_away(wire)
    server.find_restarted()
    if server.state().pid == pid:
        raise WrongError("the process was not restarted")


def termination(server: Running, form: Form) -> None:
    """SIGTERM: clients receive what the server promises, and it ends without a printed error."""
    with (
        websocket(server, "/echo") as first,
        websocket(server, "/plain") as second,
        server.connect() as third,
    ):
        for wire in (first, second):
            expect_echo(wire, "before the end")
        third.send(request("/topic?name=ended"))
        stream = Stream(third)
        stream.wait_for_position()
        server.terminate()
        ending = server.kind.ending
        for wire in (first, second):
            with nullcontext() if ending is Ending.CLOSE_FRAME else suppress(*ENDED):
                if ending is Ending.NOTHING:
                    wire.expect_end()
                else:
                    _expect_going_away(wire)
        with suppress(*ENDED):
            stream.expect_end()
    server.wait()
    output = server.output
    found = output.find("Traceback")
    if found >= 0:
        raise WrongError(f"the server printed an error:\n{output[max(0, found - 500) :][:3000]}")


def _expect_going_away(wire: Wire) -> None:
    """Wait for a close frame with 1001, and complete the closing handshake."""
    opcode, length = wire.read(2)
    payload = wire.read(length)
    if opcode != 0x88 or payload[:2] != (1001).to_bytes(2):
        raise WrongError(f"1001 was expected, and {bytes((opcode, length)) + payload!r} received")
    wire.send(close_frame(1001, masked=True))
    wire.expect_end()
