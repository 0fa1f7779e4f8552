"""The command line: ``python -m wsframe``, which is also installed as ``wsframe``."""

from .program import main

__all__ = ["main"]
