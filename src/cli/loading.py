"""Loading the application that the command line names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType

from ..server.app import App, serve
from ..server.handoff.patches import patched_late
from ..server.logs.stderr import configure
from ..server.reports.failure import Failure
from ..server.server import Server
from ..server.settings import Settings
from ..server.sockets.listening import Listening
from ..server.workers.worker import SupervisorLink
from .sources import Configuration

# The ways to patch Python before wsframe is imported, by the library that patches.
PATCHED_EARLY = {
    "gevent": "serve it with: python -m gevent.monkey --module wsframe serve {name}",
    "eventlet": "call app.run() in a program that begins with eventlet.monkey_patch()",
}
# The advice for applications of other packages, by the name of the package.
GUNICORN = "serve it with: gunicorn --worker-class gthread --threads 4 {name}"
UVICORN = "serve it with: uvicorn --ws wsframe.uvicorn:WebSocketProtocol {name}"
REMEDIES = {
    "flask": f"{GUNICORN} (wsframe.flask adds WebSockets and event streams)",
    "django": f"{GUNICORN} (wsframe.django adds WebSockets and event streams)",
    "fastapi": f"{UVICORN} (wsframe.asgi adds event streams)",
    "starlette": f"{UVICORN} (wsframe.asgi adds event streams)",
}


def start(
    configuration: Configuration,
    open_sockets: Callable[[], Listening],
    settings: Settings,
    *,
    link: SupervisorLink | None = None,
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Server:
    """Load the app and start its server; the other arguments are as for ``running.StartServer``."""
    with interrupting():
        app = _prepare(configuration)
    return serve(app, open_sockets, settings, link=link, interrupting=interrupting)


def _prepare(configuration: Configuration) -> App:
    """Load the app and configure logging, metrics and Redis as the settings require."""
    app = _load(configuration["app"], configuration.sources.get("app", "app"))
    configure_log(configuration)
    redis, memory = configuration["redis"], configuration["topic_memory"]
    reports: dict[str, Callable[[str], None]] = {
        "metrics": app.metrics,
        "health": app.health,
        "ready": partial(app.health, redis=True),
    }
    for name, add in reports.items():
        if configuration[name] is not None:
            try:
                add(configuration[name])
            except ValueError as error:
                sys.exit(f"{configuration.sources[name]}: {error}")
    if memory is not None:
        try:
            app.limit_topics(memory)
        except ValueError as error:
            sys.exit(f"{configuration.sources['topic_memory']}: {error}")
    if redis is not None:
        try:
            app.share_topics(redis, configuration["redis_prefix"])
        except (ModuleNotFoundError, ValueError, RuntimeError) as error:
            sys.exit(f"{configuration.sources['redis']}: {error}")
    return app


def configure_log(configuration: Configuration) -> None:
    """Configure logging as the settings require."""
    level = configuration["log_level"]
    configure(
        access_log=configuration["access_log"],
        as_json=configuration["log_format"] == "json",
        level=None if level is None else level.upper(),
    )


def _load(name: str | None, source: str) -> App:
    """Return the app of this name; exit with a message if it does not exist.

    The message names the source of the name, unless that is the argument ``app``.
    """
    if name is None:
        from ..demo import app as demo

        return demo
    origin = "" if source == "app" else f" ({source})"
    module_name, _, attribute = name.partition(":")
    module = _import(module_name, name, origin)
    if not hasattr(module, attribute):
        sys.exit(f"module {module_name!r} has no attribute {attribute!r}{origin}")
    app = getattr(module, attribute)
    if not isinstance(app, App):
        sys.exit(
            f"{attribute!r} in module {module_name!r} is not an App{_remedy(app, name)}{origin}"
        )
    return app


def _import(module_name: str, name: str, origin: str) -> ModuleType:
    """Return the module of an app; exit with a message or a traceback if it cannot be imported."""
    sys.path.insert(0, "")  # import from the current directory
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # Otherwise the module exists, but one of its imports may be missing.
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            sys.exit(f"no module named {module_name!r}{origin}")
        raise SystemExit(_failed_import(error)) from error
    finally:
        if library := patched_late():
            sys.exit(
                f"the import of {module_name!r} has patched Python with {library}, but wsframe was "
                f"imported before: remove the patch, or {PATCHED_EARLY[library].format(name=name)}"
            )


def _failed_import(error: Exception) -> Failure:
    """Return the failure of an error, whose traceback then begins in the file of the user."""
    frames = error.__traceback__
    while frames is not None and _is_internal(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return Failure.of(error.with_traceback(frames))


def _is_internal(file: str) -> bool:
    """Return True for the files of this module and of Python's imports."""
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _remedy(other: object, name: str) -> str:
    """Return advice for an application of another framework; "" for other objects."""
    for kind in type(other).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in REMEDIES:
            return f", but an object of {package}: {REMEDIES[package].format(name=name)}"
    if callable(other):
        return (
            ": serve a WSGI application with gunicorn and an ASGI application with uvicorn, and "
            "add live connections with wsframe.wsgi or wsframe.asgi"
        )
    return ""
