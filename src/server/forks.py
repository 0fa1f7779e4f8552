"""Forks: what the child of a fork must not keep of its parent's sockets, and what it makes anew.

A child has a copy of every descriptor. While it keeps one, the kernel deals connections to a
listener that nobody accepts from, and a client does not see that its connection was closed. So the
child closes its copies. It changes nothing that both processes share: it shuts no socket down, and
leaves the poller alone. A copy that it keeps nevertheless, because C code has forked it, does no
harm to a client: see :func:`disconnect`.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Protocol, TypeVar
from weakref import WeakSet


class Inherited(Protocol):
    """What a child inherits, and has to give up or make anew."""

    def after_fork(self) -> None:
        """The child of a fork, in its only thread: close files, replace locks, and wait for none.

        A thread that the child does not have may have held any lock of the parent.
        """


class Closable(Protocol):
    """A file, or what closes one."""

    def close(self) -> None: ...


class Connected(Closable, Protocol):
    """A socket, or what stands for one."""

    def shutdown(self, how: int, /) -> None: ...


AnyClosable = TypeVar("AnyClosable", bound=Closable)

_files: WeakSet[Closable] = WeakSet()
_parts: WeakSet[Inherited] = WeakSet()
_renewed: WeakSet[Inherited] = WeakSet()


def disconnect(sock: Connected) -> None:
    """Any thread that may close it: end a connection, or a listener, and close its descriptor.

    ``close`` alone ends nothing while a child process holds a copy of the descriptor.
    """
    with suppress(OSError):  # it is not connected any more, or this system cannot do it
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def close_in_children(file: AnyClosable) -> AnyClosable:
    """Any thread: have the children of forks close this file; returns it."""
    _files.add(file)
    return file


def give_up_in_children(part: Inherited) -> None:
    """Any thread: have ``part.after_fork()`` called in the children of forks."""
    _parts.add(part)


def renew_in_children(part: Inherited) -> None:
    """Any thread: have ``part.after_fork()`` called in the children of forks, and in theirs."""
    _renewed.add(part)


def _after_fork() -> None:
    for part in tuple(_renewed):
        part.after_fork()
    for part in _parts:
        part.after_fork()
    for file in _files:
        with suppress(OSError):
            file.close()
    _parts.clear()
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
