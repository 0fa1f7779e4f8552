"""An application of Flask with a Live, and the development server in the test's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol, TypeAlias

import pytest
from flask import Flask

from tests.support.fixtures import leak_check, log
from tests.wsgi import running
from tests.wsgi.conftest import MakeLive, make_live
from wsframe.flask import Live

__all__ = ["leak_check", "log", "make_live"]

Run: TypeAlias = "Callable[[], int]"


class NewLive(Protocol):
    """Make a Live of Flask, which is stopped at the end of the test."""

    def __call__(self, **arguments: Any) -> Live: ...


@pytest.fixture
def new_live(make_live: MakeLive) -> NewLive:
    """Make a Live of Flask, which is stopped at the end of the test."""

    def make(**arguments: Any) -> Live:
        live = make_live(Live, **arguments)
        assert isinstance(live, Live)
        return live

    return make


@pytest.fixture
def app() -> Flask:
    app = Flask("app")
    app.secret_key = "secret"
    return app


@pytest.fixture
def live(app: Flask, new_live: NewLive) -> Live:
    """A Live of the application."""
    return new_live(app=app)


@pytest.fixture
def run(app: Flask) -> Iterator[Run]:
    """Run the application in the development server; return the port."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(running.werkzeug_server(app))
