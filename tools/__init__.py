"""Checks of the project's language: ``python -m tools.language`` and ``python -m tools.sample``."""
