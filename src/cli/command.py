"""The command: parse its arguments, serve, and turn errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from functools import partial

from ..server.reports.output import flush_at_exit
from ..server.running import run
from ..server.settings import Settings
from ..server.sockets.certificate import CertificateError, tls_context
from ..server.sockets.listener import ListenError
from ..server.topics.errors import BrokerRefused
from .loading import configure_log, start
from .options import argument_parser


def main() -> None:
    """Serve an application, or the demo, until a signal stops it."""
    parser = argument_parser()
    arguments = parser.parse_args()
    names = {field.name for field in fields(Settings)}
    options = {name: value for name, value in vars(arguments).items() if name in names}
    cert, key = options.pop("cert"), options.pop("key")
    try:
        options["ssl_context"] = tls_context(Settings(cert=cert, key=key))
        settings = Settings(**options)
    except ValueError as error:
        parser.error(str(error))
    except CertificateError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"cannot read {error.filename}: {error.strerror}")
    host, port, workers = arguments.host, arguments.port, arguments.workers
    if workers and settings.unix is not None:
        parser.error("workers cannot share a unix socket: remove --workers or --unix")
    configure_log(arguments)  # before the app is loaded, and in the parent of workers, too
    try:
        run(partial(start, arguments), host, port, workers, settings)
    except BrokerRefused as error:
        sys.exit(f"--redis: {error}")
    except ListenError as error:
        where = settings.unix or f"{host or '*'}:{port}"
        sys.exit(f"cannot listen on {where}: {error.strerror or error}")
    if not flush_at_exit():
        os._exit(0)  # a handler is blocked in print; Python would abort at exit
