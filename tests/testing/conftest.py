"""The fixtures of the kit, and the check of the server's log."""

from __future__ import annotations

from tests.support.fixtures import certificates, log
from wsframe.testing.fixtures import leak_check, manual_clock, serve_app, serve_wsgi

__all__ = ["certificates", "leak_check", "log", "manual_clock", "serve_app", "serve_wsgi"]
