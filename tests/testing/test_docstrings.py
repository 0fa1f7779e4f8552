"""Every public class has an example in its docstring, which runs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import wsframe
from tests.support.handlers import generator_echo, plain_echo, websocket_app
from wsframe import testing
from wsframe.server import App
from wsframe.testing import ServeApp, ServeWSGI
from wsframe.wsgi import Live

EXAMPLE = re.compile(r"^( *)Example::\n\n((?:\1    .*\n|\n)+)", re.MULTILINE)


def make_app() -> App:
    """Return the app of the examples."""
    app = websocket_app(generator_echo)

    @app.sse("/news")
    def news(stream: Any) -> Iterator[str]:
        if stream.last_event_id:
            yield from ("eight", "nine")
        else:
            yield "x" * 1_000_000

    app.page("/", "a page")
    return app


def test_the_examples_of_classes_run(serve_app: ServeApp, serve_wsgi: ServeWSGI) -> None:
    app = make_app()
    found = []
    for name in testing.__all__:
        value = getattr(testing, name)
        if not inspect.isclass(value):
            continue
        example = EXAMPLE.search(f"{inspect.getdoc(value)}\n")
        assert example, f"{value} has no example"
        with testing.AppServer(app, clock=testing.ManualClock()) as server:
            names = {**vars(wsframe), **vars(testing), "app": make_app(), "server": server}
            names |= {"Live": Live, "handler": plain_echo}
            names |= {"serve_app": serve_app, "serve_wsgi": serve_wsgi}
            names |= {"client": server.connect(), "subprocess": SimpleNamespace(run=list)}
            names["__name__"] = "example"  # coverage measures modules of wsframe, which are files
            exec(compile(textwrap.dedent(example[2]), f"<{name}>", "exec"), names)
            for test in [value for key, value in names.items() if key.startswith("test_")]:
                test(*(names[fixture] for fixture in inspect.signature(test).parameters))
        found.append(name)
    assert len(found) > 10
