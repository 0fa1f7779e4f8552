"""The command line: ``python -m wsframe.server [module:app]``."""

from .command import main

__all__ = ["main"]
