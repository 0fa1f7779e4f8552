"""Publishing from code that must not block: destructors, signal handlers, forked children."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from time import monotonic

from . import peers
from .report import Report
from .target import Target

TIMEOUT = 60.0


def publishing_from(where: str, count: int, expected: int) -> Callable[[Report], None]:
    """Publish from destructors, from a signal handler, or in forked children."""

    def attack(report: Report) -> None:
        with Target() as target, closing(peers.websocket(target.port, "/publish")) as sock:
            follower = peers.websocket(target.port, "/rooms/odd", peers.HONEST)
            follower.close()
            begin = monotonic()
            sock.settimeout(TIMEOUT)
            sock.sendall(peers.text(f"{where} {count}"))
            frame = sock.recv(100)
            done = int(frame[2:])
            report.time("time", monotonic() - begin)
            report.check(f"{done} of {expected} publications were made", done >= expected)
            report.time("an echo", peers.time_of_echo(target.port, "/echo"), 0.1)

    return attack
