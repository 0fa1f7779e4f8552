"""Log handlers that call functions of a test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.clients import Clients
from tests.support.waiting import TIMEOUT
from wsframe import Close
from wsframe.server import Server
from wsframe.server.reports.loggers import background

SERVER, ACCESS = logging.getLogger("wsframe.server"), logging.getLogger("wsframe.access")


class Calls(logging.Handler):
    """A handler that calls a function with each record."""

    def __init__(self, function: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.emit = function  # type: ignore[method-assign, assignment]


@contextmanager
def handled_by(
    function: Callable[[logging.LogRecord], object], *loggers: logging.Logger
) -> Iterator[None]:
    """Call a function with the records of these loggers, INFO and above."""
    handler = Calls(function)
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
        assert background.flush(TIMEOUT)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def echoes(clients: Clients, server: Server) -> None:
    client = clients.websocket(server, "/echo")
    client.send_messages("still here")
    assert client.next_event() == "still here"
    assert client.leave() == Close(1000, "")


class Failure(Exception):  # noqa: N818
    """Raised by tests; unlike built-in exceptions it supports weak references."""


def fail() -> None:
    """Raise it."""
    raise Failure("it failed")
