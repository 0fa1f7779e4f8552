"""System checks for problems in the settings of a project."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Info, Warning  # noqa: A004
from django.db import connections


def check_settings(**_: Any) -> list[CheckMessage]:
    """Return a warning for each problem in the settings of a project."""
    return [*_check_server(), *_check_databases()]


def _check_server() -> list[CheckMessage]:
    if not apps.is_installed("daphne"):
        return []
    return [
        Warning(
            "runserver of daphne serves ASGI, whose connections cannot be taken over.",
            hint="Remove daphne from INSTALLED_APPS, and serve the project by WSGI.",
            id="wsframe.W001",
        )
    ]


def _check_databases() -> list[CheckMessage]:
    return [
        Info(
            f"Handlers of WebSockets and event streams close the connection to the database "
            f'"{alias}" whenever they wait, in spite of CONN_MAX_AGE.',
            hint='A pool makes reconnecting cheap: OPTIONS = {"pool": True} for PostgreSQL.',
            id="wsframe.I002",
        )
        for alias in connections
        if connections.settings[alias]["CONN_MAX_AGE"] != 0
    ]
