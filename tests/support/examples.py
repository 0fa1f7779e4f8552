"""The examples in the docstrings of public classes."""

from __future__ import annotations

import doctest
import inspect
from types import ModuleType
from typing import Any

import wsframe

OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def faults(module: ModuleType, **names: Any) -> list[str]:
    """Return the public classes of a package whose example is missing or wrong.

    Args:
        module: the package.
        **names: names for the examples, besides those of the package and of the codec.
    """
    return [fault for name in module.__all__ if (fault := _fault(module, name, names))]


def _fault(module: ModuleType, name: str, names: dict[str, Any]) -> str:
    value = getattr(module, name)
    if not inspect.isclass(value):
        return ""
    public = {
        each: getattr(package, each) for package in (wsframe, module) for each in package.__all__
    }
    text = (inspect.getdoc(value) or "").replace("localhost:9292", names.get("address", ""))
    test = doctest.DocTestParser().get_doctest(text, public | names, name, None, None)
    if not test.examples:
        return f"{value} has no example"
    if not value.__module__.startswith(module.__name__):
        return ""  # the example runs with the other classes of its package
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    return "".join(report)
