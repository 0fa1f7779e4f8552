"""Attacks on threads: silent clients, and clients that disconnect before their answer."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import sleep

from . import peers
from .peers import RefusedError
from .report import Report
from .target import Target

# Seconds that an honest client may wait during an attack.
PROMPT = 0.1


@dataclass(frozen=True)
class Kind:
    """A kind of resource that a silent client holds.

    Attributes:
        request: the head of the attacker's request.
        status: the status of the answer; None if the attacker gets no answer.
        message: the frame that the attacker sends after the answer.
        probe: measures how long an honest client waits on a route of this kind.
        same: the attacked route, as an honest client uses it.
        other: another route of the same kind.
    """

    request: bytes
    status: int | None
    message: bytes
    probe: Callable[..., float]
    same: str
    other: str


KINDS = {
    "plain handler": Kind(
        peers.request("/plain", upgrade=True),
        101,
        b"",
        peers.time_of_echo,
        "/plain",
        "/other-plain",
    ),
    "event generator": Kind(
        peers.request("/events"), 200, b"", peers.time_of_event, "/events", "/other-events"
    ),
    "authorize": Kind(
        peers.request("/judged?hold", upgrade=True),
        None,
        b"",
        peers.time_of_echo,
        "/judged",
        "/other-judged",
    ),
    "blocking turn": Kind(
        peers.request("/blocking", upgrade=True),
        101,
        peers.text("hold"),
        peers.time_of_echo,
        "/blocking",
        "/other-blocking",
    ),
}


def silent_clients(kind: str, count: int, *settings: str) -> Callable[[Report], None]:
    """Have ``count`` clients hold a resource and send nothing more."""
    held_kind = KINDS[kind]

    def attack(report: Report) -> None:
        with Target(*settings) as target, ExitStack() as stack:
            idle = target.memory
            held, refused = _hold(target.port, held_kind, count, stack)
            report.count("attackers held", len(held))
            report.count("attackers refused with 503", refused)
            other, same = held_kind.other, held_kind.same
            report.time("another route", held_kind.probe(target.port, other), PROMPT)
            report.time("another address", held_kind.probe(target.port, same), PROMPT)
            report.time("/metrics", peers.time_of_answer(target.port, "/metrics"), PROMPT)
            report.time("an echo on the loop", peers.time_of_echo(target.port, "/echo"), PROMPT)
            report.check("every attacker is still held", all(map(peers.is_open, held)))
            report.count("threads", target.threads)
            report.memory("memory for each attacker", (target.memory - idle) / max(1, len(held)))

    return attack


def _hold(port: int, kind: Kind, count: int, stack: ExitStack) -> tuple[list[socket.socket], int]:
    """Send ``count`` requests; return the sockets that hold a resource, and the refusals."""
    held, refused = [], 0
    asking = [stack.enter_context(closing(peers.connect(port))) for _ in range(count)]
    for sock in asking:
        sock.sendall(kind.request)
    if kind.status is None:
        sleep(0.5)  # the server refuses the excess requests meanwhile
    for sock in asking:
        if kind.status is None and not _is_readable(sock):
            held.append(sock)
            continue
        head = peers.read_head(sock)
        status = int(head.split(b" ", 2)[1])
        if status == kind.status:
            sock.sendall(kind.message)
            held.append(sock)
        elif status == 503 and b"\r\nretry-after:" in head.lower():
            refused += 1
        else:
            raise RefusedError(head)
    return held, refused


def _is_readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def abandoned_requests(count: int) -> Callable[[Report], None]:
    """Have ``count`` clients disconnect while their request waits for ``authorize``."""

    def attack(report: Report) -> None:
        with Target() as target, ExitStack() as stack:
            judged = KINDS["authorize"]
            _hold(target.port, judged, 80, stack)  # makes the other requests wait
            files, memory = target.files, target.memory
            for _ in range(count):
                with closing(peers.connect(target.port)) as sock:
                    sock.sendall(judged.request)
            closed = target.wait_until(lambda: target.files <= files)
            report.check("the files of disconnected clients are closed", closed)
            report.memory("memory not freed", target.memory - memory, count * 4096)
            report.time("another route", peers.time_of_echo(target.port, "/other-judged"), PROMPT)

    return attack


def abandoned_streams(count: int) -> Callable[[Report], None]:
    """Open and abandon ``count`` event streams whose generator waits."""

    def attack(report: Report) -> None:
        with Target() as target:
            for _ in range(count):
                peers.stream(target.port, "/events").close()
            running = 'wsframe_handlers{state="running"}'
            ended = target.wait_until(lambda: target.metric(running) == 0)
            report.check("the handlers of disconnected clients have ended", ended)
            report.time("a new stream", peers.time_of_event(target.port, "/events"), PROMPT)

    return attack
