"""System checks of a project."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections

from wsframe.django.checks import check_settings


@pytest.fixture
def persistent(monkeypatch: pytest.MonkeyPatch, database: object) -> None:
    """Let views keep their connections to the database."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)


def test_the_app_registers_its_checks(persistent: None) -> None:
    assert "wsframe.I002" in {message.id for message in run_checks()}


def test_connections_that_persist_are_mentioned(persistent: None) -> None:
    (message,) = check_settings()
    assert 'close the connection to the database "default"' in message.msg


def test_a_development_server_for_asgi_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "is_installed", lambda name: name == "daphne")
    assert [message.id for message in check_settings()] == ["wsframe.W001"]


def test_a_project_passes_the_check_command(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("check")
    assert "no issues" in capsys.readouterr().out
