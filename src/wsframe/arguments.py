"""Checks of callers' arguments, with errors that name the argument."""

from __future__ import annotations

import sys
from collections.abc import Collection
from operator import index
from typing import Any

__all__ = [
    "check_deflate",
    "check_integer",
    "check_max_message_size",
    "check_text",
    "is_sequence_of_str",
    "wrong_type",
]


def check_deflate(deflate: object) -> None:
    """Check the type of the argument ``deflate``; True, for example, is not valid.

    Raises:
        TypeError: the value is not a PerMessageDeflate.
    """
    if not hasattr(deflate, "offer"):
        raise wrong_type("deflate", "a PerMessageDeflate or None", deflate)


def check_integer(name: str, value: int, first: int | None = None, last: int | None = None) -> None:
    """Check an integer and its range, both bounds included; None for no bound.

    Raises:
        TypeError: the value is not an integer.
        ValueError: the value is out of range.
    """
    if type(value) is not int:
        try:
            index(value)
        except TypeError:
            raise wrong_type(name, "an integer", value) from None
    if (first is not None and value < first) or (last is not None and value > last):
        bounds = f"at least {first}" if last is None else f"{first}-{last}"
        raise ValueError(f"{name} must be {bounds}, not {value}")


def check_max_message_size(size: int) -> None:
    """Check the argument of :class:`wsframe.Connection` before the first connection is opened.

    Raises:
        TypeError: the size is not an integer.
        ValueError: the size is out of range.
    """
    if type(size) is not int or not 0 < size <= sys.maxsize:
        check_integer("max_message_size", size, 1, sys.maxsize)


def check_text(**values: object) -> None:
    """Check that arguments, given by name, are of type ``str``.

    Raises:
        TypeError: a value has another type.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            raise wrong_type(name, "str", value)


def is_sequence_of_str(value: object) -> bool:
    """Return True for a sequence or set of ``str``.

    One ``str`` is no such sequence, and neither is an iterator, which can be read only once.
    """
    if type(value) not in (tuple, list) and (
        isinstance(value, str) or not isinstance(value, Collection)
    ):
        return False
    items: Any = value
    return all(isinstance(item, str) for item in items)


def wrong_type(name: str, expected: str, value: object) -> TypeError:
    """Return the error for an argument of another type than the expected one."""
    return TypeError(f"{name} must be {expected}, not {type(value).__name__}")
