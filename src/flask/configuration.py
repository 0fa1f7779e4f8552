"""The configuration of an application of Flask, as the arguments of a Live."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ..server.options import CommonOptions

PREFIX = "WSFRAME_"
ARGUMENTS = {"redis", "redis_prefix", "topic_memory", "origins"} | CommonOptions.__optional_keys__


def arguments_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Any thread: return the arguments of :class:`wsframe.wsgi.Live` in a configuration.

    The key of an argument is its name in upper case, after ``WSFRAME_``.

    Raises:
        ValueError: a key with this prefix names no argument.
    """
    arguments = {}
    for key, value in config.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            if name not in ARGUMENTS:
                similar = get_close_matches(name, ARGUMENTS, n=1)
                advice = f"; use {PREFIX}{similar[0].upper()}" if similar else ""
                raise ValueError(f"the configuration {key} does not exist{advice}")
            arguments[name] = value
    return arguments


def differing(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Any thread: return the sorted keys that only one configuration has, or with another value."""
    return sorted(
        key
        for key in config.keys() | other.keys()
        if not (key in config and key in other and config[key] == other[key])
    )
