"""Handlers that release a framework's resources, the *surroundings*, while they wait for a client.

Frameworks keep resources, such as connections to databases, for the time of a request. A handler
lasts longer than a request. So its resources are released while it waits: at ``yield``, in
``receive()`` and in ``get()``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from queue import Queue, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

from wsframe import ConnectionClosed

from ..server import EventStream, WebSocket

Connection: TypeAlias = "WebSocket | EventStream"
Item = TypeVar("Item")


class Surroundings(Protocol):
    """The framework's resources for one handler; the view creates this object."""

    def entered(self, connection: Connection, /) -> AbstractContextManager[None]:
        """The handler's thread: return the context manager around the whole handler."""

    def pause(self) -> None:
        """The handler's thread: leave the surroundings before a wait.

        An exception is raised where the handler waits.
        """

    def resume(self) -> None:
        """The handler's thread, possibly a new one: enter the surroundings again after a wait."""


class PausingWebSocket(WebSocket):
    """A WebSocket whose handler leaves its surroundings while it waits for a message."""

    __slots__ = ("_surroundings",)

    def __init__(self, ws: WebSocket, surroundings: Surroundings) -> None:
        super().__init__(ws._session, ws.request)
        self._surroundings = surroundings

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The handler's thread: wait for the next message."""
        with _paused(self._surroundings):
            return super().receive(timeout)

    def __iter__(self) -> Iterator[str | bytes]:
        """The handler's thread: iterate over the messages until the end of the connection."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message


class PausingEventStream(EventStream):
    """An event stream whose handler leaves its surroundings while it waits for an item."""

    def __init__(self, stream: EventStream, surroundings: Surroundings) -> None:
        super().__init__(stream._session, stream.request)
        self._surroundings = surroundings

    def get(self, queue: Queue[Item] | SimpleQueue[Item], timeout: float | None = None) -> Item:
        """The handler's thread: wait for the next item of a queue."""
        with _paused(self._surroundings):
            return super().get(queue, timeout)


def surrounded(
    handler: Callable[..., Any], surroundings: Surroundings
) -> Callable[[Connection], Any]:
    """Any thread: return the function that runs a handler in its surroundings.

    Args:
        handler: a plain or a generator function, which is called with the connection.
        surroundings: its surroundings.
    """
    run = _run_generator if inspect.isgeneratorfunction(handler) else _run_function
    return partial(run, surroundings, handler)


def is_end(error: BaseException, connection: Connection) -> bool:
    """Any thread: return True if an exception reports the normal end of a connection."""
    kind = type(error)  # isinstance() could run code of the exception's class
    if not issubclass(kind, ConnectionClosed):
        return kind is GeneratorExit
    if isinstance(connection, WebSocket):
        return connection.close_code is not None
    return connection.closed


def _run_function(
    surroundings: Surroundings, handler: Callable[[Connection], object], connection: Connection
) -> object:
    """The handler's thread: run a handler that is a plain function; return its result."""
    with surroundings.entered(connection):
        return handler(_pausing(connection, surroundings))


def _run_generator(
    surroundings: Surroundings,
    handler: Callable[[Connection], Generator[object, Any, object]],
    connection: Connection,
) -> Generator[object, Any, None]:
    """Loop owner: return a generator that runs a handler; the handler is a generator function.

    Each turn of the handler runs in the context variables of the connection.
    """
    with surroundings.entered(connection):
        generator = handler(_pausing(connection, surroundings))
        resume: Callable[[Any], object] = generator.send
        # The argument of the next call is removed from the list. Otherwise the traceback of an
        # exception, which refers to this frame, would keep the argument alive.
        argument: list[Any] = [None]
        try:
            while True:
                try:
                    item = resume(argument.pop())
                    _pause(surroundings, generator)
                except StopIteration:
                    return
                try:
                    argument.append((yield item))
                except BaseException as error:
                    resume = generator.throw
                    argument.append(error)
                surroundings.resume()
        finally:
            surroundings.resume()
            generator.close()


def _pause(surroundings: Surroundings, generator: Generator[object, Any, object]) -> None:
    """Leave the surroundings; an error is raised at the ``yield`` of the handler."""
    try:
        surroundings.pause()
    except Exception as error:
        generator.throw(error)
        raise  # the handler has caught the error and waits again


def _pausing(connection: Connection, surroundings: Surroundings) -> Connection:
    """Return a connection whose waits leave the surroundings."""
    if isinstance(connection, WebSocket):
        return PausingWebSocket(connection, surroundings)
    return PausingEventStream(connection, surroundings)


@contextmanager
def _paused(surroundings: Surroundings) -> Iterator[None]:
    """Leave the surroundings during a wait."""
    surroundings.pause()
    try:
        yield
    finally:
        surroundings.resume()
