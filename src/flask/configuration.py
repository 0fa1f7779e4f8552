"""Conversion of a Flask application's configuration to the arguments of ``Live``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ..server.options import CommonOptions

PREFIX = "WSFRAME_"
ARGUMENTS = {"redis", "redis_prefix", "topic_memory", "origins"} | CommonOptions.__optional_keys__


def arguments_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Any thread: return the arguments of :class:`wsframe.wsgi.Live` that a configuration contains.

    The key of an argument is its name in upper case, after ``WSFRAME_``.

    Raises:
        ValueError: a key begins with ``WSFRAME_``, but no argument has this name.
    """
    arguments = {}
    for key, value in config.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            if name not in ARGUMENTS:
                similar = get_close_matches(name, ARGUMENTS, n=1)
                advice = f"; use {PREFIX}{similar[0].upper()}" if similar else ""
                raise ValueError(f"unknown key in app.config: {key}{advice}")
            arguments[name] = value
    return arguments


def differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Any thread: return the sorted keys whose values differ between two configurations."""
    return sorted(
        key
        for key in config.keys() | other.keys()
        if not (key in config and key in other and config[key] == other[key])
    )


def keys_of(names: Iterable[str]) -> str:
    """Any thread: return the keys of arguments in a configuration, separated by commas."""
    return ", ".join(f"{PREFIX}{name.upper()}" for name in names)
