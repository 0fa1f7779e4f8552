"""gunicorn with thousands of connections, by wsframe and by flask-sock: ``make servers``.

The pages of a server with connections are measured beside those of an equal server without any, in
turns, because only ratios are comparable.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from time import monotonic

from .exchanges import expect_echo, expect_page
from .kinds import Ending, Kind
from .report import aligned
from .running import Running, StartError, allow_many_files
from .wire import Stream, Wire, WrongError, request, upgrade

KIB = 1 << 10
# The largest ratio of the time of a page beside connections to that without.
SLOWER = 1.3
ROUNDS, PAGES = 7, 300
ECHOING, ECHO_INTERVAL = 100, 1.0
# Seconds after which a server counts as blocked.
BLOCKED = 4.0

HEADER = (
    *("gunicorn gthread with", "connections", "threads in use"),
    *("KiB per WebSocket", "KiB per stream", "page, idle", "page, echoing"),
)


def flask(module: str, package: str, threads: int) -> Kind:
    """Return a gunicorn gthread with this application."""
    return Kind(
        name=f"{package}, {threads:,} threads",
        package=package,
        command=(
            *("-m", "gunicorn", f"servers.{module}:application", "--bind", "fd://{fd}"),
            *("--worker-class", "gthread", "--workers", "1", "--threads", str(threads)),
            # The default is 1,000, which the connections of flask-sock count towards.
            *("--worker-connections", "10000"),
        ),
        ending=Ending.CLOSE_FRAME,
    )


class BlockedError(Exception):
    """A server answers no further request; the message is the number of its connections."""


@dataclass(frozen=True)
class Measured:
    """The figures of a server with connections.

    Attributes:
        connections: their number.
        threads: the threads of its process.
        websocket: the bytes of memory of each WebSocket.
        stream: the bytes of memory of each event stream.
        idle: the ratio of the times of pages while the connections are idle.
        echoing: the same while a hundred of them echo a message once a second.
    """

    connections: int
    threads: int
    websocket: float
    stream: float
    idle: float
    echoing: float


def open_websockets(server: Running, number: int, stack: ExitStack, wires: list[Wire]) -> None:
    """Add WebSockets, which the stack closes, until there are so many.

    Raises:
        BlockedError: one is not answered.
    """
    while len(wires) < number:
        wire = stack.enter_context(server.connect())
        wire.send(upgrade("/echo"))
        if not wire.has_received(BLOCKED):
            raise BlockedError(len(wires))
        wire.expect_upgrade()
        wires.append(wire)


def open_streams(server: Running, number: int, stack: ExitStack) -> None:
    """Open so many event streams, which the stack closes."""
    for _ in range(number):
        wire = stack.enter_context(server.connect())
        wire.send(request("/topic"))
        Stream(wire).wait_for_position()


def time_of_page(server: Running) -> float:
    """Return the median of the seconds for a page, on one kept connection."""
    times = []
    with server.connect() as wire:
        for _ in range(PAGES):
            begin = monotonic()
            expect_page(wire, 1000)
            times.append(monotonic() - begin)
    return median(times)


def slower(server: Running, empty: Running) -> float:
    """Return the median ratio of the times of pages of two servers, measured in turns."""
    return median(time_of_page(server) / time_of_page(empty) for _ in range(ROUNDS))


@contextmanager
def echoing(wires: list[Wire]) -> Iterator[None]:
    """Echo one message a second on each of these WebSockets, in a thread.

    Raises:
        WrongError: an echo is wrong, or they took longer.
    """
    stop = threading.Event()
    faults: list[Exception] = []

    def run() -> None:
        try:
            begin, number = monotonic(), 0
            while not stop.wait(
                max(0.0, begin + number * ECHO_INTERVAL / len(wires) - monotonic())
            ):
                expect_echo(wires[number % len(wires)], f"message {number}")
                number += 1
            late = monotonic() - begin - number * ECHO_INTERVAL / len(wires)
            if late > ECHO_INTERVAL:
                raise WrongError(f"the echoes are {late:.1f} s late")
        except (WrongError, OSError, EOFError) as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if faults:
        raise WrongError(f"an echo failed: {faults[0]!r}")


def measure(kind: Kind, number: int) -> Measured:
    """Return the figures of a server with so many WebSockets and as many event streams.

    Raises:
        BlockedError: it answers no request any more.
    """
    with Running(kind) as empty, Running(kind) as server, ExitStack() as stack:
        wires: list[Wire] = []
        open_websockets(server, 1, stack, wires)  # the first one starts threads
        before = server.state()
        open_websockets(server, number, stack, wires)
        with_websockets = server.state()
        open_streams(server, number, stack)
        with_all = server.state()
        idle = slower(server, empty)
        with echoing(wires[:ECHOING]):
            under_echo = slower(server, empty)
        for wire in wires:
            expect_echo(wire, "still open")
        return Measured(
            connections=2 * number,
            threads=with_all.threads,
            websocket=(with_websockets.memory - before.memory) / (number - 1),
            stream=(with_all.memory - with_websockets.memory) / number,
            idle=idle,
            echoing=under_echo,
        )


def compare(number: int = 1000) -> list[str]:
    """Print the comparison; return descriptions of what failed."""
    rows: list[tuple[str, ...]] = [HEADER]
    faults = []
    many = 2 * number + 10
    for kind in (
        flask("flask_live", "wsframe", 4),
        flask("flask_sock_app", "flask-sock", 4),
        flask("flask_sock_app", "flask-sock", many),
    ):
        try:
            measured = measure(kind, number)
        except BlockedError as error:
            rows.append((kind.name, f"{error}, then blocked", "", "", "", "", ""))
            if kind.package == "wsframe":
                faults.append(f"{kind.name}: blocked by {error} WebSockets")
            continue
        except (WrongError, StartError, OSError, EOFError) as error:
            faults.append(f"{kind.name}: {error!r}")
            continue
        rows.append(row(kind.name, measured))
        if kind.package == "wsframe" and max(measured.idle, measured.echoing) > SLOWER:
            faults.append(f"{kind.name}: pages take more than {SLOWER} times as long")
    print("\n".join(aligned(rows)))
    return faults


def row(name: str, measured: Measured) -> tuple[str, ...]:
    """Return the cells of a server."""
    return (
        name,
        f"{measured.connections:,}",
        f"{measured.threads:,}",
        f"{measured.websocket / KIB:.1f}",
        f"{measured.stream / KIB:.1f}",
        f"{measured.idle:.2f} x",
        f"{measured.echoing:.2f} x",
    )


if __name__ == "__main__":
    allow_many_files()
    sys.exit("\n".join(compare()) or None)
