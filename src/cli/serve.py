"""The command ``serve``: parse its arguments, serve, and turn errors into messages and codes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

from ..server.logs.stderr import configure
from ..server.reports.failure import Failure
from ..server.reports.loggers import log
from ..server.reports.output import flush_at_exit, is_plain, print_failure
from ..server.running import activate, run
from ..server.settings import Settings
from ..server.sockets.certificate import CertificateError, tls_context
from ..server.sockets.listener import ListenError
from ..server.topics.errors import BrokerRefused
from .exits import Exit
from .failing import report
from .loading import configure_log, start
from .options import SETTINGS, argument_parser
from .reloading import serve_until_changed
from .sources import Configuration, SourceError, resolve

# The maximum ``drain``, in seconds, with --reload.
RELOAD_DRAIN = 0.5
# A URL with a password.
PASSWORD = re.compile("//[^/@]*:[^/@]+@|[?&]password=[^&]")


def main(arguments: Sequence[str], prog: str) -> int:
    """Serve an application, or the demo, until a signal stops it; return the exit code.

    Args:
        arguments: the arguments of the command.
        prog: the name of the program and the command in messages.
    """
    if _json_is_requested(arguments):
        configure(as_json=True)  # for errors in other arguments
    parser = argument_parser(prog)
    try:
        configuration = resolve(parser.parse_args(arguments), tuple(SETTINGS.values()))
    except SourceError as error:
        parser.error(str(error))
    configure_log(configuration)  # before the app is loaded, and also in the parent of workers
    settings = _settings(parser, configuration)
    try:
        return _run(parser, configuration, settings)
    except (Exception, SystemExit) as error:
        # The interpreter prints these errors as text, and an exit code was already explained.
        if is_plain() or (isinstance(error, SystemExit) and isinstance(error.code, int | None)):
            raise
        report(error)
        return Exit.FAILED


def _json_is_requested(arguments: Sequence[str]) -> bool:
    """Return True if the option, or else the variable, selects the log in JSON.

    Neither these nor the other arguments are checked yet.
    """
    setting = SETTINGS["log_format"]
    parser = argparse.ArgumentParser(add_help=False)
    variable = os.environ.get(setting.variable)
    parser.add_argument(f"{setting.flag}", dest=setting.name, nargs="?", default=variable)
    found, _ = parser.parse_known_args(arguments)
    return bool(vars(found)[setting.name] == "json")


def _run(parser: argparse.ArgumentParser, configuration: Configuration, settings: Settings) -> int:
    """Serve, with --reload again after each change; return the exit code."""
    if not configuration["reload"]:
        return _serve(configuration, settings)
    if configuration["workers"] or settings.fds:
        parser.error("reload cannot be combined with workers or fds")
    settings = replace(settings, drain=min(settings.drain, RELOAD_DRAIN))
    return serve_until_changed(partial(_serve, configuration, settings))


def _settings(parser: argparse.ArgumentParser, configuration: Configuration) -> Settings:
    """Return the settings of the server; exit with a message if one is not valid."""
    names = {field.name for field in fields(Settings)}
    options = {name: value for name, value in configuration.values.items() if name in names}
    try:
        settings = activate(Settings(**options))
        tls_context(settings)  # an error concerns these options
    except ValueError as error:
        parser.error(configuration.explain(error))
    except CertificateError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    return settings


def _serve(configuration: Configuration, settings: Settings) -> int:
    """Serve until a stop signal; return the exit code."""
    host, port, workers = configuration["host"], configuration["port"], configuration["workers"]
    if configuration.sources.get("redis") == "--redis" and PASSWORD.search(configuration["redis"]):
        log.warning(
            "the password in --redis is visible in the list of processes; use the variable "
            "WSFRAME_REDIS, a file of settings, or --redis-file"
        )
    try:
        run(partial(start, configuration), host, port, workers, settings)
    except BrokerRefused as error:
        sys.exit(f"{configuration.sources.get('redis', 'Redis')}: {error}")
    except ListenError as error:
        print_failure(Failure(error.strerror or str(error)))
        return Exit.FAILED
    if not flush_at_exit():
        os._exit(0)  # if a handler is blocked in print(), Python would abort at its exit
    return Exit.OK
