"""Fixtures for tests of the documentation."""

from tests.support.fixtures import certificates, leak_check, log, serve

__all__ = ["certificates", "leak_check", "log", "serve"]
