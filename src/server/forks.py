"""Forks: the sockets that the child of a fork closes, and the objects that it resets.

A child has a copy of every descriptor. While a copy of a listener is open, the kernel assigns
connections to it although no process accepts them. While a copy of a connection is open, its client
does not notice a close. So the child closes its copies, but changes no shared state: it neither
shuts down a socket nor uses the poller. If C code forks, copies remain; :func:`disconnect` handles
these.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that a child inherits and must reset."""

    def after_fork(self) -> None:
        """The child of a fork, in its only thread: close files and replace locks.

        This method must not wait for a lock, because a thread of the parent may have held the lock.
        """


class Closable(Protocol):
    """A file, or an object that owns a file."""

    def close(self) -> None: ...


class Connected(Closable, Protocol):
    """A socket, or an object with its methods."""

    def shutdown(self, how: int, /) -> None: ...


AnyClosable = TypeVar("AnyClosable", bound=Closable)

_files: WeakSet[Closable] = WeakSet()
_released: WeakSet[ForkAware] = WeakSet()
_recreated: WeakSet[ForkAware] = WeakSet()


def disconnect(sock: Connected) -> None:
    """Any thread that may close this socket: call ``shutdown``, then ``close``.

    The socket is a connection or a listener. ``close`` alone has no effect on the peer while a
    child process holds a copy of the descriptor.
    """
    with suppress(OSError):  # the socket is not connected, or the system does not support shutdown
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def close_in_children(file: AnyClosable) -> AnyClosable:
    """Any thread: make child processes close a file right after a fork; return the file."""
    _files.add(file)
    return file


@contextmanager
def passed_to_child(files: Iterable[Closable]) -> Iterator[None]:
    """The parent: keep files open in the child of a fork that happens in the block."""
    passed = [file for file in files if file in _files]
    _files.difference_update(passed)
    try:
        yield
    finally:
        _files.update(passed)


def release_in_children(part: ForkAware) -> None:
    """Any thread: make child processes call ``part.after_fork()`` right after a fork."""
    _released.add(part)


def recreate_in_children(part: ForkAware) -> None:
    """Any thread: make child processes, and their children, call ``part.after_fork()``."""
    _recreated.add(part)


def _after_fork() -> None:
    for part in tuple(_recreated):
        part.after_fork()
    for part in _released:
        part.after_fork()
    for file in _files:
        with suppress(OSError):
            file.close()
    _released.clear()
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
