"""A project of Django in this process: its settings, a database, and a site with URLs of a test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import django
import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from django.test.client import Client as DjangoClient
from django.urls import clear_url_caches
from django.urls.resolvers import URLPattern

from tests.support.certificates import Certificates
from tests.support.fixtures import certificates, leak_check, log
from tests.wsgi import running
from wsframe.django import Live

from .project import DATABASE

__all__ = ["Certificates", "certificates", "leak_check", "log"]

SETTINGS = "DJANGO_SETTINGS_MODULE"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set Django up in this process, with a database that has all tables; return its file."""
    file = tmp_path_factory.mktemp("django") / "database.sqlite3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SETTINGS, "tests.django.project.settings")
        patch.setenv(DATABASE, str(file))
        patch.setenv("TZ", os.environ.get("TZ", ""))
        django.setup()  # sets TZ, too
        call_command("migrate", verbosity=0)
        connections.close_all()
    time.tzset()
    return file


@pytest.fixture(autouse=True)
def closed_connections(database: Path, leak_check: None) -> Iterator[None]:
    """Close the connections of this thread to the database."""
    yield
    connections.close_all()


class MakeLive(Protocol):
    """Make a Live, which is stopped at the end of the test."""

    def __call__(self, **options: Any) -> Live: ...


@pytest.fixture
def make_live(database: Path) -> Iterator[MakeLive]:
    """Make a Live, which is stopped at the end of the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Live:
            live = Live(**options)
            stack.callback(live.stop)
            return live

        yield make


@pytest.fixture
def live(make_live: MakeLive) -> Live:
    """A Live with one loop."""
    return make_live()


class Serve(Protocol):
    """Serve a site with these URLs and settings until the end of the test; return its port."""

    def __call__(self, urls: Sequence[URLPattern], **settings: Any) -> int: ...


@pytest.fixture
def serve(live: Live) -> Iterator[Serve]:
    """Serve a site with these URLs and settings until the end of the test; return its port."""
    with ExitStack() as stack:

        def start(urls: Sequence[URLPattern], **settings: Any) -> int:
            stack.enter_context(site(urls, **settings))
            return stack.enter_context(running.wsgiref(WSGIHandler()))

        yield start


@contextmanager
def site(urls: Sequence[URLPattern], **settings: Any) -> Iterator[None]:
    """Use these URLs and settings."""
    module = ModuleType("urls_of_this_test")
    module.urlpatterns = list(urls)  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=module, **settings):
        clear_url_caches()
        yield
    clear_url_caches()


@pytest.fixture
def user(database: Path) -> Iterator[Any]:
    """The user "ada"."""
    user = get_user_model()._default_manager.create_user("ada")  # type: ignore[attr-defined]
    yield user
    user.delete()


@pytest.fixture
def session(user: Any) -> tuple[str, str]:
    """The header with a session of the user."""
    client = DjangoClient()
    client.force_login(user)
    return "Cookie", f"sessionid={client.cookies['sessionid'].value}"
