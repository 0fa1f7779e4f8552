"""The docstrings of the public names: all names have one, and the examples are correct."""

from __future__ import annotations

import doctest
import inspect
from types import ModuleType
from typing import Any

import pytest

import wsframe
import wsframe.client

pytestmark = pytest.mark.one_kernel

MODULES = (wsframe, wsframe.client)
NAMES = [(module, name) for module in MODULES for name in module.__all__]


def test_the_examples_of_the_package_are_correct() -> None:
    failed, attempted = doctest.testmod(wsframe, optionflags=doctest.ELLIPSIS)
    assert attempted > 10
    assert not failed


def members(value: Any) -> list[Any]:
    """Return the public methods and properties that a class itself defines."""
    return [
        member
        for name, member in vars(value).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or inspect.isdatadescriptor(member))
        and not inspect.ismemberdescriptor(member)
    ]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_public_name_has_a_docstring(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    assert name in dir(module)
    if inspect.isclass(value):
        assert all(inspect.getdoc(member) for member in [value, *members(value)])
    elif callable(value):
        assert inspect.getdoc(value)
        parameters = inspect.signature(value).parameters
        assert len(parameters) == 1 or all(f"{name}:" in value.__doc__ for name in parameters)
