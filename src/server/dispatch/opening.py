"""A valid request that has a route, with the data that its session requires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from wsframe import Acceptance

from ..http.request import Request
from ..topics.topic import Topic
from .routes import EventRoute, WebSocketRoute


@dataclass(frozen=True, slots=True)
class Opening:
    """A checked request, and what the session that answers it needs.

    Attributes:
        request: the request.
        route: the route, with the session's options.
        handler: the function that is called with the connection; None for a stream without a
            handler.
        topic: the topic of a stream without a handler.
        generator: True if the handler returns a generator.
        acceptance: the answer to a WebSocket handshake; None for an event stream.
        headers: further headers of the answer.
        rest: the bytes that a WebSocket client has sent after the head.
        arrived: the monotonic time of the request.
        gzip: True to compress an event stream.
    """

    request: Request
    route: WebSocketRoute | EventRoute
    handler: Callable[..., Any] | None
    topic: Topic | None = None
    generator: bool = field(kw_only=True)
    acceptance: Acceptance | None = field(default=None, kw_only=True)
    headers: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    rest: bytes = field(default=b"", kw_only=True)
    gzip: bool = field(default=False, kw_only=True)
    arrived: float = field(default_factory=monotonic, kw_only=True)


def websocket_opening(
    request: Request, route: WebSocketRoute, acceptance: Acceptance, rest: bytes
) -> Opening:
    """Any thread: return the opening of a WebSocket by the handler of its route."""
    generator = route.has_generator
    return Opening(
        request, route, route.handler, generator=generator, acceptance=acceptance, rest=rest
    )


def stream_opening(request: Request, route: EventRoute, *, gzip: bool) -> Opening:
    """Any thread: return the opening of an event stream by the handler or topic of its route."""
    generator = route.has_generator
    return Opening(request, route, route.handler, route.topic, generator=generator, gzip=gzip)
