"""Fixtures for tests of the command line."""

from __future__ import annotations

from tests.support.fixtures import certificates, leak_check, log

__all__ = ["certificates", "leak_check", "log"]
