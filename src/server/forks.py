"""Forks: sockets that the child of a fork closes, and objects that it creates anew.

A child has a copy of every descriptor. While it keeps them, the kernel assigns connections to a
listener without an accepting process, and a client does not notice that its connection was closed.
So the child closes its copies. It changes no state that both processes share: it shuts down no
socket and does not touch the poller. A copy that remains because C code has forked does not harm a
client: see :func:`disconnect`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that a child inherits and must release or create anew."""

    def after_fork(self) -> None:
        """The child of a fork, in its only thread: close files and replace locks.

        It must not wait for a lock, because a thread of the parent may have held it.
        """


class Closable(Protocol):
    """A file, or an object that owns one."""

    def close(self) -> None: ...


class Connected(Closable, Protocol):
    """A socket, or an object with its methods."""

    def shutdown(self, how: int, /) -> None: ...


AnyClosable = TypeVar("AnyClosable", bound=Closable)

_files: WeakSet[Closable] = WeakSet()
_released: WeakSet[ForkAware] = WeakSet()
_recreated: WeakSet[ForkAware] = WeakSet()


def disconnect(sock: Connected) -> None:
    """Any thread that may close it: shut down a connection or a listener, and close it.

    ``close`` alone has no effect on the peer while a child process holds a copy of the descriptor.
    """
    with suppress(OSError):  # it is not connected, or this system does not support it
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def close_in_children(file: AnyClosable) -> AnyClosable:
    """Any thread: return this file, which child processes will close right after a fork."""
    _files.add(file)
    return file


@contextmanager
def passed_to_child(files: Iterable[Closable]) -> Iterator[None]:
    """The parent: keep these files open in the child of a fork that happens in the block."""
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
