"""Helpers for tests of applications: a server in the test's process, clients, slow networks.

Every wait has a time limit, so a missing message fails a test instead of blocking it.

Example::

    from wsframe.testing import AppServer

    def test_the_echo():
        with AppServer(app) as server:
            client = server.websocket("/echo")
            client.send_messages("hello")
            assert client.expect(1) == ["hello"]

The fixtures for pytest are in :mod:`wsframe.testing.fixtures`. This package itself works with any
test runner.
"""

from .client import Client, Response
from .clients import Clients
from .clock import ManualClock
from .ends import End, Pair
from .leaks import leak_check
from .ports import ReservedPort
from .serving import (
    AppServer,
    LocalServer,
    ServeApp,
    ServeWSGI,
    Stoppable,
    WSGIAppServer,
    stop_within,
)
from .slow_reader import SlowReader
from .stream import StreamClient
from .waiting import TIMEOUT, wait_until
from .websocket import WebSocketClient

__all__ = [
    "TIMEOUT",
    "AppServer",
    "Client",
    "Clients",
    "End",
    "LocalServer",
    "ManualClock",
    "Pair",
    "ReservedPort",
    "Response",
    "ServeApp",
    "ServeWSGI",
    "SlowReader",
    "Stoppable",
    "StreamClient",
    "WSGIAppServer",
    "WebSocketClient",
    "leak_check",
    "stop_within",
    "wait_until",
]
