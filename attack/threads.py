"""Attacks on threads: silent clients, and clients that ask and leave."""

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

# What others may wait for while the attackers hold what they can, in seconds.
PROMPT = 0.1


@dataclass(frozen=True)
class Kind:
    """What a silent client holds.

    Attributes:
        request: how it asks.
        status: of the answer, or None where it waits for one.
        message: what it sends then.
        probe: how long an honest client waits that uses the same kind of route.
        same: the route that is attacked, as an honest client uses it.
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
    """So many clients hold what they get, and are silent."""
    what = KINDS[kind]

    def attack(report: Report) -> None:
        with Target(*settings) as target, ExitStack() as stack:
            idle = target.memory
            held, refused = _hold(target.port, what, count, stack)
            report.count("attackers held", len(held))
            report.count("attackers refused with 503", refused)
            report.time("another route", what.probe(target.port, what.other), PROMPT)
            report.time("another address", what.probe(target.port, what.same), PROMPT)
            report.time("/metrics", peers.time_of_answer(target.port, "/metrics"), PROMPT)
            report.time("an echo on the loop", peers.time_of_echo(target.port, "/echo"), PROMPT)
            report.check("every attacker is still held", all(map(peers.is_open, held)))
            report.count("threads", target.threads)
            report.memory("memory for each attacker", (target.memory - idle) / max(1, len(held)))

    return attack


def _hold(port: int, what: Kind, count: int, stack: ExitStack) -> tuple[list[socket.socket], int]:
    """Have as many clients ask at once; those that hold something, and how many were refused."""
    held, refused = [], 0
    asking = [stack.enter_context(closing(peers.connect(port))) for _ in range(count)]
    for sock in asking:
        sock.sendall(what.request)
    if what.status is None:
        sleep(0.5)  # the time in which those are refused that do not get what they ask for
    for sock in asking:
        if what.status is None and not _is_readable(sock):
            held.append(sock)
            continue
        head = peers.read_head(sock)
        status = int(head.split(b" ", 2)[1])
        if status == what.status:
            sock.sendall(what.message)
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
    """As many clients ask for what is judged in a thread, and leave before the answer."""

    def attack(report: Report) -> None:
        with Target() as target, ExitStack() as stack:
            judged = KINDS["authorize"]
            _hold(target.port, judged, 80, stack)  # so that the rest must wait
            files, memory = target.files, target.memory
            for _ in range(count):
                with closing(peers.connect(target.port)) as sock:
                    sock.sendall(judged.request)
            given_back = target.wait_until(lambda: target.files <= files)
            report.check("the files of those that left are closed", given_back)
            report.memory("memory that stays", target.memory - memory, count * 4096)
            report.time("another route", peers.time_of_echo(target.port, "/other-judged"), PROMPT)

    return attack


def left_streams(count: int) -> Callable[[Report], None]:
    """As many event streams of a generator that waits are opened and left."""

    def attack(report: Report) -> None:
        with Target() as target:
            for _ in range(count):
                peers.stream(target.port, "/events").close()
            running = 'wsframe_handlers{state="running"}'
            ended = target.wait_until(lambda: target.metric(running) == 0)
            report.check("the handlers of those that left have ended", ended)
            report.time("a new stream", peers.time_of_event(target.port, "/events"), PROMPT)

    return attack
