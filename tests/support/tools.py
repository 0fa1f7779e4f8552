"""What the tests share: the codec on either kernel, and what to do where a tool is missing."""

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
    """Skip the test, because this tool is not here; where everything must be here, fail."""
    if IN_CI:
        pytest.fail(f"{name} is not here, and in CI nothing may be skipped for that", pytrace=False)
    pytest.skip(f"{name} is not here")


def _forget_wsframe() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "wsframe"]
    return {name: sys.modules.pop(name) for name in names}


def load_codec(*, pure: bool) -> ModuleType:
    """Import the package once more, on the kernels asked for, beside the copies that are there.

    The choice is made by the package itself, by WSFRAME_PURE. The classes of two copies are not
    the same; ``normal`` makes their events comparable.
    """
    environment = os.environ.pop("WSFRAME_PURE", None)
    loaded = _forget_wsframe()
    try:
        if pure:
            os.environ["WSFRAME_PURE"] = "1"
        codec = importlib.import_module("wsframe")
        importlib.import_module("wsframe.client")  # which is no part of that, but is of the copy
        return codec
    finally:
        _forget_wsframe()
        sys.modules.update(loaded)
        os.environ.pop("WSFRAME_PURE", None)
        if environment is not None:
            os.environ["WSFRAME_PURE"] = environment


def normal(event: Any) -> Any:
    """An event in a form that is equal for the same event of another copy of the codec."""
    if type(event) is str or type(event) is bytes:
        return event
    values = (getattr(event, field.name) for field in dataclasses.fields(event))
    return (type(event).__name__, *values)


def normals(events: Iterable[Any]) -> list[Any]:
    """The normal form of every event."""
    return [normal(event) for event in events]


def outcome(call: Callable[[], object]) -> tuple[str, object]:
    """What a call returns or raises, in a form that can be compared."""
    try:
        return "returned", call()
    except Exception as error:
        return type(error).__name__, str(error)


def receive_in_pieces(connection: Any, data: bytes, cuts: Iterable[int]) -> list[Any]:
    """Give the data to a connection, cut at these places; return its events, in normal form."""
    events: list[Any] = []
    begin = 0
    for end in (*cuts, len(data)):
        events += connection.receive(data[begin:end])
        begin = end
    return normals(events)
