"""The Django app for ``INSTALLED_APPS``, which checks the settings of a project."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from .checks import check_settings


class WsframeConfig(AppConfig):
    """The Django app ``wsframe.django``, which contains only system checks."""

    name = "wsframe.django"
    label = "wsframe"
    verbose_name: str = "wsframe"

    def ready(self) -> None:
        """Register the system checks with Django."""
        register(check_settings)
