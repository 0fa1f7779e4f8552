"""A check that a test leaves nothing behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from .waiting import TIMEOUT, wait_until


class HasConnections(Protocol):
    """A server, such as :class:`wsframe.testing.AppServer`."""

    @property
    def connections(self) -> int:
        """The number of open connections."""


@contextmanager
def leak_check(
    *servers: HasConnections, cycles: Sequence[str] = (), timeout: float = TIMEOUT
) -> Iterator[None]:
    """Fail if the body leaves a thread, a file, a connection or a reference cycle behind.

    Example::

        with leak_check(server, cycles=["chat"]):
            server.websocket("/chat").leave()

    The threads that the body started have ``timeout`` seconds to end. The connections of each
    server also have ``timeout`` seconds to close. Open files are checked only on Linux.

    Args:
        *servers: servers that still run after the body. Their connections are checked.
        cycles: the names of packages or modules. An object of their classes in a reference cycle,
            which only the garbage collector would free, is a failure. The collector is off in the
            body.
        timeout: the limit in seconds, once for all threads together, and once for each server.

    Raises:
        AssertionError: a thread, a file, a connection or a reference cycle is left behind.
    """
    threads, files = set(threading.enumerate()), open_files()
    connections = [(server, server.connections) for server in servers]
    with _no_cycles_of(cycles):
        yield
        for server, before in connections:
            _wait_for_disconnects(server, before, timeout)
        _wait_for_threads(threads, timeout)
    left = set(open_files().items()) - set(files.items())
    if left:
        raise AssertionError(f"files were opened and not closed: {sorted(left)}")


def _wait_for_disconnects(server: HasConnections, before: int, timeout: float) -> None:
    what = f"the server has at most the {before} connections of the beginning"
    wait_until(lambda: server.connections <= before, what, timeout)


def _wait_for_threads(before: set[threading.Thread], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = sorted(thread.name for thread in set(threading.enumerate()) - before)
    if left:
        ours = any(name.startswith("wsframe-") for name in left)
        advice = ". Stop the server; if it is a Live, pass it to serve_wsgi" if ours else ""
        raise AssertionError(f"threads are still running: {left}{advice}")


def open_files() -> dict[str, str]:
    """Return the open file descriptors, and what each refers to; on Linux only."""
    files: dict[str, str] = {}
    if sys.platform == "linux":
        for number in os.listdir("/proc/self/fd"):
            try:
                files[number] = os.readlink(f"/proc/self/fd/{number}")
            except FileNotFoundError:
                continue  # the descriptor with which the folder was listed
    return files


@contextmanager
def _no_cycles_of(packages: Sequence[str]) -> Iterator[None]:
    """Fail if the body leaves objects of these packages in reference cycles."""
    if not packages:
        yield
        return
    enabled, flags = gc.isenabled(), gc.get_debug()
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(
            f"{kind.__module__}.{kind.__qualname__}"
            for kind in map(type, gc.garbage)
            if f"{kind.__module__}.".startswith(tuple(f"{package}." for package in packages))
        )
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        if enabled:
            gc.enable()
    if found:
        raise AssertionError(f"reference cycles contain these objects: {dict(found)}")
