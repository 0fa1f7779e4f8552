"""The command line: ``python -m wsframe.server [module:app]``."""

from __future__ import annotations

import argparse
import importlib
import re
import sys

from .app import App


def main() -> None:
    """Serve an application, or the demo, until it is told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m wsframe.server",
        description="Serve WebSockets and server-sent events.",
    )
    parser.add_argument(
        "app",
        nargs="?",
        metavar="module:app",
        help="the module and the App in it; the demo if left out",
    )
    parser.add_argument(
        "--host", default="localhost", help='name or address to listen on, "" for all (%(default)s)'
    )
    parser.add_argument(
        "--port", type=_port, default=9292, help="0 for one that is free (%(default)s)"
    )
    arguments = parser.parse_args()
    app = _demo() if arguments.app is None else _load(parser, arguments.app)
    try:
        app.run(arguments.host, arguments.port)
    except OSError as error:
        sys.exit(f"cannot listen on {arguments.host or '*'}:{arguments.port}: {error.strerror}")


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0-65535, not {text!r}")
    return int(text)


def _demo() -> App:
    from .demo import app, clock

    clock.start()
    return app


def _load(parser: argparse.ArgumentParser, name: str) -> App:
    sys.path.insert(0, "")  # the module is looked for where the command is given
    module_name, _, attribute = name.partition(":")
    if not module_name or module_name.startswith(".") or not attribute:
        parser.error(f"{name!r} is not of the form module:app")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        parser.error(f"no module named {module_name!r}")
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        parser.error(f"{attribute!r} in module {module_name!r} is not an App")
    return app


if __name__ == "__main__":
    main()
