"""The app of Django that checks the settings of a project: an entry of ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from .checks import check_settings


class WsframeConfig(AppConfig):
    """The app ``wsframe.django``, which has only system checks."""

    name = "wsframe.django"
    label = "wsframe"
    verbose_name: str = "wsframe"

    def ready(self) -> None:
        """Register the checks."""
        register(check_settings)
