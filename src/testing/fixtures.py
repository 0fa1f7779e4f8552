"""Fixtures for pytest 8 and later: ``pytest_plugins = ["wsframe.testing.fixtures"]``.

This line belongs in the ``conftest.py`` at the root of the tests. The package does not register
itself as a plugin. Otherwise every run of pytest in the environment would import it, and its names
could hide other fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from . import leaks
from .clock import ManualClock
from .serving import AppServer, ServeApp, ServeWSGI, WSGIAppServer

__all__ = ["leak_check", "manual_clock", "serve_app", "serve_wsgi"]


@pytest.fixture
def leak_check() -> Iterator[None]:
    """Fail if the test leaves a thread or an open file behind."""
    with leaks.leak_check():
        yield


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that only the test advances, for ``serve_app(app, clock=manual_clock)``."""
    return ManualClock()


@pytest.fixture
def serve_app(leak_check: None) -> Iterator[ServeApp]:
    """Serve apps until the end of the test, and check that they leave nothing behind.

    def test_the_echo(serve_app):
        client = serve_app(app).websocket("/echo")
    """
    with ExitStack() as stack:

        def serve(*arguments: Any, **options: Any) -> AppServer:
            return stack.enter_context(AppServer(*arguments, **options))

        yield serve


@pytest.fixture
def serve_wsgi(leak_check: None) -> Iterator[ServeWSGI]:
    """Serve WSGI applications until the end of the test, and check that they leave nothing behind.

    def test_the_views(serve_wsgi):
        client = serve_wsgi(app, live).websocket("/echo")
    """
    with ExitStack() as stack:

        def serve(*arguments: Any, **options: Any) -> WSGIAppServer:
            return stack.enter_context(WSGIAppServer(*arguments, **options))

        yield serve
