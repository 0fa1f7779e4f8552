"""The exit of a process: flush and close every connection to Redis."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol
from weakref import WeakSet

from ..errors import EventsLost


class ClosedAtExit(Protocol):
    """An object that is closed when the process exits.

    Attributes:
        exit_timeout: the seconds that closing it may take.
    """

    @property
    def exit_timeout(self) -> float: ...

    def close(self, timeout: float) -> None:
        """Any thread: send all events, and close the connection.

        Raises:
            EventsLost: Redis has not stored all events.
        """


#: True once the interpreter exits: threads cannot be started any more.
is_over: bool = False
_all: WeakSet[ClosedAtExit] = WeakSet()
_registered_in = 0  # the process in which multiprocessing calls _close_all


def close_at_exit(connection: ClosedAtExit) -> None:
    """Any thread: close an object when the process exits."""
    _all.add(connection)


def register_in_process() -> None:
    """Any thread: register with multiprocessing, in each of its processes.

    A child that multiprocessing has forked does not call the functions of :mod:`atexit`.
    """
    global _registered_in
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None and _registered_in != os.getpid():
        _registered_in = os.getpid()
        multiprocessing.Finalize(None, _close_all, exitpriority=0)


def _at_exit() -> None:
    global is_over
    is_over = True
    _close_all()


def _close_all() -> None:
    """Close all registered connections to Redis; raise one EventsLost with the total count."""
    lost, reason = 0, ""
    for connection in tuple(_all):
        try:
            connection.close(connection.exit_timeout)
        except EventsLost as error:
            lost, reason = lost + error.count, error.reason
    if lost:
        raise EventsLost(lost, reason)


atexit.register(_at_exit)
