"""The routes of an app: handlers, topics, pages and reports, by path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from wsframe import PerMessageDeflate
from wsframe.headers import TEXT_TYPE

from ..headers import Pairs
from ..http.paths import Path, normal_path, segments_of

if TYPE_CHECKING:
    from ..http.request import Request
    from ..topics.topic import Topic

#: Decides on a request: a false value refuses it, a true one becomes ``request.identity``.
Authorize: TypeAlias = "Callable[[Request], object]"


@dataclass(frozen=True, eq=False)
class WebSocketRoute:
    """A handler for WebSocket connections, and its options."""

    path: str
    handler: Callable[..., Any]
    subprotocols: Sequence[str]
    origins: Sequence[str] | Literal["*"]
    max_message_size: int
    deflate: PerMessageDeflate | None
    blocking: bool | None
    authorize: Authorize | None
    headers: Pairs = ()

    @cached_property
    def has_generator(self) -> bool:
        """True if the handler is a generator, which runs in turns on the loop."""
        return isgeneratorfunction(self.handler)


@dataclass(frozen=True, eq=False)
class EventRoute:
    """A handler for event streams, or a topic to which all of them are subscribed.

    ``heartbeat`` is None for that of the settings.
    """

    path: str
    handler: Callable[..., Any] | None
    topic: Topic | None
    origins: Sequence[str] | Literal["*"]
    compress: bool
    blocking: bool | None
    authorize: Authorize | None
    headers: Pairs = ()
    heartbeat: bytes | None = None

    @cached_property
    def has_generator(self) -> bool:
        """True if the handler is a generator, which keeps a thread."""
        return isgeneratorfunction(self.handler)


@dataclass(frozen=True, eq=False)
class PageRoute:
    """The route of a page, which is a fixed answer."""

    body: bytes
    content_type: str
    headers: Pairs = ()


@dataclass(frozen=True)
class Report:
    """The route of an answer that is computed for each request."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


@dataclass(frozen=True, eq=False)
class ReportRoute:
    """A route that is answered with a report on the servers, such as their metrics.

    Attributes:
        request: a function that calls its argument with the current report, or with None if it is
            not available, at once or later, in any thread.
        missing: the answer if the report is not available, or not in time.
    """

    request: Callable[[Callable[[Report | None], object]], object]
    missing: Report


Route = WebSocketRoute | EventRoute | PageRoute | ReportRoute


class Routes:
    """The routes by path. They are added before the first server starts, and then only read."""

    def __init__(self) -> None:
        self._literal: defaultdict[str, list[Route]] = defaultdict(list)
        # The routes with parameters, by the number of their segments.
        self._patterns: defaultdict[int, list[tuple[Path, Route]]] = defaultdict(list)
        self._frozen = False

    def freeze(self) -> None:
        """Accept no more routes, because other threads read the routes from now on."""
        self._frozen = True

    def check_not_frozen(self) -> None:
        """Check that routes may still be added.

        Raises:
            RuntimeError: a server has been started with these routes.
        """
        if self._frozen:
            raise RuntimeError("routes cannot be added after the app has started")

    def add(self, pattern: str, route: Route) -> None:
        """Add a route.

        Raises:
            ValueError: the path is malformed, or already has a route, perhaps with other names
                for its parameters. A page or an event stream may share its path with a WebSocket,
                because only an upgrade request selects the WebSocket.
            RuntimeError: a server has been started with these routes.
        """
        self.check_not_frozen()
        path = Path(pattern)
        if path.parameters:
            patterns = self._patterns[path.length]
            known = [other for known_path, other in patterns if known_path.shape == path.shape]
        else:
            known = self._literal[normal_path(pattern)]
        if any(_is_websocket(route) == _is_websocket(other) for other in known):
            raise ValueError(f"{pattern!r} already has a route")
        if path.parameters:
            patterns.append((path, route))
        else:
            known.append(route)

    def find(self, path: str, upgrade: bool) -> tuple[Route, Path | None] | None:
        """Return the route for a path in normal form, and its pattern if it has parameters.

        Of the routes that match the path, the one without parameters comes first; the others follow
        in the order in which they were added. An upgrade request selects the first WebSocket in
        this order, any other request the first page or event stream. If none has this kind, the
        first matching route is selected. The time is linear in the length of the path.
        """
        first = None
        for match in self._matching(path):
            if _is_websocket(match[0]) == upgrade:
                return match
            first = first or match
        return first

    def _matching(self, path: str) -> Iterator[tuple[Route, Path | None]]:
        for route in self._literal.get(path, ()):
            yield route, None
        patterns = self._patterns.get(path.count("/") + 1, ())
        segments = segments_of(path) if patterns else ()
        for pattern, route in patterns:
            if pattern.match(segments) is not None:
                yield route, pattern


def _is_websocket(route: Route) -> bool:
    return isinstance(route, WebSocketRoute)


def check_handler(
    handler: Callable[..., Any],
    parameters: Iterable[str],
    *,
    path: str | None = None,
    before: Sequence[str] = ("the connection",),
) -> None:
    """Any thread: check a handler's signature, before the first connection.

    Args:
        handler: the handler.
        parameters: the names of its arguments.
        path: the path of the handler's route, for the error; None without one.
        before: descriptions of the handler's first, positional arguments.

    Raises:
        TypeError: the handler does not take these arguments, or is a coroutine function.
    """
    check_kind(handler, path=path)
    try:
        signature(handler).bind(*before, **dict.fromkeys(parameters))
    except TypeError as error:
        wanted = ", ".join((*before, *parameters))
        raise TypeError(f"{_described(handler, path)} must take {wanted}: {error}") from None


def check_kind(handler: Callable[..., Any], *, path: str | None = None) -> None:
    """Any thread: check that a handler is a plain or a generator function.

    Raises:
        TypeError: the handler is a coroutine function.
    """
    if iscoroutinefunction(handler) or isasyncgenfunction(handler):
        raise TypeError(f"{_described(handler, path)} must be a plain or a generator function")


def _described(handler: Callable[..., Any], path: str | None) -> str:
    return f"the handler {handler!r}" if path is None else f"the handler of {path!r}"
