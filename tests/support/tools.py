"""Shared tools of the tests: the codec on both kernels, and the skip for a missing program."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NoReturn

import pytest

IN_CI = bool(os.environ.get("CI"))


def missing_tool(name: str) -> NoReturn:
    """Skip the test because this program is missing; fail in CI, which requires all programs."""
    if IN_CI:
        pytest.fail(f"{name} is missing, but CI requires it", pytrace=False)
    pytest.skip(f"{name} is missing")


def _forget_wsframe() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "wsframe"]
    return {name: sys.modules.pop(name) for name in names}


def load_codec(*, pure: bool) -> ModuleType:
    """Import another copy of the package, with the given kernels.

    The package chooses the kernels by WSFRAME_PURE. Two copies have different classes; ``normal``
    makes their events comparable.
    """
    environment = os.environ.pop("WSFRAME_PURE", None)
    loaded = _forget_wsframe()
    try:
        if pure:
            os.environ["WSFRAME_PURE"] = "1"
        codec = importlib.import_module("wsframe")
        importlib.import_module("wsframe.client")  # not imported by wsframe, but part of the copy
        return codec
    finally:
        _forget_wsframe()
        sys.modules.update(loaded)
        os.environ.pop("WSFRAME_PURE", None)
        if environment is not None:
            os.environ["WSFRAME_PURE"] = environment


def normal(event: Any) -> Any:
    """Return an event in a form that is comparable between copies of the codec."""
    if type(event) is str or type(event) is bytes:
        return event
    values = (getattr(event, field.name) for field in dataclasses.fields(event))
    return (type(event).__name__, *values)


def normals(events: Iterable[Any]) -> list[Any]:
    """Return the normal form of every event."""
    return [normal(event) for event in events]


def outcome(call: Callable[[], object]) -> tuple[str, object]:
    """Return the result or the exception of a call, in a comparable form."""
    try:
        return "returned", call()
    except Exception as error:
        return type(error).__name__, str(error)


def receive_in_pieces(connection: Any, data: bytes, cuts: Iterable[int]) -> list[Any]:
    """Pass the data to a connection, split at these positions; return normal events."""
    events: list[Any] = []
    begin = 0
    for end in (*cuts, len(data)):
        events += connection.receive(data[begin:end])
        begin = end
    return normals(events)


def joined(events: Iterable[Any]) -> list[Any]:
    """Return normal events with whole messages in place of the last part of each.

    The parts of a message without a last part are left out.
    """
    found: list[Any] = []
    parts: list[Any] = []
    for event in normals(events):
        if isinstance(event, tuple) and event[0] == "Part":
            _, data, final = event
            assert data or final
            parts.append(data)
            if final:
                assert len(parts) > 1
                found.append(data[:0].join(parts))
                parts = []
        else:
            assert not parts or isinstance(event, tuple), "a message inside another one"
            found.append(event)
    return found
