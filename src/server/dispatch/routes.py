"""Paths and what answers on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from wsframe import PerMessageDeflate

from ..http.paths import Path, normal_path, segments_of

if TYPE_CHECKING:
    from ..http.request import Request
    from ..topics.topic import Topic

#: Says whether a request may be answered; what it returns, if true, becomes ``request.identity``.
Authorize: TypeAlias = "Callable[[Request], object]"


@dataclass(frozen=True, eq=False)
class WebSocketRoute:
    """A handler for WebSocket connections, and what it accepts."""

    path: str
    handler: Callable[..., Any]
    subprotocols: Sequence[str]
    origins: Sequence[str] | Literal["*"]
    max_message_size: int
    deflate: PerMessageDeflate | None
    blocking: bool | None
    authorize: Authorize | None


@dataclass(frozen=True, eq=False)
class EventRoute:
    """A handler for event streams, or a topic that all of them are subscribed to."""

    path: str
    handler: Callable[..., Any] | None
    topic: Topic | None
    origins: Sequence[str] | Literal["*"]
    compress: bool
    blocking: bool | None
    authorize: Authorize | None


@dataclass(frozen=True, eq=False)
class PageRoute:
    """A fixed answer."""

    body: bytes
    content_type: str


@dataclass(frozen=True, eq=False)
class MetricsRoute:
    """The metrics of the servers.

    Attributes:
        ask: calls what it is given, at once or later and in any thread, with the metrics as they
            are from then on; with None if they cannot be had.
    """

    ask: Callable[[Callable[[bytes | None], object]], object]


Route = WebSocketRoute | EventRoute | PageRoute | MetricsRoute


class Routes:
    """Which routes answer on which path. Filled before a server starts; then only read."""

    def __init__(self) -> None:
        self._literal: defaultdict[str, list[Route]] = defaultdict(list)
        # Those with parameters, by the number of their segments.
        self._patterns: defaultdict[int, list[tuple[Path, Route]]] = defaultdict(list)
        self._frozen = False

    def freeze(self) -> None:
        """Take no more routes: other threads read them from here on."""
        self._frozen = True

    def check_not_frozen(self) -> None:
        """Whether there is time to add something.

        Raises:
            RuntimeError: a server has been started with these routes.
        """
        if self._frozen:
            raise RuntimeError("an app is complete before it is started")

    def add(self, pattern: str, route: Route) -> None:
        """Add a route.

        Raises:
            ValueError: the path is malformed, or has a route already, maybe with other names of
                its parameters. A page or event stream may share its path with a WebSocket: an
                upgrade request tells them apart.
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
            raise ValueError(f"{pattern!r} has a route already")
        if path.parameters:
            patterns.append((path, route))
        else:
            known.append(route)

    def find(self, path: str, upgrade: bool) -> tuple[Route, Path | None] | None:
        """The route for a path in normal form, and its pattern if that has parameters.

        A pattern without parameters comes first, then those with parameters in the order in which
        they were added. An upgrade request goes to the first WebSocket among them, any other to the
        first page or event stream; where there is none, to the first of all. The time is linear in
        the length of the path.
        """
        first = None
        for found in self._matching(path):
            if _is_websocket(found[0]) == upgrade:
                return found
            first = first or found
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
