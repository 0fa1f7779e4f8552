"""Paths and what answers on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote, unquote

from wsframe import PerMessageDeflate

if TYPE_CHECKING:
    from .http.request import Request
    from .topics.topic import Topic

#: Says whether a request may be answered; what it returns, if true, becomes ``request.identity``.
Authorize: TypeAlias = "Callable[[Request], object]"

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})

PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, eq=False)
class WebSocketRoute:
    """A handler for WebSocket connections, and what it accepts."""

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
    """The numbers of the servers, as they are when somebody asks."""

    encode: Callable[[], bytes]


Route = WebSocketRoute | EventRoute | PageRoute | MetricsRoute


class Path:
    """One path, with parameters in braces: "/rooms/{room}".

    A parameter stands for one segment of the path or a part of it, never for nothing and never for
    more than one; it reaches the handler percent-decoded, as a keyword argument.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern.startswith("/"):
            raise ValueError(f"a path begins with a slash: {pattern!r}")
        literals = PARAMETER.split(pattern)
        self.parameters = literals[1::2]
        if any("{" in literal or "}" in literal for literal in literals[::2]):
            raise ValueError(f"a parameter is a name in braces: {pattern!r}")
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"a parameter has one place in a path: {pattern!r}")
        self.pattern = pattern
        literals[::2] = [re.escape(_normal(literal)) for literal in literals[::2]]
        literals[1::2] = [f"(?P<{name}>[^/]+)" for name in self.parameters]
        self._regex = re.compile("".join(literals))

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters of this path, in its normal form; None if it is another."""
        match = self._regex.fullmatch(path)
        if match is None:
            return None
        return {name: unquote(value) for name, value in match.groupdict().items()}


class Routes:
    """Which routes answer on which path. Filled before a server starts; then only read."""

    def __init__(self) -> None:
        self._literal: dict[str, list[Route]] = {}
        self._patterns: list[tuple[Path, list[Route]]] = []
        self._fixed = False

    def fix(self) -> None:
        """Take no more routes: other threads read them from here on."""
        self._fixed = True

    def check_not_fixed(self) -> None:
        """Whether there is time to add something.

        Raises:
            RuntimeError: a server has been started with these routes.
        """
        if self._fixed:
            raise RuntimeError("an app is complete before it is started")

    def add(self, pattern: str, route: Route) -> None:
        """Add a route.

        Raises:
            ValueError: the path is malformed, or has a route already. A page or event stream may
                share its path with a WebSocket: an upgrade request tells them apart.
            RuntimeError: a server has been started with these routes.
        """
        self.check_not_fixed()
        path = Path(pattern)
        if path.parameters:
            known = next(
                (routes for other, routes in self._patterns if other.pattern == pattern), None
            )
            if known is None:
                known = []
                self._patterns.append((path, known))
        else:
            known = self._literal.setdefault(_normal(pattern), [])
        if any(_is_websocket(route) == _is_websocket(other) for other in known):
            raise ValueError(f"{pattern!r} has a route already")
        known.append(route)

    def find(self, path: str, upgrade: bool) -> tuple[Route, Mapping[str, str]] | None:
        """The route for a path, and its parameters; a path without parameters comes first."""
        path = _normal(path)
        if path in self._literal:
            return _choose(self._literal[path], upgrade), NO_PARAMETERS
        for pattern, routes in self._patterns:
            parameters = pattern.match(path)
            if parameters is not None:
                return _choose(routes, upgrade), parameters
        return None


def _normal(path: str) -> str:
    """One spelling of a path: "/café" and "/%63af%c3%a9" are the same (RFC 3986 section 6.2.2)."""
    return "/".join(quote(unquote(segment), safe="") for segment in path.split("/"))


def _choose(routes: list[Route], upgrade: bool) -> Route:
    return next((route for route in routes if _is_websocket(route) == upgrade), routes[0])


def _is_websocket(route: Route) -> bool:
    return isinstance(route, WebSocketRoute)
