"""Representations of objects (``repr``), with a limited length and without header values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Shown", "names_of", "short", "show"]

LENGTH = 64  # the maximum number of characters or bytes of a value
NAMES = 12  # the maximum number of header names


class Shown:
    """A mixin for dataclasses: the representation has all fields, each of bounded length."""

    __slots__ = ()

    def __repr__(self: DataclassInstance) -> str:
        return show(self, **{field.name: getattr(self, field.name) for field in fields(self)})


def show(shown: object, *words: str, **values: Any) -> str:
    """Return a representation: the class, words, and values by name."""
    facts = [*words, *(f"{name}={short(value)}" for name, value in values.items())]
    return f"{type(shown).__name__}({', '.join(facts)})"


def short(value: object) -> str:
    """Return the representation of a value; only the beginning of long text or bytes."""
    if not isinstance(value, (str, bytes)) or len(value) <= LENGTH:
        return repr(value)
    unit = "characters" if isinstance(value, str) else "bytes"
    return f"{value[:LENGTH]!r}... ({len(value)} {unit})"


def names_of(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of the first headers; their values may be secrets, such as cookies."""
    names = [name[:LENGTH] for name, _ in headers]
    more = [f"... ({len(names)})"] if len(names) > NAMES else []
    return names[:NAMES] + more
