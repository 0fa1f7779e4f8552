"""An app that is served in the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from wsframe.server import App, Server

STOP_TIMEOUT = 20.0


class Serve(Protocol):
    """Start a server, which is stopped at the end of the test."""

    def __call__(
        self,
        app: App,
        *,
        host: str = ...,
        **settings: Any,
    ) -> Server: ...


def stop_within(server: Server, seconds: float) -> None:
    """Stop a server; fail if that takes longer."""
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(seconds)
    assert not stopping.is_alive(), f"the server did not stop within {seconds} s"


@contextmanager
def serve(app: App, host: str = "127.0.0.1", **settings: Any) -> Iterator[Server]:
    """Serve an app on a free port, with one loop unless the settings differ; stop it at the end."""
    # Tests look at the loops, so there are as many on every Python.
    server = app.start(host, **{"loops": 1, **settings})
    try:
        yield server
    finally:
        stop_within(server, STOP_TIMEOUT)
