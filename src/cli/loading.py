"""Loading the application that the command line names."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..server.app import App, serve
from ..server.logs.stderr import configure
from ..server.server import Server
from ..server.settings import Settings
from ..server.workers.worker import SupervisorLink


def start(
    arguments: argparse.Namespace,
    host: str,
    port: int,
    settings: Settings,
    *,
    link: SupervisorLink | None = None,
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Server:
    """Load the app and start its server; the arguments are as for ``running.StartServer``."""
    with interrupting():
        app = _prepare(arguments)
    return serve(app, host, port, settings, link=link, interrupting=interrupting)


def _prepare(arguments: argparse.Namespace) -> App:
    """Load the app and configure logging, metrics and Redis as the options require."""
    app = _load(arguments.app)
    configure_log(arguments)
    if arguments.metrics is not None:
        try:
            app.metrics(arguments.metrics)
        except ValueError as error:
            sys.exit(f"--metrics: {error}")
    if arguments.redis is not None:
        try:
            app.share_topics(arguments.redis, arguments.redis_prefix)
        except (ModuleNotFoundError, ValueError, RuntimeError) as error:
            sys.exit(f"--redis: {error}")
    return app


def configure_log(arguments: argparse.Namespace) -> None:
    """Configure logging as the options require."""
    configure(access_log=arguments.access_log or arguments.log_json, as_json=arguments.log_json)


def _load(name: str | None) -> App:
    """Return the app of this name; exit with a message if it does not exist."""
    if name is None:
        from ..demo import app as demo

        return demo
    sys.path.insert(0, "")  # import from the current directory
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but one of its imports does not
        sys.exit(f"no module named {module_name!r}")
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        sys.exit(f"{attribute!r} in module {module_name!r} is not an App")
    return app
