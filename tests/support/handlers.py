"""Handlers: an echo in both styles, and a checkpoint at which a handler waits for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import pytest

from wsframe.server import App, EventStream, WebSocket
from wsframe.server.timing import Timing

from .waiting import TIMEOUT

MessageGenerator: TypeAlias = Generator[None, "str | bytes", None]


def plain_echo(ws: WebSocket) -> None:
    """Echo every message, in a thread."""
    for message in ws:
        ws.send(message)


def generator_echo(ws: WebSocket) -> MessageGenerator:
    """Echo every message, on the loop."""
    while True:
        message = yield
        ws.send(message)


BOTH_KINDS = pytest.mark.parametrize("echo", [plain_echo, generator_echo])


def websocket_app(
    handler: Callable[..., Any],
    path: str = "/echo",
    timing: Timing | None = None,
    **options: Any,
) -> App:
    """An app with one WebSocket."""
    app = App(timing=timing)
    app.websocket(path, **options)(handler)
    return app


def two_topics_app() -> App:
    """An app with streams of the topics "a" and "b"."""
    app = App()

    @app.sse("/both")
    def both(stream: EventStream) -> None:
        stream.subscribe("a")
        stream.subscribe("b")

    return app


# The seconds between two checks of the deadlines in ``ManualClock.pass_time``.
STEP = Timing.sweep_interval
# No handler loses the loop within it.
NO_HANDOFFS = Timing(turn_slice=60)
# A stop waits only for so long until handlers have returned.
SHORT_GRACE = Timing(handler_grace=0.1)


class Checkpoint:
    """A point at which the thread of a handler waits until the test releases it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def wait(self) -> None:
        """The handler: wait for :meth:`release`."""
        self.reached.set()
        assert self._released.wait(3 * TIMEOUT)

    def wait_until_reached(self) -> None:
        """The test: wait until the handler waits."""
        assert self.reached.wait(TIMEOUT)

    def release(self) -> None:
        """The test: release the handler, and all that reach the checkpoint later."""
        self._released.set()
