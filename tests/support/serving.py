"""An app that is served in the test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from wsframe.server import App, Server
from wsframe.testing import AppServer, stop_within
from wsframe.testing.serving import STOP_TIMEOUT

__all__ = ["STOP_TIMEOUT", "Serve", "serve", "stop_within"]


class Serve(Protocol):
    """Start a server, which is stopped at the end of the test."""

    def __call__(
        self,
        app: App,
        *,
        host: str = ...,
        **settings: Any,
    ) -> Server: ...


@contextmanager
def serve(app: App, host: str = "127.0.0.1", **settings: Any) -> Iterator[Server]:
    """Serve an app on a free port, with one loop unless the settings differ; stop it at the end."""
    with AppServer(app, host, **settings) as running:
        yield running.server
